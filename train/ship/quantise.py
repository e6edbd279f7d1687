"""Quantise `engines/<model>/x<scale>.onnx` to `x<scale>.int8.onnx` and enter it in the manifest.

Quantisation scales are chosen by the int8 network's error on training images in OpenVINO. The file
is written only if the loss on the benchmarks is small, a smooth ramp stays smooth, and pure colours
are kept.
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
from train.measure.drawn import check_int8
from train.measure.evaluate import evaluate
from train.measure.shipped import openvino_enlarge
from train.ship import calibrate, qdq
from train.ship.calibrate import Spread
from train.ship.manifest import read_manifest, write_file, write_manifest
from train.ship.qdq import Floats, Graph, Quantiser
from train.ship.qdq_writer import to_onnx

log = logging.getLogger(__name__)
_TOLERANCE: Final = 1e-5
"""Maximum difference allowed for the exact rewrites, for values in 0..1."""
_ROUNDS: Final = 5
_TIMED: Final = (96, 160)
"""Height and width of the picture for timing, in pixels."""
_KEYS: Final = {"black_and_white": "stark", "two_colours": "vivid",
                "min_linear_gain_db": "linear_worth"}  # fmt: skip
"""Manifest keys of the fields of `Settings` that have another name there."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the search for scales; every pair of exponent and power is tried."""

    patches: int = 48
    """Number of training image crops on which ranges are measured."""
    black_and_white: int = 6
    """Number of these crops that are added again in black and white, to cover text."""
    two_colours: int = 14
    """Number of other crops added again in two pure colours each, for RGB networks: without them
    the blue sky of a cartoon is far outside every range."""
    held_out: int = 12
    """Number of further crops, on which the candidates are compared."""
    seed: int = 1
    exponents: tuple[float, ...] = (0.5, 0.75)
    """Candidate exponents for `train.ship.qdq.channel_factors`."""
    powers: tuple[int, ...] = (2, 3)
    """Candidate powers for `train.ship.calibrate.quantiser`."""
    min_linear_gain_db: float = 0.1
    """Minimum gain, in dB of error, to keep a part of `train.ship.qdq.with_linear_parts`."""

    def record(self) -> dict[str, Any]:
        """Return the settings for the manifest, which has other names for some of them."""
        return {_KEYS.get(key, key): value for key, value in asdict(self).items()}


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

    Raises TrainError if one loses more than `task.most_loss`, shows banding or changes pure
    colours; earlier ones stay written.
    """
    known = read_manifest(task.engines)["models"]
    if unknown := sorted(set(models) - set(known)):
        raise TrainError(f"no model '{unknown[0]}' in {task.engines}; it has: {', '.join(known)}")
    keys = {f"x{scale}" for scale in scales}
    chosen = [
        (name, key) for name in models or known for key in known[name] if key in keys or not scales
    ]
    if not chosen:
        raise TrainError(f"no model in {task.engines} has scale {', '.join(map(str, scales))}")
    needed = task.settings.patches + task.settings.held_out
    crops = calibrate.random_crops(task.calibration, needed, task.settings.seed)
    if len(crops) < needed:
        raise TrainError(
            f"calibration needs {needed} images of at least 192x192, found {len(crops)}"
        )
    for name, key in chosen:
        yield quantise_scale(task, name, key, crops)


def quantise_scale(task: Task, name: str, key: str, crops: Sequence[Pixels]) -> Path:
    """Write one int8 form; raise TrainError and write nothing if it is not good enough."""
    entry = read_manifest(task.engines)["models"][name][key]
    source, scale = task.engines / entry["file"], int(key.removeprefix("x"))
    data = _read(source, entry["sha256"])
    began = time.process_time()
    found, facts = _quantise_model(data, entry["colour"], scale, crops, task.settings)
    seconds = time.process_time() - began
    forms = openvino_enlarge(found), openvino_enlarge(data)
    check_int8(f"{name} {key}", *forms, entry["colour"])
    psnr = _scores(task.benchmarks, found, entry, scale)
    losses = _losses(task.benchmarks, psnr, data, entry, scale)
    for benchmark, loss in losses.items():
        if not loss <= task.most_loss:  # also true for NaN
            raise TrainError(
                f"{name} {key} loses {loss:.3f} dB on {benchmark} in int8, more than the limit of "
                f"{task.most_loss:g} dB: not written"
            )
    path = source.with_suffix(".int8.onnx")
    folders = [folder.name for folder in task.calibration]
    form = {
        "file": path.relative_to(task.engines).as_posix(),
        "sha256": hashlib.sha256(found).hexdigest(),
        "precision": "int8",
        "psnr": psnr,
        "quantiser": {"of": entry["sha256"], "folders": folders, **task.settings.record(), **facts},
    }
    _write_form(task.engines, (name, key), path, found, form)
    log.info("%s: loses %s dB, %.0f s of CPU", path, losses, seconds)
    return path


def _quantise_model(
    data: bytes, colour: str, scale: int, crops: Sequence[Pixels], settings: Settings
) -> tuple[bytes, dict[str, Any]]:
    held_out, seen = crops[: settings.held_out], crops[settings.held_out :]
    drawn = list(map(calibrate.black_and_white, seen[: settings.black_and_white]))
    if colour == "rgb":
        drawn += calibrate.two_colours(seen[settings.black_and_white :][: settings.two_colours])
    ours = calibrate.patches([*seen, *drawn], scale, colour)
    others = calibrate.patches(held_out, scale, colour)
    return best_form(onnx.load_model_from_string(data), ours, others, settings)


def _write_form(
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
        raise TrainError(f"{path} differs from its SHA-256 in the manifest: export it again")
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


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """Candidate of the search: values of all free parameters."""

    exponent: float
    power: int
    without_linear_part: frozenset[str] = frozenset()
    """Convolutions that read all of their input in int8, without a float linear part."""


@dataclass(frozen=True, kw_only=True)
class _Search:
    """Search that writes candidate int8 networks and measures their error against the float one."""

    graph: Graph
    spreads: Mapping[str, Spread]
    held_out: Floats
    truth: Floats

    def write(self, candidate: _Candidate, dense: bool = False) -> bytes:
        """Return the int8 ONNX of a candidate; `dense` converts grouped convolutions to dense."""
        graph = qdq.with_linear_parts(self.graph, candidate.without_linear_part)
        groups = graph.groups()
        found = {name: self.spreads[name] for group in groups for name in group}
        largest = {name: spread.magnitude for name, spread in found.items()}
        factors = qdq.channel_factors(graph, largest, candidate.exponent)
        scaled = {name: spread.times(factors[name]) for name, spread in found.items()}
        quantisers: dict[str, Quantiser] = {}
        for group in groups:
            shared = calibrate.choose_quantiser([scaled[name] for name in group], candidate.power)
            quantisers |= dict.fromkeys(group, shared)
        return to_onnx(qdq.scale_channels(graph, factors), quantisers, dense).SerializeToString()

    def error(self, candidate: _Candidate) -> float:
        """Return a candidate's mean squared error in dB, for values in 0..1."""
        result = openvino_enlarge(self.write(candidate))(self.held_out)
        error = 10 * float(np.log10(((result - self.truth) ** 2).mean()))
        log.debug("%s: %.2f dB", candidate, error)
        return error

    def best(self, settings: Settings) -> tuple[_Candidate, float]:
        """Return the best candidate and its error; linear parts of little gain are removed."""
        pairs = itertools.product(settings.exponents, settings.powers)
        candidates = [_Candidate(exponent=exponent, power=power) for exponent, power in pairs]
        errors = [self.error(candidate) for candidate in candidates]
        error, best = min(zip(errors, candidates, strict=True), key=lambda pair: pair[0])
        for name in qdq.with_linear_parts(self.graph).convs:
            if name.endswith(".linear"):
                more = best.without_linear_part | {name.removesuffix(".linear")}
                simpler = replace(best, without_linear_part=more)
                worse = self.error(simpler)
                if worse < error + settings.min_linear_gain_db:
                    error, best = worse, simpler
        return best, error


def best_form(
    model: onnx.ModelProto, seen: Floats, held_out: Floats, settings: Settings
) -> tuple[bytes, dict[str, Any]]:
    """Return the int8 ONNX with the least error on held-out pictures, and the chosen values."""
    graph = qdq.parse(model)
    truth = openvino_enlarge(model.SerializeToString())(held_out)
    again = to_onnx(qdq.with_linear_parts(graph)).SerializeToString()
    worst = float(np.abs(openvino_enlarge(again)(held_out) - truth).max())
    if not worst <= _TOLERANCE:
        raise TrainError(
            f"splitting off linear parts changes the output by {worst:.2g}: not quantised"
        )
    tensors = [name for group in graph.groups() for name in group]
    found = calibrate.measure_spreads(to_onnx(graph), tensors, seen)
    search = _Search(graph=graph, spreads=found, held_out=held_out, truth=truth)
    candidate, error = search.best(settings)
    convs = qdq.with_linear_parts(graph, candidate.without_linear_part).convs.values()
    float_nodes = [conv.node for conv in convs if conv.stays_float]
    facts = {
        "exponent": candidate.exponent,
        "power": candidate.power,
        "error_db": round(error, 2),
        "float": sorted({node.input[1].removesuffix(".weight") for node in float_nodes}),
        "linear_parts": sum(node.name.endswith(".linear") for node in float_nodes),
    }
    if all(conv.stays_float or conv.group == 1 for conv in graph.convs.values()):
        return search.write(candidate), facts
    forms = {"grouped": search.write(candidate), "dense": search.write(candidate, dense=True)}
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
