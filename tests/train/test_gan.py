"""Tests of the adversarial stage: PCARN's discriminators and losses, VGG features from a file."""

import json
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from train.errors import TrainError
from train.fit.gan import (
    AdversarialSettings,
    Discriminators,
    check_patch,
    discriminator_loss,
    generator_loss,
    smallest_patch,
)
from train.fit.vgg import VggFeatures

State = dict[str, Tensor]
ONE = AdversarialSettings(pools=(1,))

# torchvision's configurations "D" and "E"; 0 is a max pooling
VGG16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)
VGG19 = (64, 64, 0, 128, 128, 0, *[256] * 4, 0, *[512] * 4, 0, *[512] * 4, 0)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Use one thread: small work is faster and reproducible, above all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _same_every_time() -> None:
    torch.manual_seed(1)


def _vgg(widths: tuple[int, ...], batch_norm: bool = False) -> nn.Sequential:
    """Return VGG's feature layers, numbered as in torchvision, with random weights."""
    layers: list[nn.Module] = []
    source = 3
    for width in widths:
        if not width:
            layers.append(nn.MaxPool2d(2))
            continue
        layers.append(nn.Conv2d(source, width, 3, padding=1))
        layers += [nn.BatchNorm2d(width)] if batch_norm else []
        layers.append(nn.ReLU())
        source = width
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)  # otherwise deep features are almost constant
    return nn.Sequential(*layers)


def _state(features: nn.Sequential) -> State:
    """Return the state of the whole network as in torchvision, with a classifier at the end."""
    state = {f"features.{key}": value for key, value in features.state_dict().items()}
    return state | {"classifier.0.weight": torch.zeros(2, 2), "classifier.0.bias": torch.zeros(2)}


def _save_npz(state: State, path: Path) -> None:
    """Save the features only, with the keys conv0.weight, conv0.bias, conv1.weight ..."""
    found = [key for key in state if key.startswith("features.")]
    arrays = {f"conv{i // 2}.{key.split('.')[-1]}": state[key] for i, key in enumerate(found)}
    np.savez(path, **{key: value.numpy() for key, value in arrays.items()})  # type: ignore[arg-type]


def _save_zip(state: State, path: Path) -> None:
    torch.save(state, path)


def _save_legacy(state: State, path: Path) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)


def _save_safetensors(state: State, path: Path) -> None:
    names = {torch.float32: "F32", torch.float16: "F16"}
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    values = b""
    for key, value in state.items():
        data = value.numpy().tobytes()
        offsets = [len(values), len(values) + len(data)]
        header[key] = {"dtype": names[value.dtype], "shape": value.shape, "data_offsets": offsets}
        values += data
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + values)


FORMATS: dict[str, tuple[str, Callable[[State, Path], None]]] = {
    "npz": ("vgg.npz", _save_npz),
    "torch": ("vgg.pth", _save_zip),
    "old torch": ("vgg.pth", _save_legacy),
    "safetensors": ("vgg.safetensors", _save_safetensors),
}


def _saved(folder: Path, kind: str, state: State) -> Path:
    name, save = FORMATS[kind]
    save(state, folder / name)
    return folder / name


@pytest.fixture
def toy(tmp_path: Path) -> VggFeatures:
    """Return VGG's first three convolutions, random; the features are [N, 128, H/2, W/2]."""
    return VggFeatures.load(_saved(tmp_path, "torch", _state(_vgg(VGG16[:4]))))


def _pictures(size: int = 32) -> tuple[Tensor, Tensor]:
    """Return (blurred, sharp): two batches [2, 3, size, size] in 0..1."""
    sharp = torch.rand(2, 3, size, size)
    return functional.avg_pool2d(sharp, 3, 1, 1, count_include_pad=False), sharp


# discriminators


def test_a_discriminator_is_the_public_codes_layer_for_layer() -> None:
    (one,) = Discriminators(ONE).each
    assert isinstance(one.body, nn.Sequential)
    drawn = []
    for layer in one.body:
        match layer:
            case nn.Conv2d():
                assert layer.padding == (1, 1)
                stride = f"/{layer.stride[0]}" if layer.stride != (1, 1) else ""
                drawn.append(
                    f"{layer.in_channels}-{layer.out_channels} {layer.kernel_size[0]}{stride}"
                )
            case nn.BatchNorm2d():
                drawn.append("norm")
            case nn.LeakyReLU():
                drawn.append(f"{layer.negative_slope}")
    inner = ["64-64 4/2", "64-128 3", "128-128 4/2", "128-256 3", "256-256 4/2", "256-512 3"]
    inner.append("512-512 3")
    assert drawn == [
        *("3-64 3", "0.01"),
        *(part for conv in inner for part in (conv, "norm", "0.01")),
        "512-1 3",
    ]


def test_a_discriminator_has_as_many_parameters_as_computed_by_hand() -> None:
    d = Discriminators()
    convolutions = 1_792 + 65_600 + 73_856 + 262_272 + 295_168 + 1_048_832 + 1_180_160 + 2_359_808
    norms = 2 * (64 + 128 + 128 + 256 + 256 + 512 + 512)
    assert [sum(p.numel() for p in one.parameters()) for one in d.each] == [5_295_809] * 3
    assert convolutions + (512 * 9 + 1) + norms == 5_295_809


@pytest.mark.parametrize(("size", "maps"), [(96, [12, 6, 3]), (48, [6, 3, 1]), (100, [12, 6, 3])])
def test_maps_of_logits_are_an_eighth_of_each_pooled_picture(size: int, maps: list[int]) -> None:
    with torch.inference_mode():
        logits = Discriminators().eval()(torch.rand(1, 3, size, size))
    assert [tuple(x.shape) for x in logits] == [(1, 1, n, n) for n in maps]


def test_each_discriminator_judges_the_averaged_picture() -> None:
    d, x = Discriminators(AdversarialSettings(pools=(1, 2))).eval(), torch.rand(1, 3, 16, 24)
    small = x.reshape(1, 3, 8, 2, 12, 2).mean((3, 5))
    with torch.inference_mode():
        assert torch.equal(d(x)[0], d.each[0].body(x))
        torch.testing.assert_close(d(x)[1], d.each[1].body(small))


def test_a_logit_judges_84_pixels() -> None:
    x = torch.rand(1, 3, 128, 128, requires_grad=True)
    (logits,) = Discriminators(ONE).eval()(x)
    logits[0, 0, 8, 8].backward()
    assert x.grad is not None
    felt = x.grad.abs().amax((0, 1, 2)).nonzero()
    assert int(felt.max() - felt.min()) + 1 == 84


@pytest.mark.parametrize(("batch", "needed"), [(2, 32), (1, 64)])
def test_smaller_patches_than_the_smallest_are_refused_as_torch_would(
    batch: int, needed: int
) -> None:
    settings, d = AdversarialSettings(), Discriminators()
    assert smallest_patch(settings, batch) == needed
    check_patch(settings, needed, batch)
    d(torch.rand(batch, 3, needed, needed))
    with pytest.raises(
        TrainError, match=rf"^patches of {needed - 1} HR .* need at least {needed}$"
    ):
        check_patch(settings, needed - 1, batch)
    with pytest.raises((RuntimeError, ValueError)):
        d(torch.rand(batch, 3, needed - 1, needed - 1))


def test_without_pooling_the_features_set_the_smallest_patch() -> None:
    assert smallest_patch(ONE, 8) == 16  # four poolings by two before relu5_4


# losses


def _public_loss(maps: list[Tensor], label: float) -> Tensor:
    """Compute sigmoid and binary cross entropy as in the public code."""
    return torch.stack([nn.BCELoss()(x.sigmoid(), torch.full_like(x, label)) for x in maps]).sum()


def test_discriminator_loss_is_the_public_one() -> None:
    d, (sr, hr) = Discriminators(AdversarialSettings(pools=(1, 2))), _pictures()
    with torch.no_grad():
        expected = _public_loss(d(hr), 1.0) + _public_loss(d(sr), 0.0)
        torch.testing.assert_close(discriminator_loss(d, sr, hr), expected)


def test_discriminator_loss_trains_the_discriminators_alone() -> None:
    d, (sr, hr) = Discriminators(AdversarialSettings(pools=(1, 2))), _pictures()
    sr.requires_grad_(True)
    discriminator_loss(d, sr, hr).backward()
    assert sr.grad is None
    assert all(p.grad is not None for p in d.parameters())


def test_generator_loss_is_the_public_one(toy: VggFeatures) -> None:
    settings = AdversarialSettings(gamma_gan=0.3, gamma_vgg=0.7, pools=(1, 2))
    d, (sr, hr) = Discriminators(settings), _pictures()
    loss, parts = generator_loss(d, toy, sr.requires_grad_(True), hr, settings)
    torch.testing.assert_close(parts["gan"], _public_loss(d(sr), 1.0).detach())
    torch.testing.assert_close(parts["vgg"], (toy(sr) - toy(hr)).square().mean().detach())
    torch.testing.assert_close(loss.detach(), 0.3 * parts["gan"] + 0.7 * parts["vgg"])
    assert loss.requires_grad and not any(part.requires_grad for part in parts.values())


def test_generator_loss_trains_the_network_alone(toy: VggFeatures) -> None:
    d, (sr, hr) = Discriminators(ONE), _pictures()
    loss, _ = generator_loss(d, toy, sr.requires_grad_(True), hr, ONE)
    loss.backward()
    assert sr.grad is not None and bool(sr.grad.abs().max() > 0)
    assert all(p.grad is None for p in [*d.parameters(), *toy.parameters()])
    assert all(p.requires_grad for p in d.parameters())  # restored for the next step


def test_discriminators_stay_trainable_after_a_failed_step(toy: VggFeatures) -> None:
    d = Discriminators(ONE)
    with pytest.raises(RuntimeError):
        generator_loss(d, toy, torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4), ONE)
    assert all(p.requires_grad for p in d.parameters())


def test_losses_are_stable_in_bfloat16_and_for_sure_discriminators(toy: VggFeatures) -> None:
    d, (sr, hr) = Discriminators(ONE), _pictures()
    with torch.no_grad():
        d.each[0].body[-1].bias.fill_(-300.0)  # a sigmoid of it underflows to 0
    with torch.autocast("cpu", torch.bfloat16):
        loss, parts = generator_loss(d, toy, sr.requires_grad_(True), hr, ONE)
        both = discriminator_loss(d, sr, hr)
    loss.backward()
    both.backward()
    assert loss.dtype == both.dtype == parts["vgg"].dtype == torch.float32
    assert float(parts["gan"]) == pytest.approx(300, rel=0.02)
    assert float(both.detach()) == pytest.approx(300, rel=0.02)
    gradients = [sr.grad, *(p.grad for p in d.parameters())]
    assert all(g is not None and bool(g.isfinite().all()) for g in gradients)


def test_a_few_steps_lower_the_discriminators_loss() -> None:
    d, (sr, hr) = Discriminators(AdversarialSettings(pools=(1, 2))), _pictures()
    optimiser = torch.optim.Adam(d.parameters(), lr=1e-4)
    losses = []
    for _ in range(6):
        loss = discriminator_loss(d, sr, hr)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("weights", "part"), [((1.0, 0.0), "gan"), ((0.0, 1.0), "vgg"), ((5e-3, 1.0), "vgg")]
)
def test_a_few_steps_lower_the_generators_loss(
    toy: VggFeatures, weights: tuple[float, float], part: str
) -> None:
    settings = AdversarialSettings(gamma_gan=weights[0], gamma_vgg=weights[1], pools=(1, 2))
    d, (sr, hr) = Discriminators(settings), _pictures()
    optimiser = torch.optim.Adam([sr.requires_grad_(True)], lr=1e-2)
    losses, parts = [], []
    for _ in range(8):
        loss, now = generator_loss(d, toy, sr, hr, settings)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
        parts.append(float(now[part]))
    assert losses[-1] < 0.95 * losses[0]
    assert parts[-1] < 0.95 * parts[0]


# features


def _by_hand(x: Tensor, state: State, convs: int, pools_before: tuple[int, ...]) -> Tensor:
    """Return the features after `convs` convolutions, without the last one's ReLU."""
    weights = [value for key, value in state.items() if key.startswith("features.")]
    for i in range(convs):
        x = functional.max_pool2d(x, 2, 2) if i in pools_before else x
        x = functional.conv2d(x, weights[2 * i].float(), weights[2 * i + 1].float(), padding=1)
        x = x.relu() if i < convs - 1 else x
    return x


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_same_features(tmp_path: Path, kind: str) -> None:
    state = {key: value.half() for key, value in _state(_vgg(VGG16[:9])).items()}
    features = VggFeatures.load(_saved(tmp_path, kind, state))
    x = torch.rand(2, 3, 20, 12)
    assert features.layer == "3_3"
    torch.testing.assert_close(features(x), _by_hand(x, state, 7, (2, 4)).relu())


@pytest.mark.parametrize(
    ("before_relu", "normalise"), [(False, False), (True, False), (False, True), (True, True)]
)
def test_settings_say_what_stands_around_the_convolutions(
    tmp_path: Path, before_relu: bool, normalise: bool
) -> None:
    state = _state(_vgg(VGG16[:4]))
    settings = AdversarialSettings(before_relu=before_relu, normalise=normalise)
    features = VggFeatures.load(_saved(tmp_path, "torch", state), settings)
    x = seen = torch.rand(2, 3, 8, 8)
    if normalise:
        mean, deviation = torch.tensor(((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        seen = (x - mean.view(1, 3, 1, 1)) / deviation.view(1, 3, 1, 1)
    expected = _by_hand(seen, state, 3, (2,))
    torch.testing.assert_close(features(x), expected if before_relu else expected.relu())


@pytest.mark.parametrize(
    ("widths", "relu", "end"),
    [(VGG16, "3_3", 16), (VGG16, "5_3", 30), (VGG16, None, 30), (VGG19, "3_4", 18)],
)
def test_a_complete_vgg_is_cut_after_the_layer_asked_for(
    tmp_path: Path, widths: tuple[int, ...], relu: str | None, end: int
) -> None:
    vgg = _vgg(widths)
    features = VggFeatures.load(
        _saved(tmp_path, "torch", _state(vgg)), AdversarialSettings(relu=relu)
    )
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(features(x), vgg[:end](x))


def test_vgg19_gives_the_papers_layer_and_the_public_codes(tmp_path: Path) -> None:
    vgg, x = _vgg(VGG19), torch.rand(1, 3, 32, 32)
    path = _saved(tmp_path, "torch", _state(vgg))
    paper = VggFeatures.load(path, AdversarialSettings(relu="5_4"))
    assert torch.equal(paper(x), vgg[:36](x))
    assert paper.description == "VGG19 relu5_4, values of 0..1"
    public = VggFeatures.load(path, AdversarialSettings(before_relu=True))
    assert torch.equal(public(x), vgg[:35](x))  # features[:34 + 1]
    assert public.description == "VGG19 conv5_4, before its ReLU, values of 0..1"
    assert public(x).shape == (1, 512, 2, 2)


def test_a_layer_that_the_file_lacks_is_named(tmp_path: Path) -> None:
    path = _saved(tmp_path, "npz", _state(_vgg(VGG19[:10])))
    with pytest.raises(TrainError, match=r"vgg\.npz lacks relu5_4: it has VGG19 up to relu3_4$"):
        VggFeatures.load(path, AdversarialSettings(relu="5_4"))


def test_features_are_frozen_and_loading_draws_no_random_numbers(tmp_path: Path) -> None:
    path = _saved(tmp_path, "torch", _state(_vgg(VGG16[:4])))
    before = torch.get_rng_state()
    features = VggFeatures.load(path)
    assert torch.equal(torch.get_rng_state(), before)
    assert not features.training
    assert not any(p.requires_grad for p in features.parameters())


def test_real_vgg16_features_equal_a_plain_recomputation(data: Path) -> None:
    path = data.parent / "reference/weights/vgg16_to_relu4_3_fp16.npz"
    if not path.exists():
        pytest.skip(f"{path} is missing: no real VGG weights to test on")
    features = VggFeatures.load(path)
    with np.load(path) as file:
        state = {f"features.{key}": torch.from_numpy(file[key]) for key in file.files}
    x = torch.rand(1, 3, 40, 24)
    assert features.layer == "4_3"
    assert features(x).shape == (1, 512, 5, 3)
    torch.testing.assert_close(features(x), _by_hand(x, state, 10, (2, 4, 7)).relu())


# untrusted files


def _assert_refused(path: Path, why: str) -> None:
    with pytest.raises(TrainError, match=why) as caught:
        VggFeatures.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("how", ["empty", "text", "truncated"])
@pytest.mark.parametrize("kind", FORMATS)
def test_a_damaged_file_is_refused(tmp_path: Path, kind: str, how: str) -> None:
    path = _saved(tmp_path, kind, _state(_vgg(VGG16[:4])))
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "text": b"weights " * 9, "truncated": whole[:-9999]}[how])
    _assert_refused(path, "damaged")


@pytest.mark.parametrize("kind", ["npz", "torch"])  # other formats have no checksums
def test_a_flipped_bit_is_noticed(tmp_path: Path, kind: str) -> None:
    path = _saved(tmp_path, kind, _state(_vgg(VGG16[:4])))
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)
    _assert_refused(path, "damaged")


def _without_bias(state: State) -> State:
    return {key: value for key, value in state.items() if key != "features.5.bias"}


FOREIGN: dict[str, Callable[[], State]] = {
    "nothing": dict,
    "another network": lambda: {"entry.weight": torch.zeros(64, 3, 3, 3)},
    "no first layers": lambda: {k: v for k, v in _state(_vgg(VGG16[:4])).items() if "s.0" not in k},
    "a bias missing": lambda: _without_bias(_state(_vgg(VGG16[:4]))),
    "with batch norm": lambda: _state(_vgg(VGG16[:4], batch_norm=True)),
    "other widths": lambda: _state(_vgg((64, 96))),
    "infinite": lambda: {k: v / 0 for k, v in _state(_vgg((64,))).items()},
    "whole numbers": lambda: {k: v.int() for k, v in _state(_vgg((64,))).items()},
    "deeper than VGG19": lambda: _state(_vgg((*VGG19[:10], 256))),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_another_networks_weights_are_refused(tmp_path: Path, what: str) -> None:
    _assert_refused(_saved(tmp_path, "torch", FOREIGN[what]()), "no weights of VGG16 or VGG19")


def test_something_else_than_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vgg.pth"
    torch.save([1, 2], path)
    _assert_refused(path, "not a file of weights")
    torch.save({"features.0.weight": 1, "features.0.bias": "b"}, path)
    _assert_refused(path, "no weights of VGG16")


def test_alexnet_weights_are_refused(data: Path) -> None:
    path = data.parent / "reference/weights/lpips_alex_v0.1.npz"
    if not path.exists():
        pytest.skip(f"{path} is missing: no AlexNet to refuse")
    _assert_refused(path, "no weights of VGG16 or VGG19")


def test_what_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    _assert_refused(tmp_path / "missing.npz", "cannot read .*No such file")
    _assert_refused(tmp_path / "missing.pth", "cannot read .*No such file")
    _assert_refused(tmp_path, "cannot read .*[Ii]s a directory")


class _Malicious:
    """Makes a folder when unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("kind", ["npz", "torch", "old torch", "pickle"])
def test_a_file_that_holds_code_is_refused_and_does_not_run(tmp_path: Path, kind: str) -> None:
    made, trap = tmp_path / "made", _Malicious(tmp_path / "made")
    path = tmp_path / ("vgg.npz" if kind == "npz" else "vgg.pth")
    match kind:
        case "npz":
            held = np.empty(1, object)
            held[0] = trap
            np.savez(path, **{"conv0.weight": held, "conv0.bias": held})  # type: ignore[arg-type]
        case "pickle":
            path.write_bytes(pickle.dumps(trap))
        case _:
            torch.save(
                {"features.0.weight": trap}, path, _use_new_zipfile_serialization=kind == "torch"
            )
    _assert_refused(path, "damaged")
    assert not made.exists()
