"""Tests of bicubic, PSNR and SSIM against the papers' definitions and figures."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from train.data.images import pairs, read_rgb
from train.data.resize import bicubic_matrix, crop_to_multiple, downscale
from train.measure.evaluate import enlarged_luma, evaluate
from train.measure.metrics import luma, psnr, ssim
from train.nets import bicubic

pytestmark = pytest.mark.usefixtures("one_thread")
Pixels = npt.NDArray[np.uint8]


def _noise(height: int, width: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


# bicubic


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_reproduces_the_published_low_resolution_set5(data: Path, scale: int) -> None:
    published = data / "images/test" / f"set5_lr_bicubic_x{scale}"
    names = []
    for name, lr, _ in pairs(data / "images/test/set5", scale):
        assert np.array_equal(lr, read_rgb(published / f"{name}.png")), name
        names.append(name)
    assert len(names) == 5


@pytest.mark.parametrize(("scale", "published"), [(2, 33.68), (3, 30.40), (4, 28.43)])
def test_bicubic_psnr_on_set5_is_the_published_one(
    data: Path, scale: int, published: float
) -> None:
    def enlarge(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return bicubic(torch.from_numpy(x), scale).numpy()

    score = evaluate(enlarge, data / "images/test/set5", scale, "rgb")
    assert score["psnr"] == pytest.approx(published, abs=0.01)
    assert score["n"] == 5


def test_bicubic_of_a_flat_image_is_the_same_flat_image() -> None:
    assert np.array_equal(downscale(np.full((12, 9, 3), 77, np.uint8), 3), np.full((4, 3, 3), 77))


def test_a_mirrored_line_is_resampled_as_one_with_its_mirror_image_around_it() -> None:
    line = np.random.default_rng(3).uniform(0, 255, 12)
    wide = np.concatenate([line[::-1], line, line[::-1]])
    halved = bicubic_matrix(12, 6, mirror=True) @ line
    assert halved == pytest.approx((bicubic_matrix(36, 18) @ wide)[6:12], abs=1e-9)


def test_crop_to_multiple_cuts_bottom_and_right_only() -> None:
    image = _noise(11, 14)
    assert np.array_equal(crop_to_multiple(image, 4), image[:8, :12])


# metrics


def test_psnr_of_a_difference_of_one_is_20_log10_255() -> None:
    a = np.full((8, 8), 100.0)
    assert psnr(a, a + 1) == pytest.approx(48.1308, abs=1e-4)


def test_psnr_of_half_the_pixels_off_by_two() -> None:
    a = np.zeros((4, 4))
    b = a.copy()
    b[:2] = 2  # mean squared error 2
    assert psnr(a, b) == pytest.approx(10 * np.log10(255**2 / 2), abs=1e-9)


def test_psnr_ignores_the_shaved_border_only() -> None:
    a = np.zeros((8, 8))
    b = np.pad(np.zeros((4, 4)), 2, constant_values=9.0)
    assert psnr(a, b, border=2) == float("inf")
    assert psnr(a, b, border=1) == pytest.approx(10 * np.log10(255**2 / (81 * 20 / 36)), abs=1e-9)


@pytest.mark.parametrize(
    ("rgb", "y"),
    [((0, 0, 0), 16.0), ((255, 255, 255), 235.0), ((255, 0, 0), 81.481), ((0, 255, 0), 144.553)],
)
def test_luma_is_bt601_in_16_to_235(rgb: tuple[int, int, int], y: float) -> None:
    assert luma(np.array([[rgb]], np.uint8))[0, 0] == pytest.approx(y, abs=1e-9)


def test_luma_takes_a_grey_image_as_y_already() -> None:
    assert luma(np.array([[0, 7, 255]], np.uint8)).tolist() == [[0.0, 7.0, 255.0]]


def test_a_luma_result_is_measured_in_16_to_235_and_rounded() -> None:
    out = np.array([[[[0.0, 0.5, 1.0, 2.0]]]], np.float32)
    y = enlarged_luma(lambda _: out, np.zeros((1, 2, 3), np.uint8), "y")
    assert y.tolist() == [[16.0, 126.0, 235.0, 255.0]]  # 125.5 rounds to even


def test_an_rgb_result_is_clipped_and_rounded_to_8_bit_before_its_luma() -> None:
    grey = np.array([-1.0, 0.4 / 255, 99.6 / 255, 2.0], np.float32)
    out = np.broadcast_to(grey, (1, 3, 1, 4))
    y = enlarged_luma(lambda _: out, np.zeros((1, 2, 3), np.uint8), "rgb")
    assert y[0] == pytest.approx([16.0, 16.0, 16 + 219 * 100 / 255, 235.0], abs=1e-9)


def test_ssim_of_flat_images_is_the_luminance_term() -> None:
    a, b = np.full((16, 16), 100.0), np.full((16, 16), 150.0)
    assert ssim(a, b) == pytest.approx((30000 + 6.5025) / (32500 + 6.5025), abs=1e-9)


def test_ssim_of_one_bright_pixel_against_black_follows_the_gaussian_window() -> None:
    a, b = np.zeros((11, 11)), np.zeros((11, 11))
    a[5, 7] = 255.0
    gauss = [np.exp(-(d**2) / 4.5) for d in range(-5, 6)]
    weight = gauss[5] * gauss[7] / sum(gauss) ** 2
    mean, variance = weight * 255, weight * 255**2 - (weight * 255) ** 2
    expected = 6.5025 / (mean**2 + 6.5025) * 58.5225 / (variance + 58.5225)
    assert ssim(a, b) == pytest.approx(expected, abs=1e-9)


def test_ssim_of_an_image_with_itself_is_one() -> None:
    a = luma(_noise(20, 24))
    assert ssim(a, a, border=2) == pytest.approx(1.0, abs=1e-12)


def _ssim_by_definition(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Compute SSIM per window: Wang et al. 2004, eq. 14 to 16 and 13; C1, C2 from K1, K2 and L."""
    line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    w = np.outer(line, line) / line.sum() ** 2
    c1, c2, found = (0.01 * 255) ** 2, (0.03 * 255) ** 2, []
    for y in range(a.shape[0] - 10):
        for x in range(a.shape[1] - 10):
            p, q = a[y : y + 11, x : x + 11], b[y : y + 11, x : x + 11]
            mp, mq = (w * p).sum(), (w * q).sum()
            vp, vq = (w * (p - mp) ** 2).sum(), (w * (q - mq) ** 2).sum()
            covariance = (w * (p - mp) * (q - mq)).sum()
            top = (2 * mp * mq + c1) * (2 * covariance + c2)
            found.append(top / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    return float(np.mean(found))


def test_ssim_is_its_definition_window_by_window() -> None:
    a = luma(_noise(23, 31))
    b = np.clip(a + np.random.default_rng(1).normal(0, 20, a.shape), 0, 255)
    assert ssim(a, b, border=2) == pytest.approx(
        _ssim_by_definition(a[2:-2, 2:-2], b[2:-2, 2:-2]), abs=1e-9
    )


def test_ssim_of_less_than_a_window_is_refused() -> None:
    a = np.zeros((14, 20))
    with pytest.raises(ValueError, match="11 x 11"):
        ssim(a, a, border=2)
