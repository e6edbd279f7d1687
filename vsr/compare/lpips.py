"""Computes LPIPS of two pictures with OpenVINO, with weights from a user's file."""

import zipfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vsr.errors import InputError, reason
from vsr.inference.openvino import CORE, PRECISION_HINTS
from vsr.network.lpips import MIN_SIDE, SHAPES, lpips_network


class Lpips:
    """Computes the distance of two pictures: 0 if equal, larger the more different they look."""

    smallest: Final = MIN_SIDE
    """Minimum width and height of the pictures, in pixels."""

    def __init__(self, path: Path) -> None:
        """`path` is an .npz with the arrays of `SHAPES`, in the order of torchvision and lpips.

        Raises InputError for any other file.
        """
        network = CORE.read_model(lpips_network(_weights(path)))
        precise = {"INFERENCE_PRECISION_HINT": PRECISION_HINTS["fp32"]}
        self._network: Any = CORE.compile_model(network, "CPU", precise)

    def __call__(self, one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> float | None:
        """Return LPIPS of two R'G'B' pictures [H, W, 3] of equal size; None if too small."""
        if min(one.shape[:2]) < MIN_SIDE:
            return None
        pair = np.stack([one, other]).transpose(0, 3, 1, 2).astype(np.float32) / 255
        return float(self._network([np.ascontiguousarray(pair)])[0])


def _weights(path: Path) -> dict[str, npt.NDArray[Any]]:
    weights: dict[str, npt.NDArray[Any]] = {}
    try:
        if path.is_file() and not zipfile.is_zipfile(path):
            raise ValueError("it is not an .npz file")
        with np.load(path, allow_pickle=False) as archive:
            for name, shape in SHAPES.items():
                if name not in archive.files:
                    raise ValueError(f"array {name} is missing")
                weights[name] = _array(archive, name)
                if weights[name].shape != shape:
                    raise ValueError(f"array {name} has shape {weights[name].shape}, not {shape}")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as exc:
        raise InputError(
            f"cannot read LPIPS weights (AlexNet, .npz) from {path}: {reason(exc)}"
        ) from exc
    return weights


def _array(archive: Any, name: str) -> npt.NDArray[Any]:
    """Return an array of an archive. Raises ValueError, without numpy's advice to unpickle it."""
    try:
        found: npt.NDArray[Any] = archive[name]
    except ValueError as exc:
        raise ValueError(f"array {name} does not hold plain numbers, or is damaged") from exc
    return found
