"""Export a checkpoint to `engines/<model>/x<scale>.onnx` and enter it in `engines/manifest.json`.

A file is written only if OpenVINO's output matches torch's.
"""

import contextlib
import hashlib
import io
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch

from train.errors import TrainError
from train.fit.checkpoint import best_path, load_averaged_net, stage_record
from train.fit.prune import without_dead_filters
from train.measure.artifacts import flat_noise, moving_flicker
from train.measure.compressed import Row, VideoSettings, read_clip, score_clip
from train.measure.counting import multadds, parameters, receptive_field_radius
from train.measure.evaluate import (
    Enlarge,
    Method,
    Score,
    Scoring,
    bicubic_method,
    figures,
    score_folder,
)
from train.measure.perceptual import Lpips, Perceptual
from train.measure.shipped import load_onnx, openvino_enlarge
from train.nets import NETS, Dcscn, DcscnConfig, Net, at_scale
from train.ship import provenance
from train.ship.about import LICENCE, good_for
from train.ship.crops import draw_crops
from train.ship.deploy import deploy
from train.ship.manifest import add_entry, write_file
from train.ship.naming import check_name, network_and_purpose

log = logging.getLogger(__name__)
for _name, _level in (("torch.onnx", "ERROR"), ("onnx_ir", "WARNING"), ("onnxscript", "WARNING")):
    logging.getLogger(_name).setLevel(_level)  # noisy; one warns without torchvision

OPSET: Final = 18
TOLERANCE: Final = 1e-5
"""Maximum difference between torch and the exported file, for values in 0..1."""
_STREAM_MODEL: Final = "c-dcscn-stream"
"""Model compared with sharp weights if their network has no `-stream` weights."""
LICENCE_OF_OTHERS: Final = "of the weights' authors"


def channels(net: Net) -> int:
    """Return the number of channels: 1 for luma networks, 3 for RGB."""
    return 1 if net.colour == "y" else 3


def to_onnx(net: Net, scale: int) -> onnx.ModelProto:
    """Convert the deploy form to ONNX: `lr` [N, C, H, W] -> `sr` [N, C, s*H, s*W], free N, H, W."""
    n, h, w = (torch.export.Dim(name) for name in ("N", "H", "W"))
    example = torch.rand(2, channels(net), 24, 32)
    buffer = io.BytesIO()
    # the exporter prints to stdout and warns about its internals
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            deploy(net, scale),
            (example,),
            buffer,  # type: ignore[arg-type]  # its stub allows paths only
            input_names=["lr"],
            output_names=["sr"],
            opset_version=OPSET,
            dynamic_shapes={"x": {0: n, 2: h, 3: w}},
            dynamo=True,
        )
    return _strip_metadata(onnx.load_model_from_string(buffer.getvalue()))


def _strip_metadata(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove the exporter's metadata (stack traces, local paths) and inferred shapes."""
    del model.graph.value_info[:]
    del model.metadata_props[:]
    del model.functions[:]
    for part in (model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        part.doc_string = ""
        if hasattr(part, "metadata_props"):
            del part.metadata_props[:]
    onnx.checker.check_model(model)
    return model


def difference(net: Net, scale: int, enlarge: Enlarge, height: int = 37, width: int = 45) -> float:
    """Return the maximum difference between the training form in torch and `enlarge`."""
    rng = np.random.default_rng(7)
    x = rng.random((1, channels(net), height, width), np.float32)
    with torch.inference_mode():
        ours = net(torch.from_numpy(x), scale).numpy()
    return float(np.abs(ours - enlarge(x)).max())


@dataclass(frozen=True, kw_only=True)
class Target:
    """Output location of an export, and the data for its measurements."""

    engines: Path
    model: str = ""
    """Model name; `<network>-stream` is written to `<network>/x<scale>.stream.onnx`, and
    `<network>-sharp` likewise."""
    benchmarks: Sequence[Path] = ()
    clips: Sequence[Path] = ()
    """Clips on which PSNR is measured after compression, with few frames of each."""
    lpips: Path | None = None
    """Weights of LPIPS (AlexNet), to measure perceptual quality too; None: not measured."""

    def file(self, scale: int) -> Path:
        """Return the path of a scale's ONNX file."""
        name, purpose = network_and_purpose(self.model)
        return self.engines / name / f"x{scale}{'.' if purpose else ''}{purpose}.onnx"


def export(checkpoint: Path, target: Target, scales: Sequence[int] = ()) -> list[Path]:
    """Write the ONNX of the given or all scales, and manifest entries with measured figures.

    A target without a model name gets the network's. Logs the step of the weights, and the better
    file of the same run if there is one. Raises TrainError for a name that denies the training
    (`check_name`), and for weights whose start's ReLUs have not faded out.
    """
    saved, net = load_averaged_net(checkpoint)
    _log_weights(checkpoint, saved)
    if saved["step"] < (fade := saved["recipe"].get("relu_fade", 0)):
        raise TrainError(
            f"{checkpoint} still has ReLUs of its start, which fade out until step {fade}: "
            "train further"
        )
    target = replace(target, model=target.model or saved["name"])
    training = [*saved["history"], stage_record(saved)]
    check_name(target.model, training)
    return [export_scale(net, scale, target, training) for scale in scales or net.scales]


def _log_weights(checkpoint: Path, saved: dict[str, Any]) -> None:
    best, path = saved.get("best") or {}, best_path(checkpoint)
    log.info("%s: weights of step %d", checkpoint.name, saved["step"])
    if not best:
        return
    if best["step"] == saved["step"]:
        log.info("best score of the training: %.3f dB on %s", best["psnr"], best["on"])
    elif path.exists():
        log.warning(
            "step %d scored higher, %.3f dB on %s: export %s to ship it",
            best["step"], best["psnr"], best["on"], path,
        )  # fmt: skip


def export_scale(net: Net, scale: int, target: Target, training: list[dict[str, Any]]) -> Path:
    """Export one scale; raise TrainError if the ONNX's output differs from torch's."""
    if scale not in net.scales:
        raise TrainError(f"the network has no scale {scale}, only {net.scales}")
    model = to_onnx(net, scale).SerializeToString()
    enlarge = openvino_enlarge(model)
    worst = difference(net, scale, enlarge)
    if not worst <= TOLERANCE:  # also true for NaN
        raise TrainError(f"ONNX and torch differ by {worst:.2g}: not exported")
    path = target.file(scale)
    method = Method(label="ours", enlarge=enlarge, colour=net.colour, scale=scale)
    deployed = without_dead_filters(net)
    of_others = any("imported" in stage for stage in training)
    lpips = Lpips.load(target.lpips) if target.lpips else None
    entry = {
        "file": path.relative_to(target.engines).as_posix(),
        "sha256": hashlib.sha256(model).hexdigest(),
        "precision": "fp32",
        "colour": net.colour,
        "range": [0.0, 1.0],
        "receptive_field_radius": receptive_field_radius(net, scale),
        "parameters": parameters(at_scale(deployed, scale)),
        "multadds_720p": multadds(deployed, scale),
        **_features_entry(deployed, target.model),
        "training": summary(path, training),
        "good_for": good_for(target.model),
        **_measure_sets(method, target, lpips),
        **_measure_clips(method, target, lpips),
        "licence": LICENCE_OF_OTHERS if of_others else LICENCE,
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        entry["crops"] = write_crops(path, enlarge, target.model, scale, net.colour)
        write_file(path, model)  # last, as vsr calls it damaged until its entry is written
        provenance.add_file(path.parent, path.name, entry["sha256"], training)
        add_entry(target.engines, target.model, f"x{scale}", entry)
    except OSError as exc:
        raise TrainError(f"cannot write {path}: {exc.strerror}") from exc
    log.info("%s: difference to torch %.2g, %s", path, worst, entry["psnr"])
    return path


def summary(path: Path, training: list[dict[str, Any]]) -> dict[str, Any]:
    """Return last recipe and total steps of the trainings, and the path of the full provenance."""
    recipes = [stage["recipe"]["name"] for stage in training if "recipe" in stage]
    return {
        "recipe": recipes[-1] if recipes else "",
        "steps": sum(stage.get("step", 0) for stage in training),
        "provenance": f"{path.parent.name}/{provenance.NAME}",
    }


def _features_entry(net: Net, model: str) -> dict[str, Any]:
    """Return the filters per feature layer if they are not the paper's (train/fit/prune.py)."""
    paper = NETS.get(network_and_purpose(model)[0])
    if isinstance(net, Dcscn) and isinstance(paper, DcscnConfig):
        features = net.config.features
        return {} if features == paper.features else {"features": list(features)}
    return {}


def _measure_sets(method: Method, target: Target, lpips: Lpips | None) -> dict[str, Any]:
    """Return `psnr` of every benchmark, optionally `lpips`: {set: {"bicubic": .., "ours": ..}}."""
    scoring = Scoring(perceptual=Perceptual(lpips=lpips))
    ours = {d: score_folder(method, d, scoring) for d in target.benchmarks}
    psnr = {"psnr": {d.name: figures(*scores) for d, scores in ours.items()}}
    if lpips is None:
        return psnr
    bicubic = {d: score_folder(bicubic_method(method.scale), d, scoring) for d in ours}
    both = {"bicubic": bicubic, method.label: ours}
    look = {d.name: {m: _distance(both[m][d][0], d) for m in both} for d in ours}
    return {**psnr, "lpips": look}


def _distance(mean: Score, folder: Path) -> float:
    if mean.lpips is None:  # 0 would mean equal
        raise TrainError(f"{folder}: LPIPS cannot be measured on any picture")
    return round(mean.lpips, 4)


def _measure_clips(method: Method, target: Target, lpips: Lpips | None) -> dict[str, Any]:
    """Return `video`: Y-PSNR per clip and method, mean over crf 23, 28 and 33; optionally `look`.

    `look` has LPIPS in the same form, also of a `-stream` model, and flicker and flat noise.
    """
    if lpips is None:
        settings = VideoSettings(scale=method.scale, ssim=False)
        rows = [row for clip in target.clips for row in score_clip(clip, [method], settings)]
        return {"video": _by_clip(rows, "psnr", 3)}
    settings = VideoSettings(scale=method.scale, ssim=False, lpips=lpips)
    compared = [method, *_stream_method(target, method.scale)]
    rows = [row for clip in target.clips for row in score_clip(clip, compared, settings)]
    flicker = {c.stem: moving_flicker(read_clip(c, settings), method) for c in target.clips}
    look = {
        "lpips": _by_clip(rows, "lpips", 4),
        "flicker": {c: {m: round(v, 3) for m, v in of.items()} for c, of in flicker.items()},
        "flat_noise": round(flat_noise(method), 4),
    }
    return {"video": _by_clip(rows, "psnr", 3), "look": look}


def _stream_method(target: Target, scale: int) -> list[Method]:
    """Return the network's `-stream` model or else `_STREAM_MODEL`, to compare sharp ones with."""
    network, purpose = network_and_purpose(target.model)
    if purpose != "sharp":
        return []
    for model, label in ((f"{network}-stream", "stream"), (_STREAM_MODEL, _STREAM_MODEL)):
        form = replace(target, model=model).file(scale)
        if form.exists():
            return [replace(load_onnx(form, "openvino"), label=label)]
    return []


def _by_clip(rows: Sequence[Row], figure: str, digits: int) -> dict[str, dict[str, float]]:
    """Return {clip: {method: mean of a figure over all crf}}."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        found.setdefault(row.clip, {}).setdefault(row.method, []).append(getattr(row, figure))
    return {
        clip: {method: round(float(np.mean(values)), digits) for method, values in of.items()}
        for clip, of in found.items()
    }


def write_crops(
    path: Path, enlarge: Enlarge, model: str, scale: int, colour: str
) -> dict[str, Any]:
    """Write the model card's picture beside the network's file; return its manifest entry."""
    compressed = bool(network_and_purpose(model)[1])
    file = path.with_suffix(".jpg")
    write_file(file, draw_crops(enlarge, model, scale, colour, compressed))
    how = "film through x264 at crf 28" if compressed else "frames of film"
    return {"file": f"{path.parent.name}/{file.name}", "from": how}
