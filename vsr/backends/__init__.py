"""The seam between the pipeline and inference: an `Engine` turns planes into planes.

`BACKENDS` maps names to loaders; the libraries behind them are imported when asked for.
"""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from vsr.errors import UsageError
from vsr.frame import Planes


class Ticket(Protocol):
    """One picture on its way through an engine."""

    @property
    def started(self) -> float:
        """When the engine took it, in seconds of `time.perf_counter`."""
        ...

    @property
    def finished(self) -> float:
        """When the result was ready; valid after `result`."""
        ...

    def result(self) -> Planes:
        """Wait, and return the enlarged planes as new, contiguous, writable arrays.

        Frees the slot. Call once. Raises BackendError when inference failed.
        """
        ...


class Engine(Protocol):
    """A compiled graph for one picture size. Not thread-safe: one thread submits and collects."""

    slots: int
    """How many pictures may be under way at once."""

    def submit(self, planes: Planes) -> Ticket:
        """Copy the planes in and start; at most `slots` tickets may be uncollected."""
        ...


class Backend(Protocol):
    """Compiles graphs for one device."""

    name: str
    device: str
    """What it runs on, in the library's own words."""

    def compile(self, graph: bytes) -> Engine:
        """An engine for a graph of `vsr.graph.build_graph`. Raises BackendError."""
        ...

    def run(self, model: bytes, inputs: Sequence[object]) -> list[object]:
        """The output of a one-input ONNX model for each numpy array: to look at a network."""
        ...


def _openvino(device: str | None) -> Backend:
    from vsr.backends.openvino import OpenVinoBackend

    return OpenVinoBackend(device or "CPU")


BACKENDS: Final[dict[str, Callable[[str | None], Backend]]] = {"openvino": _openvino}


def load_backend(name: str = "auto", device: str | None = None) -> Backend:
    """The backend of that name on `device` (the library's own default when None)."""
    if name == "auto":
        name = "openvino"  # the only one yet; TensorRT will come first where there is a GPU
    if name not in BACKENDS:
        raise UsageError(f"unknown backend '{name}'; known: auto, {', '.join(sorted(BACKENDS))}")
    return BACKENDS[name](device)
