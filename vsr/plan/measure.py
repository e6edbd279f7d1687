"""Measures the time per frame of decoder, network and encoder, each for a second or two."""

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Final

import av
import numpy as np

from vsr.inference.backend import Backend
from vsr.inference.flicker import FlickerFilter
from vsr.inference.models import Model
from vsr.inference.upscaler import Upscaler
from vsr.media.alpha import ENCODERS as TRANSPARENT
from vsr.media.colour import Colour
from vsr.media.encoder import EncoderSettings, VideoFormat, open_encoder
from vsr.media.frame import Frame, encoder_picture, picture_of
from vsr.media.plane_format import YUV420, PlaneFormat
from vsr.media.source import Source
from vsr.plan.cost import Cost

SECONDS: Final = 1.0
"""Approximate measuring time per stage, in seconds."""
_MIN_FRAMES: Final = 3
"""Minimum number of measured frames."""
_SMALL_SIZE: Final = (320, 180)
"""Size (width, height) at which a network is measured first, in pixels."""
_MAX_KEPT_FRAMES: Final = 24
"""Maximum number of an input's frames that are kept for the encoder."""
_MAX_KEPT_BYTES: Final = 64 * 2**20
"""Size of the kept frames from which on no more are kept, in bytes."""


@dataclass(frozen=True, kw_only=True)
class Video:
    """The video to upscale: size, rate, colour and planes, and some of its frames."""

    size: tuple[int, int]
    rate: Fraction
    colour: Colour = field(default_factory=Colour)
    planes: PlaneFormat = YUV420
    frames: Sequence[Frame] = ()


class Clock:
    """Measures the frames of a stage from now on, in wall time and processor time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.frames = 0
        """Number of frames counted."""
        self._start = self._end = _times()

    def count(self) -> bool:
        """Count a frame that is complete, and return whether enough frames were measured."""
        self.frames += 1
        self.extend()
        return self.frames >= _MIN_FRAMES and self._end[0] - self._start[0] > self._seconds

    def extend(self) -> None:
        """Add the time since the last frame, in which work on the counted frames was completed."""
        self._end = _times()

    def mean(self) -> Cost:
        """Return the mean cost per counted frame."""
        wall, cpu = (
            (end - start) * 1000 / max(1, self.frames)
            for start, end in zip(self._start, self._end, strict=True)
        )
        return Cost(wall, cpu)


def _times() -> tuple[float, float]:
    """Return wall time and processor time, in seconds."""
    return time.perf_counter(), time.process_time()


def decoding_cost(url: str, seconds: float = SECONDS) -> tuple[Source, Cost, list[Frame]]:
    """Decode the beginning of an input; return (source, cost per frame, first frames).

    The source is closed; its `info` remains available. Raises InputError.
    """
    kept: list[Frame] = []
    with closing(Source(url)) as source:
        first = clock = Clock(seconds)
        for frame in (item for item in source if isinstance(item, Frame)):
            enough = clock.count()
            if len(kept) < _MAX_KEPT_FRAMES and _bytes(kept) < _MAX_KEPT_BYTES:
                y, u, v = (np.array(plane) for plane in frame.planes)
                kept.append(replace(frame, planes=(y, u, v)))
            if clock is first:  # its time includes starting the decoder: do not count it
                clock = Clock(seconds)
            elif enough:
                break
        cost = (clock if clock.frames else first).mean()
    return source, cost, kept


def _bytes(frames: Sequence[Frame]) -> int:
    return sum(plane.nbytes for frame in frames for plane in frame.planes)


def network_cost(model: Model, backend: Backend, video: Video, seconds: float = SECONDS) -> Cost:
    """Return a network's cost per frame of the video's size. Raises BackendError.

    A network that would be slow at that size is measured on a small picture, and its cost is scaled
    by the number of pixels.
    """
    width, height = video.size
    small = (min(_SMALL_SIZE[0], width), min(_SMALL_SIZE[1], height))
    factor = width * height / (small[0] * small[1])
    cost = network_cost_at_size(model, backend, replace(video, size=small), seconds)
    if factor == 1 or cost.wall_ms * factor * _MIN_FRAMES > 2000 * seconds:
        return cost.times(factor)
    return network_cost_at_size(model, backend, video, seconds)


def network_cost_at_size(model: Model, backend: Backend, video: Video, seconds: float) -> Cost:
    """Return a network's cost per frame for consecutive frames of exactly that size.

    It includes the flicker filter, if that is used by default. Raises BackendError.
    """
    upscaler = Upscaler(model, backend, video.colour, video.size, planes=video.planes)
    frames = FlickerFilter(None).process(grey_frames(video), upscaler.process)
    for _ in range(2):  # warm-up
        next(frames)
    clock = Clock(seconds)
    for _ in frames:
        if clock.count():
            break
    return replace(clock.mean(), on_other_device=not backend.on_cpu)


def grey_frames(video: Video) -> Iterator[Frame]:
    """Yield grey frames without end; a network's speed does not depend on the content."""
    width, height = video.size
    across, down = video.planes.chroma(width, height)
    shapes = ((height, width), (down, across), (down, across))
    planes = tuple(
        np.full(shape, 2 ** (video.planes.bits - 1), video.planes.dtype) for shape in shapes
    )
    for k in itertools.count():
        yield Frame(
            planes=planes, index=k, pts=k, time_base=1 / video.rate, duration=1,  # type: ignore[arg-type]
            format=video.planes, colour=video.colour,
        )  # fmt: skip


def encoding_cost(
    name: str, settings: EncoderSettings, out: VideoFormat, frames: Sequence[Frame],
    seconds: float = SECONDS,
) -> Cost:  # fmt: skip
    """Return an encoder's cost per frame of `out.size`, for `frames` scaled to that size.

    Without frames, it encodes a moving texture. Raises UsageError and OutputError.
    """
    context = av.CodecContext.create(name, "w")
    assert isinstance(context, av.VideoCodecContext)
    # as in a run, encoders without transparency do not get it
    open_encoder(context, settings, replace(out, alpha=out.alpha and name in TRANSPARENT))
    pixels, codec = context.pix_fmt or "yuv420p", av.Codec(name, "w").canonical_name
    video = Video(size=out.size, rate=out.rate, colour=out.colour, planes=out.planes)
    pictures = [
        encoder_picture(frame, pixels, codec)
        for frame in _at_size(frames, out) or moving_texture(video)
    ]
    clock = Clock(seconds)
    for k in itertools.count():
        picture = pictures[k % len(pictures)]
        picture.pts, picture.time_base = k, 1 / out.rate
        context.encode(picture)
        if clock.count() and k + 1 >= len(pictures):
            break
    context.encode(None)  # encodes the frames that the encoder still holds
    clock.extend()
    return clock.mean()


def _at_size(frames: Sequence[Frame], out: VideoFormat) -> list[Frame]:
    """Return the frames scaled bicubically, then in reverse order, so that they can be repeated."""
    width, height = out.size
    made = []
    for frame in frames:
        picture = picture_of(_even(frame)).reformat(width, height, interpolation="BICUBIC")
        y, u, v = (np.array(np.from_dlpack(plane)) for plane in picture.planes[:3])
        made.append(replace(frame, planes=(y, u, v), side_data=None, alpha=None))
    return made + made[-2:0:-1]


def _even(frame: Frame) -> Frame:
    """Return the frame without an odd last row and column, which PyAV's pictures cannot have."""
    height, width = (n - n % 2 for n in frame.planes[0].shape)
    across, down = frame.format.chroma(width, height)
    y, u, v = frame.planes
    return replace(frame, planes=(y[:height, :width], u[:down, :across], v[:down, :across]))


def moving_texture(video: Video) -> list[Frame]:
    """Return frames of a texture with the spectrum of photographs (amplitude 1/f).

    It moves by 3 pixels per frame.
    """
    (width, height), planes = video.size, video.planes
    rng = np.random.default_rng(1)
    fx, fy = np.fft.rfftfreq(width), np.fft.fftfreq(height)
    size = np.hypot(fx[None], fy[:, None])
    size[0, 0] = 1
    spectrum = np.exp(2j * np.pi * rng.random(size.shape)) / size
    texture = np.fft.irfft2(spectrum, (height, width))
    luma = 2 ** (planes.bits - 1) + 40 * 2 ** (planes.bits - 8) * texture / (texture.std() or 1)
    y = np.clip(np.rint(luma), 0, 2**planes.bits - 1).astype(planes.dtype)
    across, down = planes.chroma(width, height)
    flat = np.full((down, across), 2 ** (planes.bits - 1), planes.dtype)
    return [
        Frame(
            planes=(np.roll(y, 3 * k, 1), flat, flat), index=k, pts=k, time_base=1 / video.rate,
            duration=1, format=planes, colour=video.colour,
        )
        for k in range(_MAX_KEPT_FRAMES)
    ]  # fmt: skip
