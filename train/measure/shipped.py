"""Runs ONNX files, so that shipped networks can be measured, not only trained ones."""

import importlib
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from train.errors import TrainError
from train.measure.evaluate import Enlarge, Method

Floats = npt.NDArray[np.float32]


@cache
def openvino_core() -> Any:
    """Return the process's only `ov.Core`: see CORE in vsr/inference/openvino.py for the reason."""
    telemetry = "openvino_telemetry"
    loaded = sys.modules.get(telemetry)
    sys.modules[telemetry] = None  # type: ignore[assignment]  # see vsr/inference/openvino.py
    try:
        import openvino as ov
    finally:
        del sys.modules[telemetry]
        if loaded is not None:
            sys.modules[telemetry] = loaded
    return ov.Core()


def openvino_enlarge(model: bytes) -> Enlarge:
    """Return an `Enlarge` that runs an ONNX network on OpenVINO in float32, as `vsr` does."""
    core = openvino_core()
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(model), "CPU", config)

    def run(x: Floats) -> Floats:
        return np.array(compiled([x])[0])

    return run


def onnxruntime_enlarge(model: bytes) -> Enlarge:
    """Return an `Enlarge` that runs an ONNX network on ONNX Runtime's CPU provider."""
    try:
        ort = importlib.import_module("onnxruntime")
    except ImportError as exc:
        raise TrainError("onnxruntime is not installed: pip install onnxruntime") from exc
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(x: Floats) -> Floats:
        return np.asarray(session.run(None, {name: x})[0])

    return run


BACKENDS: dict[str, Callable[[bytes], Enlarge]] = {
    "openvino": openvino_enlarge,
    "onnxruntime": onnxruntime_enlarge,
}


def load_onnx(path: Path, backend: str) -> Method:
    """Load the network of an ONNX file (one float picture in, one out) on a backend.

    `colour` follows from the channels, and `scale` from the output size of a small picture.
    `network` is the folder's name, as in engines/carn-m/x2.onnx, if the file is named x<scale>.
    """
    model = _read(path)
    kind, channels = _input(model, path)
    try:
        run = BACKENDS[backend](model.SerializeToString())
        result = run(np.full((1, channels, 24, 32), 0.5, kind))
    except TrainError:
        raise
    except Exception as exc:  # the backends' own errors share no public base class
        raise TrainError(f"{backend} cannot run {path}: {_short_reason(exc)}") from exc
    scale = _scale(result.shape, channels, path)
    return replace(
        Method(label="", enlarge=_cast(run, kind), colour="rgb", scale=scale),
        label=f"{path.parent.name}/{path.stem}" if path.parent.name else path.stem,
        colour="y" if channels == 1 else "rgb",
        network=path.parent.name if path.stem == f"x{scale}" else "",
    )


def _short_reason(exc: Exception) -> str:
    """Return the reason: OpenVINO's messages have the source location, the reason, then advice."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    reasons = [line for line in lines if not line.startswith("To facilitate")]
    return reasons[-1].removeprefix("-- ") if reasons else repr(exc)


def _read(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load_model(str(path))
    except OSError as exc:
        raise TrainError(f"cannot read {path}: {exc.strerror}") from exc
    except Exception as exc:  # protobuf's DecodeError has no stable place to import it from
        raise TrainError(f"{path} is not an ONNX file, or it is damaged: {exc}") from exc
    if not model.graph.node:
        raise TrainError(f"{path} is not an ONNX file, or it is empty")
    return model


def _input(model: onnx.ModelProto, path: Path) -> tuple[npt.DTypeLike, int]:
    """Return (dtype, channels) of the only input picture."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [x for x in model.graph.input if x.name not in constants]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        counts = f"{len(inputs)} inputs and {len(model.graph.output)} outputs"
        raise TrainError(f"{path} has {counts}: a network needs one input and one output")
    tensor = inputs[0].type.tensor_type
    kinds: dict[int, npt.DTypeLike] = {
        onnx.TensorProto.FLOAT: np.float32,
        onnx.TensorProto.FLOAT16: np.float16,
    }
    shape = [d.dim_value for d in tensor.shape.dim]
    if tensor.elem_type not in kinds or len(shape) != 4 or shape[1] not in {1, 3}:
        raise TrainError(f"{path} is not supported: its input must be float [N, 1 or 3, H, W]")
    if any(shape[2:]):
        raise TrainError(f"{path} has a fixed picture size: export it with dynamic H and W")
    return kinds[tensor.elem_type], shape[1]


def _scale(shape: tuple[int, ...], channels: int, path: Path) -> int:
    """Return the factor from 24x32 to the result's size."""
    if len(shape) == 4 and shape[:2] == (1, channels):
        scale = shape[2] // 24
        if scale and shape[2:] == (24 * scale, 32 * scale):
            return scale
    raise TrainError(
        f"{path} does not upscale: it returned {list(shape)} for [1, {channels}, 24, 32]"
    )


def _cast(run: Callable[[Any], Any], kind: npt.DTypeLike) -> Enlarge:
    if kind is np.float32:
        return run
    return lambda x: run(x.astype(kind)).astype(np.float32)
