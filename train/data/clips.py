"""Make training pairs whose HR frames are frames of real video clips.

A still image that pans has no motion blur, camera noise or lens softness. Here windows of
consecutive frames are cut from a clip, downscaled and encoded like the pans of
`train.data.degrade`; each pair is a decoded LR frame and the clip's own frame.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from train.data.degrade import StreamSettings, encode_and_decode, to_rgb
from train.data.images import Pixels
from train.data.resize import downscale, resize_u8
from train.data.video import is_full_range, matrix_of, open_clip
from train.errors import TrainError


@dataclass(frozen=True, kw_only=True)
class ClipSettings:
    """Settings of the windows cut from real clips; ranges are sampled uniformly."""

    shots: int = 30
    """Largest number of shots per clip, spread evenly over it."""
    frames: int = 12
    """Consecutive frames of a shot; all are encoded."""
    kept_frames: int = 3
    """Number of frames kept per window, sampled from all of them."""
    windows: float = 2.0
    """Windows per shot, as a multiple of those that fit side by side."""
    reduced_share: float = 0.5
    """Share of windows from a reduced frame, which is sharper and has fewer coding artefacts."""
    factor: tuple[float, float] = (0.5, 1.0)
    """Range of the factor of that reduction."""


def check_clip(path: Path) -> None:
    """Raise TrainError if the file is not a clip, before the other pictures are prepared."""
    with open_clip(path) as (container, stream):
        if next(container.decode(stream), None) is None:
            raise TrainError(f"{path} has no decodable frame: give another clip")


def clip_pairs(
    path: Path,
    scale: int,
    smallest: int,
    rng: np.random.Generator,
    stream: StreamSettings,
    settings: ClipSettings,
) -> Iterator[tuple[Pixels, Pixels]]:
    """Yield aligned (LR, HR) pairs of the clip, uint8 RGB, whose HR sides are at least `smallest`.

    Rotation tags are ignored, and HDR is not converted. Raises TrainError if the file is no clip of
    at least one shot of that size.
    """
    found = False
    for shot in _shots(path, settings):
        height, width = shot[0].shape[:2]
        if min(height, width) < smallest:
            raise TrainError(f"{path} is too small ({width}x{height}) for patches of {smallest}")
        factor = max(rng.uniform(*settings.factor), smallest / min(height, width))
        reduced = [
            resize_u8(frame, round(height * factor), round(width * factor)) for frame in shot
        ]
        fitting = height * width / (stream.largest_window * scale) ** 2
        for _ in range(max(1, round(fitting * settings.windows))):
            found = True
            frames = reduced if rng.random() < settings.reduced_share else shot
            yield from _window(frames, scale, rng, stream, settings)
    if not found:
        raise TrainError(f"{path} has fewer than {settings.frames} frames: name a longer clip")


def _shots(path: Path, settings: ClipSettings) -> Iterator[list[Pixels]]:
    """Yield the clip's shots as RGB frames."""
    with open_clip(path) as (container, stream):
        total = sum(1 for _ in container.decode(stream))
    count = min(settings.shots, total // settings.frames)
    starts = {k * (total - settings.frames) // max(1, count - 1) for k in range(count)}
    with open_clip(path) as (container, stream):
        shot: list[Pixels] | None = None
        for index, frame in enumerate(container.decode(stream)):
            if index in starts:
                shot = []
            if shot is not None:
                shot.append(_rgb(frame))
                if len(shot) == settings.frames:
                    yield shot
                    shot = None


def _rgb(frame: av.VideoFrame) -> Pixels:
    """Convert a frame to full-range RGB with its own matrix and range."""
    bt709 = matrix_of(frame) == Colorspace.ITU709
    return to_rgb(
        frame,
        Colorspace.ITU709 if bt709 else Colorspace.ITU601,
        ColorRange.JPEG if is_full_range(frame) else ColorRange.MPEG,
    )


def _window(
    frames: list[Pixels],
    scale: int,
    rng: np.random.Generator,
    stream: StreamSettings,
    settings: ClipSettings,
) -> list[tuple[Pixels, Pixels]]:
    """Cut one window from the frames, encode its LR frames and return some of the pairs."""
    whole, multiple = frames[0].shape[:2], 2 * scale  # 4:2:0 needs even LR sides
    height, width = (min(n, stream.largest_window * scale) // multiple * multiple for n in whole)
    top, left = int(rng.integers(whole[0] - height + 1)), int(rng.integers(whole[1] - width + 1))
    highs = [frame[top : top + height, left : left + width].copy() for frame in frames]
    decoded = encode_and_decode([downscale(high, scale) for high in highs], rng, stream)
    kept = sorted(int(k) for k in rng.choice(len(frames), settings.kept_frames, replace=False))
    return [(decoded[k], highs[k]) for k in kept]
