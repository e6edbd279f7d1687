"""LPIPS of two pictures, by OpenVINO, with weights that the user has."""

import zipfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vsr.errors import InputError, reason
from vsr.inference.openvino import CORE, PRECISION_HINTS
from vsr.network.lpips import MIN_SIDE, SHAPES, lpips_network


class Lpips:
    """A distance of pictures: 0 for equal ones, larger the more different they look."""

    smallest: Final = MIN_SIDE
    """Pixels that each side has at least."""

    def __init__(self, path: Path) -> None:
        """`path`: an .npz with the arrays of `SHAPES`, as torchvision and lpips order AlexNet's.

        Raises InputError for another file.
        """
        network = CORE.read_model(lpips_network(_weights(path)))
        precise = {"INFERENCE_PRECISION_HINT": PRECISION_HINTS["fp32"]}
        self._network: Any = CORE.compile_model(network, "CPU", precise)

    def __call__(self, one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> float | None:
        """Of two R'G'B' pictures [H, W, 3] of one size; None where they are too small for it."""
        if min(one.shape[:2]) < MIN_SIDE:
            return None
        pair = np.stack([one, other]).transpose(0, 3, 1, 2).astype(np.float32) / 255
        return float(self._network([np.ascontiguousarray(pair)])[0])


def _weights(path: Path) -> dict[str, npt.NDArray[Any]]:
    found: dict[str, npt.NDArray[Any]] = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            if isinstance(archive, np.ndarray):
                raise ValueError("it is a single array")
            for name, shape in SHAPES.items():
                if name not in archive.files:
                    raise ValueError(f"it has no {name}")
                found[name] = archive[name]
                if found[name].shape != shape:
                    raise ValueError(f"its {name} has the shape {found[name].shape}")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as exc:
        raise InputError(f"{path} has no LPIPS weights (AlexNet, .npz): {reason(exc)}") from exc
    return found
