"""Training pairs whose LR went through a real video encoder, so networks restore, not sharpen.

A network trained on clean bicubic reductions takes blocks, ringing and mosquito noise for detail
and enlarges them. Here a still image becomes a short pan, its reduction a real H.264 or HEVC
stream, and the pairs are decoded frames beside the untouched crops.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from train.data.images import Pixels
from train.data.resize import downscale

Places = list[tuple[int, int]]

# without these flags swscale repeats chroma samples and darkens by one grey level on the way back
_SWSCALE = (
    Interpolation.BICUBIC
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.ACCURATE_RND
    | Interpolation.BITEXACT
)
# x265 4.2 writes beyond its buffers below 64 (34x32, valgrind), and at 64 no two runs agree
_X265_SMALLEST = 66
_TICK = Fraction(1, 25)


@dataclass(frozen=True, kw_only=True)
class Stream:
    """What the streams are like; every range is drawn from evenly, every share is a chance."""

    window: int = 192
    """Side of the streamed picture in LR pixels, even."""
    least: int = 64
    """LR pixels down to which a window shrinks so that it can move within a small image."""
    frames: int = 8
    """Encoded per clip."""
    kept: int = 2
    """Frames kept per clip, drawn from all of them: few are I, as in a real stream."""
    still: float = 0.25
    """Clips without motion: the encoder spends its bits otherwise."""
    speed: float = 6.0
    """Largest speed of the others, HR pixels per frame."""
    jitter: float = 0.5
    """Standard deviation around the constant velocity, HR pixels."""
    soft: float = 0.5
    """Clips whose truth is soft too: much video has no detail at its last octave, and a network
    that never saw such pictures sharpens what was not sharp."""
    softness: tuple[float, float] = (0.3, 2.5)
    """Standard deviation of the blur of those truths, HR pixels."""
    blurred: float = 0.15
    """Clips whose LR alone was seen through a soft lens."""
    blur: tuple[float, float] = (0.2, 0.5)
    """Standard deviation of that blur, LR pixels."""
    noisy: float = 0.2
    """Clips with sensor noise in the LR alone."""
    noise: tuple[float, float] = (0.5, 3.0)
    """Standard deviation of that noise, of 255."""
    hevc: float = 0.3
    """Clips encoded as HEVC; the others are H.264."""
    crf: tuple[int, int] = (18, 36)
    """Quality, both ends included."""
    presets: tuple[tuple[str, float], ...] = (
        ("ultrafast", 0.15),
        ("superfast", 0.15),
        ("veryfast", 0.4),
        ("faster", 0.1),
        ("fast", 0.1),
        ("medium", 0.1),
    )
    """Encoder presets and their shares."""
    live: float = 0.2
    """Clips encoded with `-tune zerolatency`: no B frames, no look-ahead."""


def streamed(
    hr: Pixels, scale: int, rng: np.random.Generator, settings: Stream = Stream()
) -> list[tuple[Pixels, Pixels]]:
    """Aligned (LR, HR) pairs of one RGB image, in order of time, with the LR out of a real stream.

    Windows are even in LR pixels, at most `settings.window` a side and not larger than the image.
    Raises ValueError for an image of less than two LR pixels.
    """
    s = settings
    if min(hr.shape[:2]) < 2 * scale:
        raise ValueError(f"an image of {hr.shape[1]}x{hr.shape[0]} is too small to be streamed")
    places, size = _path(hr.shape[:2], scale, rng, s)
    places, seen = _cut(hr, places, size)
    soft = _blurred(seen, scale * rng.uniform(*s.blur)) if rng.random() < s.blurred else seen
    reduced: dict[tuple[int, int], Pixels] = {}  # a window at rest is reduced once
    for place in places:
        if place not in reduced:
            reduced[place] = downscale(_crop(soft, place, size), scale)
    lows = [reduced[place] for place in places]
    if rng.random() < s.noisy:
        sigma = rng.uniform(*s.noise)
        lows = [_noisy(low, sigma, rng) for low in lows]
    decoded = _recoded(lows, rng, s)
    kept = sorted(int(k) for k in rng.choice(s.frames, min(s.kept, s.frames), replace=False))
    # copies: views would keep all of the image in memory
    return [(decoded[k], _crop(seen, places[k], size).copy()) for k in kept]


def _cut(hr: Pixels, places: Places, size: tuple[int, int]) -> tuple[Places, Pixels]:
    """The part of the image that any window shows, and the windows' places in it."""
    (top, bottom), (left, right) = ((min(way), max(way)) for way in zip(*places, strict=True))
    seen = hr[top : bottom + size[0], left : right + size[1]]
    return [(y - top, x - left) for y, x in places], seen


def _crop(image: Pixels, place: tuple[int, int], size: tuple[int, int]) -> Pixels:
    (y, x), (height, width) = place, size
    return image[y : y + height, x : x + width]


def _path(
    shape: tuple[int, ...], scale: int, rng: np.random.Generator, s: Stream
) -> tuple[Places, tuple[int, int]]:
    """Top left corners of the window at every frame, and its height and width, in HR pixels."""
    axes = [
        _line(way, whole, scale, rng, s) for way, whole in zip(_motion(rng, s), shape, strict=True)
    ]
    (tops, height), (lefts, width) = axes
    return list(zip(tops, lefts, strict=True)), (height, width)


def _motion(rng: np.random.Generator, s: Stream) -> npt.NDArray[np.float64]:
    """Rows and columns travelled at every frame, from zero up: float64 [2, frames]."""
    way = np.zeros((2, s.frames))
    if rng.random() >= s.still:
        angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(0, s.speed)
        way += np.outer([np.sin(angle), np.cos(angle)], speed * np.arange(s.frames))
        way += rng.normal(0, s.jitter, way.shape)
    return way - way.min(axis=1, keepdims=True)


def _line(
    way: npt.NDArray[np.float64], whole: int, scale: int, rng: np.random.Generator, s: Stream
) -> tuple[list[int], int]:
    """The window's first pixels along an axis of `whole` pixels, and its side."""
    side = _side(whole, float(way.max()), scale, s)
    room = whole - side
    if way.max() > room:  # slower, where the image leaves too little room
        way = way * (room / way.max())
    steps = np.floor(way + 0.5).astype(int)
    steps += rng.integers(0, room - steps.max() + 1)
    return [int(step) for step in steps], side


def _side(whole: int, way: float, scale: int, s: Stream) -> int:
    """HR pixels of the window along an axis of `whole`, made smaller to travel `way`."""
    wanted = min(s.window * scale, max(int(whole - np.ceil(way)), s.least * scale), whole)
    return wanted - wanted % (2 * scale)  # 4:2:0 needs even LR sides


def _blurred(image: Pixels, sigma: float) -> Pixels:
    """Gaussian blur with repeated edges; `sigma` in pixels of the image."""
    reach = int(np.ceil(3 * sigma))
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2).astype(np.float32)
    taps /= taps.sum()
    x = image.astype(np.float32)
    for axis in (0, 1):
        edges = [(reach, reach) if axis == k else (0, 0) for k in range(3)]
        padded, length = np.pad(x, edges, "edge"), x.shape[axis]
        x = np.zeros_like(x)
        for k, tap in enumerate(taps):
            x += tap * (padded[k : k + length] if axis == 0 else padded[:, k : k + length])
    return np.floor(x + np.float32(0.5)).astype(np.uint8)


def _noisy(image: Pixels, sigma: float, rng: np.random.Generator) -> Pixels:
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(sigma)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def _recoded(pictures: list[Pixels], rng: np.random.Generator, s: Stream) -> list[Pixels]:
    """The pictures after a trip through yuv420p and an encoder, both drawn at random."""
    matrix = Colorspace.ITU709 if rng.random() < 0.5 else Colorspace.ITU601
    names, shares = zip(*s.presets, strict=True)
    options = {
        "crf": str(rng.integers(s.crf[0], s.crf[1] + 1)),
        "preset": str(rng.choice(names, p=np.array(shares) / sum(shares))),
    }
    if rng.random() < s.live:
        options["tune"] = "zerolatency"
    encoder, decoder = "libx264", "h264"
    options["x264-params"] = "asm=sse4.2"  # with AVX-512, no two runs agree on MB-tree and B frames
    if rng.random() < s.hevc and min(pictures[0].shape[:2]) >= _X265_SMALLEST:
        encoder, decoder = "libx265", "hevc"
        del options["x264-params"]
        # no threads of its own: it would start one per core and row for a small picture
        options["x265-params"] = "log-level=error:pools=none:frame-threads=1:wpp=0"
    frames = [_to_yuv(picture, matrix, k) for k, picture in enumerate(pictures)]
    writer = _context(encoder, "w")
    writer.width, writer.height, writer.pix_fmt = frames[0].width, frames[0].height, "yuv420p"
    writer.time_base, writer.framerate, writer.options = _TICK, 1 / _TICK, options
    packets = [packet for frame in [*frames, None] for packet in writer.encode(frame)]
    reader = _context(decoder, "r")
    decoded = [frame for packet in [*packets, None] for frame in reader.decode(packet)]
    if [frame.pts for frame in decoded] != list(range(len(pictures))):
        raise RuntimeError(f"{encoder} gave other frames: {[frame.pts for frame in decoded]}")
    return [_to_rgb(frame, matrix) for frame in decoded]


def _context(name: str, mode: Literal["r", "w"]) -> av.VideoCodecContext:
    context = av.CodecContext.create(name, mode)
    assert isinstance(context, av.VideoCodecContext)
    context.thread_count = 1  # beside a training; and x264's threads change its decisions
    return context


def _to_yuv(picture: Pixels, matrix: int, pts: int) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(
        format="yuv420p",
        src_colorspace=matrix,
        dst_colorspace=matrix,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
        interpolation=_SWSCALE,
        threads=1,
    )
    frame.pts, frame.time_base = pts, _TICK
    return frame


def _to_rgb(frame: av.VideoFrame, matrix: int) -> Pixels:
    rgb = frame.reformat(
        format="rgb24",
        src_colorspace=matrix,
        dst_colorspace=matrix,
        src_color_range=ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        interpolation=_SWSCALE,
        threads=1,
    )
    return rgb.to_ndarray().astype(np.uint8, copy=False)
