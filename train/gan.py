"""PCARN's second stage, for pictures that look real: three discriminators and a VGG loss.

Ahn, Kang, Sohn, "Efficient Deep Neural Network for Photo-realistic Image Super-Resolution",
arXiv:1903.02240; its public code nmhkahn/PCARN-pytorch (pcarn/solver_gan.py, pcarn/utils.py,
pcarn/model/ecarn.py) settles what the text leaves open. A step trains first the discriminators on
`discriminator_loss`, then the network on `generator_loss`, each with its own Adam at 1e-4; the same
enlarged pictures serve both, for the network does not change in between.

The discriminators end in logits where the public code has a sigmoid and binary cross entropy: the
same loss, but one that neither overflows nor rounds to 0 in bfloat16.

The features come from a file of VGG weights that the user names; torchvision's are meant (for RGB
that is normalised by ImageNet's mean and deviation, though the public code does not do so).
"""

import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from train.checkpoint import check_archive
from train.errors import TrainError


@dataclass(frozen=True, kw_only=True)
class Adversary:
    """Settings of the adversarial stage, as in the public code but for `before_relu`."""

    gamma_gan: float = 5e-3
    gamma_vgg: float = 1.0
    pools: tuple[int, ...] = (1, 2, 4)
    """One discriminator each, on the picture average-pooled by this much."""
    slope: float = 0.01
    """LeakyReLU's, for negative values."""
    relu: str | None = None
    """Features after which ReLU: "5_4" is the paper's (VGG19); None: the deepest in the file."""
    before_relu: bool = False
    """Take that layer before its ReLU. The paper writes relu5_4; the public code cuts torchvision's
    VGG19 after layer 34, which is conv5_4 without it."""
    normalise: bool = False
    """Normalise RGB by ImageNet's mean and deviation first, as VGG was trained. The public code
    feeds 0..1 as it is; normalised features are larger, and so is the weight of their loss."""


PUBLIC: Final = Adversary()


# discriminators


_LAYERS: Final = (
    (3, 64, 1), (64, 64, 2), (64, 128, 1), (128, 128, 2), (128, 256, 1), (256, 256, 2),
    (256, 512, 1), (512, 512, 1), (512, 1, 1),
)  # fmt: skip
"""Input channels, output channels, stride; 3x3 where it is 1, 4x4 where it is 2."""
_STRIDE: Final = 8  # of all layers together
_VGG_STRIDE: Final = 16  # of the deepest features


class Discriminator(nn.Module):
    """Nine convolutions on patches: [N, 3, H, W] in 0..1 -> logits [N, 1, h, w].

    h = H // pool // 8; each logit judges the 84x84 pixels (of the pooled picture) around it.
    """

    def __init__(self, pool: int, slope: float) -> None:
        super().__init__()
        self.pool = pool
        layers: list[nn.Module] = []
        for i, (source, target, stride) in enumerate(_LAYERS):
            layers.append(nn.Conv2d(source, target, 2 + stride, stride, padding=1))
            if 0 < i < len(_LAYERS) - 1:
                layers.append(nn.BatchNorm2d(target))
            if i < len(_LAYERS) - 1:
                layers.append(nn.LeakyReLU(slope))
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(functional.avg_pool2d(x, self.pool) if self.pool > 1 else x)


class Discriminators(nn.Module):
    """The multi-scale discriminator: [N, 3, H, W] in 0..1 -> one map of logits a pooling."""

    def __init__(self, settings: Adversary = PUBLIC) -> None:
        super().__init__()
        self.each = nn.ModuleList(Discriminator(p, settings.slope) for p in settings.pools)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [one(x) for one in self.each]


def smallest_patch(settings: Adversary, batch: int) -> int:
    """HR pixels a patch must be wide and high for every discriminator and any VGG."""
    # batch norm needs two values a channel, over patches and places together
    return max(_VGG_STRIDE, max(settings.pools) * _STRIDE * (1 if batch > 1 else 2))


def check_patch(settings: Adversary, hr_patch: int, batch: int) -> None:
    """Raises TrainError when patches of `hr_patch` HR pixels are too small for the settings."""
    if hr_patch < (needed := smallest_patch(settings, batch)):
        raise TrainError(
            f"patches of {hr_patch} HR pixels are too small for adversarial training: "
            f"discriminators on {settings.pools} times smaller pictures need {needed}"
        )


# losses


def discriminator_loss(d: Discriminators, sr: Tensor, hr: Tensor) -> Tensor:
    """Sum over the discriminators of their error on real and on enlarged pictures; a scalar.

    `sr`, `hr`: [N, 3, H, W] in 0..1; no gradient flows into `sr`.
    """
    # one call each, so that batch norm sees real and enlarged apart, as in the public code
    return _cross_entropy(d(hr), real=True) + _cross_entropy(d(sr.detach()), real=False)


def generator_loss(
    d: Discriminators, features: "VggFeatures", sr: Tensor, hr: Tensor, settings: Adversary
) -> tuple[Tensor, dict[str, Tensor]]:
    """(loss, parts): gamma_gan * parts["gan"] + gamma_vgg * parts["vgg"]; all scalars.

    gan: sum of the discriminators' cross entropies of calling `sr` real; vgg: mean squared
    difference of the features. `sr`, `hr`: [N, 3, H, W] in 0..1; parts carry no gradient.
    """
    with _frozen(d):
        gan = _cross_entropy(d(sr), real=True)
    with torch.no_grad():
        target = features(hr)
    vgg = functional.mse_loss(features(sr).float(), target.float())
    loss = settings.gamma_gan * gan + settings.gamma_vgg * vgg
    return loss, {"gan": gan.detach(), "vgg": vgg.detach()}


def _cross_entropy(maps: list[Tensor], real: bool) -> Tensor:
    losses = []
    for logits in maps:
        x = logits.float()  # of bfloat16 a mean over many would be coarse
        label = torch.full_like(x, float(real))
        losses.append(functional.binary_cross_entropy_with_logits(x, label))
    return torch.stack(losses).sum()


@contextmanager
def _frozen(d: Discriminators) -> Iterator[None]:
    """Spares the gradients of the discriminators' weights, which this step would throw away."""
    d.requires_grad_(False)
    try:
        yield
    finally:
        d.requires_grad_(True)


# VGG features


@dataclass(frozen=True)
class _Layer:
    """A convolution of VGG, 3x3 with a ReLU behind it."""

    name: str
    """Block and place in it, both from 1: "5_4"."""
    index: int
    """Place in torchvision's `features`."""
    source: int
    target: int
    pooled: bool
    """Whether a 2x2 max pooling stands before it."""


def _layout(counts: tuple[int, ...]) -> list[_Layer]:
    """The layers of a VGG with so many convolutions per block (Simonyan, Zisserman, Table 1)."""
    widths, layers, source, index = (64, 128, 256, 512, 512), [], 3, 0
    for block, (count, width) in enumerate(zip(counts, widths, strict=True), 1):
        for place in range(1, count + 1):
            pooled = place == 1 and block > 1
            index += pooled
            layers.append(_Layer(f"{block}_{place}", index, source, width, pooled))
            source, index = width, index + 2
    return layers


_LAYOUTS: Final = {"VGG16": _layout((2, 2, 3, 3, 3)), "VGG19": _layout((2, 2, 4, 4, 4))}
_KEY: Final = re.compile(r"(?:conv|features\.)\d+\.(?:weight|bias)")
_DTYPES: Final = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16,
                  "BF16": torch.bfloat16}  # fmt: skip


class VggFeatures(nn.Module):
    """One layer of a frozen VGG: RGB [N, 3, H, W] in 0..1 -> [N, C, h, w]; h = H // 8 for "4_3"."""

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, layers: list[_Layer], weights: list[tuple[Tensor, Tensor]], settings: Adversary
    ) -> None:
        super().__init__()
        self.normalise = settings.normalise
        for name, rgb in (("mean", (0.485, 0.456, 0.406)), ("deviation", (0.229, 0.224, 0.225))):
            self.register_buffer(name, torch.tensor(rgb).view(3, 1, 1), persistent=False)
        body: list[nn.Module] = []
        for layer, (weight, bias) in zip(layers, weights, strict=True):
            with torch.device("meta"):  # draws no random weights, which would shift the training's
                conv = nn.Conv2d(layer.source, layer.target, 3, padding=1)
            conv.load_state_dict({"weight": weight.float(), "bias": bias.float()}, assign=True)
            body += [nn.MaxPool2d(2)] if layer.pooled else []
            body += [conv, nn.ReLU()]
        self.body = nn.Sequential(*(body[:-1] if settings.before_relu else body))
        self.layer = layers[-1].name
        self.requires_grad_(False).eval()

    @classmethod
    def load(cls, path: Path, settings: Adversary = PUBLIC) -> "VggFeatures":
        """From torchvision's VGG16 or VGG19 weights, complete or up to some layer.

        `.npz`: conv0.weight, conv0.bias, conv1.weight ...; `.safetensors` or torch's own format:
        features.N.weight, features.N.bias (other layers are ignored). Code in the file never runs.
        Raises TrainError when the file cannot be read, is damaged, is something else, or ends
        before `settings.relu`.
        """
        vgg, layers, weights = _matched(path, _read(path))
        names = [layer.name for layer in layers]
        wanted = settings.relu or names[-1]
        if wanted not in names:
            raise TrainError(f"{path} has no relu{wanted}: it is {vgg} up to relu{names[-1]}")
        depth = names.index(wanted) + 1
        return cls(layers[:depth], weights[:depth], settings)

    def forward(self, x: Tensor) -> Tensor:
        if self.normalise:
            x = (x - self.mean) / self.deviation
        return self.body(x)


def _read(path: Path) -> dict[str, Tensor]:
    """The convolutions' weights and biases in a file, by key."""
    reader = {".npz": _npz, ".safetensors": _safetensors}.get(path.suffix.lower(), _torch)
    try:
        return reader(path)
    except OSError as exc:
        raise TrainError(f"cannot read {path}: {exc.strerror or exc}") from exc
    except pickle.UnpicklingError as exc:
        raise TrainError(f"{path} is damaged, or holds more than weights") from exc
    except Exception as exc:  # bytes that are no such file raise nearly anything in the libraries
        raise TrainError(f"{path} is damaged, or not a file of weights") from exc


def _npz(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files if _KEY.fullmatch(key)}


def _safetensors(path: Path) -> dict[str, Tensor]:
    """Length of the header, header in JSON, values (huggingface/safetensors, README, "Format")."""
    found = {}
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            raise ValueError("header longer than the file")
        header: dict[str, Any] = json.loads(file.read(length))
        for key, entry in header.items():
            if _KEY.fullmatch(key):
                first, end = entry["data_offsets"]
                file.seek(8 + length + first)
                values = bytearray(file.read(end - first))
                flat = torch.frombuffer(values, dtype=_DTYPES[entry["dtype"]])
                found[key] = flat.reshape(entry["shape"])
    return found


def _torch(path: Path) -> dict[str, Tensor]:
    if zipfile.is_zipfile(path):  # the older format has no checksums
        check_archive(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's about odd pickles: what matters raises
        saved = torch.load(path, map_location="cpu", weights_only=True)
    return {key: value for key, value in saved.items() if _KEY.fullmatch(key)}


def _matched(
    path: Path, found: dict[str, Tensor]
) -> tuple[str, list[_Layer], list[tuple[Tensor, Tensor]]]:
    """(layout's name, its layers that the file has, their weights and biases)."""
    for vgg, layout in _LAYOUTS.items():
        layers = layout[: len(found) // 2]
        torchvision = [f"features.{layer.index}" for layer in layers]
        for names in (torchvision, [f"conv{i}" for i in range(len(layers))]):
            # nothing may be left over: with batch norm in between it would be another network
            if found and set(found) == {
                f"{n}.{part}" for n in names for part in ("weight", "bias")
            }:
                weights = [(found[f"{n}.weight"], found[f"{n}.bias"]) for n in names]
                if all(map(_fits, layers, weights)):
                    return vgg, layers, weights
    raise TrainError(f"{path} holds no weights of VGG16 or VGG19 (without batch norm)")


def _fits(layer: _Layer, weights: tuple[Tensor, Tensor]) -> bool:
    shapes = ((layer.target, layer.source, 3, 3), (layer.target,))
    return all(
        isinstance(values, Tensor)
        and values.shape == shape
        and values.is_floating_point()
        and bool(values.isfinite().all())
        for values, shape in zip(weights, shapes, strict=True)
    )
