"""Measures frames against a reference with FFmpeg's psnr, ssim, xpsnr and libvmaf filters."""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import av
import numpy as np
import numpy.typing as npt

from vsr.media.colour import RGB
from vsr.media.frame import Frame, picture_of

_NO_FRAME_ERRORS: Final = (av.error.BlockingIOError, av.error.EOFError)
_SSIM_SIDE: Final = 16
"""Minimum side, in pixels, at which FFmpeg's ssim has a window in subsampled chroma too."""
_XPSNR_AREA: Final = 2025
"""Minimum number of pixels of a picture for FFmpeg's xpsnr. Below it the filter's block size is 0,
and a division by 0 ends the process."""
VMAF: Final = "libvmaf"
"""Name of FFmpeg's VMAF filter, which few builds include."""
_MEASURES: Final = {
    "psnr": "lavfi.psnr.psnr_avg",
    "psnr_y": "lavfi.psnr.psnr.y",
    "ssim": "lavfi.ssim.All",
    "xpsnr": "lavfi.xpsnr.xpsnr.y",
    "vmaf": "lavfi.vmaf.score",
}
_MSE: Final = "lavfi.psnr.mse_avg"


@dataclass(frozen=True)
class ScoredPicture:
    """A picture at the common size, and its figures against the reference of the same time."""

    picture: av.VideoFrame
    values: dict[str, float]
    """psnr, psnr_y and xpsnr in dB (infinity if equal), ssim 0..1, vmaf 0..100, and `mse`."""
    flicker: float | None
    """Mean absolute difference of luma from the previous frame, in 8-bit codes; None for the first
    frame."""


@dataclass(frozen=True)
class _InputFormat:
    """The input sizes and formats of a filter graph; a change requires a new graph."""

    sizes: tuple[tuple[int, int], ...]
    formats: tuple[str, ...]

    @property
    def common(self) -> tuple[int, int]:
        """The size with the largest area: smaller pictures are upscaled to it."""
        return max(self.sizes, key=math.prod)


class Scorer:
    """Measures matched frames, the reference first. Use from one thread.

    Smaller pictures are upscaled by bicubic interpolation, as players do, and all are converted to
    the reference's pixel format. The filters delay frames: later calls of `push`, or `flush`, yield
    them.
    """

    def __init__(self) -> None:
        self._graph: av.filter.Graph | None = None
        self._input_format: _InputFormat | None = None
        self._inputs: list[av.filter.context.FilterContext] = []
        self._sinks: list[av.filter.context.FilterContext] = []
        self._ready: list[deque[av.VideoFrame]] = []
        self._previous_luma: list[npt.NDArray[np.float32]] = []
        self._pushed = 0

    def push(self, frames: Sequence[Frame]) -> Iterator[tuple[ScoredPicture, ...]]:
        """Push the frames of one time; yield the scores that the filters have finished."""
        pictures = [picture_of(frame) for frame in frames]
        inputs = _InputFormat(
            tuple((p.width, p.height) for p in pictures),
            tuple(f.format.pixel_format(f.colour.matrix == RGB) for f in frames),
        )
        if inputs != self._input_format:
            yield from self.flush()
            self._input_format = inputs
            self._open(inputs)
        for context, picture in zip(self._inputs, pictures, strict=True):
            picture.pts, picture.time_base = self._pushed, Fraction(1, 25)
            context.push(picture)
        self._pushed += 1
        yield from self._finished()

    def flush(self) -> Iterator[tuple[ScoredPicture, ...]]:
        """Flush the filters, yield the remaining scores and discard the filter graph."""
        for context in self._inputs:
            context.push(None)
        yield from self._finished()
        self._graph, self._input_format = None, None
        self._inputs, self._sinks, self._previous_luma = [], [], []

    def _finished(self) -> Iterator[tuple[ScoredPicture, ...]]:
        for sink, ready in zip(self._sinks, self._ready, strict=True):
            while (picture := _pull(sink)) is not None:
                ready.append(picture)
        while self._ready and all(self._ready):
            yield self._scores([ready.popleft() for ready in self._ready])

    def _scores(self, pictures: Sequence[av.VideoFrame]) -> tuple[ScoredPicture, ...]:
        luma = [_luma(picture) for picture in pictures]
        flicker: list[float | None] = [None] * len(luma)
        if self._previous_luma:
            flicker = [
                float(np.abs(now - before).mean())
                for now, before in zip(luma, self._previous_luma, strict=True)
            ]
        self._previous_luma = luma
        return tuple(
            ScoredPicture(picture, _values(picture), moved)
            for picture, moved in zip(pictures, flicker, strict=True)
        )

    def _open(self, inputs: _InputFormat) -> None:
        """Build the filter graph: scale every picture, and measure all but the first."""
        graph = self._graph = av.filter.Graph()
        width, height = inputs.common
        self._inputs, self._sinks = [], []
        measures = supported_filters(inputs.common)
        copies = 1 + len(measures) * (len(inputs.sizes) - 1)
        for k, ((w, h), form) in enumerate(zip(inputs.sizes, inputs.formats, strict=True)):
            facts = f"video_size={w}x{h}:pix_fmt={form}:time_base=1/25:frame_rate=25"
            source = graph.add("buffer", facts)
            scaled = graph.add("scale", f"{width}:{height}:flags=bicubic+accurate_rnd")
            same = graph.add("format", f"pix_fmts={inputs.formats[0]}")
            source.link_to(scaled)
            scaled.link_to(same)
            self._inputs.append(source)
            last = same
            if k == 0:
                reference = graph.add("split", f"outputs={copies}")
                same.link_to(reference)
                last = reference
            for n, name in enumerate(measures if k else ()):
                measure = graph.add(name)
                last.link_to(measure, 0, 0)
                reference.link_to(measure, 1 + (k - 1) * len(measures) + n, 1)
                last = measure
            sink = graph.add("buffersink")
            last.link_to(sink, 0, 0)
            self._sinks.append(sink)
        graph.configure()
        self._ready = [deque() for _ in inputs.sizes]


def supported_filters(size: tuple[int, int]) -> list[str]:
    """Return the FFmpeg filters that can measure pictures of a size (width, height)."""
    found = ["psnr"]
    if min(size) >= _SSIM_SIDE:
        found.append("ssim")
    if math.prod(size) >= _XPSNR_AREA:
        found.append("xpsnr")
    return [*found, *((VMAF,) if has_vmaf() else ())]


def has_vmaf() -> bool:
    """Return whether this FFmpeg has the VMAF filter."""
    return VMAF in av.filter.filters_available


def _pull(sink: av.filter.context.FilterContext) -> av.VideoFrame | None:
    try:
        picture = sink.pull()
    except _NO_FRAME_ERRORS:
        return None
    assert isinstance(picture, av.VideoFrame)
    return picture


def _luma(picture: av.VideoFrame) -> npt.NDArray[np.float32]:
    """Return the first plane in 8-bit codes, float32 [height, width]; it is green in RGB."""
    plane = np.from_dlpack(picture.planes[0])
    return plane.astype(np.float32) / np.float32(2 ** (picture.format.components[0].bits - 8))


def _values(picture: av.VideoFrame) -> dict[str, float]:
    metadata = picture.metadata
    values = {name: float(metadata[key]) for name, key in _MEASURES.items() if key in metadata}
    return values | ({"mse": float(metadata[_MSE])} if _MSE in metadata else {})
