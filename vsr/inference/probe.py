"""Finds scale, channels and value range of an unknown network by running it."""

from typing import Final

import numpy as np
import numpy.typing as npt
import onnx

from vsr.errors import BackendError, ModelError
from vsr.inference.backend import Runner
from vsr.network.graph import NetworkFacts
from vsr.network.onnx_inputs import sole_input
from vsr.network.sizes import check_tensor_sizes

_MIN_SIDE: Final = 8
_MAX_PIXELS: Final = 1920 * 1080
"""Maximum input size, in pixels, of a network whose input size is fixed."""


def probe(
    network: onnx.ModelProto, runner: Runner, side: int = 48
) -> tuple[NetworkFacts, tuple[int, int] | None]:
    """Find scale, channels and value range of an unknown network by running it twice.

    The network's range is the one of 0..1 and 0..255 in which the output for a smooth test picture
    is nearer to that picture. If both are similar it is 0..1, which suits half precision best.
    Returns the facts, and (width, height) if the size is fixed, else None.
    """
    batch, channels, height, width = _input_shape(network)
    if batch not in (None, 1):
        raise ModelError(f"its batch size is fixed to {batch}, expected 1")
    if channels not in (None, 1, 3):
        raise ModelError(f"it has {channels} input channels, expected 1 (luma) or 3 (RGB)")
    size = (width or side, height or side)
    if min(size) < _MIN_SIDE or size[0] * size[1] > _MAX_PIXELS:
        raise ModelError(f"its input size is fixed to {size[0]}x{size[1]}, which cannot be a tile")
    if channels is None:
        facts = _probe_free_channels(network, runner, size)
    else:
        facts = _probe_at(network, runner, channels, size)
    return facts, size if height or width else None


def _probe_free_channels(
    network: onnx.ModelProto, runner: Runner, size: tuple[int, int]
) -> NetworkFacts:
    """Probe the network with RGB, and with luma if it does not accept RGB."""
    try:
        return _probe_at(network, runner, 3, size)
    except (ModelError, BackendError):
        return _probe_at(network, runner, 1, size)


def _probe_at(
    network: onnx.ModelProto, runner: Runner, channels: int, size: tuple[int, int]
) -> NetworkFacts:
    w, h = size
    check_tensor_sizes(network, (1, channels, h, w))
    ranges = (1, 255)
    pictures = [_smooth_picture(channels, h, w) * top for top in ranges]
    results = dict(zip(ranges, _run(network, runner, pictures), strict=True))
    shape = results[1].shape
    if len(shape) != 4 or shape[1] != channels:
        raise ModelError(f"its output has shape {list(shape)} for {channels} input channels")
    scale = shape[2] // h
    if scale < 2 or shape[2:] != (h * scale, w * scale):
        raise ModelError(f"it enlarges {w}x{h} to {shape[3]}x{shape[2]}, not by a whole factor")
    expected = _smooth_picture(channels, h * scale, w * scale)
    errors = {top: float(np.abs(result / top - expected).mean()) for top, result in results.items()}
    value_max = 255 if errors[255] < 0.9 * errors[1] else 1
    if not np.isfinite(errors[value_max]):
        raise ModelError("its output contains NaN or infinity")
    if errors[value_max] > 0.25:
        raise ModelError("its output does not resemble its input")
    colour = "y" if channels == 1 else "rgb"
    return NetworkFacts(scale=scale, colour=colour, value_max=float(value_max))


def _input_shape(network: onnx.ModelProto) -> list[int | None]:
    tensor = sole_input(network).type.tensor_type
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    if tensor.elem_type not in floats:
        raise ModelError("its input is not float32 or float16")
    dims = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
    if len(dims) != 4:
        raise ModelError(f"its input has {len(dims)} dimensions, expected 4 (batch, channel, y, x)")
    return [d if d and d > 0 else None for d in dims]  # some exporters write -1 for free


def _smooth_picture(channels: int, height: int, width: int) -> npt.NDArray[np.float64]:
    """Return a smooth picture [1, C, H, W] in 0..1, the same scene at any size."""
    y = (np.arange(height)[:, None] + 0.5) / height
    x = (np.arange(width)[None, :] + 0.5) / width
    scene = 0.5 + 0.3 * np.sin(5 * x + 3 * y) * np.cos(4 * y - 2 * x)
    return np.broadcast_to(scene, (1, channels, height, width))


def _run(
    network: onnx.ModelProto, runner: Runner, pictures: list[npt.NDArray[np.float64]]
) -> list[npt.NDArray[np.float64]]:
    half = sole_input(network).type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    inputs = [picture.astype(np.float16 if half else np.float32) for picture in pictures]
    results = runner.run(network.SerializeToString(), inputs)
    return [np.asarray(result, np.float64) for result in results]
