"""Make training pairs whose LR frames went through a real video encoder.

A network trained on clean bicubic downscaling treats blocking, ringing and mosquito noise as detail
and enlarges them. Here a still image becomes a short pan, whose downscaled frames are encoded as
H.264 or HEVC; each pair is a decoded LR frame and the unmodified HR crop. Networks trained on these
pairs learn to restore compressed video instead of sharpening its artefacts.
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final, Literal

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from scipy.ndimage import gaussian_filter

from train.data.images import Pixels
from train.data.resize import downscale

Positions = list[tuple[int, int]]

# without these flags swscale repeats chroma samples, and converting back darkens by one grey level
_SWSCALE = (
    Interpolation.BICUBIC
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.ACCURATE_RND
    | Interpolation.BITEXACT
)
# x265 4.2 writes past its buffers if a side is under 64 (34x32, valgrind), and at 64 its output
# differs between runs
_X265_SMALLEST = 66
_TICK = Fraction(1, 25)


@dataclass(frozen=True, kw_only=True)
class StreamSettings:
    """Settings of the encoded clips; ranges are sampled uniformly, shares are probabilities."""

    largest_window: int = 192
    """Largest side of the encoded window, in LR pixels, even."""
    smallest_window: int = 64
    """Smallest side, in LR pixels, to which the window shrinks so that it can move in the image."""
    frames: int = 8
    """Number of frames encoded per clip."""
    kept_frames: int = 2
    """Number of frames kept per clip, sampled from all of them: few are I frames, as in video."""
    still_share: float = 0.25
    """Share of clips without motion, for which the encoder distributes its bits differently."""
    max_speed: float = 6.0
    """Maximum speed in the other clips, in HR pixels per frame."""
    jitter: float = 0.5
    """Standard deviation of the position around the constant motion, in HR pixels."""
    soft_share: float = 0.5
    """Share of clips whose HR is blurred, and LR with it: much video has no detail in its highest
    octave, and a network trained without such pictures sharpens it."""
    soft_sigma: tuple[float, float] = (0.3, 2.0)
    """Range of the standard deviation of that blur, in HR pixels."""
    blurred_share: float = 0.15
    """Share of clips whose LR alone is blurred, as by a soft lens."""
    blur_sigma: tuple[float, float] = (0.2, 0.5)
    """Range of the standard deviation of that blur, in LR pixels."""
    noisy_share: float = 0.2
    """Share of clips with sensor noise in the LR alone."""
    noise_sigma: tuple[float, float] = (0.5, 3.0)
    """Range of the standard deviation of that noise, on the scale 0..255."""
    hevc_share: float = 0.3
    """Share of clips encoded as HEVC; the others are H.264."""
    crf: tuple[int, int] = (18, 36)
    """Range of the encoder's CRF, both ends included."""
    presets: tuple[tuple[str, float], ...] = (
        ("ultrafast", 0.15),
        ("superfast", 0.15),
        ("veryfast", 0.4),
        ("faster", 0.1),
        ("fast", 0.1),
        ("medium", 0.1),
    )
    """Encoder presets and their shares."""
    low_latency_share: float = 0.2
    """Share of clips encoded with `-tune zerolatency`: no B frames, no look-ahead."""


STREAMS: Final = {
    "stream": StreamSettings(),
    "low-rate stream": StreamSettings(
        crf=(20, 42), soft_share=0.25, frames=10, max_speed=10.0, jitter=0.8
    ),
}
"""Settings by name. `low-rate stream`: more losses and fewer soft clips, for sharp networks; a pan
over a still image is easier to encode than real motion, which has these losses at a lower crf."""


def stream_settings(name: str, smallest: int) -> StreamSettings:
    """Return the settings of that name, with windows of at least `smallest` LR pixels."""
    usual = STREAMS[name]
    return replace(
        usual,
        largest_window=max(usual.largest_window, smallest),
        smallest_window=max(usual.smallest_window, smallest),
    )


def encoded_pairs(
    hr: Pixels, scale: int, rng: np.random.Generator, settings: StreamSettings = StreamSettings()
) -> list[tuple[Pixels, Pixels]]:
    """Return aligned (LR, HR) pairs of one RGB image in time order, with LR from an encoded clip.

    The sides of LR are even, at most `settings.largest_window`, and the window fits into the image.
    Raises ValueError if a side of the image has less than two LR pixels.
    """
    s = settings
    if min(hr.shape[:2]) < 2 * scale:
        raise ValueError(f"an image of {hr.shape[1]}x{hr.shape[0]} is too small for x{scale}")
    places, size = _path(hr.shape[:2], scale, rng, s)
    places, covered = _crop_to_path(hr, places, size)
    if rng.random() < s.soft_share:
        covered = _blur(covered, rng.uniform(*s.soft_sigma))
    source = covered
    if rng.random() < s.blurred_share:
        source = _blur(covered, scale * rng.uniform(*s.blur_sigma))
    reduced: dict[tuple[int, int], Pixels] = {}  # each position is downscaled once
    for place in places:
        if place not in reduced:
            reduced[place] = downscale(_crop(source, place, size), scale)
    lows = [reduced[place] for place in places]
    if rng.random() < s.noisy_share:
        sigma = rng.uniform(*s.noise_sigma)
        lows = [_add_noise(low, sigma, rng) for low in lows]
    decoded = encode_and_decode(lows, rng, s)
    kept = sorted(int(k) for k in rng.choice(s.frames, min(s.kept_frames, s.frames), replace=False))
    # copies: views would keep the whole image in memory
    return [(decoded[k], _crop(covered, places[k], size).copy()) for k in kept]


def _crop_to_path(hr: Pixels, places: Positions, size: tuple[int, int]) -> tuple[Positions, Pixels]:
    """Return the windows' positions in the image part that they cover, and that part."""
    (top, bottom), (left, right) = ((min(way), max(way)) for way in zip(*places, strict=True))
    covered = hr[top : bottom + size[0], left : right + size[1]]
    return [(y - top, x - left) for y, x in places], covered


def _crop(image: Pixels, place: tuple[int, int], size: tuple[int, int]) -> Pixels:
    (y, x), (height, width) = place, size
    return image[y : y + height, x : x + width]


def _path(
    shape: tuple[int, ...], scale: int, rng: np.random.Generator, s: StreamSettings
) -> tuple[Positions, tuple[int, int]]:
    """Return the window's top left corner in each frame, and its height and width: HR pixels."""
    axes = [
        _axis_path(way, whole, scale, rng, s)
        for way, whole in zip(_motion(rng, s), shape, strict=True)
    ]
    (tops, height), (lefts, width) = axes
    return list(zip(tops, lefts, strict=True)), (height, width)


def _motion(rng: np.random.Generator, s: StreamSettings) -> npt.NDArray[np.float64]:
    """Return the offset in rows and columns of each frame, minimum 0: float64 [2, frames]."""
    way = np.zeros((2, s.frames))
    if rng.random() >= s.still_share:
        angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(0, s.max_speed)
        way += np.outer([np.sin(angle), np.cos(angle)], speed * np.arange(s.frames))
        way += rng.normal(0, s.jitter, way.shape)
    return way - way.min(axis=1, keepdims=True)


def _axis_path(
    way: npt.NDArray[np.float64],
    whole: int,
    scale: int,
    rng: np.random.Generator,
    s: StreamSettings,
) -> tuple[list[int], int]:
    """Return the window's first pixel in each frame along an axis of `whole` pixels, and side."""
    side = _side(whole, float(way.max()), scale, s)
    room = whole - side
    if way.max() > room:  # slow down if the image is too small
        way = way * (room / way.max())
    steps = np.floor(way + 0.5).astype(int)
    steps += rng.integers(0, room - steps.max() + 1)
    return [int(step) for step in steps], side


def _side(whole: int, way: float, scale: int, s: StreamSettings) -> int:
    """Return the window's side in HR pixels on an axis of `whole`, reduced to allow the motion."""
    side = min(
        s.largest_window * scale, max(int(whole - np.ceil(way)), s.smallest_window * scale), whole
    )
    return side - side % (2 * scale)  # 4:2:0 needs even LR sides


def _blur(image: Pixels, sigma: float) -> Pixels:
    """Apply a Gaussian blur with repeated edges; `sigma` is in pixels of the image."""
    blurred = gaussian_filter(image.astype(np.float32), sigma, mode="nearest", axes=(0, 1))
    return np.rint(blurred).astype(np.uint8)


def _add_noise(image: Pixels, sigma: float, rng: np.random.Generator) -> Pixels:
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(sigma)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def encode_and_decode(
    pictures: list[Pixels], rng: np.random.Generator, s: StreamSettings
) -> list[Pixels]:
    """Encode and decode the pictures as yuv420p, with random matrix, codec and options."""
    matrix = Colorspace.ITU709 if rng.random() < 0.5 else Colorspace.ITU601
    names, shares = zip(*s.presets, strict=True)
    options = {
        "crf": str(rng.integers(s.crf[0], s.crf[1] + 1)),
        "preset": str(rng.choice(names, p=np.array(shares) / sum(shares))),
    }
    if rng.random() < s.low_latency_share:
        options["tune"] = "zerolatency"
    encoder, decoder = "libx264", "h264"
    options["x264-params"] = "asm=sse4.2"  # with AVX-512, MB-tree and B frames differ between runs
    if rng.random() < s.hevc_share and min(pictures[0].shape[:2]) >= _X265_SMALLEST:
        encoder, decoder = "libx265", "hevc"
        del options["x264-params"]
        # no threads in x265: it would start one per core and row for a small picture
        options["x265-params"] = "log-level=error:pools=none:frame-threads=1:wpp=0"
    frames = [_to_yuv(picture, matrix, k) for k, picture in enumerate(pictures)]
    writer = _context(encoder, "w")
    writer.width, writer.height, writer.pix_fmt = frames[0].width, frames[0].height, "yuv420p"
    writer.time_base, writer.framerate, writer.options = _TICK, 1 / _TICK, options
    packets = [packet for frame in [*frames, None] for packet in writer.encode(frame)]
    reader = _context(decoder, "r")
    decoded = [frame for packet in [*packets, None] for frame in reader.decode(packet)]
    if [frame.pts for frame in decoded] != list(range(len(pictures))):
        raise RuntimeError(
            f"{encoder} returned frames with wrong timestamps: {[frame.pts for frame in decoded]}"
        )
    return [to_rgb(frame, matrix) for frame in decoded]


def _context(name: str, mode: Literal["r", "w"]) -> av.VideoCodecContext:
    context = av.CodecContext.create(name, mode)
    assert isinstance(context, av.VideoCodecContext)
    context.thread_count = 1  # training uses the other cores; x264's threads change its output
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


def to_rgb(frame: av.VideoFrame, matrix: int, source_range: ColorRange = ColorRange.MPEG) -> Pixels:
    """Convert a frame of that matrix and range to full-range RGB."""
    rgb = frame.reformat(
        format="rgb24",
        src_colorspace=matrix,
        dst_colorspace=matrix,
        src_color_range=source_range,
        dst_color_range=ColorRange.JPEG,
        interpolation=_SWSCALE,
        threads=1,
    )
    return rgb.to_ndarray().astype(np.uint8, copy=False)
