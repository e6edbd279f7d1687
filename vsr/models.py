"""Which networks there are: `engines/manifest.json` -> `Model`; any ONNX file -> `Model`."""

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx

from vsr.backends import Backend
from vsr.errors import BackendError, ModelError, UsageError, reason
from vsr.graph import NetworkFacts, bicubic_network
from vsr.network import inlinable, sole_input

_HERE = Path(__file__).parent
# a wheel carries engines/ inside the package, a checkout has it beside the package
ENGINES: Final = next(d for d in (_HERE / "engines", _HERE.parent / "engines") if d.is_dir())
BICUBIC: Final = "bicubic"
DEFAULT: Final = "c-dcscn-stream"
"""The fastest network, so that a laptop's CPU holds real time on small video, with the weights that
were trained on compressed video, which is what people have."""
_BICUBIC_SCALES: Final = (2, 3, 4, 8)
_UNKNOWN_RADIUS: Final = 32
"""Overlap of tiles for a network whose receptive field nobody declared."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A network ready to be wrapped: what it needs to know about itself, and its ONNX."""

    name: str
    facts: NetworkFacts
    radius: int
    """Receptive-field radius in LR pixels: how far around a pixel the network looks."""
    fixed_size: tuple[int, int] | None = None
    """(width, height) when the network accepts no other."""
    network: onnx.ModelProto
    sha256: str = ""
    tiled: bool = True
    """Whether large pictures are cut up, because the activations would take too much memory."""

    @property
    def scale(self) -> int:
        """Enlargement of width and of height."""
        return self.facts.scale


@cache
def manifest() -> dict[str, Any]:
    """`engines/manifest.json`: model name -> {"x2": {file, sha256, colour, ...}, ...}."""
    path = ENGINES / "manifest.json"
    try:
        models: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["models"]
    except (OSError, ValueError, KeyError) as exc:
        raise ModelError(f"{path} is damaged ({reason(exc)}): reinstall vsr") from exc
    return models


def names() -> list[str]:
    """Every built-in model, best known first."""
    return [*sorted(manifest()), BICUBIC]


def scales(name: str) -> list[int]:
    """The scales a built-in model has."""
    if name == BICUBIC:
        return list(_BICUBIC_SCALES)
    return sorted(int(key.removeprefix("x")) for key in manifest()[name])


def catalogue() -> list[dict[str, Any]]:
    """Every built-in model and scale with its figures, for `vsr models`."""
    entries = [
        {"model": name, "scale": scale, **manifest()[name][f"x{scale}"]}
        for name in sorted(manifest())
        for scale in scales(name)
    ]
    plain = {"parameters": 0, "multadds_720p": 0, "psnr": {}, "colour": "y"}
    return entries + [{"model": BICUBIC, "scale": s, **plain} for s in _BICUBIC_SCALES]


def table() -> str:
    """The catalogue for people."""
    lines = [f"{'model':<14} {'scale':>5} {'params':>9} {'MultAdds':>9} {'Set5 dB':>8}  works on"]
    for e in catalogue():
        psnr = e["psnr"].get("set5", {}).get("psnr")
        lines.append(
            f"{e['model']:<14} {'x' + str(e['scale']):>5} {e['parameters']:>9,} "
            f"{e['multadds_720p'] / 1e9:>8.1f}G {'' if psnr is None else format(psnr, '.2f'):>8}  "
            f"{'luma' if e['colour'] == 'y' else 'RGB'}"
        )
    return "\n".join(lines)


def find(name: str, scale: int | None, backend: Backend) -> Model:
    """The model of that name, or the one in that `.onnx` file, at `scale`.

    Without one: at 2, or the least the model has; for a file, at its own.
    Raises UsageError for an unknown name or scale, ModelError for a damaged or foreign file.
    """
    if name.endswith(".onnx"):
        return _from_file(Path(name), scale, backend)
    if name not in names():
        raise UsageError(
            f"unknown model '{name}'; known: {', '.join(names())}, or the path of an .onnx file"
        )
    if scale is None:
        scale = 2 if 2 in scales(name) else scales(name)[0]
    if scale not in scales(name):
        have = ", ".join(f"{s}" for s in scales(name))
        raise UsageError(f"model '{name}' has no scale {scale}; it has: {have}")
    if name == BICUBIC:
        facts = NetworkFacts(scale=scale, colour="y")
        net = bicubic_network(scale)
        return Model(name=name, facts=facts, radius=2, network=net, tiled=False)
    return _built_in(name, scale)


def _built_in(name: str, scale: int) -> Model:
    entry = manifest()[name][f"x{scale}"]
    path = ENGINES / entry["file"]
    data, digest = _read(path)
    if digest != entry["sha256"]:
        raise ModelError(f"{path} is damaged (its SHA-256 differs from the manifest): reinstall")
    return Model(
        name=name,
        facts=NetworkFacts(scale=scale, colour=entry["colour"], value_max=entry["range"][1]),
        radius=entry["receptive_field_radius"],
        network=onnx.load_model_from_string(data),
        sha256=digest,
    )


def _read(path: Path) -> tuple[bytes, str]:
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise ModelError(f"cannot read the model {path}: {reason(exc)}") from exc
    return data, hashlib.sha256(data).hexdigest()


def _from_file(path: Path, scale: int | None, backend: Backend) -> Model:
    data, digest = _read(path)
    try:
        network = onnx.load_model_from_string(data)
        onnx.load_external_data_for_model(network, str(path.parent))
        onnx.checker.check_model(network)
    except Exception as exc:  # protobuf's DecodeError, onnx's ValidationError, OSError ...
        raise ModelError(f"{path} is not a valid ONNX file: {reason(exc)}") from exc
    try:
        facts, size = probe(inlinable(network), backend)
    except (ModelError, BackendError) as exc:
        raise ModelError(f"{path} is no super-resolution network vsr can run: {exc}") from exc
    if scale not in (None, facts.scale):
        raise UsageError(f"model '{path}' has no scale {scale}; it has: {facts.scale}")
    return Model(
        name=path.stem, facts=facts, radius=_UNKNOWN_RADIUS, fixed_size=size,
        network=network, sha256=digest,
    )  # fmt: skip


def probe(
    network: onnx.ModelProto, backend: Backend, side: int = 48
) -> tuple[NetworkFacts, tuple[int, int] | None]:
    """Find scale, channels and value range of an unknown network by running it twice.

    A smooth test picture goes through in 0..1 and in 0..255; the range whose result is nearer to
    the picture itself is the network's (0..1, which half precision holds best, where it makes no
    difference). Returns the facts and (width, height) if it is fixed.
    """
    batch, channels, height, width = _input_shape(network)
    if batch not in (None, 1):
        raise ModelError(f"its batch size is fixed to {batch}, which must be 1")
    if channels not in (None, 1, 3):
        raise ModelError(f"it reads {channels} channels, not 1 (luma) or 3 (RGB)")
    size = (width or side, height or side)
    if channels is None:
        facts = _probe_free_channels(network, backend, size)
    else:
        facts = _probe_at(network, backend, channels, size)
    return facts, size if height or width else None


def _probe_free_channels(
    network: onnx.ModelProto, backend: Backend, size: tuple[int, int]
) -> NetworkFacts:
    """RGB where the network takes it, else luma."""
    try:
        return _probe_at(network, backend, 3, size)
    except (ModelError, BackendError):
        return _probe_at(network, backend, 1, size)


def _probe_at(
    network: onnx.ModelProto, backend: Backend, channels: int, size: tuple[int, int]
) -> NetworkFacts:
    w, h = size
    tops = (1, 255)
    scenes = [_picture(channels, h, w) * top for top in tops]
    pictures = dict(zip(tops, _run(network, backend, scenes), strict=True))
    shape = pictures[1].shape
    if len(shape) != 4 or shape[1] != channels:
        raise ModelError(f"its output has shape {list(shape)} for {channels} input channels")
    scale = shape[2] // h
    if scale < 2 or shape[2:] != (h * scale, w * scale):
        raise ModelError(f"it turns {w}x{h} into {shape[3]}x{shape[2]}: no whole enlargement")
    expected = _picture(channels, h * scale, w * scale)
    errors = {
        top: float(np.abs(result / top - expected).mean()) for top, result in pictures.items()
    }
    best = 255 if errors[255] < 0.9 * errors[1] else 1
    if not np.isfinite(errors[best]):
        raise ModelError("its output holds NaN or infinity")
    if errors[best] > 0.25:
        raise ModelError("its output does not resemble its input")
    colour = "y" if channels == 1 else "rgb"
    return NetworkFacts(scale=scale, colour=colour, value_max=float(best))


def _input_shape(network: onnx.ModelProto) -> list[int | None]:
    tensor = sole_input(network).type.tensor_type
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    if tensor.elem_type not in floats:
        raise ModelError("it does not read floating-point numbers")
    dims = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
    if len(dims) != 4:
        raise ModelError(f"its input has {len(dims)} dimensions, not 4 (batch, channel, y, x)")
    return [d if d and d > 0 else None for d in dims]  # some exporters write -1 for free


def _picture(channels: int, height: int, width: int) -> npt.NDArray[np.float64]:
    """A smooth picture in 0..1 [1, C, H, W], the same scene at any size."""
    y = (np.arange(height)[:, None] + 0.5) / height
    x = (np.arange(width)[None, :] + 0.5) / width
    scene = 0.5 + 0.3 * np.sin(5 * x + 3 * y) * np.cos(4 * y - 2 * x)
    return np.broadcast_to(scene, (1, channels, height, width))


def _run(
    network: onnx.ModelProto, backend: Backend, pictures: list[npt.NDArray[np.float64]]
) -> list[npt.NDArray[np.float64]]:
    half = sole_input(network).type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    inputs = [picture.astype(np.float16 if half else np.float32) for picture in pictures]
    results = backend.run(network.SerializeToString(), inputs)
    return [np.asarray(result, np.float64) for result in results]
