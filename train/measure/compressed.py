"""Measures networks on compressed video, where most pictures to upscale come from.

A clip is downscaled (bicubic), encoded with x264 at several qualities, decoded, upscaled by
every method and compared with the original: Y in code values (16..235), rounded to 8 bit, `scale`
pixels shaved, mean over frames. Colour is handled as in `vsr`: limited range, the clip's matrix,
chroma sited left, no rounding between decoder and result.
"""

import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np

from train.data.images import Pixels
from train.data.resize import keys_cubic
from train.data.video import UNSPECIFIED, matrix_of, open_clip
from train.errors import TrainError
from train.measure.evaluate import Method
from train.measure.metrics import psnr, ssim
from train.measure.planes import (
    Kernel,
    Planes,
    codes,
    cropped,
    lanczos3,
    limited,
    planes_of,
    resample,
    rgb_from_yuv,
    shrink,
    stacked,
)

_LUMA_WEIGHTS = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}
"""Matrix tag (H.273) -> (Kr, Kb); tags that are not listed are taken as BT.601."""
_BT601 = (0.299, 0.114)
_LIMITED = 1


@dataclass(frozen=True, kw_only=True)
class VideoSettings:
    """Settings for downscaling, compressing and scoring clips."""

    scale: int = 2
    crfs: tuple[int, ...] = (23, 28, 33)
    preset: str = "medium"
    frames: int = 8
    """Number of frames scored, spread evenly over the window."""
    window: int = 48
    """Number of frames encoded, from the clip's start: a key frame is better than most frames."""
    ssim: bool = True
    lpips: Callable[[Pixels, Pixels], float] | None = None
    """Function for the distance of two uint8 RGB pictures; it is called with Y as grey."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """The mean score of one method on one clip at one crf."""

    clip: str
    scale: int
    crf: int
    kbps: float
    """Bit rate of the LR stream, in kbit/s."""
    method: str
    psnr: float
    ssim: float
    lpips: float | None = None
    """LPIPS of luma; None if not measured."""


@dataclass(frozen=True)
class Clip:
    """The first frames of a clip, cropped so that the LR width and height are even too."""

    frames: list[Planes]
    rate: Fraction
    matrix: int

    @property
    def weights(self) -> tuple[float, float]:
        """(Kr, Kb) of the clip's matrix."""
        return _LUMA_WEIGHTS.get(self.matrix, _BT601)


def read_clip(path: Path, settings: VideoSettings) -> Clip:
    """Read the clip's first `window` frames as 8-bit limited-range 4:2:0."""
    frames, matrix = [], UNSPECIFIED
    with open_clip(path) as (container, stream):
        rate = stream.average_rate or Fraction(25)
        for picture in container.decode(stream):
            matrix = matrix_of(picture)
            frames.append(cropped(planes_of(limited(picture)), 2 * settings.scale))
            if len(frames) == settings.window:
                break
    if not frames:
        raise TrainError(f"{path} has no decodable frame: give another clip")
    height, width = frames[0].y.shape
    if min(height, width) < 32 * settings.scale:
        least = 32 * settings.scale
        raise TrainError(
            f"{path} is too small ({width}x{height}): give a clip of at least {least}x{least}"
        )
    return Clip(frames, Fraction(rate), matrix)


# compression


def compress(
    frames: Sequence[Planes], clip: Clip, crf: int, preset: str
) -> tuple[list[Planes], float]:
    """Encode frames with x264; return them decoded, and the bit rate in kbit/s."""
    file = io.BytesIO()
    height, width = frames[0].y.shape
    with av.open(file, "w", format="matroska") as out:
        # frame threads change x264's decisions: one thread gives every machine the same stream
        options = {"crf": str(crf), "preset": preset, "threads": "1"}
        video = out.add_stream("libx264", rate=clip.rate, options=options)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.codec_context.colorspace, video.codec_context.color_range = clip.matrix, _LIMITED
        size = 0
        for index, planes in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(stacked(planes), format="yuv420p")
            picture.pts, picture.time_base = index, 1 / clip.rate
            for packet in video.encode(picture):
                size += packet.size
                out.mux(packet)
        for packet in video.encode(None):
            size += packet.size
            out.mux(packet)
    file.seek(0)
    with av.open(file, "r") as made:
        decoded = [planes_of(picture) for picture in made.decode(video=0)]
    if len(decoded) != len(frames):
        raise RuntimeError(f"x264 returned {len(decoded)} frames for {len(frames)}")
    return decoded, float(size * 8 * clip.rate / len(frames) / 1000)


# methods


def enlarged_codes(planes: Planes, method: Method, weights: tuple[float, float]) -> Pixels:
    """Return Y of the picture upscaled by a network, as 8-bit code values."""
    if method.colour == "y":
        x = ((planes.y.astype(np.float64) - 16) / 219)[None]
    else:
        x = rgb_from_yuv(planes, weights)
    out = method.enlarge(np.ascontiguousarray(x[None], np.float32))[0].astype(np.float64)
    if method.colour == "rgb":
        kr, kb = weights
        out = np.tensordot((kr, 1 - kr - kb, kb), out, 1)[None]
    return codes(out[0] * 219 + 16)


def bicubic_codes(planes: Planes, scale: int) -> Pixels:
    """Return Y of the picture upscaled by bicubic, as 8-bit code values."""
    return _interpolated(planes, scale, keys_cubic)


def _interpolated(planes: Planes, scale: int, kernel: Kernel) -> Pixels:
    return codes(resample(planes.y, scale, 0.5 / scale - 0.5, kernel))


# scores


def score_clip(
    path: Path, methods: Sequence[Method], settings: VideoSettings = VideoSettings()
) -> Iterator[Row]:
    """Yield a row per crf for bicubic, Lanczos and every method."""
    clip = read_clip(path, settings)
    small = [shrink(planes, settings.scale) for planes in clip.frames]
    count = min(settings.frames, len(small))
    scored = np.unique(np.linspace(0, len(small) - 1, count).round().astype(int))
    for crf in settings.crfs:
        decoded, kbps = compress(small, clip, crf, settings.preset)
        for label, enlarge in _all_methods(methods, clip, settings.scale):
            scores = [
                _score(enlarge(decoded[i]), clip.frames[i].y, settings) for i in map(int, scored)
            ]
            db, similarity, distance = (float(x) for x in np.mean(scores, axis=0))
            yield Row(
                clip=path.stem,
                scale=settings.scale,
                crf=crf,
                kbps=round(kbps, 1),
                method=label,
                psnr=db,
                ssim=similarity,
                lpips=distance if settings.lpips else None,
            )


def _all_methods(
    methods: Sequence[Method], clip: Clip, scale: int
) -> Iterator[tuple[str, Callable[[Planes], Pixels]]]:
    yield "bicubic", partial(bicubic_codes, scale=scale)
    yield "lanczos", partial(_interpolated, scale=scale, kernel=lanczos3)
    for method in methods:
        yield method.label, partial(enlarged_codes, method=method, weights=clip.weights)


def _score(ours: Pixels, truth: Pixels, settings: VideoSettings) -> tuple[float, float, float]:
    if ours.shape != truth.shape:
        raise TrainError(
            f"a network returned {ours.shape[1]}x{ours.shape[0]} instead of "
            f"{truth.shape[1]}x{truth.shape[0]}: its scale is not {settings.scale}"
        )
    a, b = ours.astype(np.float64), truth.astype(np.float64)
    similarity = ssim(a, b, settings.scale) if settings.ssim else float("nan")
    distance = math.nan
    if settings.lpips is not None:
        inside = (slice(settings.scale, -settings.scale),) * 2
        distance = settings.lpips(_grey(ours[inside]), _grey(truth[inside]))
    return psnr(a, b, settings.scale), similarity, distance


def _grey(y: Pixels) -> Pixels:
    """Convert Y codes (16..235) to a grey RGB picture in 0..255 [H, W, 3]."""
    full = codes((y.astype(np.float64) - 16) / 219 * 255)
    return np.repeat(full[..., None], 3, axis=2)
