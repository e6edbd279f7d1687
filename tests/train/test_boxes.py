"""Tests of boxes with hard edges, drawn at the same place into LR, HR and the teacher's output."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training import TINY, image_folder, patches_for, train
from train.fit.boxes import Box, random_boxes, with_boxes
from train.fit.rngs import patch_rngs
from train.fit.trainer import Trainer


@pytest.fixture(autouse=True)
def _same_every_time() -> None:
    torch.manual_seed(1)


def test_a_box_has_the_same_place_at_every_scale() -> None:
    red = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    box = Box(patch=1, top=2, bottom=3, left=0, right=4, colour=red)
    lr, hr = torch.rand(2, 3, 5, 6), torch.rand(2, 3, 15, 18)
    small, large = with_boxes(lr, [box], 1), with_boxes(hr, [box], 3)
    assert torch.equal(small[0], lr[0]) and torch.equal(large[0], hr[0])
    assert torch.equal(small[1, :, 2, :4], red[..., 0].expand(3, 4))
    assert torch.equal(large[1, :, 6:9, :12], red.expand(3, 3, 12))
    changed = large[1] != hr[1]
    assert not changed[:, :6].any() and not changed[:, 9:].any() and not changed[..., 12:].any()
    assert with_boxes(lr, [], 1) is lr


@pytest.mark.parametrize("channels", [1, 3])
def test_boxes_lie_inside_of_their_patches_and_have_colours(channels: int) -> None:
    lr = torch.rand(400, channels, 12, 20)
    boxes = random_boxes(lr, 0.25, patch_rngs(1, 0, 400))
    assert 60 < len({box.patch for box in boxes}) < 140
    for box in boxes:
        assert 0 <= box.top < box.bottom <= 12 and 0 <= box.left < box.right <= 20
        assert box.colour.shape == (channels, 1, 1)
        assert float(box.colour.min()) >= 0 and float(box.colour.max()) <= 1
    bars = [b for b in boxes if b.bottom - b.top == 12 or b.right - b.left == 20]
    black = [b for b in bars if not b.colour.any()]
    assert len(bars) > 30 and len(black) > len(bars) / 3
    sides = {(b.top == 0, b.bottom == 12, b.left == 0, b.right == 20) for b in bars}
    for open_side in range(4):  # there is a bar along each side
        assert tuple(k != open_side for k in range(4)) in sides
    assert any(b.right - b.left == 1 for b in boxes) and not random_boxes(
        lr, 0.0, patch_rngs(1, 0, 400)
    )


def test_draws_belong_to_the_patch_and_not_to_the_process() -> None:
    whole = [rng.random() for rng in patch_rngs(3, 7, 6)]
    assert [rng.random() for rng in patch_rngs(3, 7, 2, rank=1, world=3)] == [
        whole[1],
        whole[4],
    ]
    assert len({*whole, *(rng.random() for rng in patch_rngs(3, 8, 6))}) == 12


def test_a_network_learns_the_edge_of_a_black_bar(tmp_path: Path) -> None:
    folder, beside = image_folder(tmp_path / "data"), {}
    lr = torch.full((1, 1, 16, 16), 0.6)
    lr[..., :6] = 0
    for share in (0.0, 1.0):
        recipe = replace(TINY, steps=60, batch=8, patch=16, rate=4e-3, ema=0.0, boxes=share)
        trainer = Trainer.new("c-dcscn", replace(recipe, network={"keep": 1.0}), (2,))
        trainer.net.start_small()  # type: ignore[operator]
        train(trainer, patches_for(trainer, folder), tmp_path / f"{share}.pt")
        with torch.no_grad():
            sr = trainer.net.eval()(lr, 2)
        beside[share] = float((sr[0, 0, 8:24, 12:16] - 0.6).abs().mean())
    assert beside[1.0] < 0.6 * beside[0.0]


def test_a_teacher_never_sees_a_box(tmp_path: Path) -> None:
    recipe = replace(TINY, steps=3, boxes=1.0, teacher="teacher")
    trainer = Trainer.new("c-dcscn", recipe, (2,))
    patches = patches_for(trainer, image_folder(tmp_path / "data"))
    known = {patches[k][0].numpy().tobytes() for k in range(3 * recipe.batch)}
    seen: list[bytes] = []

    class Noting:
        def enlarge(self, lr: torch.Tensor, scale: int) -> torch.Tensor:
            seen.extend(x.numpy().tobytes() for x in lr)
            return lr.repeat_interleave(scale, 2).repeat_interleave(scale, 3)

    trainer.teacher = Noting()  # type: ignore[assignment]
    train(trainer, patches, tmp_path / "x.pt")
    assert len(seen) == 3 * recipe.batch and set(seen) <= known
