"""Tells clean video from compressed video, by its bits and by how much it shows."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from vsr.media.frame import Frame

CLEAN_FROM: Final = 0.06
"""Bits per pixel, over the square root of detail times motion, from where on weights for clean
pictures are better than those for compressed video: measured with x264 on five clips, where it is
that of crf 16 to 18 (the table is in docs/networks.md)."""
_STILL: Final = 0.3
"""Least motion that is reckoned with: slides have few bits and no motion, and are not clean."""
_EFFICIENCY: Final = {
    "hevc": 0.65, "vp9": 0.65, "av1": 0.55, "libdav1d": 0.55, "vvc": 0.5,
    "mpeg2video": 1.6, "mpeg1video": 1.8, "mpeg4": 1.3, "vp8": 1.1, "mjpeg": 3.0,
}  # fmt: skip
"""FFmpeg's decoders -> bits that they need for the quality of H.264, about."""
_LOSSLESS: Final = frozenset(
    "ffv1 huffyuv ffvhuff utvideo png apng rawvideo prores dnxhd cfhd gif magicyuv".split()  # noqa: SIM905
)
"""Codecs whose losses nobody sees."""


def is_clean(codec: str, bits_per_pixel: float | None, frames: Sequence[Frame]) -> bool:
    """Whether compression has left the pictures as they were, as far as an enlargement shows.

    `frames` are some in a row; without two of them, or without bits, video counts as compressed.
    """
    if codec in _LOSSLESS:
        return True
    if bits_per_pixel is None or len(frames) < 2:
        return False
    return bits_per_pixel / _EFFICIENCY.get(codec, 1.0) >= CLEAN_FROM * math.sqrt(activity(frames))


def activity(frames: Sequence[Frame]) -> float:
    """Detail times motion of luma in codes of 8 bits: the mean absolute Laplacian, and the mean
    absolute horizontal difference of what changed between neighbours in time."""
    luma = [_luma(frame) for frame in frames]
    detail = float(np.mean([np.abs(_laplacian(y)).mean() for y in luma]))
    changes = [later - before for before, later in pairwise(luma)]
    motion = float(np.mean([np.abs(np.diff(change, axis=1)).mean() for change in changes]))
    return detail * max(motion, _STILL)


def _luma(frame: Frame) -> npt.NDArray[np.float32]:
    return frame.planes[0].astype(np.float32) / np.float32(2 ** (frame.format.bits - 8))


def _laplacian(y: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    middle = y[1:-1, 1:-1]
    return 4 * middle - y[:-2, 1:-1] - y[2:, 1:-1] - y[1:-1, :-2] - y[1:-1, 2:]
