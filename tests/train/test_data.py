"""Tests of training data: HR pictures and their LR, packed files, and the patches of each step."""

import json
import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest

from tests.training import TINY, Pixels, image_folder, noise, png, scene
from train.data.degrade import STREAMS
from train.data.patches import Patches, Steps
from train.data.pictures import Pictures
from train.data.resize import downscale
from train.errors import TrainError
from train.fit.recipe import Recipe

Turns = Literal["flips", "all"]


def _one_line(caught: pytest.ExceptionInfo[TrainError]) -> None:
    assert "\n" not in str(caught.value)


# pictures


def test_an_image_smaller_than_a_patch_is_named_skipped_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, size in (("low", (17, 60)), ("one", (1, 1)), ("fits", (18, 18))):
        (tmp_path / f"{name}.png").write_bytes(png(noise(*size)))
    with caplog.at_level(logging.WARNING, "train"):
        pictures = Pictures.load([tmp_path], (2,), replace(TINY, patch=9))
    assert [picture.shape for picture in pictures.hr[2]] == [(18, 18, 3)]
    assert pictures.record["images"] == 1
    told = [record.getMessage() for record in caplog.records]
    assert ["low.png" in told[0], "one.png" in told[1], "2 of 3" in told[2]] == [True] * 3


def _pictures(folder: Path, image: Pixels, scales: tuple[int, ...], recipe: Recipe) -> Pictures:
    (folder / "picture.png").write_bytes(png(image))
    return Pictures.load([folder], scales, recipe)


def test_scaled_copies_are_pictures_of_their_own(tmp_path: Path) -> None:
    recipe = replace(TINY, copies=(0.9, 0.5, 0.3))
    pictures = _pictures(tmp_path, noise(40, 50), (2,), recipe)
    # a copy of 0.3 is too small for a patch of 8; sides of 45 and 25 are cropped to even
    assert [hr.shape[:2] for hr in pictures.hr[2]] == [(40, 50), (36, 44), (20, 24)]
    assert [lr.shape[:2] for lr in pictures.lr[2]] == [(20, 25), (18, 22), (10, 12)]
    assert pictures.record["images"] == 1


def test_bicubic_lr_is_the_reduction_of_its_hr(tmp_path: Path) -> None:
    pictures = _pictures(tmp_path, noise(50, 70), (2, 3, 4), TINY)
    for scale in (2, 3, 4):
        (hr,) = pictures.hr[scale]
        assert hr.shape[:2] == (50 // scale * scale, 70 // scale * scale)
        assert np.array_equal(pictures.lr[scale][0], downscale(hr, scale))


def test_the_record_tells_other_data_apart(tmp_path: Path) -> None:
    def digest(folder: str, name: str, height: int) -> object:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(png(noise(height, 20)))
        record = Pictures.load([tmp_path / folder], (2,), TINY).record
        assert (record["folders"], record["images"]) == ([folder], 1)
        return record["sha256"]

    first = digest("first", "a.png", 20)
    assert digest("copy", "a.png", 20) == first
    assert digest("renamed", "b.png", 20) != first
    assert digest("with_steps", "a.png", 22) != first


def test_stream_degradation_gives_decoded_frames_beside_their_hr(tmp_path: Path) -> None:
    recipe = replace(TINY, degradation="stream")
    pictures = _pictures(tmp_path, scene(160, 180, 4), (2,), recipe)
    assert len(pictures.lr[2]) == len(pictures.hr[2]) == 4  # two clips of two frames each
    for lr, hr in zip(pictures.lr[2], pictures.hr[2], strict=True):
        error = np.abs(downscale(hr, 2).astype(float) - lr).mean()
        assert 0.5 < error < 20  # compressed, but the same crop
    assert_same_pictures(pictures, Pictures.load([tmp_path], (2,), recipe))


def test_a_low_rate_stream_loses_more(tmp_path: Path) -> None:
    """Its quality is sampled from a range of higher crf."""
    folder = image_folder(tmp_path / "hr", (160, 180))
    errors = {}
    for name in ("stream", "low-rate stream"):
        recipe = replace(TINY, degradation=name)
        pictures = [Pictures.load([folder], (2,), replace(recipe, seed=k)) for k in range(3)]
        errors[name] = np.mean(
            [
                np.abs(downscale(hr, 2).astype(float) - lr).mean()
                for of in pictures
                for lr, hr in zip(of.lr[2], of.hr[2], strict=True)
            ]
        )
    assert errors["low-rate stream"] > 1.1 * errors["stream"]


def test_a_window_that_moves_is_never_smaller_than_a_patch(tmp_path: Path) -> None:
    assert STREAMS["stream"].smallest_window < 100
    for seed in range(5):
        recipe = replace(TINY, degradation="stream", patch=100, seed=seed)
        pictures = _pictures(tmp_path, scene(216, 216, 4), (2,), recipe)
        assert min(side for lr in pictures.lr[2] for side in lr.shape[:2]) >= 100


def test_an_odd_patch_needs_an_even_window_to_be_streamed(tmp_path: Path) -> None:
    recipe = replace(TINY, degradation="stream", patch=9)
    pictures = _pictures(tmp_path, scene(20, 20, 4), (2,), recipe)
    assert {lr.shape for lr in pictures.lr[2]} == {(10, 10, 3)}
    with pytest.raises(TrainError, match="no usable image"):
        _pictures(tmp_path, scene(19, 19, 4), (2,), recipe)


def assert_same_pictures(ours: Pictures, theirs: Pictures) -> None:
    assert ours.record == theirs.record
    for mine, yours in ((ours.lr, theirs.lr), (ours.hr, theirs.hr)):
        assert list(mine) == list(yours)
        for scale in mine:
            for a, b in zip(mine[scale], yours[scale], strict=True):
                assert np.array_equal(a, b)


def _packed(folder: Path) -> tuple[Pictures, Path]:
    pictures = Pictures.load([image_folder(folder / "hr")], (2, 3), TINY)
    pictures.pack(folder / "a.pictures")
    return pictures, folder / "a.pictures"


def _npz(pictures: Pictures, path: Path) -> None:
    """Save pictures in the npz format of older versions of `pack`."""
    arrays = {
        f"{kind}/{scale}/{i}": picture
        for kind, scales in (("lr", pictures.lr), ("hr", pictures.hr))
        for scale, found in scales.items()
        for i, picture in enumerate(found)
    }
    record = np.array(json.dumps(pictures.record))
    with path.open("wb") as file:
        np.savez(file, record=record, **arrays)  # type: ignore[arg-type]


def test_packed_pictures_come_back_as_they_were(tmp_path: Path) -> None:
    pictures, path = _packed(tmp_path)
    assert_same_pictures(Pictures.unpack(path), pictures)
    assert {p.name for p in tmp_path.iterdir()} == {"hr", "a.pictures"}  # no partial file
    _npz(pictures, path)
    assert_same_pictures(Pictures.unpack(path), pictures)


def test_packed_pictures_are_mapped_and_stay_in_their_file(tmp_path: Path) -> None:
    _, path = _packed(tmp_path)
    kept = Pictures.unpack(path).large_enough(TINY)
    assert kept.file == path
    assert not kept.lr[2][0].flags.owndata
    fewer = Pictures.unpack(path).large_enough(replace(TINY, patch=32))
    assert (len(fewer.lr[2]), fewer.file) == (0, None)


def test_packed_pictures_give_the_same_patches_to_the_last_bit(tmp_path: Path) -> None:
    pictures, path = _packed(tmp_path)
    ours, theirs = (Patches(p, TINY, "y", (2, 3)) for p in (pictures, Pictures.unpack(path)))
    for k in range(20):
        assert ours[k][0].equal(theirs[k][0])
        assert ours[k][1].equal(theirs[k][1])


def test_a_damaged_or_foreign_file_of_pictures_is_refused_in_one_line(tmp_path: Path) -> None:
    _, path = _packed(tmp_path)
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for content in (b"", b"text", whole[:middle], flipped, png(noise(8, 8))):
        path.write_bytes(content)
        with pytest.raises(TrainError, match=r"a\.pictures is damaged, or not") as caught:
            Pictures.unpack(path)
        _one_line(caught)


def test_a_pack_that_lacks_half_of_a_pair_is_refused(tmp_path: Path) -> None:
    pictures, path = _packed(tmp_path)
    del pictures.hr[3][-1]
    _npz(pictures, path)
    with pytest.raises(TrainError, match="damaged"):
        Pictures.unpack(path)
    pictures.lr[3][0] = pictures.lr[3][0][:-1]
    del pictures.lr[3][-1]
    _npz(pictures, path)
    with pytest.raises(TrainError, match="damaged"):
        Pictures.unpack(path)


def test_a_missing_pack_and_one_that_cannot_be_written_are_told_in_one_line(tmp_path: Path) -> None:
    pictures, _ = _packed(tmp_path)
    nowhere = tmp_path / "missing/pictures.npz"
    with pytest.raises(TrainError, match=r"cannot read .*: No such file") as caught:
        Pictures.unpack(nowhere)
    _one_line(caught)
    with pytest.raises(TrainError, match=r"cannot write .*: No such file") as caught:
        pictures.pack(nowhere)
    _one_line(caught)


# patches


def _patches(pictures: list[Pixels], recipe: Recipe, scales: tuple[int, ...] = (2,)) -> Patches:
    """Return patches of pictures whose sides are multiples of all scales."""
    lr = {s: [downscale(picture, s) for picture in pictures] for s in scales}
    return Patches(Pictures(lr, dict.fromkeys(scales, pictures), {}), recipe, "rgb", scales)


def _map(height: int, width: int) -> Pixels:
    """Return a picture whose pixels encode their position: R is y, G is x."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y, x, 0 * y], axis=2).astype(np.uint8)


def _codes(patch: object) -> npt.NDArray[np.uint8]:
    """Convert a tensor [C, H, W] in 0..1 to uint8 [H, W, C]."""
    return np.round(np.asarray(patch).transpose(1, 2, 0) * 255).astype(np.uint8)


def _place(hr: object) -> tuple[int, int]:
    """Return the top left corner (y, x) of a patch of `_map`, whatever its orientation."""
    y, x, _ = _codes(hr).min(axis=(0, 1))
    return int(y), int(x)


@pytest.mark.parametrize("turns", ["flips", "all"])
@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_lr_and_hr_patches_show_the_same_place(scale: int, turns: Turns) -> None:
    patches = _patches([noise(240, 192)], Recipe(patch=9, turns=turns), (scale,))
    for k in range(12):
        lr, hr, told = patches[k]
        assert (lr.shape, hr.shape, told) == ((3, 9, 9), (3, 9 * scale, 9 * scale), scale)
        inside = (slice(2, -2), slice(2, -2))  # at the edges, neighbouring pixels are missing
        small = downscale(_codes(hr), scale)[inside].astype(int)
        # the LR of a rotated patch was resized and rounded along its other axis first
        assert np.abs(small - _codes(lr)[inside]).max() <= 2


@pytest.mark.parametrize(("turns", "count"), [("flips", 4), ("all", 8)])
def test_all_turns_of_the_recipe_occur_and_no_others(turns: Turns, count: int) -> None:
    image = noise(16, 16)
    square = [np.rot90(image, k) for k in range(4)]
    known = [*square, *(turned[:, ::-1] for turned in square)]
    allowed = known if count == 8 else [image, image[::-1], image[:, ::-1], image[::-1, ::-1]]
    patches = _patches([image], Recipe(patch=8, turns=turns))
    seen = Counter(_codes(patches[k][1]).tobytes() for k in range(30 * count))
    assert set(seen) == {turned.tobytes() for turned in allowed}
    assert min(seen.values()) > 12  # and each of them often


def test_a_grid_shows_every_place_once_an_epoch_in_a_new_order() -> None:
    recipe = Recipe(patch=32, hr_patch=True, grid=16, turns="flips")  # as for DCSCN
    patches = _patches([_map(64, 80)], recipe)
    assert patches[0][1].shape == (3, 32, 32)
    corners = [(y, x) for y in (0, 16, 32) for x in (0, 16, 32, 48)]
    assert patches.epoch(2) == len(corners)
    epochs = [[_place(patches[12 * epoch + k][1]) for k in range(12)] for epoch in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == corners
    assert epochs[0] != epochs[1]


def test_free_patches_reach_every_edge_and_pictures_are_drawn_by_area() -> None:
    blue = _map(20, 20)  # four pixels larger than an HR patch
    blue[..., 2] = 255
    patches = _patches([_map(40, 40), blue], Recipe(patch=8))
    found = [
        (_place(hr), int(_codes(hr)[0, 0, 2])) for _, hr, _ in map(patches.__getitem__, range(500))
    ]
    corners = {place for place, colour in found if not colour}
    assert {y for y, _ in corners} == {x for _, x in corners} == set(range(0, 25, 2))
    assert {place for place, colour in found if colour} >= {(0, 0), (4, 4)}
    assert sum(colour > 0 for _, colour in found) / 500 == pytest.approx(1 / 5, abs=0.05)


def test_a_sample_is_the_same_in_any_order(tmp_path: Path) -> None:
    folder, recipe = image_folder(tmp_path / "hr"), replace(TINY, copies=(0.7,))

    def fresh() -> Patches:
        return Patches(Pictures.load([folder], (2, 3), recipe), recipe, "rgb", (2, 3))

    forwards, backwards = fresh(), fresh()
    ours = [forwards[k] for k in range(20)]
    theirs = [backwards[k] for k in reversed(range(20))][::-1]
    for (lr, hr, scale), (lr2, hr2, scale2) in zip(ours, theirs, strict=True):
        assert scale == scale2
        assert lr.equal(lr2)
        assert hr.equal(hr2)
    assert len({hr.numpy().tobytes() for _, hr, _ in ours}) > 15  # most patches differ


def test_another_seed_gives_other_patches() -> None:
    image = noise(40, 40)
    one, two = (_patches([image], replace(TINY, seed=seed))[0][1] for seed in (1, 2))
    assert not one.equal(two)


@pytest.mark.parametrize("world", [1, 2, 4])
def test_processes_share_a_batch_out_among_them(world: int) -> None:
    parts = [list(Steps(5, 9, 8, rank, world)) for rank in range(world)]
    for step in range(4):
        shares = [part[step] for part in parts]
        assert {len(share) for share in shares} == {8 // world}
        assert sorted(k for share in shares for k in share) == list(
            range((5 + step) * 8, (6 + step) * 8)
        )


def test_the_scale_of_a_batch_is_drawn_from_the_phase_of_its_step() -> None:
    phases = ((0, (2,)), (10, (2, 4)), (30, (8,)))
    patches = _patches([noise(64, 64)], Recipe(patch=8, batch=3, scales=phases), (2, 4, 8))
    drawn = [{patches[3 * step + k][2] for k in range(3)} for step in range(40)]
    assert all(len(batch) == 1 for batch in drawn)
    assert set().union(*drawn[:10]) == {2}
    assert set().union(*drawn[10:30]) == {2, 4}
    assert set().union(*drawn[30:]) == {8}


def test_a_luma_network_reads_one_full_range_channel() -> None:
    patches = replace(_patches([noise(32, 32)], TINY), colour="y")
    rgb = replace(patches, colour="rgb")
    for k in range(3):
        weights = np.array([0.299, 0.587, 0.114])
        expected = np.tensordot(weights, rgb[k][1].numpy().astype(float), 1)
        assert np.allclose(patches[k][1].numpy(), expected[None], atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "scales", "complaint"),
    [
        ({"scales": ((0, (4,)),)}, (2,), "uses x4, the network does not"),
        ({"patch": 17}, (2,), "not suit x2 and patches of 17 LR pixels"),
        ({}, (2, 3), "not suit x3"),
    ],
    ids=["a recipe of another scale", "larger patches", "pictures of another scale"],
)
def test_pictures_that_do_not_serve_the_recipe_are_refused(
    changes: dict[str, object], scales: tuple[int, ...], complaint: str
) -> None:
    pictures = _patches([noise(32, 36)], TINY).pictures
    with pytest.raises(TrainError, match=complaint) as caught:
        Patches(pictures, replace(TINY, **changes), "rgb", scales)  # type: ignore[arg-type]
    _one_line(caught)
