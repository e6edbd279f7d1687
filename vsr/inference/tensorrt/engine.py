"""Runs an engine on an NVIDIA GPU; copies from and to pinned memory overlap with computation.

Three streams (copy in, compute, copy out) are ordered by events, so that picture k+1 is uploaded
and picture k-1 downloaded while k is computed. A slot holds the buffers of one batch; three slots
form the ring. Decoded planes are copied once, into pinned memory; results are views of pinned
memory that returns to its pool when the encoder has released the last of them.
"""

import logging
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from vsr.errors import BackendError
from vsr.inference.cuda import Cuda, DeviceBuffer, Event, Graph, PinnedBuffer, PinnedPool
from vsr.inference.tensorrt.context import new_context, save_runtime_cache
from vsr.inference.tensorrt.library import Library
from vsr.media.frame import Plane, Planes, as_bytes, now

log = logging.getLogger(__name__)

RING_SLOTS: Final = 3
"""Number of batches in flight: one is uploaded, one computed, one downloaded."""
ALIGNMENT: Final = 256
"""Alignment of every tensor in device memory, in bytes, as TensorRT requires."""
_PLANES: Final = ("y", "u", "v")
_WARM_UP_BATCHES: Final = 3
"""Batches per slot before the first frame: kernels are chosen and compiled in them."""
MAX_IN_ENCODER: Final = 65
"""Maximum number of results that an encoder keeps: one per thread and one more. FFmpeg allows 64
threads (MAX_THREADS in frame_thread_encoder.c). x264 and most others keep none."""
MAX_IN_QUEUES: Final = 12
"""Maximum number of results between engine and encoder: `vsr.media.prefetch.QUEUE_DEPTH`, those
before and after that queue, and those that a relay repeats or shows on its status page."""


def _aligned(n: int) -> int:
    return -(-n // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True)
class BatchLayout:
    """Layout of a batch's three planes in one buffer, each [batch, 1, height, width]."""

    shapes: tuple[tuple[int, int], ...]
    """(height, bytes per row) of y, u and v."""
    batch: int

    def offset(self, plane: int, index: int = 0) -> int:
        """Return the byte offset of a plane of picture `index`."""
        before = sum(_aligned(self.batch * h * w) for h, w in self.shapes[:plane])
        height, width = self.shapes[plane]
        return before + index * height * width

    @property
    def nbytes(self) -> int:
        """Size of the whole block, in bytes."""
        return sum(_aligned(self.batch * h * w) for h, w in self.shapes)


@dataclass(eq=False)
class _Slot:
    """Buffers and events of one batch."""

    pinned: PinnedBuffer
    device_in: DeviceBuffer
    device_out: DeviceBuffer
    started: Event
    uploaded: Event
    computed: Event
    downloaded: Event
    graph: Graph | None = None


@dataclass(eq=False)
class _Batch:
    """Pictures computed together. Outlives the use of its slot: results are in other memory."""

    slot: _Slot
    pictures: int = 0
    """Number of pictures in the batch."""
    launched: float = 0.0
    """Time of the launch, as `now()`; 0 while the batch is being filled."""
    finished: float = 0.0
    """Time at which the results were downloaded, as `now()`; 0 while the slot is in use."""
    results: list[Planes] = field(default_factory=list)


class TensorRtTicket:
    """See `vsr.inference.backend.Ticket`; the planes are views of pinned memory."""

    def __init__(self, engine: "TensorRtEngine", batch: _Batch, index: int) -> None:
        self._engine, self._batch, self._index = engine, batch, index
        self.started = now()
        self.finished = 0.0

    def result(self) -> Planes:
        """See `vsr.inference.backend.Ticket.result`."""
        planes, self.finished = self._engine.collect(self._batch, self._index)
        return planes


class TensorRtEngine:
    """A TensorRT engine for one picture size, with its own context and streams."""

    def __init__(
        self, library: Library, cuda: Cuda, plan: bytes, size: tuple[int, int], cache_file: Path
    ) -> None:
        """`cache_file` holds RTX's runtime cache: kernels compiled for this GPU by earlier runs."""
        self._library, self._cuda = library, cuda
        cuda.activate()
        self._engine = library.deserialize(plan)
        self._context, runtime_cache = new_context(library, self._engine, cache_file)
        self._in, self._out = self._layouts(size)
        self.slots = RING_SLOTS * self._in.batch
        self._upload, self._compute, self._download = (cuda.new_stream() for _ in range(3))
        # a limit: only what is needed is allocated
        max_results = self.slots + MAX_IN_QUEUES + MAX_IN_ENCODER
        self._pool = PinnedPool(cuda.alloc_pinned, max_results * self._picture_out)
        self._free = deque(self._new_slot() for _ in range(RING_SLOTS))
        self._filling: _Batch | None = None
        self._in_flight: deque[_Batch] = deque()
        self._uncollected = 0
        self._warm_up()
        if runtime_cache is not None:
            save_runtime_cache(runtime_cache, cache_file)

    def submit(self, planes: Planes) -> TensorRtTicket:
        """See `Engine.submit`; a batch starts when it is full or when a result is awaited."""
        self._cuda.activate()
        if self._uncollected == self.slots:
            raise BackendError("more pictures submitted than the engine's slots")
        if self._filling is None:
            self._filling = _Batch(self._free_slot())
        batch = self._filling
        for k, plane in enumerate(planes):
            source = as_bytes(plane)
            if source.shape != self._in.shapes[k]:
                raise BackendError(f"plane is {source.shape}, expected {self._in.shapes[k]}")
            offset = self._in.offset(k, batch.pictures)
            np.copyto(batch.slot.pinned.array(source.shape, np.uint8, offset), source)
        ticket = TensorRtTicket(self, batch, batch.pictures)
        batch.pictures += 1
        self._uncollected += 1
        if batch.pictures == self._in.batch:
            self._launch(batch)
        return ticket

    def collect(self, batch: _Batch, index: int) -> tuple[Planes, float]:
        """Wait for one picture of a batch; return it and the time at which it was ready."""
        self._cuda.activate()
        if not batch.launched:  # only partly filled
            self._launch(batch)
        if not batch.finished:
            self._finish(batch)
        self._uncollected -= 1
        return batch.results[index], batch.finished

    def batch_time_ms(self, batches: int) -> float:
        """Measure the mean time to compute a batch in ms, without copies, by CUDA events."""
        begin, end = self._cuda.new_event(timing=True), self._cuda.new_event(timing=True)
        slot = self._free[0]
        begin.record(self._compute)
        for _ in range(batches):
            self._execute(slot)
        end.record(self._compute)
        end.synchronize()
        return end.elapsed_ms(begin) / batches

    def _layouts(self, size: tuple[int, int]) -> tuple[BatchLayout, BatchLayout]:
        """Set the input size; return the layout of inputs and outputs."""
        context = self._context
        width, height = size
        y, u, _ = (tuple(self._engine.get_tensor_profile_shape(n, 0)[1]) for n in _PLANES)
        batch, byte_pair = int(y[0]), y[4:]  # above 8 bits a sample is two bytes
        # luma samples per chroma sample; chroma sizes are rounded up
        down, across = (round(luma / part) for luma, part in zip(y[2:4], u[2:4], strict=True))
        chroma = (-(-height // down), -(-width // across))
        shapes = [(batch, 1, *shape, *byte_pair) for shape in ((height, width), chroma, chroma)]
        for name, shape in zip(_PLANES, shapes, strict=True):
            if not context.set_input_shape(name, shape):
                raise self._library.failure(f"does not support pictures of {width}x{height}")
        if list(context.infer_shapes()):
            raise self._library.failure("cannot infer the size of the output")
        out = [tuple(context.get_tensor_shape(f"{name}_out")) for name in _PLANES]
        self._sample = np.dtype("<u2" if byte_pair else np.uint8)
        sample_bytes = self._sample.itemsize
        into, from_ = (
            BatchLayout(tuple((int(h), int(w) * sample_bytes) for _, _, h, w, *_ in s), batch)
            for s in (shapes, out)
        )
        return into, from_

    @property
    def _picture_out(self) -> int:
        return sum(height * width for height, width in self._out.shapes)

    def _new_slot(self) -> _Slot:
        cuda = self._cuda
        return _Slot(
            cuda.alloc_pinned(self._in.nbytes), cuda.alloc_device(self._in.nbytes),
            cuda.alloc_device(self._out.nbytes), cuda.new_event(timing=True), cuda.new_event(),
            cuda.new_event(), cuda.new_event(timing=True),
        )  # fmt: skip

    def _free_slot(self) -> _Slot:
        """Return a slot for the next batch; finish the oldest batch if none is free."""
        if not self._free:
            self._finish(self._in_flight[0])
        return self._free.popleft()

    def _finish(self, batch: _Batch) -> None:
        """Wait for a batch and free its slot."""
        slot = batch.slot
        slot.downloaded.synchronize()
        batch.finished = batch.launched + slot.downloaded.elapsed_ms(slot.started) / 1000
        self._in_flight.remove(batch)
        self._free.append(slot)

    def _launch(self, batch: _Batch) -> None:
        """Queue a batch: copy in, compute, copy out."""
        cuda, slot, started = self._cuda, batch.slot, now()
        if batch is self._filling:
            self._filling = None
        slot.started.record(self._upload)
        cuda.copy_in(slot.device_in.address, slot.pinned.address, self._in.nbytes, self._upload)
        slot.uploaded.record(self._upload)
        self._compute.wait(slot.uploaded)
        self._execute(slot)
        slot.computed.record(self._compute)
        self._download.wait(slot.computed)
        batch.results = [self._download_picture(slot, index) for index in range(batch.pictures)]
        slot.downloaded.record(self._download)
        batch.launched = started
        self._in_flight.append(batch)

    def _download_picture(self, slot: _Slot, index: int) -> Planes:
        """Queue the download of a picture; return the views of pinned memory it is copied to."""
        memory = self._pool.take(self._picture_out)
        planes: list[Plane] = []
        begin = 0
        for k, (height, width) in enumerate(self._out.shapes):
            part = memory[begin : begin + height * width]
            source = slot.device_out.address + self._out.offset(k, index)
            self._cuda.copy_out(part.ctypes.data, source, part.nbytes, self._download)
            planes.append(part.reshape(height, width).view(self._sample))
            begin += height * width
        return planes[0], planes[1], planes[2]

    def _execute(self, slot: _Slot) -> None:
        if slot.graph is not None:
            slot.graph.launch(self._compute)
            return
        for suffix, block, memory in (
            ("", self._in, slot.device_in),
            ("_out", self._out, slot.device_out),
        ):
            for k, name in enumerate(_PLANES):
                address = memory.address + block.offset(k)
                self._context.set_tensor_address(f"{name}{suffix}", address)
        if not self._context.execute_async_v3(self._compute.handle):
            raise self._library.failure("failed while running")

    def _warm_up(self) -> None:
        """Run every slot, then capture TensorRT's launches as graphs; RTX does that itself."""
        y, u, v = (np.full(s, 128, np.uint8).view(self._sample) for s in self._in.shapes)
        for _ in range(_WARM_UP_BATCHES):
            tickets = [self.submit((y, u, v)) for _ in range(self.slots)]
            for ticket in tickets:
                ticket.result()
        if self._library.rtx or not self._cuda.can_capture:
            return
        for slot in self._free:
            try:
                slot.graph = self._capture(slot)
            except BackendError as exc:  # still runs, with more work for the CPU
                log.debug("no CUDA graph: %s", exc)
                return

    def _capture(self, slot: _Slot) -> Graph:
        self._compute.begin_capture()
        try:
            self._execute(slot)
        finally:  # also after a failure, else the stream stays in capture mode
            graph = self._compute.end_capture()
        return graph
