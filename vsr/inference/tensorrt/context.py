"""Makes an engine ready to run; keeps what TensorRT-RTX compiles for the GPU for the next start."""

import logging
from pathlib import Path
from typing import Any

from vsr.inference.tensorrt.library import Library
from vsr.media.whole_file import written_whole

log = logging.getLogger(__name__)


def new_context(library: Library, engine: Any, kept: Path) -> tuple[Any, Any]:
    """(execution context, RTX's runtime cache or None). Raises BackendError, OutOfMemoryError."""
    cache = None
    if library.rtx:
        trt = library.trt
        config = engine.create_runtime_config()
        strategies = trt.DynamicShapesKernelSpecializationStrategy
        config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        cache = config.create_runtime_cache()
        compiled = _kept(kept)
        if compiled and not cache.deserialize(compiled):
            log.debug("%s is of another driver or GPU: kernels are compiled anew", kept)
        config.set_runtime_cache(cache)
        context = engine.create_execution_context(config)
    else:
        context = engine.create_execution_context()
    if context is None:
        raise library.failure("cannot start this engine")
    return context, cache


def _kept(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:  # the first start; else it is slower only
        log.debug("cannot read %s: %s", path, exc)
        return b""


def keep(cache: Any, path: Path) -> None:
    """Write what RTX compiled for this GPU, for the next start; without it that is slower only."""
    try:
        with written_whole(path) as part:
            part.write_bytes(bytes(cache.serialize()))
    except OSError as exc:
        log.debug("cannot keep %s: %s", path, exc)
