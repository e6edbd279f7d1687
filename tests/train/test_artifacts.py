"""Tests of artifact metrics on synthetic pictures: flicker, flat noise, grids, overshoot."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from tests.clips import Clip, make_clip
from tests.training import TINY
from train.data.resize import downscale
from train.fit.trainer import Trainer
from train.measure.artifacts import (
    flat_noise,
    flicker,
    grid_pattern,
    overshoot_beside_bar,
    still_flicker,
)
from train.measure.evaluate import Method, bicubic_planes
from train.measure.perceptual import Lpips
from train.measure.planes import Planes
from train.ship.export import Target, export
from train.ship.manifest import read_manifest

Floats = npt.NDArray[np.float32]


def _bicubic(x: Floats) -> Floats:
    return bicubic_planes(x, 2).astype(np.float32)


def _method(extra: Floats | float) -> Method:
    """Return a method: bicubic on luma plus `extra`, in the range 0..1."""
    return Method(label="m", enlarge=lambda x: _bicubic(x) + extra, colour="y", scale=2)


def test_flicker_is_the_mean_absolute_difference_of_neighbours_in_time() -> None:
    a, b, c = (np.full((4, 4), v, np.uint8) for v in (10, 14, 8))
    assert flicker([a, b, c]) == pytest.approx((4 + 6) / 2)


def test_a_still_picture_flickers_as_much_as_the_encoder_makes_it() -> None:
    rng = np.random.default_rng(1)
    y = (rng.integers(60, 180, (16, 24)).repeat(8, 0).repeat(8, 1)).astype(np.uint8)
    still = Planes(y, *(np.full((64, 96), 128, np.uint8) for _ in "uv"))
    ours, bicubic = still_flicker(_method(0.0), still)
    assert 0 < bicubic < 5
    assert ours == pytest.approx(bicubic, abs=0.02)  # except for rounding
    contrast = Method(label="m", enlarge=lambda x: 2 * _bicubic(x) - 0.5, colour="y", scale=2)
    ours, _ = still_flicker(contrast, still)
    assert ours == pytest.approx(2 * bicubic, rel=0.2)


def test_noise_on_a_flat_area_is_told_in_codes() -> None:
    assert flat_noise(_method(0.0)) == pytest.approx(0, abs=1e-3)
    grain = np.where(np.random.default_rng(1).random((64, 64)) < 0.5, -0.01, 0.01)
    assert flat_noise(_method(grain.astype("f4"))) == pytest.approx(2.19, rel=0.01)


@pytest.mark.parametrize("colour", ["y", "rgb"])
@pytest.mark.parametrize("scale", [2, 3])
def test_a_bright_line_beside_a_black_bar_is_told_in_codes(colour: str, scale: int) -> None:
    bright = 0.0

    def enlarge(x: Floats) -> Floats:
        large = x.repeat(scale, 2).repeat(scale, 3)
        assert not large[..., : 8 * scale].any()
        large[..., 8 * scale + 3] += bright  # the last measured column
        large[..., 8 * scale + 4 :] += 1
        return large

    method = Method(label="m", enlarge=enlarge, colour=colour, scale=scale)
    flat = np.full((32 * scale, 40 * scale, 3), 90, np.uint8)
    assert overshoot_beside_bar(method, flat) == pytest.approx(0, abs=1e-3)
    bright = 20 / 255
    assert overshoot_beside_bar(method, flat) == pytest.approx(20, abs=1e-3)


@pytest.mark.parametrize("way", [(0, 1), (1, 0), (1, 1)])
def test_a_pattern_of_the_shuffles_period_is_found_whatever_its_sign(way: tuple[int, int]) -> None:
    rows, columns = np.indices((66, 98))
    sign = (-1.0) ** (way[0] * rows + way[1] * columns)
    turned = np.where(columns < 33, sign, -sign)  # a mean over the picture would cancel partly
    picture = (100 + 3 * turned).astype(np.uint8)
    assert grid_pattern(picture) == pytest.approx(3, abs=0.2)  # except where the sign changes
    assert grid_pattern(np.full((66, 98), 100, np.uint8)) == 0
    smooth = (100 + 50 * np.sin(columns / 9)).astype(np.uint8)
    assert grid_pattern(smooth) < 0.1


def _lpips_file(path: Path) -> Path:
    """Save an LPIPS file with random weights and few filters."""
    rng, weights, source = np.random.default_rng(2), {}, 3
    for k, side in enumerate((11, 5, 3, 3, 3)):
        weights[f"conv{k}.weight"] = rng.normal(0, 0.2, (4, source, side, side)).astype("f4")
        weights[f"conv{k}.bias"] = np.zeros(4, "f4")
        weights[f"lin{k}.weight"] = np.ones((1, 4, 1, 1), "f4")
        source = 4
    np.savez(path, **weights)  # type: ignore[arg-type]
    return path


def _lpips_of_bicubic(picture: Path, weights: Path) -> float:
    """Return LPIPS of a picture halved and enlarged in RGB as in MATLAB, two pixels shaved."""
    with Image.open(picture) as file:
        truth = np.asarray(file)
    low = downscale(truth, 2).transpose(2, 0, 1) / 255
    large = np.rint(np.clip(bicubic_planes(low, 2), 0, 1) * 255).astype(np.uint8)
    return Lpips.load(weights)(large.transpose(1, 2, 0)[2:-2, 2:-2], truth[2:-2, 2:-2])


def test_an_export_states_how_it_looks_beside_the_stream_form(tmp_path: Path) -> None:
    lossless = {"qp": "0", "preset": "ultrafast"}
    shape = Clip(size=(96, 64), frames=2, audio=(), options=lossless)
    clip = make_clip(tmp_path / "clip.mp4", shape)
    checkpoint = tmp_path / "net.pt"
    trainer = Trainer.new("c-dcscn", replace(TINY, start_small=True), (2,))
    with torch.no_grad():
        for weights in trainer.average.parameters():  # equal ones would fit no cached graph
            weights.add_(1e-4 * torch.randn_like(weights))
    trainer.data, trainer.command = {"folders": ["made"], "images": 1}, ""
    trainer.save(checkpoint)
    lpips = _lpips_file(tmp_path / "lpips.npz")
    (folder := tmp_path / "pictures").mkdir()
    noise = np.random.default_rng(3).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(noise.repeat(2, 0).repeat(2, 1)).save(folder / "noise.png")
    for model in ("c-dcscn-stream", "c-dcscn-sharp"):
        target = Target(
            engines=tmp_path, model=model, benchmarks=(folder,), clips=(clip,), lpips=lpips
        )
        export(checkpoint, target)
    entry = read_manifest(tmp_path)["models"]["c-dcscn-sharp"]["x2"]
    assert entry["file"] == "c-dcscn/x2.sharp.onnx"
    of = entry["look"]["lpips"]["clip"]
    assert set(of) == {"bicubic", "lanczos", "ours", "stream"}
    assert of["ours"] == of["stream"] > 0  # both have the same weights
    on_set = entry["lpips"]["pictures"]
    assert on_set["bicubic"] == pytest.approx(_lpips_of_bicubic(folder / "noise.png", lpips), 1e-3)
    assert 0 < on_set["ours"] != on_set["bicubic"]
    flicker_ = entry["look"]["flicker"]["clip"]
    assert set(flicker_) == {"truth", "bicubic", "ours"} and min(flicker_.values()) > 0
    assert 0 <= entry["look"]["flat_noise"] < 1
    assert entry["video"]["clip"]["bicubic"] > 20
