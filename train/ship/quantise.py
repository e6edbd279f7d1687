"""Quantise `engines/<model>/x<scale>.onnx` to `x<scale>.int8.onnx` and enter it in the manifest.

Quantisation scales are chosen by the int8 network's error on training images in OpenVINO. The file
is written only if the loss on the benchmarks is small and a smooth ramp stays smooth.
"""

import hashlib
import itertools
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx

from train.data.images import Pixels
from train.errors import TrainError
from train.measure.evaluate import evaluate
from train.measure.ramp import LIMITS_TEXT, ramp
from train.measure.shipped import openvino_enlarge
from train.ship.calibrate import Spread, patches, quantiser, random_crops, spreads, stark, vivid
from train.ship.manifest import read_manifest, write_file, write_manifest
from train.ship.qdq import (
    Floats,
    Graph,
    Quantiser,
    channel_factors,
    equalised,
    take_apart,
    with_linear_parts,
)
from train.ship.qdq_writer import to_onnx

log = logging.getLogger(__name__)
_TOLERANCE: Final = 1e-5
"""Maximum difference allowed for the exact rewrites, for values in 0..1."""
_ROUNDS: Final = 5
_TIMED: Final = (96, 160)
"""Height and width of the picture for timing, in pixels."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the search for scales; every pair of exponent and power is tried."""

    patches: int = 48
    """Number of training image crops on which ranges are measured."""
    stark: int = 6
    """Number of these crops that are added again in black and white, to cover text."""
    vivid: int = 14
    """Number of other crops added again in two pure colours each, for RGB networks: without them
    the blue sky of a cartoon is far outside every range."""
    held_out: int = 12
    """Number of further crops, on which the candidates are compared."""
    seed: int = 1
    exponents: tuple[float, ...] = (0.5, 0.75)
    """Candidate exponents for `train.ship.qdq.channel_factors`."""
    powers: tuple[int, ...] = (2, 3)
    """Candidate powers for `train.ship.calibrate.quantiser`."""
    linear_worth: float = 0.1
    """Minimum gain, in dB of error, to keep a part of `train.ship.qdq.with_linear_parts`."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Input folders and limits of a quantisation."""

    engines: Path
    calibration: Sequence[Path]
    """Folders of training images."""
    benchmarks: Sequence[Path]
    most_loss: float = 0.10
    """Maximum loss of Y-PSNR on each benchmark, in dB."""
    settings: Settings = field(default_factory=Settings)


def quantise(task: Task, models: Sequence[str] = (), scales: Sequence[int] = ()) -> Iterator[Path]:
    """Write the int8 form of the given (default: all) models and scales, and yield the paths.

    Raises TrainError if one loses more than `task.most_loss` or shows banding; earlier ones stay
    written.
    """
    known = read_manifest(task.engines)["models"]
    if unknown := sorted(set(models) - set(known)):
        raise TrainError(f"no model '{unknown[0]}' in {task.engines}; it has: {', '.join(known)}")
    wanted = {f"x{scale}" for scale in scales}
    chosen = [
        (name, key)
        for name in models or known
        for key in known[name]
        if key in wanted or not scales
    ]
    if not chosen:
        raise TrainError(f"nothing in {task.engines} has scale {', '.join(map(str, scales))}")
    settings = task.settings
    due = settings.patches + settings.held_out
    crops = random_crops(task.calibration, due, settings.seed)
    if len(crops) < due:
        raise TrainError(f"only {len(crops)} images of 192x192 or more to calibrate on, not {due}")
    for name, key in chosen:
        yield quantise_scale(task, name, key, crops)


def quantise_scale(task: Task, name: str, key: str, crops: Sequence[Pixels]) -> Path:
    """Write one int8 form; raise TrainError and write nothing if it loses too much or has bands."""
    entry = read_manifest(task.engines)["models"][name][key]
    source, scale = task.engines / entry["file"], int(key.removeprefix("x"))
    data = _read(source, entry["sha256"])
    began = time.process_time()
    found, facts = _form_of(data, entry["colour"], scale, crops, task.settings)
    seconds = time.process_time() - began
    _check_ramp(f"{name} {key}", found, data, entry["colour"])
    psnr = _scores(task.benchmarks, found, entry, scale)
    losses = _losses(task.benchmarks, psnr, data, entry, scale)
    for benchmark, loss in losses.items():
        if not loss <= task.most_loss:  # also true for NaN
            raise TrainError(
                f"{name} {key} loses {loss:.3f} dB on {benchmark} in int8, and no more than "
                f"{task.most_loss:g} are allowed: not written"
            )
    path = source.with_suffix(".int8.onnx")
    folders = [folder.name for folder in task.calibration]
    form = {
        "file": path.relative_to(task.engines).as_posix(),
        "sha256": hashlib.sha256(found).hexdigest(),
        "precision": "int8",
        "psnr": psnr,
        "quantiser": {"of": entry["sha256"], "folders": folders, **asdict(task.settings), **facts},
    }
    _ship(task.engines, (name, key), path, found, form)
    log.info("%s: loses %s dB, %.0f s of CPU", path, losses, seconds)
    return path


def _check_ramp(label: str, found: bytes, data: bytes, colour: str) -> None:
    channels = 3 if colour == "rgb" else 1
    seen = ramp(openvino_enlarge(found), openvino_enlarge(data), channels)
    if not seen.is_smooth:
        raise TrainError(
            f"{label} has bands in int8: {seen.within_one:.1%} of a smooth ramp within one code "
            f"(0.99 within {seen.p99:.2f}), {LIMITS_TEXT} are asked: not written"
        )


def _form_of(
    data: bytes, colour: str, scale: int, crops: Sequence[Pixels], settings: Settings
) -> tuple[bytes, dict[str, Any]]:
    held_out, seen = crops[: settings.held_out], crops[settings.held_out :]
    drawn = list(map(stark, seen[: settings.stark]))
    if colour == "rgb":
        drawn += vivid(seen[settings.stark :][: settings.vivid])
    ours = patches([*seen, *drawn], scale, colour)
    others = patches(held_out, scale, colour)
    return best_form(onnx.load_model_from_string(data), ours, others, settings)


def _ship(
    engines: Path, place: tuple[str, str], path: Path, data: bytes, form: Mapping[str, Any]
) -> None:
    name, key = place
    try:
        write_file(path, data)  # first, as the manifest must not name a missing file
        content = read_manifest(engines)  # again: it may have changed while measuring
        content["models"][name][key]["int8"] = form
        write_manifest(engines, content)
    except OSError as exc:
        raise TrainError(f"cannot write {path}: {exc.strerror}") from exc


def _read(path: Path, digest: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise TrainError(f"cannot read {path}: {exc.strerror}") from exc
    if hashlib.sha256(data).hexdigest() != digest:
        raise TrainError(f"{path} is not what the manifest describes: export it again")
    return data


def _scores(
    benchmarks: Sequence[Path], model: bytes, entry: Mapping[str, Any], scale: int
) -> dict[str, dict[str, float | int]]:
    enlarge = openvino_enlarge(model)
    return {d.name: evaluate(enlarge, d, scale, entry["colour"]) for d in benchmarks}


def _losses(
    benchmarks: Sequence[Path],
    psnr: Mapping[str, Mapping[str, float]],
    data: bytes,
    entry: Mapping[str, Any],
    scale: int,
) -> dict[str, float]:
    """Return {benchmark: loss in dB}; measure the float network if the manifest has no figure."""
    missing = [d for d in benchmarks if d.name not in entry["psnr"]]
    before = {**entry["psnr"], **(_scores(missing, data, entry, scale) if missing else {})}
    return {name: round(before[name]["psnr"] - score["psnr"], 3) for name, score in psnr.items()}


# the search


@dataclass(frozen=True, kw_only=True)
class _Way:
    """Candidate of the search: values of all free parameters."""

    exponent: float
    power: int
    whole: frozenset[str] = frozenset()
    """Convolutions that read all of their input in int8, without a float linear part."""


@dataclass(frozen=True, kw_only=True)
class _Search:
    """Search that writes candidate int8 networks and measures their error against the float one."""

    graph: Graph
    spreads: Mapping[str, Spread]
    held_out: Floats
    truth: Floats

    def write(self, way: _Way, dense: bool = False) -> bytes:
        """Return the int8 ONNX of a candidate; `dense` converts grouped convolutions to dense."""
        graph = with_linear_parts(self.graph, way.whole)
        groups = graph.groups()
        found = {name: self.spreads[name] for group in groups for name in group}
        largest = {name: spread.magnitude for name, spread in found.items()}
        factors = channel_factors(graph, largest, way.exponent)
        scaled = {name: spread.times(factors[name]) for name, spread in found.items()}
        quantisers: dict[str, Quantiser] = {}
        for group in groups:
            shared = quantiser([scaled[name] for name in group], way.power)
            quantisers |= dict.fromkeys(group, shared)
        return to_onnx(equalised(graph, factors), quantisers, dense).SerializeToString()

    def error(self, way: _Way) -> float:
        """Return a candidate's mean squared error in dB, for values in 0..1."""
        result = openvino_enlarge(self.write(way))(self.held_out)
        error = 10 * float(np.log10(((result - self.truth) ** 2).mean()))
        log.debug("%s: %.2f dB", way, error)
        return error

    def best(self, settings: Settings) -> tuple[_Way, float]:
        """Return the best candidate and its error; linear parts of little gain are removed."""
        pairs = itertools.product(settings.exponents, settings.powers)
        ways = [_Way(exponent=exponent, power=power) for exponent, power in pairs]
        error, best = min(((self.error(way), way) for way in ways), key=lambda tried: tried[0])
        for name in with_linear_parts(self.graph).convs:
            if name.endswith(".linear"):
                plainer = replace(best, whole=best.whole | {name.removesuffix(".linear")})
                worse = self.error(plainer)
                if worse < error + settings.linear_worth:
                    error, best = worse, plainer
        return best, error


def best_form(
    model: onnx.ModelProto, seen: Floats, held_out: Floats, settings: Settings
) -> tuple[bytes, dict[str, Any]]:
    """Return the int8 ONNX with the least error on held-out pictures, and the chosen values."""
    graph = take_apart(model)
    truth = openvino_enlarge(model.SerializeToString())(held_out)
    again = to_onnx(with_linear_parts(graph)).SerializeToString()
    worst = float(np.abs(openvino_enlarge(again)(held_out) - truth).max())
    if not worst <= _TOLERANCE:
        raise TrainError(f"taking the network apart changes it by {worst:.2g}: not quantised")
    tensors = [name for group in graph.groups() for name in group]
    found = spreads(to_onnx(graph), tensors, seen)
    search = _Search(graph=graph, spreads=found, held_out=held_out, truth=truth)
    way, error = search.best(settings)
    real = [c.node for c in with_linear_parts(graph, way.whole).convs.values() if c.real]
    facts = {
        "exponent": way.exponent,
        "power": way.power,
        "error_db": round(error, 2),
        "float": sorted({node.input[1].removesuffix(".weight") for node in real}),
        "linear_parts": sum(node.name.endswith(".linear") for node in real),
    }
    if all(conv.real or conv.group == 1 for conv in graph.convs.values()):
        return search.write(way), facts
    forms = {"grouped": search.write(way), "dense": search.write(way, dense=True)}
    times = _milliseconds(forms, seen.shape[1])
    fastest = min(times, key=lambda name: times[name])
    return forms[fastest], {**facts, "convolutions": fastest, "ms": times}


def _milliseconds(forms: Mapping[str, bytes], channels: int) -> dict[str, float]:
    """Return each form's shortest time of several runs in ms; runs of the forms alternate."""
    enlarge = {name: openvino_enlarge(model) for name, model in forms.items()}
    picture = np.full((1, channels, *_TIMED), 0.5, "f4")
    times: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(1 + _ROUNDS):
        for name, run in enlarge.items():
            began = time.perf_counter()
            run(picture)
            times[name].append(time.perf_counter() - began)
    return {name: round(1000 * min(seconds[1:]), 2) for name, seconds in times.items()}
