"""Wraps TensorRT and TensorRT-RTX as one library that builds and loads engines.

Their Python interfaces are nearly identical: RTX adds compute capabilities and a runtime cache,
TensorRT adds timing caches and plugins. Both return None instead of raising, and write the reason
to the process's only logger; this module raises an error with that reason.
"""

import importlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from vsr.errors import BackendError, OutOfMemoryError, PlanError, UsageError, reason
from vsr.media.plane_format import YUV420, PlaneFormat

log = logging.getLogger(__name__)

RUNTIMES: Final[dict[str, tuple[str, ...]]] = {
    "tensorrt": ("tensorrt",),
    "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
"""Runtime -> modules that may provide it; RTX's wheels are a package and bare bindings."""
_INSTALL: Final = {
    "tensorrt": "pip install 'vsr-stream[tensorrt]' --extra-index-url https://pypi.nvidia.com",
    "tensorrt-rtx": "pip install 'vsr-stream[tensorrt-rtx]'",
}
RTX_TARGETS: Final = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")
"""Targets that TensorRT-RTX 1.7 supports; `Library.build` checks them against the library's."""
_INVALID_REASONS: Final = {
    1: "it was built by another version of TensorRT-RTX",
    2: "it was built for other GPUs",
    4: "the NVIDIA driver is too old for it",
    8: "the CUDA runtime is too old for it",
    16: "the GPU has too little memory for it",
    32: "it is damaged",
    64: "CUDA failed",
}
StepCallback = Callable[[str, int, int], bool]
"""Progress callback with (phase, step, number of steps); returning False cancels the build."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Picture sizes (width, height) of an engine: one, or a range with the size to tune for."""

    min_size: tuple[int, int]
    opt_size: tuple[int, int]
    max_size: tuple[int, int]

    @classmethod
    def fixed(cls, size: tuple[int, int]) -> "Sizes":
        """Return the sizes of an engine for exactly one size."""
        return cls(min_size=size, opt_size=size, max_size=size)

    @property
    def is_fixed(self) -> bool:
        """Whether the engine is for exactly one size."""
        return self.min_size == self.max_size

    def contains(self, size: tuple[int, int]) -> bool:
        """Return whether pictures of that size fit the range."""
        bounds = zip(self.min_size, size, self.max_size, strict=True)
        return all(low <= n <= high for low, n, high in bounds)

    def accepts(self, size: tuple[int, int]) -> bool:
        """Return whether an engine for these sizes accepts that size; ranges need even ones."""
        is_even = size[0] % 2 == size[1] % 2 == 0
        return self.contains(size) and (self.is_fixed or is_even)

    def __str__(self) -> str:
        sizes = (self.opt_size,) if self.is_fixed else (self.min_size, self.opt_size, self.max_size)
        return "-".join(f"{w}x{h}" for w, h in sizes)


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """Options of an engine's build, apart from its graph."""

    sizes: Sizes
    batch: int = 1
    targets: tuple[str, ...] = ()
    """Compute capabilities such as `sm86`; empty: the GPU in this machine."""
    timing_cache: bytes = b""
    fused: bool = False
    """Whether the graph holds plugin nodes of `vsr.inference.kernels.plugin`."""
    planes: PlaneFormat = YUV420
    """Plane format of the inputs; a range of sizes has to be set for each of them."""


@dataclass(frozen=True, kw_only=True)
class SerializedEngine:
    """A serialized engine, and the timing cache that makes the next build faster."""

    plan: bytes
    timing_cache: bytes = b""


class Library:
    """One loaded runtime. Builds may run on any thread, one at a time: they share logger lines."""

    def __init__(self, name: str, trt: Any) -> None:
        self.name, self.trt = name, trt
        self.version = str(trt.__version__)
        self.rtx = hasattr(trt, "ComputeCapability")
        self.error_lines: list[str] = []
        self.logger = _logger(trt, self.error_lines)

    def build(
        self, graph: bytes, options: BuildOptions, on_step: StepCallback | None = None
    ) -> SerializedEngine:
        """Build the engine of a planes-to-planes graph. Raises BackendError."""
        trt, self.error_lines[:] = self.trt, []
        try:
            builder = trt.Builder(self.logger)
        except TypeError as exc:  # pybind11 when the library returns a null pointer
            raise self.failure("cannot start") from exc
        flags = trt.NetworkDefinitionCreationFlag
        creation_flags = 1 << int(flags.STRONGLY_TYPED)
        if options.fused:
            creation_flags |= 1 << int(flags.PREFER_AOT_PYTHON_PLUGINS)
        network = builder.create_network(creation_flags)
        parser = trt.OnnxParser(network, self.logger)
        if not parser.parse(graph):
            messages = [_parser_message(parser.get_error(k)) for k in range(parser.num_errors)]
            raise self.failure("cannot read this network", messages)
        config = builder.create_builder_config()
        config.clear_flag(trt.BuilderFlag.TF32)  # fp32 is requested if fp16 is too inexact
        self._set_targets(config, options.targets)
        if not options.sizes.is_fixed:
            self._add_profile(builder, config, network, options)
        timing = self._load_timing_cache(config, options)
        if on_step is not None:
            config.progress_monitor = _progress_monitor(trt, on_step)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise self.failure("cannot build this engine")
        saved = bytes(timing.serialize()) if timing is not None else b""
        return SerializedEngine(plan=bytes(plan), timing_cache=saved)

    def _set_targets(self, config: Any, targets: tuple[str, ...]) -> None:
        if not targets:
            return
        if not self.rtx:
            raise UsageError(
                f"TensorRT builds only for the GPU of this machine, not for {', '.join(targets)}: "
                "use --runtime tensorrt-rtx"
            )
        config.num_compute_capabilities = len(targets)
        for k, target in enumerate(targets):
            capability = getattr(self.trt.ComputeCapability, target.upper(), None)
            try:
                done = capability is not None and config.set_compute_capability(capability, k)
            except (TypeError, ValueError, RuntimeError):
                done = False
            if not done:
                raise UsageError(
                    f"TensorRT-RTX {self.version} cannot build for {target}; "
                    f"supported: {', '.join(RTX_TARGETS)}"
                )

    def _add_profile(self, builder: Any, config: Any, network: Any, options: BuildOptions) -> None:
        profile = builder.create_optimization_profile()
        for k in range(network.num_inputs):
            name = network.get_input(k).name
            sizes = [options.sizes.min_size, options.sizes.opt_size, options.sizes.max_size]
            if name != "y":
                sizes = [options.planes.chroma(*size) for size in sizes]
            byte_pair = [2] if options.planes.bits > 8 else []
            shapes = [(options.batch, 1, h, w, *byte_pair) for w, h in sizes]
            profile.set_shape(name, *shapes)
        if config.add_optimization_profile(profile) < 0:
            raise self.failure("does not support these sizes")

    def _load_timing_cache(self, config: Any, options: BuildOptions) -> Any:
        """Load TensorRT's cache of kernel timings; return None for RTX, which does not measure."""
        if self.rtx:
            return None
        timing = config.create_timing_cache(options.timing_cache)
        if timing is not None and config.set_timing_cache(timing, ignore_mismatch=False):
            return timing
        timing = config.create_timing_cache(b"")  # the old one is for another version or GPU
        config.set_timing_cache(timing, ignore_mismatch=False)
        return timing

    def why_invalid(self, plan: bytes) -> str | None:
        """Return why an engine cannot run on this machine; None if it can or that is unknown."""
        runtime = self.trt.Runtime(self.logger)
        if not hasattr(runtime, "get_engine_validity"):
            return None
        validity, bits = runtime.get_engine_validity(plan)
        if validity != self.trt.EngineValidity.INVALID:
            return None
        messages = [message for bit, message in _INVALID_REASONS.items() if int(bits) & bit]
        return ", ".join(messages) or "NVIDIA driver or GPU not found"

    def deserialize(self, plan: bytes) -> Any:
        """Load the engine of a plan. Raises PlanError if it cannot be used on this machine."""
        self.error_lines[:] = []
        runtime = self.trt.Runtime(self.logger)
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise self.failure("cannot load this engine", kind=PlanError)
        return engine

    def failure(
        self, what: str, messages: list[str] | None = None, kind: type[BackendError] = BackendError
    ) -> BackendError:
        """Return the error for a failed call, with the library's last message."""
        lines = messages or self.error_lines or ["no reason given"]
        message = " ".join(lines[-1].split())
        # CUDA writes `out of memory`, TensorRT `OutOfMemory`; more words may follow
        is_out_of_memory = any("outofmemory" in line.lower().replace(" ", "") for line in lines)
        kind = OutOfMemoryError if is_out_of_memory else kind
        return kind(f"{self.title} {what}: {message[:400]}")

    @property
    def title(self) -> str:
        """Name and version, for messages."""
        return f"{'TensorRT-RTX' if self.rtx else 'TensorRT'} {self.version}"


def _parser_message(error: Any) -> str:
    """Return the parser's message, with the operator if it lacks it."""
    operator, message = str(error.node_operator()), str(error.desc())
    return f"{operator}: {message}" if operator and operator not in message else message


def _logger(trt: Any, error_lines: list[str]) -> Any:
    """Create the process's only logger: it collects errors in `error_lines` and logs all."""
    levels = {
        trt.ILogger.Severity.INTERNAL_ERROR: logging.ERROR,
        trt.ILogger.Severity.ERROR: logging.ERROR,
    }

    class Logger(trt.ILogger):  # type: ignore[misc]  # no stubs
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if levels.get(severity):
                error_lines.append(message)
            log.debug("%s", message)

    return Logger()


def _progress_monitor(trt: Any, on_step: StepCallback) -> Any:
    """Create a monitor that reports the builder's phases; several threads call it."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # no stubs
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            self._steps[name] = steps

        def step_complete(self, name: str, step: int) -> bool:
            return on_step(name, step + 1, self._steps.get(name, 0))

        def phase_finish(self, name: str) -> None:
            self._steps.pop(name, None)

    return Monitor()


@cache
def load_library(name: str) -> Library:
    """Load TensorRT or TensorRT-RTX, once: a process can have one logger of each.

    Raises BackendError with the command that installs it.
    """
    found: BaseException | None = None
    for module in RUNTIMES[name]:
        try:
            return Library(name, importlib.import_module(module))
        except ModuleNotFoundError as exc:
            found = found or exc
        except (ImportError, OSError) as exc:  # installed, but its own libraries are not
            raise BackendError(
                f"{name} cannot be loaded ({reason(exc)}): {_INSTALL[name]}"
            ) from exc
    raise BackendError(f"{name} is not installed: {_INSTALL[name]}") from found


def choose_precision(precision: str) -> str:
    """Resolve `auto` to half precision, which runs on Tensor Cores and costs 0.01 dB.

    int8 is used only on request: TensorRT-RTX has no convolution that quantises its output. Raises
    UsageError for bfloat16, which has no advantage over fp16 on GPUs.
    """
    if precision == "bf16":
        raise UsageError("bf16 is supported on CPUs only: use fp16 on this GPU")
    return "fp16" if precision == "auto" else precision
