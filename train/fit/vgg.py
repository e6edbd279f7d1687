"""Compute VGG features for perceptual losses (train/fit/gan.py, train/fit/sharp.py).

The weights come from a file that the user passes, normally torchvision's. Those were trained on RGB
normalised by ImageNet's mean and deviation, but PCARN's public code does not normalise.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from train.errors import TrainError
from train.files import load_torch
from train.fit.gan import PUBLIC, AdversarialSettings


@dataclass(frozen=True)
class _Layer:
    """3x3 convolution of VGG, followed by a ReLU."""

    name: str
    """Block number and position in the block, both from 1: "5_4"."""
    index: int
    """Index in torchvision's `features`."""
    source: int
    target: int
    pooled: bool
    """Whether a 2x2 max pooling precedes it."""


def _layout(counts: tuple[int, ...]) -> list[_Layer]:
    """Return a VGG's layers, `counts` convolutions per block (Simonyan, Zisserman, Table 1)."""
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


class _Normalised(nn.Module):
    """Normalisation of RGB in 0..1 by ImageNet's mean and deviation, for torchvision's weights."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, rgb in (("mean", (0.485, 0.456, 0.406)), ("deviation", (0.229, 0.224, 0.225))):
            self.register_buffer(name, torch.tensor(rgb).view(3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.deviation


def _modules(layer: _Layer, weights: tuple[Tensor, Tensor]) -> list[nn.Module]:
    """Return the modules of a layer: pooling if it has one, convolution, ReLU."""
    with torch.device("meta"):  # uses no random numbers, so the training's stay the same
        conv = nn.Conv2d(layer.source, layer.target, 3, padding=1)
    weight, bias = weights
    conv.load_state_dict({"weight": weight.float(), "bias": bias.float()}, assign=True)
    return [*([nn.MaxPool2d(2)] if layer.pooled else []), conv, nn.ReLU()]


class VggFeatures(nn.Module):
    """Frozen VGG that returns one layer's output: RGB [N, 3, H, W] in 0..1 -> [N, C, h, w].

    h = H // 8 for "4_3".
    """

    description: str = ""
    """Description of the VGG and its layer, for log and records."""

    def __init__(
        self,
        layers: list[_Layer],
        weights: list[tuple[Tensor, Tensor]],
        settings: AdversarialSettings,
    ) -> None:
        super().__init__()
        self.normalise = _Normalised() if settings.normalise else nn.Identity()
        body = [m for pair in zip(layers, weights, strict=True) for m in _modules(*pair)]
        self.body = nn.Sequential(*(body[:-1] if settings.before_relu else body))
        self.layer = layers[-1].name
        self.requires_grad_(False).eval()

    @classmethod
    def load(cls, path: Path, settings: AdversarialSettings = PUBLIC) -> "VggFeatures":
        """Load torchvision's VGG16 or VGG19 weights, complete or up to some layer.

        `.npz`: conv0.weight, conv0.bias, conv1.weight ...; `.safetensors` or torch's own format:
        features.N.weight, features.N.bias (other layers are ignored). Code in the file never runs.
        Raises TrainError if the file cannot be read, is damaged, of another format, or ends
        before `settings.relu`.
        """
        vgg, layers, weights = _match_layout(path, _read(path))
        names = [layer.name for layer in layers]
        layer_name = settings.relu or names[-1]
        if layer_name not in names:
            raise TrainError(f"{path} lacks relu{layer_name}: it has {vgg} up to relu{names[-1]}")
        depth = names.index(layer_name) + 1
        found = cls(layers[:depth], weights[:depth], settings)
        layer = (
            f"conv{layer_name}, before its ReLU" if settings.before_relu else f"relu{layer_name}"
        )
        range_ = "ImageNet's normalisation" if settings.normalise else "values of 0..1"
        found.description = f"{vgg} {layer}, {range_}"
        return found

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.normalise(x))


class VggLayers(nn.Module):
    """Frozen VGG16 that returns several layers before their ReLU, with ImageNet normalisation.

    RGB [N, 3, H, W] in 0..1 -> one [N, C, h, w] per layer, in order; h = H // 4 for "3_3".
    """

    description: str = ""
    """Description of the VGG and its layers, for log and records."""

    def __init__(
        self, layers: list[_Layer], weights: list[tuple[Tensor, Tensor]], names: tuple[str, ...]
    ) -> None:
        super().__init__()
        self.normalise, self.parts = _Normalised(), nn.ModuleList()
        part: list[nn.Module] = []
        for layer, values in zip(layers, weights, strict=True):
            *before, relu = _modules(layer, values)
            part += before
            if layer.name in names:
                self.parts.append(nn.Sequential(*part))
                part = []
            part.append(relu)
        self.requires_grad_(False).eval()

    @classmethod
    def load(cls, path: Path, names: tuple[str, ...]) -> "VggLayers":
        """Load the layers `names` ("3_3": third of the third block) of a file of VGG16 weights.

        File formats are those of `VggFeatures.load`. Raises TrainError if the file cannot be read,
        is damaged, is of another network (VGG19, for example), or ends before one of the layers.
        """
        vgg, layers, weights = _match_layout(path, _read(path))
        if vgg != "VGG16":  # the weights of the loss's parts are for VGG16
            raise TrainError(f"{path} contains {vgg}: the loss `sharp` needs VGG16")
        have = [layer.name for layer in layers]
        if missing := [name for name in names if name not in have]:
            raise TrainError(f"{path} lacks conv{missing[0]}: it has {vgg} up to conv{have[-1]}")
        depth = max(have.index(name) for name in names) + 1
        found = cls(layers[:depth], weights[:depth], names)
        convolutions = ", ".join(f"conv{name}" for name in names)
        found.description = f"{vgg} {convolutions}, before their ReLUs, ImageNet's normalisation"
        return found

    def forward(self, x: Tensor) -> list[Tensor]:
        found, x = [], self.normalise(x)
        for part in self.parts:
            x = part(x)
            found.append(x)
        return found


def _read(path: Path) -> dict[str, Tensor]:
    """Read the convolutions' weights and biases from a file, by key."""
    reader = {".npz": _npz, ".safetensors": _safetensors}.get(path.suffix.lower(), _torch)
    try:
        return reader(path)
    except TrainError:
        raise
    except OSError as exc:
        raise TrainError(f"cannot read {path}: {exc.strerror or exc}") from exc
    except Exception as exc:  # for foreign files the libraries raise almost any type
        raise TrainError(f"{path} is damaged, or not a file of weights") from exc


def _npz(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files if _KEY.fullmatch(key)}


def _safetensors(path: Path) -> dict[str, Tensor]:
    """Read header length, JSON header and values (huggingface/safetensors, README, "Format")."""
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
    saved = load_torch(path)
    return {key: value for key, value in saved.items() if _KEY.fullmatch(key)}


def _match_layout(
    path: Path, found: dict[str, Tensor]
) -> tuple[str, list[_Layer], list[tuple[Tensor, Tensor]]]:
    """Return (name of the matching layout, its layers in the file, their weights and biases)."""
    for vgg, layout in _LAYOUTS.items():
        layers = layout[: len(found) // 2]
        torchvision = [f"features.{layer.index}" for layer in layers]
        for names in (torchvision, [f"conv{i}" for i in range(len(layers))]):
            # no extra keys allowed: a VGG with batch norm is another network
            if found and set(found) == {
                f"{n}.{part}" for n in names for part in ("weight", "bias")
            }:
                weights = [(found[f"{n}.weight"], found[f"{n}.bias"]) for n in names]
                if all(map(_fits, layers, weights)):
                    return vgg, layers, weights
    raise TrainError(f"{path} contains no weights of VGG16 or VGG19 (without batch norm)")


def _fits(layer: _Layer, weights: tuple[Tensor, Tensor]) -> bool:
    shapes = ((layer.target, layer.source, 3, 3), (layer.target,))
    return all(
        isinstance(values, Tensor)
        and values.shape == shape
        and values.is_floating_point()
        and bool(values.isfinite().all())
        for values, shape in zip(weights, shapes, strict=True)
    )
