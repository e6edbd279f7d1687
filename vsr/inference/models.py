"""Loads networks: by name from `engines/manifest.json`, or from any ONNX file."""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx

from vsr.errors import BackendError, ModelError, UsageError, reason
from vsr.inference.backend import PrecisionTimer, Runner
from vsr.inference.default import DEFAULT, default_scale
from vsr.inference.fastest import TEST_SIZE, textured_picture
from vsr.inference.probe import probe
from vsr.inference.tensorrt.cache import EngineCache
from vsr.media.colour import Colour
from vsr.media.plane_format import YUV420, PlaneFormat
from vsr.media.validation import check_type
from vsr.network.graph import NetworkFacts, PlaneGraph, bicubic_network
from vsr.network.onnx_inputs import flatten, parse_network, sole_input
from vsr.network.precision import FLOATS, PRECISIONS

_PACKAGE = Path(__file__).parents[1]
# a wheel carries engines/ inside the package, a checkout has it beside the package
ENGINES: Final = next(d for d in (_PACKAGE / "engines", _PACKAGE.parent / "engines") if d.is_dir())
BICUBIC: Final = "bicubic"
WHY_DEFAULT: Final = "it needs the fewest operations, and was trained on compressed video"
LOOKS: Final = {"faithful": "stream", "sharp": "sharp"}
"""Look of an enlarged compressed source -> suffix of the network's name: `-stream` weights have the
least error against the original, `-sharp` weights look most like it."""
_BICUBIC_SCALES: Final = (2, 3, 4, 8)
_DEFAULT_RADIUS: Final = 32
"""Receptive-field radius in LR pixels assumed for an ONNX file, which does not declare one."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A network's ONNX and the facts needed to wrap and tile it."""

    name: str
    facts: NetworkFacts
    radius: int
    """Receptive-field radius, in LR pixels."""
    fixed_size: tuple[int, int] | None = None
    """(width, height) if the network accepts only this size, else None."""
    network: onnx.ModelProto
    precision: str = "fp32"
    """Precision of the computation: `fp16` runs the float network in fp16, `int8` another file."""
    auto_precision: bool = False
    """Whether vsr chose the precision, not the user; see `vsr.inference.depth`."""
    sha256: str = ""
    built_in: bool = False
    """Whether the network comes from `engines/`, not from the user's file."""
    small_tiles: bool = True
    """Whether tiles at x2 are limited to 720p, because of activation memory; else to 1440p."""

    @property
    def scale(self) -> int:
        """Enlargement factor of width and height."""
        return self.facts.scale

    def graph(self, colour: Colour, planes: PlaneFormat = YUV420) -> PlaneGraph:
        """Return the network's planes-to-planes graph for this colour and plane format."""
        return PlaneGraph(
            network=self.network, facts=self.facts, colour=colour, planes=planes,
            precision=self.precision, label=f"{self.name}-x{self.scale}",
        )  # fmt: skip


@cache
def manifest() -> dict[str, Any]:
    """Load `engines/manifest.json`: model name -> {"x2": {file, sha256, colour, ...}, ...}."""
    path = ENGINES / "manifest.json"
    try:
        models: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["models"]
    except (OSError, ValueError, KeyError) as exc:
        raise ModelError(f"{path} is damaged ({reason(exc)}): reinstall vsr") from exc
    return models


def names() -> list[str]:
    """Return all built-in models: the default, the others by their lightest scale, then bicubic."""
    known = manifest()
    work = {name: min(e["multadds_720p"] for e in known[name].values()) for name in known}
    return [*sorted(known, key=lambda name: (name != DEFAULT, work[name], name)), BICUBIC]


def network_and_purpose(name: str) -> tuple[str, str]:
    """Split `dcscn-stream` into ("dcscn", "stream"); for clean pictures the purpose is empty."""
    network, _, purpose = name.rpartition("-")
    return (network, purpose) if purpose in LOOKS.values() else (name, "")


def scales(name: str) -> list[int]:
    """Return the scales of a built-in model, in ascending order."""
    if name == BICUBIC:
        return list(_BICUBIC_SCALES)
    return sorted(int(key.removeprefix("x")) for key in manifest()[name])


def catalogue() -> list[dict[str, Any]]:
    """Return every built-in model and scale with its figures and engines, for `vsr models`."""
    bicubic_entry = {"parameters": 0, "multadds_720p": 0, "psnr": {}, "colour": "y",
             "good_for": "comparison"}  # fmt: skip
    engines = list(EngineCache().entries())
    return [
        {
            "model": name,
            "scale": scale,
            "default": name == DEFAULT,
            **(bicubic_entry if name == BICUBIC else manifest()[name][f"x{scale}"]),
            "engines": [
                e.path.name for e in engines if e.key.label.startswith(f"{name}-x{scale}-")
            ],
        }
        for name in names()
        for scale in scales(name)
    ]


def table() -> str:
    """Format the catalogue as text, with the models that vsr selects by default and why."""
    head = f"{'model':<14} {'scale':>5} {'params':>9} {'MultAdds':>9} {'Set5 dB':>8}  works on"
    lines = [f"{head}  good for"]
    for e in catalogue():
        psnr = e["psnr"].get("set5", {}).get("psnr")
        lines.append(
            f"{e['model']:<14} {'x' + str(e['scale']):>5} {e['parameters']:>9,} "
            f"{e['multadds_720p'] / 1e9:>8.1f}G {'' if psnr is None else format(psnr, '.2f'):>8}  "
            f"{'luma' if e['colour'] == 'y' else 'RGB':<8}  {e.get('good_for', '')}"
        )
    order = "The default is listed first, the others by the work of their lightest scale."
    relay = "`vsr relay` uses the best that reaches 1.3 times the frame rate of its stream."
    choice = "`vsr run` uses the best that is fast enough here for its file (see `vsr plan`):"
    at = " or ".join(map(str, sharp_scales()))
    kinds = f"a sharp one for compressed video at scale {at}, unless `--look faithful` is given."
    return "\n".join(
        [*lines, "", choice, kinds, relay, f"Other inputs use {DEFAULT}:", f"{WHY_DEFAULT}.", order]
    )


def sharp_scales() -> list[int]:
    """Return the scales at which there is a sharp network for compressed video."""
    sharp = [name for name in manifest() if network_and_purpose(name)[1] == LOOKS["sharp"]]
    return sorted({scale for name in sharp for scale in scales(name)})


def find(name: str, scale: int | None, runner: Runner, precision: str = "auto") -> Model:
    """Return the model of that name, or the one in that `.onnx` file, at `scale`, for `runner`.

    The default scale is 2 or the model's smallest; for a file, the file's scale. Raises UsageError
    for an unknown name, scale or precision, ModelError for a damaged or unsupported file.
    """
    check_type("model", name, str)
    check_type("scale", scale, int | None)
    found = _find(name, scale, runner, precision)
    return replace(found, auto_precision=precision == "auto")


def _find(name: str, scale: int | None, runner: Runner, precision: str) -> Model:
    if name.lower().endswith(".onnx"):
        return _load_file(Path(name), scale, runner, precision)
    if name not in names():
        raise UsageError(
            f"unknown model '{name}'; known: {', '.join(names())}, or the path of an .onnx file"
        )
    scale = default_scale(scales(name)) if scale is None else scale
    if scale not in scales(name):
        have = ", ".join(f"{s}" for s in scales(name))
        raise UsageError(f"model '{name}' has no scale {scale}; it has: {have}")
    if name == BICUBIC:
        return Model(
            name=name, facts=NetworkFacts(scale=scale, colour="y"), radius=2, small_tiles=False,
            network=bicubic_network(scale),
            precision=_choose_precision(runner, precision, name, False),
        )  # fmt: skip
    return _load_built_in(name, scale, runner, precision)


def _choose_precision(runner: Runner, precision: str, name: str, has_int8: bool) -> str:
    if precision not in ("auto", *PRECISIONS):
        raise UsageError(f"unknown precision '{precision}'; known: auto, {', '.join(PRECISIONS)}")
    if precision == "int8" and not has_int8:
        raise UsageError(f"model '{name}' has no int8 form: use fp32 or auto")
    return runner.choose_precision(precision, has_int8)


def _load_built_in(name: str, scale: int, runner: Runner, precision: str) -> Model:
    entry = manifest()[name][f"x{scale}"]
    chosen = _choose_precision(runner, precision, f"{name} x{scale}", "int8" in entry)
    form = entry["int8"] if chosen == "int8" else entry
    return _load_entry(name, scale, entry, form, chosen)


def _load_entry(
    name: str, scale: int, entry: dict[str, Any], form: dict[str, Any], precision: str
) -> Model:
    """Load a manifest entry's network in one form: `form` is the entry itself or its `int8`."""
    path = ENGINES / form["file"]
    data, digest = _read(path)
    if digest != form["sha256"]:
        raise ModelError(f"{path} is damaged (its SHA-256 differs from the manifest): reinstall")
    return Model(
        name=name,
        facts=NetworkFacts(scale=scale, colour=entry["colour"], value_max=entry["range"][1]),
        radius=entry["receptive_field_radius"],
        network=onnx.load_model_from_string(data),
        precision=precision,
        sha256=digest,
        built_in=True,
    )


def in_fp32(model: Model) -> Model | None:
    """Return the network in full precision, or None if it is already or has no such form."""
    if model.precision in ("fp16", "bf16"):
        return replace(model, precision="fp32")
    if model.precision == "fp32" or not model.built_in:
        return None
    entry = manifest()[model.name][f"x{model.scale}"]
    return _load_entry(model.name, model.scale, entry, entry, "fp32")


def _read(path: Path) -> tuple[bytes, str]:
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise ModelError(f"cannot read the model {path}: {reason(exc)}") from exc
    return data, hashlib.sha256(data).hexdigest()


def _load_file(path: Path, scale: int | None, runner: Runner, precision: str) -> Model:
    data, _ = _read(path)
    try:
        network, digest = parse_network(data, path.parent)
    except Exception as exc:  # protobuf's DecodeError, onnx's ValidationError, OSError ...
        raise ModelError(f"{path} is not a valid ONNX file: {reason(exc)}") from exc
    try:
        facts, size = probe(flatten(network), runner)
    except (ModelError, BackendError) as exc:
        raise ModelError(f"{path} is not a supported super-resolution network: {exc}") from exc
    if scale not in (None, facts.scale):
        raise UsageError(f"model '{path}' has no scale {scale}; it has: {facts.scale}")
    chosen = _precision_of(network, path, runner, precision)
    if precision == "auto" and chosen in FLOATS and isinstance(runner, PrecisionTimer):
        chosen = _fastest_precision(flatten(network), facts, size, digest, runner) or chosen
    return Model(
        name=path.stem, facts=facts, radius=_DEFAULT_RADIUS, fixed_size=size,
        network=network, precision=chosen, sha256=digest,
    )  # fmt: skip


def _fastest_precision(
    network: onnx.ModelProto, facts: NetworkFacts, size: tuple[int, int] | None, digest: str,
    runner: PrecisionTimer,
) -> str | None:  # fmt: skip
    """Return a network's fastest float precision; None if its input is not float32 or it fails."""
    if sole_input(network).type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        return None
    channels = 1 if facts.colour == "y" else 3
    picture = textured_picture(channels, size or TEST_SIZE) * facts.value_max
    model = network.SerializeToString()
    try:
        return runner.fastest_precision(model, picture.astype(np.float32), digest, facts.value_max)
    except BackendError:
        return None


def _precision_of(network: onnx.ModelProto, path: Path, runner: Runner, requested: str) -> str:
    """Return the precision of a quantised or half-precision file, else the one to run it in."""
    fixed_precision = ""
    if any(node.op_type == "QuantizeLinear" for node in network.graph.node):
        fixed_precision = "int8"
    elif sole_input(network).type.tensor_type.elem_type == onnx.TensorProto.FLOAT16:
        fixed_precision = "fp16"
    if fixed_precision and requested not in ("auto", fixed_precision):
        raise UsageError(f"{path} is an {fixed_precision} network: it cannot be run in {requested}")
    return fixed_precision or _choose_precision(runner, requested, str(path), False)
