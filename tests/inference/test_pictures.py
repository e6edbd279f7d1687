"""Tests of `vsr.load_engine`: arrays, tensors and Frames through a real engine."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.clips import Clip, make_clip
from train.data.resize import resize_u8
from vsr.errors import UsageError
from vsr.inference.pictures import load_engine
from vsr.media.frame import Frame
from vsr.media.source import Source

SIZE = (48, 32)


def smooth(dtype: Any = np.uint8, seed: int = 1) -> np.ndarray:
    """Return a picture [32, 48, 3] without noise, like a photograph."""
    rng = np.random.default_rng(seed)
    small = rng.integers(40, 216, (6, 8, 3), np.uint8)
    picture = resize_u8(small, SIZE[1], SIZE[0])
    return picture if dtype == np.uint8 else picture.astype(np.uint16) * 257


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("model", ["c-dcscn", "carn-m", "bicubic"])
def test_an_array_comes_back_larger_and_looks_alike(model: str, dtype: Any) -> None:
    rgb = smooth(dtype)
    with load_engine(model, size=SIZE, precision="fp32") as engine:
        large = engine(rgb)
    assert large.shape == (64, 96, 3)
    assert large.dtype == dtype
    top = np.iinfo(dtype).max
    means = large.reshape(32, 2, 48, 2, 3).mean((1, 3)) / top
    assert np.abs(means - rgb / top).mean() < 0.01
    assert engine.out_size == (96, 64)


def test_uint16_is_computed_in_16_bits() -> None:
    """Steps of 1/16 of an 8-bit code are preserved; 8-bit computation would round them away."""
    ramp = np.arange(48, dtype=np.uint16) * 16 + 30_000
    rgb = np.broadcast_to(ramp[None, :, None], (32, 48, 3))
    with load_engine("bicubic", size=SIZE) as engine:
        large = engine(rgb)
    # bicubic preserves a ramp: neighbouring columns differ by half an input step
    steps = np.diff(large[16, 8:-8, 1].astype(int))
    assert set(steps) == {8}


def test_several_pictures_are_one_by_one_pictures() -> None:
    pictures = np.stack([smooth(seed=k) for k in range(5)])
    with load_engine("c-dcscn", size=SIZE) as engine:
        together = engine(pictures)
        alone = np.stack([engine(picture) for picture in pictures])
    assert together.shape == (5, 64, 96, 3)
    assert np.array_equal(together, alone)


def test_a_torch_tensor_is_taken_as_it_is() -> None:
    torch = pytest.importorskip("torch")
    rgb = smooth()
    with load_engine("bicubic", size=SIZE) as engine:
        assert np.array_equal(engine(torch.from_numpy(rgb)), engine(rgb))


def test_red_stays_red() -> None:
    rgb = np.zeros((32, 48, 3), np.uint8)
    rgb[..., 0] = 200
    for model in ("bicubic", "c-dcscn", "carn-m"):
        with load_engine(model, size=SIZE, precision="fp32") as engine:
            large = engine(rgb)
        assert np.abs(large[8:-8, 8:-8].mean((0, 1)) - [200, 0, 0]).max() < 6, model


def test_a_frame_comes_back_as_a_frame(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.mp4", Clip(size=SIZE, frames=2, audio=()))
    source = Source(str(clip))
    frame = next(item for item in source if isinstance(item, Frame))
    with load_engine("bicubic", scale=3, size=SIZE) as engine:
        large = engine(frame)
    assert [p.shape for p in large.planes] == [(96, 144), (48, 72), (48, 72)]
    assert (large.pts, large.time_base, large.colour) == (frame.pts, frame.time_base, frame.colour)
    assert large.to_rgb().shape == (96, 144, 3)
    source.close()


def test_an_odd_picture_keeps_its_exact_multiple() -> None:
    rgb = np.full((33, 49, 3), 90, np.uint8)
    with load_engine("bicubic", scale=3, size=(49, 33)) as engine:
        large = engine(rgb)
    assert large.shape == (99, 147, 3)
    assert np.all(large == 90)


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (np.zeros((32, 40, 3), np.uint8), "picture is 40x32, engine expects 48x32"),
        (np.zeros((32, 48, 3), np.float32), "array has dtype float32, expected uint8"),
        (np.zeros((32, 48), np.uint8), r"array has shape \(32, 48\), expected"),
        (np.zeros((0, 32, 48, 3), np.uint8), "array has shape"),
        ("photo.png", "a str is not a picture"),
    ],
)
def test_what_is_no_picture_is_told(picture: Any, words: str) -> None:
    with load_engine("bicubic", size=SIZE) as engine, pytest.raises(UsageError, match=words):
        engine(picture)


def test_settings_that_cannot_be_are_told() -> None:
    with pytest.raises(UsageError, match="batch is 0"):
        load_engine("bicubic", size=SIZE, batch=0)
    with pytest.raises(UsageError, match="size is 0x32"):
        load_engine("bicubic", size=(0, 32))
    engine = load_engine("bicubic", size=SIZE)
    engine.close()
    engine.close()
    with pytest.raises(UsageError, match="closed"):
        engine(smooth())


def test_a_frame_of_one_colour_in_rgb() -> None:
    """In BT.709 limited range, Y 63, U 102, V 240 is R 255, G 0, B 0 (H.273)."""
    codes, sizes = (63, 102, 240), ((4, 4), (2, 2), (2, 2))
    y, u, v = (np.full(size, code, np.uint8) for code, size in zip(codes, sizes, strict=True))
    planes = (y, u, v)
    frame = Frame(planes=planes, index=0, pts=0, time_base=Fraction(1), duration=1)
    assert np.abs(frame.to_rgb().astype(int) - [255, 0, 0]).max() <= 2
