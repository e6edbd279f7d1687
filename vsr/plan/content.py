"""Classifies video as clean or compressed, by its bits per pixel, detail and motion."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from vsr.media.frame import Frame

CLEAN_THRESHOLD: Final = 0.06
"""Threshold of bits per pixel divided by sqrt(detail * motion): from it on, weights for clean
pictures are better than those for compressed video. Measured with x264 on five clips, where it
corresponds to crf 16 to 18 (the table is in docs/networks.md)."""
_MIN_MOTION: Final = 0.3
"""Lower limit of the motion value: slides have few bits and no motion, and are not clean."""
_EFFICIENCY: Final = {
    "hevc": 0.65, "vp9": 0.65, "av1": 0.55, "libdav1d": 0.55, "vvc": 0.5,
    "mpeg2video": 1.6, "mpeg1video": 1.8, "mpeg4": 1.3, "vp8": 1.1, "mjpeg": 3.0,
}  # fmt: skip
"""FFmpeg's decoder -> approximate ratio of its bit rate to that of H.264 at the same quality."""
_LOSSLESS: Final = frozenset(
    "ffv1 huffyuv ffvhuff utvideo png apng rawvideo prores dnxhd cfhd gif magicyuv".split()  # noqa: SIM905
)
"""Codecs without visible losses."""


def is_clean(codec: str, bits_per_pixel: float | None, frames: Sequence[Frame]) -> bool:
    """Return whether compression left no losses that would be visible after upscaling.

    `frames`: consecutive frames. With fewer than two, or without bits per pixel, video counts as
    compressed.
    """
    if codec in _LOSSLESS:
        return True
    if bits_per_pixel is None or len(frames) < 2:
        return False
    return bits_per_pixel / _EFFICIENCY.get(codec, 1.0) >= CLEAN_THRESHOLD * math.sqrt(
        activity(frames)
    )


def activity(frames: Sequence[Frame]) -> float:
    """Return detail times motion of luma, in 8-bit codes.

    Detail: mean absolute Laplacian. Motion: mean absolute horizontal difference of the change
    between consecutive frames, at least `_MIN_MOTION`.
    """
    luma = [_luma(frame) for frame in frames]
    detail = float(np.mean([np.abs(_laplacian(y)).mean() for y in luma]))
    changes = [later - before for before, later in pairwise(luma)]
    motion = float(np.mean([np.abs(np.diff(change, axis=1)).mean() for change in changes]))
    return detail * max(motion, _MIN_MOTION)


def _luma(frame: Frame) -> npt.NDArray[np.float32]:
    return frame.planes[0].astype(np.float32) / np.float32(2 ** (frame.format.bits - 8))


def _laplacian(y: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    middle = y[1:-1, 1:-1]
    return 4 * middle - y[:-2, 1:-1] - y[2:, 1:-1] - y[1:-1, :-2] - y[1:-1, 2:]
