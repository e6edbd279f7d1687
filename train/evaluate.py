"""PSNR and SSIM of a network on a benchmark folder, the way the papers print them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from train.data import Pixels, pairs, to_input
from train.metrics import luma, psnr, ssim

Enlarge = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""[1, C, H, W] in 0..1 -> [1, C, s*H, s*W]."""


def torch_enlarge(net: nn.Module) -> Enlarge:
    """Run a torch network as an `Enlarge`, without gradients."""

    def run(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            result: npt.NDArray[np.float32] = net(torch.from_numpy(x)).numpy()
        return result

    return run


def enlarged_luma(enlarge: Enlarge, lr: Pixels, colour: str) -> npt.NDArray[np.float64]:
    """Y (16..235, [H, W]) of the enlarged picture; RGB results are rounded to 8 bit first."""
    x = np.ascontiguousarray(to_input(lr, colour).transpose(2, 0, 1)[None])
    out = enlarge(x)[0].astype(np.float64)
    if colour == "y":
        return np.round(np.clip(out[0] * 219 + 16, 0, 255))
    return luma(np.round(np.clip(out.transpose(1, 2, 0), 0, 1) * 255).astype(np.uint8))


def evaluate(enlarge: Enlarge, folder: Path, scale: int, colour: str) -> dict[str, float | int]:
    """Mean Y-PSNR (dB) and SSIM over the images of `folder`, `scale` pixels shaved."""
    scores = []
    for _, lr, hr in pairs(folder, scale):
        ours, truth = enlarged_luma(enlarge, lr, colour), luma(hr)
        scores.append((psnr(ours, truth, scale), ssim(ours, truth, scale)))
    if not scores:
        raise ValueError(f"no usable image in {folder}")
    db, similarity = np.mean(scores, axis=0)
    return {"psnr": round(float(db), 3), "ssim": round(float(similarity), 4), "n": len(scores)}
