"""Runs engines with OpenVINO on any CPU and Intel GPUs and NPUs; default without an NVIDIA GPU."""

import json
import logging
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import numpy as np

from vsr.errors import BackendError, UsageError, reason
from vsr.inference.compiled import CompiledCache
from vsr.inference.cpu import has_int8_instructions
from vsr.inference.fastest import measure_fastest
from vsr.media.frame import Plane, Planes, as_bytes, now
from vsr.media.limits import cpu_limit, processor_count
from vsr.network.graph import PlaneGraph
from vsr.network.onnx_inputs import flatten
from vsr.network.rewrite.cpu import for_cpu

log = logging.getLogger(__name__)
_TELEMETRY_MODULE: Final = "openvino_telemetry"
_CONVERTER_MODULE: Final = "openvino.tools.ovc"


@contextmanager
def _hide_modules(*names: str) -> Iterator[None]:
    """Make packages look uninstalled while OpenVINO is imported.

    With its telemetry, the import would report to a statistics host, store a persistent id in the
    home folder, and fork a child process that keeps this process's stdout open. Its converter is
    slow to load, and vsr does not use it.
    """
    before = {name: sys.modules[name] for name in names if name in sys.modules}
    for name in names:
        sys.modules[name] = None  # type: ignore[assignment]  # makes the import raise ImportError
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
        sys.modules.update(before)  # for a program that imported OpenVINO before us


def _convert_model(*args: Any, **settings: Any) -> Any:
    """Call OpenVINO's `convert_model`, for other code in this process; imported when called."""
    from openvino.tools import ovc

    return ovc.convert_model(*args, **settings)


try:
    with _hide_modules(_TELEMETRY_MODULE, _CONVERTER_MODULE):
        import openvino as ov
except ImportError as exc:  # a broken install; it is a run-time dependency
    raise BackendError(f"OpenVINO cannot be loaded ({reason(exc)}): pip install openvino") from exc

if not hasattr(ov, "convert_model"):
    ov.convert_model = _convert_model

CORE: Final = ov.Core()
"""The only `ov.Core` of the process, never freed.

OpenVINO's CPU plugin replaces the signal stack of the thread that first uses a Core, and frees that
stack with the Core (SigAltStackSetup in src/plugins/intel_cpu, there for AMX). If two Cores are
freed in the order of their creation, the second restores the stack that the first has freed. The
next signal that Python handles, such as Ctrl+C, then ends the process with SIGSEGV.
"""
PRECISION_HINTS: Final = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
"""Float precisions: vsr's name -> OpenVINO's name."""
_MAX_MESSAGE: Final = 400
"""Maximum length of a quoted OpenVINO message, in characters; it may contain the network."""
MAX_REQUESTS: Final = 4
"""Maximum number of requests: enough to keep a CPU busy; each holds the network's activations."""


class OpenVinoTicket:
    """See `vsr.inference.backend.Ticket`."""

    def __init__(self, engine: "OpenVinoEngine", request: Any) -> None:
        self.started = self.finished = now()
        self._engine, self._request = engine, request

    def result(self) -> Planes:
        """See `vsr.inference.backend.Ticket.result`."""
        try:
            self._request.wait()
            # measured by OpenVINO: a Python callback would need the GIL on OpenVINO's threads, and
            # crashes the process if a request is abandoned while it runs
            self.finished = self.started + self._request.latency / 1000
        except RuntimeError as exc:
            raise BackendError(f"OpenVINO failed while running: {_short_message(exc)}") from exc
        finally:
            self._engine.free.append(self._request)
        y, u, v = (_copy_of(t.data[0, 0]) for t in self._request.output_tensors)
        return y, u, v


class OpenVinoEngine:
    """A compiled graph and its pool of asynchronous requests."""

    def __init__(self, compiled: Any) -> None:
        optimal = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        # one more than it computes at once, so that the next picture is always queued
        self.slots = min(max(optimal, 1) + 1, MAX_REQUESTS)
        self.free: deque[Any] = deque(compiled.create_infer_request() for _ in range(self.slots))

    def submit(self, planes: Planes) -> OpenVinoTicket:
        """See `vsr.inference.backend.Engine.submit`."""
        if not self.free:
            raise BackendError("more pictures submitted than the engine's slots")
        request = self.free.popleft()
        for tensor, plane in zip(request.input_tensors, planes, strict=True):
            _copy_into(tensor, plane)
        ticket = OpenVinoTicket(self, request)
        request.start_async()
        return ticket


def _copy_into(tensor: Any, plane: Plane) -> None:
    height, width, *pair = tensor.shape[2:]
    bytes_ = as_bytes(plane)
    if bytes_.shape != (height, width * (2 if pair else 1)):
        raise BackendError(f"plane is {plane.shape}, expected {tuple(tensor.shape[2:])}")
    tensor.data[0, 0].reshape(bytes_.shape)[:] = bytes_


def _copy_of(data: Any) -> Plane:
    """Copy an output plane: uint8 [H, W], or byte pairs [H, W, 2] as uint16 [H, W]."""
    copy = np.array(data)
    return copy if copy.ndim == 2 else copy.view("<u2")[..., 0]


class OpenVinoBackend:
    """See `vsr.inference.backend.Backend`. Thread-safe except for the engines it creates."""

    name = "openvino"

    def __init__(self, device: str, live: bool = False) -> None:
        """`live`: all cores compute one picture, for latency; else several, for throughput."""
        self._hint = "LATENCY" if live else "THROUGHPUT"
        device = device.upper()
        devices = CORE.available_devices
        if device.split(".", maxsplit=1)[0].split(":", maxsplit=1)[0] not in {*devices, "AUTO"}:
            names = ", ".join(["AUTO", *devices])
            raise UsageError(f"OpenVINO has no device '{device}'; available: {names}")
        self._device = device
        self._queried_device = devices[0] if device.startswith("AUTO") else device
        self.on_cpu = device.startswith("CPU") or devices == ["CPU"]
        try:
            self.device = str(CORE.get_property(self._queried_device, "FULL_DEVICE_NAME")).strip()
        except RuntimeError as exc:
            message = _short_message(exc)
            raise UsageError(f"OpenVINO cannot use device '{device}': {message}") from exc

    def choose_precision(self, precision: str, has_int8: bool) -> str:
        """See `vsr.inference.backend.Runner.choose_precision`."""
        float_precisions = self.float_precisions()
        if precision in PRECISION_HINTS and precision not in float_precisions:
            use = "fp32 or int8" if has_int8 else "fp32"
            raise UsageError(f"{self.device} does not support {precision}: use {use}")
        if precision != "auto":
            return precision
        if not self._queried_device.startswith("CPU"):
            return "fp16" if "fp16" in float_precisions else "fp32"
        return "int8" if has_int8 and has_int8_instructions() else "fp32"

    def float_precisions(self) -> list[str]:
        """Return the float precisions that the device supports, fp32 first."""
        capabilities = CORE.get_property(self._queried_device, "OPTIMIZATION_CAPABILITIES")
        return [name for name in PRECISION_HINTS if name == "fp32" or name.upper() in capabilities]

    def fastest_precision(
        self, model: bytes, picture: object, digest: str, value_max: float
    ) -> str:
        """See `PrecisionTimer.fastest_precision`; only CPUs are measured, without int8."""
        if not self._queried_device.startswith("CPU"):
            return self.choose_precision("auto", False)

        def compile_in(precision: str) -> Callable[[], object]:
            hint = PRECISION_HINTS[precision]
            compiled = self._compile(model, {"INFERENCE_PRECISION_HINT": hint})
            return lambda: compiled([picture])[0]

        machine = f"{self.device}, OpenVINO {ov.__version__}, {cpu_limit() or processor_count()}"
        key = f"{digest} on {machine}"
        return measure_fastest(self.float_precisions(), compile_in, key, value_max)

    def compile(self, graph: PlaneGraph, size: tuple[int, int], batch: int = 1) -> OpenVinoEngine:
        """See `vsr.inference.backend.Backend.compile`; ignores `batch`: it would gain nothing."""
        config = {
            "PERFORMANCE_HINT": self._hint,
            "PERFORMANCE_HINT_NUM_REQUESTS": MAX_REQUESTS,
            # on CPUs with bfloat16 OpenVINO would use it by default; its 8-bit mantissa is visible
            "INFERENCE_PRECISION_HINT": PRECISION_HINTS.get(graph.precision, "f32"),
        }
        if self._queried_device.startswith("CPU") and graph.precision in ("fp32", "bf16"):
            graph = replace(graph, network=for_cpu(flatten(graph.network)))
        return OpenVinoEngine(self._load_or_compile(graph.onnx(size), config))

    def is_built(self, graph: PlaneGraph, size: tuple[int, int], batch: int = 1) -> bool:
        """See `vsr.inference.backend.Backend.is_built`: always True, as compiling is quick."""
        return True

    def run(self, model: bytes, inputs: Sequence[object]) -> list[object]:
        """See `vsr.inference.backend.Runner.run`."""
        compiled = self._compile(model, {"INFERENCE_PRECISION_HINT": "f32"})
        try:
            return [np.array(compiled([x])[0]) for x in inputs]
        except (RuntimeError, ValueError) as exc:
            raise BackendError(f"OpenVINO failed while running: {_short_message(exc)}") from exc

    def _load_or_compile(self, model: bytes, config: dict[str, Any]) -> Any:
        """Load a network that an earlier run compiled, or compile it; cached on CPUs only."""
        if self._device != "CPU":
            return self._compile(model, config)
        config, cache = self._with_cpu_limit(config), CompiledCache()
        capabilities = CORE.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        settings = [self.device, capabilities, ov.__version__, config]
        key_parts = (model, json.dumps(settings, sort_keys=True))
        if (cached := cache.get(key_parts)) is not None:
            try:
                return CORE.import_model(cached, self._device, config)
            except (RuntimeError, ValueError) as exc:
                log.debug("cannot load the cached network: %s", _short_message(exc))
                cache.remove(key_parts)
        compiled = self._compile(model, config)
        try:
            cache.put(key_parts, compiled.export_model().getvalue())
        except RuntimeError as exc:
            log.debug("cannot cache the compiled network: %s", _short_message(exc))
        return compiled

    def _with_cpu_limit(self, config: dict[str, Any]) -> dict[str, Any]:
        if self._device.startswith("CPU") and (limit := cpu_limit()):
            # no pinning: other limited processes would be pinned to the same first processors
            return {**config, "INFERENCE_NUM_THREADS": limit, "ENABLE_CPU_PINNING": False}
        return config

    def _compile(self, model: bytes, config: dict[str, Any]) -> Any:
        config = self._with_cpu_limit(config)
        try:
            return CORE.compile_model(CORE.read_model(model), self._device, config)
        except (RuntimeError, ValueError) as exc:  # the latter if the message is not UTF-8
            message = _short_message(exc)
            raise BackendError(f"OpenVINO cannot compile this network: {message}") from exc


def _short_message(exc: Exception) -> str:
    """Extract the reason from OpenVINO's message: source location, then reason, then advice."""
    lines = [line.strip() for line in str(exc).strip().split("\n\n")[0].splitlines()]
    lines = [line for line in lines if not line.startswith("To facilitate")]
    return lines[-1].removeprefix("-- ")[:_MAX_MESSAGE] if lines else "no reason given"
