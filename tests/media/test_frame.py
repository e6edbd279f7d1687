"""Tests of frames: grey pictures of every bit depth keep their luma."""

from fractions import Fraction

import av
import numpy as np
import pytest

from vsr.media.colour import Colour
from vsr.media.frame import Frame, planes_of

LIMITED, FULL = Colour(), Colour(full_range=True)


def grey(name: str, code: int, size: tuple[int, int] = (66, 34)) -> av.VideoFrame:
    """Return a picture filled with one code value; alpha, if any, is opaque."""
    picture = av.VideoFrame(*size, name)
    order = ">" if picture.format.is_big_endian else "<"
    deep = picture.format.components[0].bits > 8
    cell = [code, 2 ** picture.format.components[0].bits - 1][: len(picture.format.components)]
    dtype = f"{order}u2" if deep else "u1"
    plane = picture.planes[0]
    count = plane.buffer_size // (len(cell) * np.dtype(dtype).itemsize)
    plane.update(np.tile(np.array(cell, dtype), count).tobytes())
    return picture


# H.273 8.3: limited-range codes of n bits are 2^(n-8) times those of 8; full range ends at 2^n - 1
@pytest.mark.parametrize(
    ("name", "code", "colour", "luma"),
    [
        ("gray", 170, LIMITED, 170),
        ("gray9le", 340, LIMITED, 170),
        ("gray10le", 680, LIMITED, 170),
        ("gray10be", 680, LIMITED, 170),
        ("gray12le", 2720, LIMITED, 170),
        ("gray16le", 170 * 256, LIMITED, 170),
        ("ya8", 170, LIMITED, 170),
        ("ya16le", 170 * 256, LIMITED, 170),
        ("gray10le", 1023, FULL, 255),
        ("gray10le", 682, FULL, 170),
        ("gray12le", 4095, FULL, 255),
        ("gray16be", 65535, FULL, 255),
        ("gray10le", 64, LIMITED, 16),
        ("gray10le", 940, LIMITED, 235),
    ],
)
def test_grey_keeps_its_luma(name: str, code: int, colour: Colour, luma: int) -> None:
    y, u, v = planes_of(grey(name, code), (66, 34), colour)
    assert y.dtype == np.uint8
    assert y.shape == (34, 66)
    assert np.all(y == luma)
    assert u.shape == v.shape == (17, 33)
    assert np.all(u == 128)


@pytest.mark.parametrize("name", ["gray", "gray10le"])
def test_grey_of_another_size_keeps_its_luma(name: str) -> None:
    code = 170 if name == "gray" else 680
    y, _, _ = planes_of(grey(name, code, (40, 20)), (66, 34), LIMITED)
    assert y.shape == (34, 66)
    assert np.all(y == 170)


def test_a_frame_is_shown_in_one_line_without_its_samples() -> None:
    luma, chroma = np.zeros((36, 64), np.uint8), np.zeros((18, 32), np.uint8)
    frame = Frame(
        planes=(luma, chroma, chroma), index=3, pts=9000, time_base=Fraction(1, 90000), duration=0
    )
    assert repr(frame) == (
        "<Frame 3: 64x36, 8 bits, chroma 1/2 x 1/2, pts 9000 x 1/90000 s = 0.100 s>"
    )
    assert "0x0" in repr(frame.without_planes())
