"""The training package: the papers' figures, deploy forms, export, data, loop and checkpoints."""

import io
import json
import logging
import os
import pickle
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import nn

from train.data import PatchSet, pairs, read_rgb
from train.deploy import deploy
from train.evaluate import enlarged_luma, evaluate, torch_enlarge
from train.export import (
    averaged_net,
    channels,
    difference,
    export,
    multadds,
    openvino_enlarge,
    receptive_field_radius,
)
from train.loop import RECIPES, Recipe, Trainer, fit, load_checkpoint
from train.metrics import luma, psnr, ssim
from train.nets import NETS, CarnConfig, CarnM, Dcscn, Net, bicubic, build
from train.resize import crop_to_multiple, downscale

ROOT = Path(__file__).parents[1]
TINY = Recipe(steps=6, batch=2, patch=8, warmup=2)
Pixels = npt.NDArray[np.uint8]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Small work is faster and repeatable on one thread, above all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _roughened(net: Net, seed: int = 3) -> Net:
    """The network with no part left trivial: random biases and slopes, a last layer that counts."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.PReLU):
                module.weight.uniform_(-0.4, 0.9)
            elif isinstance(module, nn.Conv2d) and module.weight.requires_grad:
                module.bias.normal_(0, 0.1)  # type: ignore[union-attr]
        if not isinstance(net, CarnM):
            net.last.weight.normal_(0, 0.05)
    return net.eval()


def _wide(net: Net) -> Net:
    """A random network in double precision that feels even the farthest pixel it can."""
    rim = torch.full((3, 3), 5.0)
    rim[1, 1] = 1.0
    with torch.no_grad():
        for module in _roughened(net).modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                module.weight.mul_(rim)
    return net.double()


def _noise(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def _scene(height: int, width: int, seed: int) -> Pixels:
    """A synthetic photograph: soft waves, hard edges, a little grain."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = np.sin(x / rng.uniform(2, 6, 3)[:, None, None] + y / rng.uniform(3, 9))
    edges = np.sign(np.sin((x + 2 * y) / rng.uniform(4, 8)))
    grain = rng.normal(0, 3, (3, height, width))
    rgb = 128 + 50 * waves + 40 * edges + grain
    return np.clip(rgb, 0, 255).astype(np.uint8).transpose(1, 2, 0)


def _png(image: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _image_folder(folder: Path) -> Path:
    folder.mkdir()
    for seed in range(2):
        (folder / f"{seed}.png").write_bytes(_png(_scene(40, 48, seed)))
    return folder


def _patches(folder: Path) -> PatchSet:
    return PatchSet.load([folder], 2, "y", TINY.patch)


# bicubic


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_reproduces_the_published_low_resolution_set5(data: Path, scale: int) -> None:
    published = data / "images/test" / f"set5_lr_bicubic_x{scale}"
    names = []
    for name, lr, _ in pairs(data / "images/test/set5", scale):
        assert np.array_equal(lr, read_rgb(published / f"{name}.png")), name
        names.append(name)
    assert len(names) == 5


@pytest.mark.parametrize(("scale", "published"), [(2, 33.68), (3, 30.40), (4, 28.43)])
def test_bicubic_psnr_on_set5_is_the_published_one(
    data: Path, scale: int, published: float
) -> None:
    def enlarge(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return bicubic(torch.from_numpy(x), scale).numpy()

    score = evaluate(enlarge, data / "images/test/set5", scale, "rgb")
    assert score["psnr"] == pytest.approx(published, abs=0.01)
    assert score["n"] == 5


def test_bicubic_of_a_flat_image_is_the_same_flat_image() -> None:
    assert np.array_equal(downscale(np.full((12, 9, 3), 77, np.uint8), 3), np.full((4, 3, 3), 77))


def test_crop_to_multiple_cuts_bottom_and_right_only() -> None:
    image = _noise(11, 14)
    assert np.array_equal(crop_to_multiple(image, 4), image[:8, :12])


# metrics


def test_psnr_of_a_difference_of_one_is_20_log10_255() -> None:
    a = np.full((8, 8), 100.0)
    assert psnr(a, a + 1) == pytest.approx(48.1308, abs=1e-4)


def test_psnr_of_half_the_pixels_off_by_two() -> None:
    a = np.zeros((4, 4))
    b = a.copy()
    b[:2] = 2  # mean squared error 2
    assert psnr(a, b) == pytest.approx(10 * np.log10(255**2 / 2), abs=1e-9)


def test_psnr_ignores_the_shaved_border_only() -> None:
    a = np.zeros((8, 8))
    b = np.pad(np.zeros((4, 4)), 2, constant_values=9.0)
    assert psnr(a, b, border=2) == float("inf")
    assert psnr(a, b, border=1) == pytest.approx(10 * np.log10(255**2 / (81 * 20 / 36)), abs=1e-9)


@pytest.mark.parametrize(
    ("rgb", "y"),
    [((0, 0, 0), 16.0), ((255, 255, 255), 235.0), ((255, 0, 0), 81.481), ((0, 255, 0), 144.553)],
)
def test_luma_is_bt601_in_16_to_235(rgb: tuple[int, int, int], y: float) -> None:
    assert luma(np.array([[rgb]], np.uint8))[0, 0] == pytest.approx(y, abs=1e-9)


def test_luma_takes_a_grey_image_as_y_already() -> None:
    assert luma(np.array([[0, 7, 255]], np.uint8)).tolist() == [[0.0, 7.0, 255.0]]


def test_ssim_of_flat_images_is_the_luminance_term() -> None:
    a, b = np.full((16, 16), 100.0), np.full((16, 16), 150.0)
    assert ssim(a, b) == pytest.approx((30000 + 6.5025) / (32500 + 6.5025), abs=1e-9)


def test_ssim_of_one_bright_pixel_against_black_follows_the_gaussian_window() -> None:
    a, b = np.zeros((11, 11)), np.zeros((11, 11))
    a[5, 7] = 255.0
    gauss = [np.exp(-(d**2) / 4.5) for d in range(-5, 6)]
    weight = gauss[5] * gauss[7] / sum(gauss) ** 2
    mean, variance = weight * 255, weight * 255**2 - (weight * 255) ** 2
    expected = 6.5025 / (mean**2 + 6.5025) * 58.5225 / (variance + 58.5225)
    assert ssim(a, b) == pytest.approx(expected, abs=1e-9)


def test_ssim_of_an_image_with_itself_is_one() -> None:
    a = luma(_noise(20, 24))
    assert ssim(a, a, border=2) == pytest.approx(1.0, abs=1e-12)


def test_a_luma_result_is_measured_in_16_to_235_and_rounded() -> None:
    out = np.array([[[[0.0, 0.5, 1.0, 2.0]]]], np.float32)
    y = enlarged_luma(lambda _: out, np.zeros((1, 2, 3), np.uint8), "y")
    assert y.tolist() == [[16.0, 126.0, 235.0, 255.0]]  # 125.5 rounds to even


def test_evaluating_on_a_folder_without_images_raises(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no usable image"):
        evaluate(lambda x: x, tmp_path, 2, "y")


# networks


def _trainable(net: Net) -> int:
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


@pytest.mark.parametrize(("name", "count"), [("c-dcscn", 26_176), ("dcscn", 244_197)])
def test_dcscn_has_the_papers_parameters(name: str, count: int) -> None:
    assert _trainable(build(name, 2)) == count


def test_carn_m_with_three_scales_has_the_papers_parameters() -> None:
    net = CarnM(CarnConfig(scales=(2, 3, 4)), 2)
    convolutions = [m.weight for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert _trainable(net) == 414_787
    assert sum(w.numel() for w in convolutions) == 412_050  # the paper's 412K
    assert sum(w.numel() for w in convolutions if w.requires_grad) == 412_050 - 2 * 9


@pytest.mark.parametrize(("scale", "published"), [(2, 91.2e9), (3, 46.1e9), (4, 32.5e9)])
def test_carn_m_has_the_papers_multadds(scale: int, published: float) -> None:
    small = multadds(build("carn-m", scale), 192, 108)  # all layers grow with the area
    assert small * (1280 * 720) / (192 * 108) == pytest.approx(published, abs=0.05e9)


def test_official_carn_m_weights_load_and_reach_their_psnr(data: Path) -> None:
    path = data.parent / "reference/carn_m.pth"
    if not path.exists():
        pytest.skip(f"{path} is missing: no official weights to test on")
    net = CarnM(CarnConfig(scales=(2, 3, 4)), 2)
    net.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster
    score = evaluate(torch_enlarge(net.eval()), data / "images/test/set5", 2, "rgb")
    assert score["psnr"] == pytest.approx(37.69, abs=0.02)


def test_carn_m_refuses_a_scale_it_has_no_unit_for() -> None:
    with pytest.raises(ValueError, match="scale 3"):
        CarnM(CarnConfig(scales=(2, 4)), 3)


# deploy forms


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", sorted(NETS))
def test_deploy_form_equals_training_form_up_to_the_borders(name: str, scale: int) -> None:
    net = _roughened(build(name, scale))
    cheap = deploy(net)
    for height, width in ((17, 11), (1, 3)):
        x = torch.rand(2, channels(net), height, width)
        with torch.inference_mode():
            ours, paper = cheap(x), net(x)
        assert paper.shape == (2, channels(net), height * scale, width * scale)
        assert float((ours - paper).abs().max()) < 1e-5
        # the network's own part is there, so that the comparison means something
        assert float((paper - bicubic(x, scale)).abs().max()) > 0.05


@pytest.mark.parametrize("name", ["c-dcscn", "carn-m"])
def test_deploy_form_shares_nothing_with_the_training_form(name: str) -> None:
    net = _roughened(build(name, 2))
    cheap, x = deploy(net), torch.rand(1, channels(net), 9, 7)
    with torch.no_grad():
        before = cheap(x)
        for parameter in net.parameters():
            parameter.fill_(0.25)
        assert torch.equal(cheap(x), before)


@pytest.mark.parametrize(
    ("name", "scale"),
    [("c-dcscn", 2), ("c-dcscn", 3), ("dcscn", 4), ("carn-m", 2), ("carn-m", 4)],
)
def test_receptive_field_radius_is_how_far_a_pixel_is_felt(name: str, scale: int) -> None:
    net = _wide(build(name, scale))
    radius = receptive_field_radius(net)
    centre = radius + 2
    x = torch.rand(1, channels(net), 2 * centre + 1, 2 * centre + 1, dtype=torch.float64)
    enlarge, block = torch_enlarge(net), slice(centre * scale, (centre + 1) * scale)
    before = enlarge(x.numpy())[..., block, block]

    def felt(dy: int, dx: int) -> float:
        """How much the centre changes when the pixel at that distance does."""
        disturbed = x.clone()
        disturbed[..., centre + dy, centre + dx] += 10.0
        return float(np.abs(enlarge(disturbed.numpy())[..., block, block] - before).max())

    assert min(felt(0, radius), felt(-radius, 0)) > 1e-10
    assert max(felt(0, radius + 1), felt(-radius - 1, 0)) == 0.0


# export


WORK_720P = 123
"""Stands in for `multadds`, which takes seconds at full size and has its own test."""


@dataclass(frozen=True)
class Exported:
    """A fresh network, the file made of it, and what the manifest says about it."""

    net: Net
    path: Path
    entry: dict[str, Any]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """Exports a random network by name, once; all go into one `engines` folder."""
    folder = tmp_path_factory.mktemp("exported")
    engines, made = folder / "engines", {}
    engines.mkdir()

    def make(name: str) -> Exported:
        if name not in made:
            trainer = Trainer.new(name, 2, TINY)
            _roughened(trainer.average)
            trainer.save(folder / f"{name}.pt")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("train.export.multadds", lambda _: WORK_720P)
                path = export(folder / f"{name}.pt", engines, [], "nothing")
            entry = json.loads((engines / "manifest.json").read_text("utf-8"))["models"][name]["x2"]
            made[name] = Exported(averaged_net(folder / f"{name}.pt")[1], path, entry)
        return made[name]

    return make


@pytest.mark.parametrize("name", ["c-dcscn", "carn-m"])
def test_exported_file_on_openvino_equals_torch_at_any_size(
    exported: Callable[[str], Exported], name: str
) -> None:
    made = exported(name)
    enlarge = openvino_enlarge(made.path.read_bytes())
    assert difference(made.net, enlarge, 37, 45) < 1e-5
    assert difference(made.net, enlarge, 8, 50) < 1e-5


@pytest.mark.parametrize("name", ["c-dcscn", "carn-m"])
def test_exported_file_tells_nothing_about_the_machine(
    exported: Callable[[str], Exported], name: str
) -> None:
    content = exported(name).path.read_bytes()
    places = (ROOT, Path(sys.prefix), Path(torch.__file__).parent, Path.cwd())
    for word in (*map(str, places), "site-packages", ".py", "stack_trace", "File "):
        assert word.encode() not in content, word


def test_manifest_entry_states_what_was_exported(exported: Callable[[str], Exported]) -> None:
    entry = exported("carn-m").entry
    assert entry["file"] == "carn-m/x2.onnx"
    assert entry["colour"] == "rgb"
    assert entry["parameters"] == 257_027
    assert entry["multadds_720p"] == WORK_720P
    assert entry["receptive_field_radius"] == 21
    assert entry["recipe"]["patch"] == TINY.patch


def test_a_second_export_leaves_the_first_in_the_manifest(
    exported: Callable[[str], Exported],
) -> None:
    exported("c-dcscn")
    engines = exported("carn-m").path.parents[1]
    models = json.loads((engines / "manifest.json").read_text("utf-8"))["models"]
    assert set(models) == {"c-dcscn", "carn-m"}
    files = {p.name for p in engines.rglob("*") if p.is_file()}
    assert files == {"manifest.json", "README.md", "x2.onnx"}  # and nothing half-written


# data


def test_patches_of_both_sizes_show_the_same_place(tmp_path: Path) -> None:
    (tmp_path / "noise.png").write_bytes(_png(_noise(64, 80)))
    patches = PatchSet.load([tmp_path], 2, "rgb", 16)
    lr, hr = patches.batch(np.random.default_rng(5), 16, 16)
    assert (lr.shape, hr.shape) == ((16, 3, 16, 16), (16, 3, 32, 32))
    for low, high in zip(lr.numpy(), hr.numpy(), strict=True):
        small = downscale((high.transpose(1, 2, 0) * 255).round().astype(np.uint8), 2) / 255
        inside = (slice(2, -2), slice(2, -2))  # the cut's edges lack their neighbours
        # a turned patch was rounded in the other direction first
        assert np.abs(small[inside] - low.transpose(1, 2, 0)[inside]).max() < 2.5 / 255


def _bomb() -> bytes:
    """A PNG of a few bytes that says it is 100,000 pixels wide and high."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")):
        check = zlib.crc32(kind + body)
        content += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)
    return content


def _broken_chunk() -> bytes:
    whole = bytearray(_png(_noise(300, 300)))  # several data chunks
    at = whole.rindex(b"IDAT")
    whole[at : at + 4] = b"\x00\x01\x02\x03"
    return bytes(whole)


@pytest.mark.parametrize(
    "content",
    [b"", b"no image at all", _png(_noise(60, 60))[:3000], _broken_chunk(), _bomb()],
    ids=["empty", "text", "truncated", "broken chunk", "too many pixels"],
)
def test_an_unreadable_image_is_skipped_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    (tmp_path / "bad.png").write_bytes(content)
    (tmp_path / "good.png").write_bytes(_png(_noise(40, 40)))
    with caplog.at_level(logging.WARNING, "train"):
        patches = PatchSet.load([tmp_path], 2, "y", 8)
    assert [image.shape for image in patches.hr] == [(40, 40, 3)]
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "bad.png" in caplog.text


def test_an_image_smaller_than_a_patch_is_skipped_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "low.png").write_bytes(_png(_noise(17, 60)))
    (tmp_path / "one.png").write_bytes(_png(_noise(1, 1)))
    (tmp_path / "fits.png").write_bytes(_png(_noise(18, 18)))
    with caplog.at_level(logging.WARNING, "train"):
        patches = PatchSet.load([tmp_path], 2, "y", 9)
    assert [image.shape for image in patches.hr] == [(18, 18, 3)]
    assert ["low.png" in r.message or "one.png" in r.message for r in caplog.records] == [True] * 2


def test_a_folder_without_usable_images_raises_and_names_it(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match=tmp_path.name):
        PatchSet.load([tmp_path], 2, "y", 8)


# the loop


@pytest.mark.parametrize("name", sorted(NETS))
def test_training_steps_on_one_batch_lower_its_loss(tmp_path: Path, name: str) -> None:
    recipe = Recipe(steps=20, batch=4, patch=12, warmup=0, rate=RECIPES[name].rate)
    trainer = Trainer.new(name, 2, recipe)
    patches = PatchSet.load([_image_folder(tmp_path / "hr")], 2, trainer.net.colour, 12)
    lr, hr = patches.batch(np.random.default_rng(0), 4, 12)
    losses = [trainer.train_step(lr, hr) for _ in range(recipe.steps)]
    assert losses[-1] < 0.98 * losses[0]  # DCSCN starts at bicubic, which is good already


def test_averaged_weights_follow_the_trained_ones(tmp_path: Path) -> None:
    trainer = Trainer.new("c-dcscn", 2, TINY)
    assert isinstance(trainer.net, Dcscn) and isinstance(trainer.average, Dcscn)
    start = trainer.net.last.weight.detach().clone()
    patches = _patches(_image_folder(tmp_path / "hr"))
    trainer.train_step(*patches.batch(np.random.default_rng(0), 2, 8))
    trained = trainer.net.last.weight.detach()
    assert not torch.equal(trained, start)
    expected = start + (trained - start) * 9 / 11  # decay 2/11 after one step
    torch.testing.assert_close(trainer.average.last.weight.detach(), expected)


def test_rate_warms_up_then_falls_to_a_hundredth() -> None:
    recipe = Recipe(steps=110, warmup=10, rate=1.0)
    rates = [recipe.rate_at(step) for step in (0, 9, 10, 60, 110)]
    assert rates == pytest.approx([0.1, 1.0, 1.0, 0.505, 0.01])


def _assert_same(ours: Any, theirs: Any) -> None:
    """Nested dictionaries and lists of tensors and numbers, equal to the last bit."""
    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs)
    elif isinstance(ours, dict):
        assert list(ours) == list(theirs)
        for key in ours:
            _assert_same(ours[key], theirs[key])
    else:
        assert ours == theirs


def test_a_checkpoint_rebuilds_itself_exactly(tmp_path: Path) -> None:
    trainer = Trainer.new("c-dcscn", 2, TINY)
    patches = _patches(_image_folder(tmp_path / "hr"))
    for step in range(3):
        trainer.train_step(*patches.batch(np.random.default_rng(step), 2, 8))
    trainer.save(tmp_path / "net.pt")
    twin = Trainer.resume(tmp_path / "net.pt")
    assert (twin.name, twin.scale, twin.recipe, twin.step) == ("c-dcscn", 2, TINY, 3)
    _assert_same(twin.net.state_dict(), trainer.net.state_dict())
    _assert_same(twin.average.state_dict(), trainer.average.state_dict())
    _assert_same(twin.optimiser.state_dict(), trainer.optimiser.state_dict())


def test_resuming_with_steps_moves_the_end_of_the_cosine_only(tmp_path: Path) -> None:
    Trainer.new("c-dcscn", 2, TINY).save(tmp_path / "net.pt")
    recipe = Trainer.resume(tmp_path / "net.pt", steps=50).recipe
    assert (recipe.steps, recipe.batch, recipe.warmup) == (50, TINY.batch, TINY.warmup)


@pytest.mark.parametrize("keep", [1.0, 0.8], ids=["without dropout", "with dropout"])
def test_an_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: float
) -> None:
    recipe = Recipe(steps=6, batch=2, patch=8, warmup=2, keep=keep)
    patches = _patches(_image_folder(tmp_path / "hr"))
    straight = Trainer.new("c-dcscn", 2, recipe)
    fit(straight, patches, tmp_path / "straight.pt", every=2)

    step = Trainer.train_step

    def interrupted(self: Trainer, lr: torch.Tensor, hr: torch.Tensor) -> float:
        if self.step == 5:
            raise KeyboardInterrupt
        return step(self, lr, hr)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "train_step", interrupted)
        fit(Trainer.new("c-dcscn", 2, recipe), patches, tmp_path / "cut.pt", every=2)
    resumed = Trainer.resume(tmp_path / "cut.pt")
    assert resumed.step == 4
    fit(resumed, patches, tmp_path / "cut.pt", every=2)
    _assert_same(resumed.net.state_dict(), straight.net.state_dict())
    _assert_same(resumed.average.state_dict(), straight.average.state_dict())


def test_the_reported_loss_is_the_mean_since_the_last_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def step(self: Trainer, lr: torch.Tensor, hr: torch.Tensor) -> float:
        self.step += 1
        return float(self.step)

    monkeypatch.setattr(Trainer, "train_step", step)
    patches = _patches(_image_folder(tmp_path / "hr"))
    with caplog.at_level(logging.INFO, "train"):
        fit(Trainer.new("c-dcscn", 2, TINY), patches, tmp_path / "net.pt", every=4)
    reports = [r.message for r in caplog.records]
    assert ["step 4/6  L1 2.50000" in reports[0], "step 6/6  L1 5.50000" in reports[1]] == [
        True
    ] * 2


def test_an_interrupted_save_leaves_the_old_checkpoint_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.pt"
    trainer = Trainer.new("c-dcscn", 2, TINY)
    trainer.save(path)

    def disk_full(_saved: object, where: Path) -> None:
        where.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", disk_full)
    trainer.step = 5
    with pytest.raises(OSError, match="no space"):
        trainer.save(path)
    assert Trainer.resume(path).step == 0


# checkpoints one should not trust


def _damaged(whole: bytes, how: str) -> bytes:
    middle = len(whole) // 2  # amid the weights
    flipped = whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :]
    return {"empty": b"", "text": b"weights", "truncated": whole[:middle], "flipped": flipped}[how]


@pytest.mark.parametrize("how", ["empty", "text", "truncated", "flipped"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, how: str) -> None:
    path = tmp_path / "net.pt"
    Trainer.new("c-dcscn", 2, TINY).save(path)
    path.write_bytes(_damaged(path.read_bytes(), how))
    with pytest.raises(zipfile.BadZipFile):
        Trainer.resume(path)


class _Malicious:
    """Makes a folder when unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_a_checkpoint_that_holds_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    path, made = tmp_path / "net.pt", tmp_path / "made"
    torch.save({"name": "c-dcscn", "net": _Malicious(made)}, path)
    with pytest.raises(pickle.UnpicklingError):
        load_checkpoint(path)
    assert not made.exists()
    torch.load(path, weights_only=False)
    assert made.exists()  # the trap was live


def test_a_bare_pickle_is_refused_and_does_not_run(tmp_path: Path) -> None:
    path, made = tmp_path / "net.pt", tmp_path / "made"
    path.write_bytes(pickle.dumps(_Malicious(made)))
    with pytest.raises(zipfile.BadZipFile):
        load_checkpoint(path)
    assert not made.exists()
