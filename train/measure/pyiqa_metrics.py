"""Ma, PI and NIMA: no-reference metrics, computed by pyiqa with weights from files.

Ma (Ma, Yang, Yang, Yang 2017; pyiqa calls it NRQM) is of Y, higher is better. The Perceptual Index
of the PIRM 2018 challenge (Blau et al. 2018) is (10 - Ma + NIQE) / 2, lower is better. NIMA
(Talebi, Milanfar 2018) is of RGB, 1 to 10. LPIPS and PI's NIQE are ours: they agree with their
authors' values and need no library.

Files have the names under which pyiqa publishes them. Nothing is downloaded: pyiqa's NIMA first
requests ImageNet weights from timm, and then replaces all of them with its file's, so that request
is suppressed.
"""

import contextlib
import importlib
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from train.data.images import Pixels
from train.errors import TrainError
from train.files import load_torch
from train.measure.metrics import luma

log = logging.getLogger(__name__)

FILES: Final = {
    "NRQM_model.mat": ("Ma", "nrqm"),
    "NIMA_InceptionV2_ava-b0c77c00.pth": ("NIMA", "nima"),
    "NIMA_VGG16_ava-dc4e8265.pth": ("NIMA", "nima-vgg16-ava"),
}
"""File -> (name of the column, pyiqa's name of the metric)."""
NAMES: Final = ("Ma", "PI", "NIMA")
"""Names of the columns, in order."""


@dataclass(frozen=True, kw_only=True)
class PyiqaMetrics:
    """The metrics whose weights were found; a call measures them all."""

    each: dict[str, Callable[[Pixels], float]] = field(default_factory=dict)
    niqe: Callable[[npt.NDArray[np.float64]], float] | None = None
    """NIQE of Y with the authors' model; without it PI is not computed."""
    note: str = ""

    @classmethod
    def load(
        cls, folder: Path, niqe: Callable[[npt.NDArray[np.float64]], float] | None
    ) -> "PyiqaMetrics | None":
        """Load the metrics with weights in `folder`; None if there are none or pyiqa is missing.

        A missing pyiqa is logged. Raises TrainError for files that are damaged, of another kind, or
        contain code.
        """
        found = {name: FILES[name] for name in FILES if (folder / name).exists()}
        if not found:
            return None
        try:
            pyiqa = importlib.import_module("pyiqa")
        except ImportError:
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


def _metric(pyiqa: Any, name: str, path: Path) -> Callable[[Pixels], float]:
    settings: dict[str, Any] = {"pretrained_model_path": str(path)}
    if path.suffix == ".pth":
        load_torch(path)  # refuses code, which pyiqa would run
    else:
        settings["color_space"] = "ycbcr"  # as pyiqa's PI has it
    try:
        with _quiet_and_offline():
            metric = pyiqa.create_metric(name, device=torch.device("cpu"), **settings)
    except Exception as exc:  # the libraries raise almost any error for wrong bytes
        raise TrainError(f"{path} is damaged, or not pyiqa's file for {name}: {exc}") from exc

    def measure(picture: Pixels) -> float:
        planes = np.ascontiguousarray(picture.transpose(2, 0, 1), np.float32) / 255
        return float(metric(torch.from_numpy(planes)[None]))

    return measure


@contextlib.contextmanager
def _quiet_and_offline() -> Iterator[None]:
    """Send pyiqa's output to stderr, and prevent timm's download of weights that get replaced."""
    with contextlib.redirect_stdout(sys.stderr):
        try:
            timm: Any = importlib.import_module("timm")
        except ImportError:
            yield
            return
        original = timm.create_model
        timm.create_model = lambda *words, **options: original(
            *words, **{**options, "pretrained": False}
        )
        try:
            yield
        finally:
            timm.create_model = original
