"""Measures LPIPS, NIQE, Ma, PI and NIMA, for networks trained for perceptual quality, not PSNR.

LPIPS (Zhang et al. 2018) is version 0.1 on AlexNet: a distance of two pictures, 0 for equal ones.
Weights come from files that the user names; other libraries download theirs without asking.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from train.data.images import Pixels
from train.errors import TrainError
from train.measure.niqe import FILES as NIQE_FILES
from train.measure.niqe import Niqe, read_arrays
from train.measure.pyiqa_metrics import FILES as PYIQA_FILES
from train.measure.pyiqa_metrics import NIQE_FILE as PYIQA_NIQE_FILE
from train.measure.pyiqa_metrics import PyiqaMetrics, find_pyiqa, lpips_of, niqe_of

log = logging.getLogger(__name__)
Array = npt.NDArray[np.float64]

LPIPS_FILE = "lpips_alex_v0.1.npz"


@dataclass(frozen=True, kw_only=True)
class Perceptual:
    """The metrics that can be measured; None if weights or a library are missing."""

    lpips: Callable[[Pixels, Pixels], float] | None = None
    """LPIPS of two uint8 RGB [H, W, 3]."""
    niqe: Callable[[Array], float] | None = None
    """NIQE of a Y [H, W] in 16..235."""
    others: PyiqaMetrics | None = None
    """Ma, PI and NIMA of a uint8 RGB [H, W, 3]."""
    note: str = ""
    """Names of the weights' files, for the notes below a table."""


def load_perceptual(folder: Path | None) -> Perceptual:
    """Load the metrics from a folder of weights; if None, warn and load none. Never download."""
    if folder is None:
        log.warning("LPIPS and NIQE are not measured: give their weights with --weights FOLDER")
        return Perceptual()
    if not folder.is_dir():
        raise TrainError(
            f"folder {folder} does not exist: --weights needs the folder of the weights"
        )
    known = (LPIPS_FILE, *NIQE_FILES, *PYIQA_FILES)
    if not any((folder / name).exists() for name in known):
        names = ", ".join(known)
        raise TrainError(f"no weights in {folder}: expected one of {names}")
    pyiqa = find_pyiqa()
    lpips, by_lpips = _load_lpips(folder / LPIPS_FILE, pyiqa)
    niqe = _load_niqe(folder, pyiqa)
    others = PyiqaMetrics.load(folder, pyiqa, niqe.measure if niqe.is_authors else None)
    used = ", ".join(filter(None, (by_lpips, niqe.note, others.note if others else "")))
    return Perceptual(lpips=lpips, niqe=niqe.measure, others=others, note=used)


def _load_lpips(path: Path, pyiqa: Any) -> tuple[Callable[[Pixels, Pixels], float] | None, str]:
    """Return LPIPS by pyiqa if it is installed, else by our own code, and a note."""
    if not path.exists():
        return None, ""
    own = Lpips.load(path)
    if pyiqa is None:
        return own, path.name
    theirs = lpips_of(pyiqa, own.weights)

    def lpips(ours: Pixels, truth: Pixels) -> float:
        return theirs(ours, truth) if min(ours.shape[:2]) >= own.SMALLEST else math.nan

    return lpips, f"pyiqa ({path.name})"


@dataclass(frozen=True, kw_only=True)
class _NiqeChoice:
    """The NIQE that is measured, if any."""

    measure: Callable[[Array], float] | None = None
    note: str = ""
    is_authors: bool = False
    """Whether the model is the authors', whose figures are those of the papers."""


def _load_niqe(folder: Path, pyiqa: Any) -> _NiqeChoice:
    """Load NIQE by pyiqa if it and its file are there, else by our own code."""
    paths = [path for name in NIQE_FILES if (path := folder / name).exists()]
    for path in paths:
        if pyiqa is not None and path.name == PYIQA_NIQE_FILE:
            note = f"pyiqa ({path.name})"
            return _NiqeChoice(measure=niqe_of(pyiqa, path), note=note, is_authors=True)
    if not paths:
        return _NiqeChoice()
    own = Niqe.load(paths[0])
    return _NiqeChoice(measure=own, note=own.note, is_authors=not own.one_sided)


# LPIPS


class Lpips:
    """LPIPS 0.1 on AlexNet; weights are numbered in the layer order of torchvision and lpips."""

    _SHIFT = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
    _SCALE = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)
    _LAYERS = ((4, 2), (1, 2), (1, 1), (1, 1), (1, 1))
    """(stride, padding) of every convolution; the first two are followed by pooling."""
    SMALLEST = 31
    """Minimum side of a picture, in pixels: below it nothing is left after the pooling."""

    def __init__(self, weights: dict[str, npt.NDArray[Any]]) -> None:
        self.weights = {name: torch.from_numpy(value) for name, value in weights.items()}

    @classmethod
    def load(cls, path: Path) -> "Lpips":
        """Load an .npz with conv0..4.weight, conv0..4.bias and lin0..4.weight."""
        weights = read_arrays(path)
        required = [f"{part}{k}.weight" for k in range(5) for part in ("conv", "lin")]
        required += [f"conv{k}.bias" for k in range(5)]
        if missing := sorted(set(required) - set(weights)):
            raise TrainError(f"{path} is not an LPIPS (AlexNet) file: {missing[0]} is missing")
        return cls({name: np.array(weights[name], np.float32) for name in required})

    def __call__(self, ours: Pixels, truth: Pixels) -> float:
        """Return the distance of two uint8 RGB pictures; nan if they are below SMALLEST."""
        if min(ours.shape[:2]) < self.SMALLEST:
            return math.nan
        with torch.inference_mode():
            return float(self.distance(_tensor(ours), _tensor(truth)))

    def to(self, device: torch.device) -> "Lpips":
        """Return a copy on another device."""
        moved = Lpips({})
        moved.weights = {name: value.to(device) for name, value in self.weights.items()}
        return moved

    def distance(self, ours: Tensor, truth: Tensor) -> Tensor:
        """Return the mean distance of two batches [N, 3, H, W] in 0..1, a scalar with gradients."""
        pairs = zip(self._features(ours), self._features(truth), strict=True)
        parts = [
            functional.conv2d((a - b) ** 2, self.weights[f"lin{k}.weight"]).mean()
            for k, (a, b) in enumerate(pairs)
        ]
        return torch.stack(parts).sum()

    def _features(self, x: Tensor) -> list[Tensor]:
        """Return the five activations, each pixel's vector normalised to length 1."""
        x = (x * 2 - 1 - self._SHIFT.to(x.device)) / self._SCALE.to(x.device)
        found = []
        for k, (stride, padding) in enumerate(self._LAYERS):
            if k in {1, 2}:
                x = functional.max_pool2d(x, 3, 2)
            weight, bias = self.weights[f"conv{k}.weight"], self.weights[f"conv{k}.bias"]
            x = torch.relu(functional.conv2d(x, weight, bias, stride, padding))
            found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found


def _tensor(image: npt.NDArray[Any]) -> Tensor:
    planes = image.transpose(2, 0, 1) if image.ndim == 3 else image[None]
    return torch.from_numpy(np.ascontiguousarray(planes, np.float32) / 255)[None]
