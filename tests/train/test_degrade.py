"""Tests of the stream degradation: pairs stay aligned, and losses are those of an encoder."""

import os
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from train.data.degrade import StreamSettings, encoded_pairs
from train.data.resize import downscale

Pixels = npt.NDArray[np.uint8]
Pairs = list[tuple[Pixels, Pixels]]

CLEAN = StreamSettings(
    largest_window=66,
    smallest_window=32,
    frames=6,
    kept_frames=6,
    still_share=0,
    soft_share=0,
    blurred_share=0,
    noisy_share=0,
    hevc_share=0,
    low_latency_share=0,
)
"""Settings with motion and H.264 only, without other degradations."""


def scene(height: int, width: int) -> Pixels:
    """Return a smooth picture of mild colours without repetition: all crops differ."""
    y, x = np.mgrid[:height, :width].astype(float)
    shade = 40 * np.sin(x / 9 + y / 31) + 30 * np.cos(y / 8 - x / 47) + 0.1 * x
    tints = [1.0 * shade + 0.05 * y, 0.9 * shade, 0.8 * shade - 0.05 * x]
    return np.clip(np.stack(tints, axis=-1) + 120, 0, 255).astype(np.uint8)


def pairs_of(
    settings: StreamSettings, seed: int = 0, scale: int = 2, size: tuple[int, int] = (220, 240)
) -> Pairs:
    return encoded_pairs(scene(*size), scale, np.random.default_rng(seed), settings)


def place_of(crop: Pixels, image: Pixels) -> tuple[int, int]:
    """Return the position (y, x) of the crop in the image; assert that it is unique."""
    height, width = crop.shape[:2]
    starts = image[: len(image) - height + 1, : image.shape[1] - width + 1]
    found = [
        (int(y), int(x))
        for y, x in np.argwhere((starts == crop[0, 0]).all(axis=2))
        if np.array_equal(image[y : y + height, x : x + width], crop)
    ]
    assert len(found) == 1
    return found[0]


def psnr(a: Pixels, b: Pixels) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


def quality(pairs: Pairs, scale: int = 2) -> float:
    return float(np.mean([psnr(low, downscale(high, scale)) for low, high in pairs]))


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("hevc", [0, 1])
def test_pairs_have_the_window_of_the_settings(scale: int, hevc: int) -> None:
    pairs = pairs_of(replace(CLEAN, hevc_share=hevc, kept_frames=2), scale=scale, size=(301, 322))
    assert len(pairs) == 2
    for low, high in pairs:
        assert low.shape == (66, 66, 3)
        assert high.shape == (66 * scale, 66 * scale, 3)
        assert low.dtype == high.dtype == np.uint8
        assert high.base is None, "a view would keep the whole image in memory"


@pytest.mark.parametrize(("hevc", "live"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_every_frame_is_aligned_with_its_hr(hevc: int, live: int) -> None:
    """Check the order too: at this speed, an adjacent frame has a lower PSNR than the right one."""
    settings = replace(CLEAN, crf=(18, 18), hevc_share=hevc, low_latency_share=live)
    pairs = pairs_of(settings, seed=2)
    clean = [downscale(high, 2) for _, high in pairs]
    for k, (low, _) in enumerate(pairs):
        assert psnr(low, clean[k]) > 35
        for shift in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            assert psnr(low, np.roll(clean[k], shift, axis=(0, 1))) < psnr(low, clean[k]) - 3
        assert all(psnr(low, other) < psnr(low, clean[k]) for j, other in enumerate(clean) if j - k)


@pytest.mark.parametrize("hevc", [0, 1])
def test_a_higher_crf_costs_quality(hevc: int) -> None:
    fine, coarse = (pairs_of(replace(CLEAN, hevc_share=hevc, crf=(c, c))) for c in (18, 36))
    assert quality(fine) > quality(coarse) + 2
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(fine, coarse, strict=True))


def test_the_codecs_are_two() -> None:
    h264, hevc = (pairs_of(replace(CLEAN, hevc_share=share)) for share in (0, 1))
    assert not np.array_equal(h264[0][0], hevc[0][0])
    assert np.array_equal(h264[0][1], hevc[0][1])


@pytest.mark.parametrize(
    "colour", [(200, 40, 40), (40, 200, 40), (40, 40, 200), (250, 250, 250), (5, 5, 5)]
)
def test_colours_survive_the_way_through_yuv(colour: tuple[int, int, int]) -> None:
    """Check BT.601 and BT.709; the wrong matrix in the conversion back shifts red by 20 levels."""
    flat = np.full((128, 128, 3), colour, np.uint8)
    for seed in range(5):
        for low, _ in encoded_pairs(
            flat, 2, np.random.default_rng(seed), replace(CLEAN, crf=(18, 18))
        ):
            assert np.abs(low.astype(int) - colour).max() <= 3


def test_brightness_stays() -> None:
    """swscale's faster conversion to RGB loses more than a level, which a network would learn."""
    tiles = np.random.default_rng(0).integers(20, 236, (4, 4, 3), np.uint8)
    image = tiles.repeat(32, 0).repeat(32, 1)
    settings = replace(CLEAN, still_share=1, crf=(2, 2))
    for low, high in encoded_pairs(image, 2, np.random.default_rng(0), settings):
        assert np.abs(low.mean((0, 1)) - downscale(high, 2).mean((0, 1))).max() < 0.6


SEEDS, TIMES = (range(12), 4) if os.environ.get("VSR_ALL_FRAMES") else (range(3), 2)
"""Seeds, and runs per seed. Twelve seeds cover all presets and B-frames, the first three some."""


@pytest.mark.parametrize(("window", "hevc"), [(66, 0), (64, 1)])
def test_the_same_seed_gives_the_same_pairs(window: int, hevc: int) -> None:
    settings = StreamSettings(
        largest_window=window, smallest_window=64, blurred_share=1, noisy_share=1, hevc_share=hevc
    )
    for seed in SEEDS:
        first, *others = (pairs_of(settings, seed) for _ in range(TIMES))
        for a, b in [pair for other in others for pair in zip(first, other, strict=True)]:
            assert np.array_equal(a[0], b[0])
            assert np.array_equal(a[1], b[1])
    assert not np.array_equal(first[0][1], pairs_of(settings, 0)[0][1])


def test_hr_is_cut_from_the_image_and_moves_evenly() -> None:
    image = scene(220, 240)
    pairs = encoded_pairs(image, 2, np.random.default_rng(1), replace(CLEAN, jitter=0))
    steps = np.diff([place_of(high, image) for _, high in pairs], axis=0)
    assert 1 < np.hypot(*steps.T).max() <= 6 + 1  # plus rounding
    assert np.ptp(steps, axis=0).max() <= 1


def test_a_still_clip_keeps_its_hr() -> None:
    pairs = pairs_of(replace(CLEAN, still_share=1, crf=(18, 18)))
    assert all(np.array_equal(high, pairs[0][1]) for _, high in pairs)
    assert quality(pairs) > 35


def test_kept_frames_are_in_order_of_time_and_not_always_the_first() -> None:
    settings = replace(CLEAN, kept_frames=1, jitter=0)
    everything = [pairs_of(replace(settings, kept_frames=6), seed) for seed in range(6)]
    kept = [pairs_of(settings, seed) for seed in range(6)]
    found = {
        next(k for k, pair in enumerate(clip) if np.array_equal(pair[0], one[0][0]))
        for clip, one in zip(everything, kept, strict=True)
    }
    assert len(found) > 1


def test_noise_reaches_the_lr_alone() -> None:
    settings = replace(CLEAN, still_share=1, crf=(4, 4))
    noisy = pairs_of(replace(settings, noisy_share=1, noise_sigma=(3, 3)))
    assert place_of(noisy[0][1], scene(220, 240)) is not None
    assert quality(pairs_of(settings)) > 43
    assert 36 < quality(noisy) < 42  # a sigma of 3 is 38.6 dB; 4:2:0 averages chroma noise


NOISE = np.repeat(np.random.default_rng(0).integers(0, 256, (150, 160, 1), np.uint8), 3, 2)
"""Grey white noise."""


def first_noise_pair(**changes: Any) -> tuple[Pixels, Pixels]:
    """Return the first (LR, HR) pair of `NOISE`, encoded almost without loss."""
    settings = replace(CLEAN, crf=(4, 4), **changes)
    return encoded_pairs(NOISE, 2, np.random.default_rng(0), settings)[0]


def test_soft_clips_are_soft_in_both_pictures() -> None:
    sharp, soft = (first_noise_pair(soft_share=k, soft_sigma=(1.5, 1.5)) for k in (0, 1))
    # a 2-D Gaussian blur scales the deviation of white noise by 1 / (2 sigma sqrt(pi))
    kept = 1 / (2 * 1.5 * np.pi**0.5)
    assert 0.9 * kept < soft[1].std() / sharp[1].std() < 1.1 * kept
    difference = soft[0].astype(float) - downscale(soft[1], 2)
    assert difference.std() < 3  # LR is the downscaled soft picture


def test_blur_reaches_the_lr_alone() -> None:
    sharp, soft = (first_noise_pair(blurred_share=k, blur_sigma=(0.8, 0.8)) for k in (0, 1))
    assert place_of(soft[1], NOISE) is not None
    assert sharp[0].std() > 0.95 * downscale(sharp[1], 2).std()
    assert soft[0].std() < 0.6 * downscale(soft[1], 2).std()


@pytest.mark.parametrize(
    ("size", "window"),
    [((65, 47), (32, 22)), ((40, 130), (20, 64)), ((4, 4), (2, 2)), ((129, 131), (64, 64))],
)
def test_an_image_smaller_than_the_window_gives_what_it_has(
    size: tuple[int, int], window: tuple[int, int]
) -> None:
    for hevc in (0, 1):  # windows too small for HEVC are encoded as H.264
        for low, high in pairs_of(replace(CLEAN, smallest_window=64, hevc_share=hevc), size=size):
            assert low.shape[:2] == window
            assert high.shape[:2] == (window[0] * 2, window[1] * 2)


def test_a_window_shrinks_to_move_but_not_below_its_least() -> None:
    settings = replace(CLEAN, largest_window=100, frames=4, kept_frames=4)
    sides = [pairs_of(settings, k, size=(200, 200))[0][0].shape[:2] for k in range(8)]
    assert min(min(side) for side in sides) < 100
    sides = [
        pairs_of(replace(settings, smallest_window=100), k, size=(200, 200))[0][0].shape[:2]
        for k in range(4)
    ]
    assert set(sides) == {(100, 100)}


def test_an_image_without_a_window_is_refused() -> None:
    with pytest.raises(ValueError, match="too small"):
        pairs_of(CLEAN, size=(3, 100))


def test_encoders_are_silent(capfd: pytest.CaptureFixture[str]) -> None:
    for hevc in (0, 1):
        pairs_of(replace(CLEAN, hevc_share=hevc))
    assert capfd.readouterr() == ("", "")
