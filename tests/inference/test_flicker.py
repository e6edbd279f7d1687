"""The flicker filter: its formula, what it leaves alone, and slow changes."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from vsr.inference.flicker import FlickerFilter, can_filter, filters_flicker
from vsr.media.colour import Colour
from vsr.media.frame import Frame, Plane
from vsr.media.plane_format import PlaneFormat

PICTURES = sorted((Path(__file__).parents[2] / "engines").glob("*/x2.jpg"))
Floats = npt.NDArray[np.float64]


def _linear(plane: Floats, scale: int, axis: int) -> Floats:
    """Interpolate linearly along an axis, with pixels sited at their centres."""
    count = plane.shape[axis]
    place = (np.arange(count * scale) + 0.5) / scale - 0.5
    low, part = np.floor(place).astype(int), place - np.floor(place)
    a, b = (plane.take(np.clip(k, 0, count - 1), axis) for k in (low, low + 1))
    part = part[:, None] if axis == 0 else part
    return a * (1 - part) + b * part


def _box_mean(plane: Floats) -> Floats:
    """Return the mean over 5x5 pixels, with repeated edges."""
    padded = np.pad(plane, 2, mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, (5, 5)).mean((2, 3))


def _formula(lr: tuple[Plane, Plane], out: Plane, last: Floats, bits: int) -> Floats:
    """Return out' of a frame: `lr` of the previous frame and of this one, `last`: out' before."""
    scale, unit = out.shape[0] // lr[0].shape[0], 2 ** (bits - 8)
    height, width = (scale * n for n in lr[0].shape)
    now_, change = lr[1].astype(float), lr[1].astype(float) - lr[0]
    down, across = (np.diff(now_, axis=k, append=now_.take([-1], k)) for k in (0, 1))
    slope = _box_mean((np.abs(down) + np.abs(across)) / 2)
    tau = np.clip(0.7 * slope, 0.7 * unit, 4 * unit)
    w = 0.9 * np.maximum(0, 1 - _box_mean(np.abs(change)) / tau)
    w = w.repeat(scale, 0).repeat(scale, 1)
    raised = _linear(_linear(change, scale, 0), scale, 1)
    own = out[:height, :width].astype(float)
    return np.clip(own + w * (last + raised - own), 0, 2**bits - 1)


def _reference(lumas: list[tuple[Plane, Plane]], bits: int = 8) -> list[Floats]:
    """Return out' of every frame by the formula, unrounded."""
    made = [lumas[0][1].astype(float)]
    for (before, _), (lr, out) in pairwise(lumas):
        made.append(_formula((before, lr), out, made[-1], bits))
    return made


def _assert_close(found: list[Plane], expected: list[Floats]) -> None:
    """Assert equality but for rounding where the exact value is halfway between two codes."""
    for ours, exact in zip(found, expected, strict=True):
        assert np.abs(ours - exact).max() <= 0.51


def _frame(luma: Plane, bits: int = 8, index: int = 0, rung: str = "") -> Frame:
    form = PlaneFormat(bits=bits)
    height, width = luma.shape
    across, down = form.chroma(width, height)
    chroma = np.full((down, across), 2 ** (bits - 1), form.dtype)
    return Frame(
        planes=(luma, chroma, chroma), index=index, pts=index, time_base=Fraction(1, 25),
        duration=1, format=form, rung=rung,
    )  # fmt: skip


def _filtered(lumas: Iterable[tuple[Plane, Plane]], bits: int = 8) -> list[Plane]:
    """Return the filtered luma of frames, given as (luma before, luma after enlarging)."""
    steady = FlickerFilter()
    return [
        steady.filtered(_frame(lr, bits), _frame(out, bits, rung="net")).planes[0]
        for lr, out in lumas
    ]


def _still(
    size: tuple[int, int], scale: int, bits: int, noise: float, frames: int = 4
) -> list[tuple[Plane, Plane]]:
    """Return a still random picture (width, height) with noise, and an enlarged one of each."""
    rng, top = np.random.default_rng(3), 2**bits - 1
    unit, dtype = 2 ** (bits - 8), PlaneFormat(bits=bits).dtype
    width, height = size
    still = rng.integers(0, top, (height, width))
    made = []
    for _ in range(frames):
        lr = np.clip(still + unit * rng.normal(0, noise, still.shape), 0, top).astype(dtype)
        large = lr.repeat(scale, 0).repeat(scale, 1) + unit * rng.normal(
            0, 20, (height * scale, width * scale)
        )
        made.append((lr, np.clip(np.rint(large), 0, top).astype(dtype)))
    return made


# the formula


@pytest.mark.parametrize("bits", [8, 10, 16])
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("noise", [0.0, 1.0, 4.0])
def test_filtered_luma_is_that_of_the_formula(bits: int, scale: int, noise: float) -> None:
    size = (83, 141)  # odd, and more rows than are enlarged at a time
    lumas = _still(size, scale, bits, noise)
    found = _filtered(lumas, bits)
    assert np.array_equal(found[0], lumas[0][1])
    assert found[-1].dtype == lumas[-1][1].dtype
    _assert_close(found, _reference(lumas, bits))
    changed = np.abs(found[-1].astype(int) - lumas[-1][1]).mean() / 2 ** (bits - 8)
    assert changed > 5 if noise <= 1 else changed > 0.1


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.parent.name)
def test_real_pictures_are_filtered_by_the_formula(picture: Path) -> None:
    with Image.open(picture) as image:
        large = np.asarray(image.convert("L"))[:120, :160]
    rng, lumas = np.random.default_rng(1), []
    for _ in range(4):
        noisy = np.clip(np.rint(large + rng.normal(0, 3, large.shape)), 0, 255).astype(np.uint8)
        lumas.append((noisy[::2, ::2].copy(), noisy))
    _assert_close(_filtered(lumas), _reference(lumas))


def test_extreme_samples_are_filtered_by_the_formula() -> None:
    for bits in (8, 10, 16):
        top, dtype = 2**bits - 1, PlaneFormat(bits=bits).dtype
        rng = np.random.default_rng(bits)
        lr = [rng.integers(0, 2, (40, 40)).astype(dtype) * top for _ in range(2)]
        for share in (0, 0.002, 0.02, 1):  # of pixels that change by the whole range
            where = rng.random((40, 40)) < share
            after = np.where(where, lr[1], lr[0]).astype(dtype)
            out = [rng.integers(0, 2, (80, 80)).astype(dtype) * top for _ in range(2)]
            lumas = [(lr[0], out[0]), (after, out[1])]
            _assert_close(_filtered(lumas, bits), _reference(lumas, bits))


def test_the_added_row_and_column_of_an_odd_size_repeat_the_edge() -> None:
    lumas = _still((21, 35), 3, 8, 1.0, frames=2)
    padded = [(lr, np.pad(out, (0, 1), mode="edge")) for lr, out in lumas]
    found, plain = _filtered(padded)[1], _filtered(lumas)[1]
    assert np.array_equal(found, np.pad(plain, (0, 1), mode="edge"))


# what is left alone


def test_motion_and_cuts_remain_bit_identical() -> None:
    rng = np.random.default_rng(5)
    before = rng.integers(16, 235, (60, 90)).astype(np.uint8)
    after = before.copy()
    after[:, 45:] = rng.integers(16, 235, (60, 45))  # the right half moves
    outs = [rng.integers(16, 235, (120, 180)).astype(np.uint8) for _ in range(3)]
    cut = 251 - before
    found = _filtered([(before, outs[0]), (after, outs[1]), (cut, outs[2])])
    assert np.array_equal(found[1][:, 90:], outs[1][:, 90:])
    assert not np.array_equal(found[1][:, :84], outs[1][:, :84])
    assert np.array_equal(found[2], outs[2])


def test_chroma_alpha_and_the_given_planes_remain_as_they_are() -> None:
    (lr, out), (lr2, out2) = _still((20, 20), 2, 8, 0.0, frames=2)
    alpha = np.zeros((20, 20), np.uint8)
    steady, kept = FlickerFilter(), out2.copy()
    steady.filtered(_frame(lr), _frame(out))
    given = replace(_frame(out2), alpha=alpha, event="concealed")
    made = steady.filtered(_frame(lr2), given)
    assert made.planes[1] is given.planes[1] and made.planes[2] is given.planes[2]
    assert (made.alpha, made.event, made.pts) == (alpha, "concealed", given.pts)
    assert np.array_equal(out2, kept) and not np.array_equal(made.planes[0], kept)


def test_rgb_is_not_filtered() -> None:
    (lr, out), (lr2, out2) = _still((20, 20), 2, 8, 0.0, frames=2)
    steady, rgb = FlickerFilter(), Colour(matrix=0)
    assert can_filter(Colour()) and not can_filter(rgb)
    steady.filtered(_frame(lr), replace(_frame(out), colour=rgb))
    given = replace(_frame(out2), colour=rgb)
    assert steady.filtered(_frame(lr2), given) is given


@pytest.mark.parametrize("change", ["size", "bits", "model", "colour", "reset"])
def test_it_begins_again_where_the_frames_change(change: str) -> None:
    lumas = _still((24, 24), 2, 8, 0.0)
    (lr, out), (lr2, out2) = lumas[:2]
    steady = FlickerFilter()
    steady.filtered(_frame(lr), _frame(out, rung="a"))
    before, after = _frame(lr2), _frame(out2, rung="a")
    if change == "size":
        before, after = _frame(lr2[:, :20]), _frame(out2[:, :40], rung="a")
    elif change == "bits":
        before = _frame(lr2.astype(np.uint16), 10)
        after = _frame(out2.astype(np.uint16), 10, rung="a")
    elif change == "model":
        after.rung = "b"
    elif change == "colour":
        after.colour = Colour(full_range=True)
    else:
        steady.reset()
    assert np.array_equal(steady.filtered(before, after).planes[0], after.planes[0])


def test_repeated_frames_become_the_networks_own_picture() -> None:
    (lr, out), (lr2, out2), _, _ = _still((24, 24), 2, 8, 1.0)
    steady = FlickerFilter()
    steady.filtered(_frame(lr), _frame(out))
    planes = [steady.filtered(_frame(lr2), _frame(out2)).planes[0] for _ in range(80)]
    assert not np.array_equal(planes[1], out2)
    assert np.array_equal(planes[-1], out2)


def test_text_that_left_leaves_nothing_behind() -> None:
    """Dark credits scroll over a dark background with the small changes of an encoder."""
    rng, lumas = np.random.default_rng(2), []
    text = np.repeat(rng.integers(0, 2, (10, 40)) * 40, 2, axis=1)
    for k in range(60):
        large = np.full((80, 120), 30.0)
        top = 60 - 2 * k
        for row in range(max(0, top), min(80, top + 10)):
            large[row, 20:100] += text[row - top]
        lr = large[::2, ::2] + rng.integers(-1, 2, (40, 60))
        net = large + rng.integers(-2, 3, large.shape) * (large > 30)
        lumas.append((np.rint(lr).astype(np.uint8), np.rint(net).astype(np.uint8)))
    found = _filtered(lumas)
    assert np.abs(found[-1].astype(int) - lumas[-1][1]).max() <= 1


def test_processing_keeps_the_order_and_other_items() -> None:
    lumas = _still((24, 24), 2, 8, 1.0, frames=6)
    items: list[Frame | str] = ["a"]
    for k, (lr, _) in enumerate(lumas):
        items += [_frame(lr, index=k), f"after {k}"]

    def enlarge(frames: Iterable[Frame | str]) -> Iterator[Frame | str]:
        late = list(frames)  # as an engine that holds several frames
        for item in late:
            yield (
                item
                if isinstance(item, str)
                else item.with_planes(_frame(lumas[item.index][1]).planes, "net")
            )

    made = list(FlickerFilter().process(items, enlarge))
    assert [x if isinstance(x, str) else x.index for x in made] == [
        x if isinstance(x, str) else x.index for x in items
    ]
    found = [x.planes[0] for x in made if isinstance(x, Frame)]
    expected = _filtered(lumas)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_filters_that_share_buffers_do_not_disturb_one_another() -> None:
    lumas = _still((24, 24), 2, 8, 1.0, frames=8)
    first = FlickerFilter()
    second, found = first.another(), list[Plane]()
    for k, (lr, out) in enumerate(lumas):
        planes = [each.filtered(_frame(lr), _frame(out)).planes[0] for each in (first, second)]
        found.append(planes[0])
        if k < 3:
            second.reset()
        else:
            assert np.array_equal(planes[1], _filtered(lumas[3 : k + 1])[-1])
    assert all(np.array_equal(a, b) for a, b in zip(found, _filtered(lumas), strict=True))


def test_networks_with_a_sharp_look_are_filtered_unless_a_user_decides() -> None:
    assert filters_flicker("rt-sharp", None) and filters_flicker("pcarn-m", None)
    others = ("rt", "c-dcscn-stream", "carn-m", "bicubic", "of/my/own.onnx")
    assert not any(filters_flicker(name, None) for name in others)
    assert not filters_flicker("rt-sharp", False)
    assert filters_flicker("c-dcscn", True) and filters_flicker("of/my/own.onnx", True)
    assert not filters_flicker("bicubic", True)


# slow changes


def _enlarged(lr: Floats, scale: int = 2) -> Plane:
    return np.rint(_linear(_linear(lr, scale, 0), scale, 1)).astype(np.uint8)


def test_a_slow_fade_has_no_ghost_and_no_steps() -> None:
    """A fade by half a code per frame, of a picture with detail that the LR luma lacks."""
    rng = np.random.default_rng(2)
    smooth = _linear(_linear(rng.uniform(60, 120, (6, 8)), 8, 0), 8, 1)
    detail = rng.normal(0, 10, (96, 128))
    lumas = []
    for k in range(120):
        lr = np.rint(smooth + k / 2)
        large = _linear(_linear(smooth, 2, 0), 2, 1) + k / 2 + detail
        lumas.append((lr.astype(np.uint8), np.rint(np.clip(large, 0, 255)).astype(np.uint8)))
    found = _filtered(lumas)
    errors = [f.astype(float) - out for f, (_, out) in zip(found, lumas, strict=True)]
    assert max(np.abs(e).max() for e in errors) <= 3
    assert max(abs(e.mean()) for e in errors) < 0.5  # no lag behind the fade
    rows = np.array([f.mean(0) for f in found])
    assert np.abs(np.diff(rows, axis=0)).max() <= 1.5  # no jump from frame to frame


def test_a_slow_pan_leaves_no_ghost() -> None:
    """A pan by a quarter of a LR pixel per frame, over a picture with strong edges."""
    rng = np.random.default_rng(4)
    large = rng.integers(40, 200, (12, 40)).repeat(8, 0).repeat(8, 1).astype(float)
    lumas = []
    for k in range(40):
        part = large[:, k : k + 192]  # by 1 of 4 columns per LR pixel
        lr = part.reshape(24, 4, 48, 4).mean((1, 3))
        out = part.reshape(48, 2, 96, 2).mean((1, 3))
        lumas.append((np.rint(lr).astype(np.uint8), np.rint(out).astype(np.uint8)))
    found = _filtered(lumas)
    errors = [f.astype(float) - out for f, (_, out) in zip(found, lumas, strict=True)]
    rms = np.sqrt(np.mean(np.square(errors)))
    assert rms < 1.5
