"""Metrics that pyiqa computes, where it is installed, with weights from files.

Ma (Ma, Yang, Yang, Yang 2017; pyiqa calls it NRQM) is of Y, higher is better. The Perceptual Index
of the PIRM 2018 challenge (Blau et al. 2018) is (10 - Ma + NIQE) / 2, lower is better. NIMA
(Talebi, Milanfar 2018) is of RGB, 1 to 10. Without pyiqa, LPIPS and NIQE are computed by our own
code, which gives the same figures.

Files have the names under which pyiqa publishes them; LPIPS has our file, which holds its AlexNet
too. Nothing is downloaded: pyiqa first requests ImageNet weights from timm (NIMA) or torchvision
(LPIPS), and then replaces all of them with the file's, so these requests are suppressed.
"""

import contextlib
import importlib
import logging
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from train.data.images import Pixels
from train.errors import TrainError
from train.files import load_torch
from train.measure.metrics import luma
from train.measure.niqe import BLOCK

log = logging.getLogger(__name__)

FILES: Final = {
    "NRQM_model.mat": ("Ma", "nrqm"),
    "NIMA_InceptionV2_ava-b0c77c00.pth": ("NIMA", "nima"),
    "NIMA_VGG16_ava-dc4e8265.pth": ("NIMA", "nima-vgg16-ava"),
}
"""File -> (name of the column, pyiqa's name of the metric)."""
NIQE_FILE: Final = "niqe_modelparameters.mat"
"""The authors' NIQE model, as pyiqa publishes it."""
NAMES: Final = ("Ma", "PI", "NIMA")
"""Names of the columns, in order."""
_ALEXNET: Final = ("slice1.0", "slice2.3", "slice3.6", "slice4.8", "slice5.10")
"""pyiqa's names of AlexNet's convolutions, in order."""
_CONSTANTS: Final = frozenset({"scaling_layer.shift", "scaling_layer.scale"})
"""Parts of pyiqa's LPIPS that are no weights."""
_DOWNLOADS: Final = (
    ("timm", "create_model", {"pretrained": False}),
    ("torchvision.models", "alexnet", {"weights": None}),
)
"""Functions that download weights (module, name), and the arguments with which they do not."""


@dataclass(frozen=True, kw_only=True)
class PyiqaMetrics:
    """The metrics whose weights were found; a call measures them all."""

    each: dict[str, Callable[[Pixels], float]] = field(default_factory=dict)
    niqe: Callable[[npt.NDArray[np.float64]], float] | None = None
    """NIQE of Y with the authors' model; without it PI is not computed."""
    note: str = ""

    @classmethod
    def load(
        cls,
        folder: Path,
        pyiqa: Any | None,
        niqe: Callable[[npt.NDArray[np.float64]], float] | None,
    ) -> "PyiqaMetrics | None":
        """Load the metrics with weights in `folder`; None if there are none or `pyiqa` is None.

        A missing pyiqa is logged. Raises TrainError for files that are damaged, of another kind, or
        contain code.
        """
        found = {name: FILES[name] for name in FILES if (folder / name).exists()}
        if not found:
            return None
        if pyiqa is None:
            columns = ", ".join(dict.fromkeys(column for column, _ in found.values()))
            log.warning("%s not measured: pip install pyiqa", columns)
            return None
        each: dict[str, Callable[[Pixels], float]] = {}
        for name, (column, metric) in found.items():
            each.setdefault(column, _metric(pyiqa, metric, folder / name))
        return cls(each=each, niqe=niqe, note=f"pyiqa ({', '.join(found)})")

    def __call__(self, picture: Pixels) -> dict[str, float]:
        """Return Ma, PI and NIMA, if available, of a uint8 RGB picture [H, W, 3]."""
        found = {column: measure(picture) for column, measure in self.each.items()}
        if self.niqe is not None and "Ma" in found:
            found["PI"] = (10 - found["Ma"] + self.niqe(luma(picture))) / 2
        return found


def find_pyiqa() -> Any | None:
    """Import pyiqa; return None if it is not installed or, with a warning, cannot be imported."""
    try:
        with _quiet_and_offline():
            return importlib.import_module("pyiqa")
    except Exception as exc:  # torchvision of another torch raises RuntimeError
        if isinstance(exc, ModuleNotFoundError) and exc.name == "pyiqa":
            return None
        log.warning("pyiqa is not used: it cannot be imported: %s", exc)
        return None


def lpips_of(pyiqa: Any, weights: dict[str, Tensor]) -> Callable[[Pixels, Pixels], float]:
    """Load pyiqa's LPIPS (0.1, AlexNet) with weights named as in our file (conv0.weight...).

    The result takes two uint8 RGB [H, W, 3]. Raises TrainError if this pyiqa has other layers.
    """
    names = {f"lins.{k}.model.1.weight": f"lin{k}.weight" for k in range(5)}
    names |= {f"lin{k}.model.1.weight": f"lin{k}.weight" for k in range(5)}
    for k, layer in enumerate(_ALEXNET):
        names |= {f"net.{layer}.{part}": f"conv{k}.{part}" for part in ("weight", "bias")}
    ours = {name: weights[own] for name, own in names.items()}
    try:
        with _quiet_and_offline():
            metric = pyiqa.create_metric("lpips", device=torch.device("cpu"), pretrained=False)
        replaced = metric.net.load_state_dict(ours, strict=False)
        if left := [*replaced.unexpected_keys, *set(replaced.missing_keys) - _CONSTANTS]:
            raise ValueError(f"its layer {left[0]} is not known")
    except Exception as exc:  # the libraries raise almost any error
        why = " ".join(str(exc).split())[:200]
        raise TrainError(
            f"pyiqa's LPIPS does not take these weights; pyiqa 0.1.16 is known to: {why}"
        ) from exc
    return lambda one, other: float(metric(_tensor(one), _tensor(other)))


def niqe_of(pyiqa: Any, path: Path) -> Callable[[npt.NDArray[np.float64]], float]:
    """Load pyiqa's NIQE with the authors' model. The result takes a Y [H, W] in 0..255."""
    metric = _create(pyiqa, "niqe", path)

    def niqe(y: npt.NDArray[np.float64]) -> float:
        if (y.shape[0] // BLOCK) * (y.shape[1] // BLOCK) < 2:
            return math.nan
        try:
            return float(metric(torch.from_numpy(y / 255)[None, None]))
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # flat: no features
            return math.nan

    return niqe


def _metric(pyiqa: Any, name: str, path: Path) -> Callable[[Pixels], float]:
    if path.suffix == ".pth":
        load_torch(path)  # refuses code, which pyiqa would run
        metric = _create(pyiqa, name, path)
    else:
        metric = _create(pyiqa, name, path, color_space="ycbcr")  # as pyiqa's PI has it
    return lambda picture: float(metric(_tensor(picture)))


def _create(pyiqa: Any, name: str, path: Path, **settings: Any) -> Callable[..., Tensor]:
    try:
        with _quiet_and_offline():
            return pyiqa.create_metric(
                name, device=torch.device("cpu"), pretrained_model_path=str(path), **settings
            )
    except Exception as exc:  # the libraries raise almost any error for wrong bytes
        raise TrainError(f"{path} is damaged, or not pyiqa's file for {name}: {exc}") from exc


def _tensor(picture: Pixels) -> Tensor:
    """Return a uint8 RGB [H, W, 3] as [1, 3, H, W] in 0..1."""
    planes = np.ascontiguousarray(picture.transpose(2, 0, 1), np.float32) / 255
    return torch.from_numpy(planes)[None]


@contextlib.contextmanager
def _quiet_and_offline() -> Iterator[None]:
    """Send pyiqa's output to stderr, and prevent downloads of weights that get replaced."""
    with contextlib.redirect_stdout(sys.stderr), contextlib.ExitStack() as patches:
        for module, function, without in _DOWNLOADS:
            with contextlib.suppress(ImportError, RuntimeError):
                library: Any = importlib.import_module(module)
                original = getattr(library, function)
                setattr(library, function, _with(original, without))
                patches.callback(setattr, library, function, original)
        yield


def _with(function: Callable[..., Any], settings: dict[str, Any]) -> Callable[..., Any]:
    return lambda *words, **options: function(*words, **{**options, **settings})
