"""Creates execution contexts, and caches the kernels that TensorRT-RTX compiles for the GPU."""

import logging
from pathlib import Path
from typing import Any

from vsr.inference.tensorrt.library import Library
from vsr.media.whole_file import write_atomically

log = logging.getLogger(__name__)


def new_context(library: Library, engine: Any, cache_file: Path) -> tuple[Any, Any]:
    """Create an execution context; also return RTX's runtime cache, or None.

    `cache_file` holds kernels compiled by earlier runs. Raises BackendError, OutOfMemoryError.
    """
    cache = None
    if library.rtx:
        trt = library.trt
        config = engine.create_runtime_config()
        strategies = trt.DynamicShapesKernelSpecializationStrategy
        config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        cache = config.create_runtime_cache()
        saved_kernels = _read_saved(cache_file)
        if saved_kernels and not cache.deserialize(saved_kernels):
            log.debug("%s is for another driver or GPU: recompiling kernels", cache_file)
        config.set_runtime_cache(cache)
        context = engine.create_execution_context(config)
    else:
        context = engine.create_execution_context()
    if context is None:
        raise library.failure("cannot start this engine")
    return context, cache


def _read_saved(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:  # normal on the first start; only costs time
        log.debug("cannot read %s: %s", path, exc)
        return b""


def save_runtime_cache(cache: Any, path: Path) -> None:
    """Save RTX's compiled kernels for the next start, which is slower without them."""
    try:
        with write_atomically(path) as part:
            part.write_bytes(bytes(cache.serialize()))
    except OSError as exc:
        log.debug("cannot write %s: %s", path, exc)
