"""Tests of training pairs from real clips: the truth is the clip's own frame, LR was encoded."""

import wave
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import CliRunner, Result

from tests.training import TINY, Pixels, image_folder, panning_clip, rgb_clip, scene
from train.__main__ import main
from train.data.clips import ClipSettings, clip_pairs
from train.data.degrade import StreamSettings
from train.data.pictures import Pictures
from train.data.resize import downscale
from train.errors import TrainError

NEAR_LOSSLESS = StreamSettings(
    largest_window=48, smallest_window=16, hevc_share=0, crf=(1, 1), presets=(("medium", 1.0),)
)
NATIVE = ClipSettings(shots=2, frames=4, kept_frames=2, windows=1, reduced_share=0)
"""Two shots of four frames, cut from the clip's frames as they are."""


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return panning_clip(tmp_path / "clip.mp4", (96, 128), frames=12)


def _pairs(
    path: Path, settings: ClipSettings = NATIVE, smallest: int = 32, scale: int = 2, seed: int = 0
) -> list[tuple[Pixels, Pixels]]:
    rng = np.random.default_rng(seed)
    return list(clip_pairs(path, scale, smallest, rng, NEAR_LOSSLESS, settings))


def _decoded(path: Path) -> list[Pixels]:
    """Decode the clip's frames to RGB by FFmpeg's own rules."""
    with av.open(str(path)) as container:
        return [frame.to_rgb().to_ndarray() for frame in container.decode(video=0)]


def _least_difference(crop: Pixels, frames: list[Pixels]) -> float:
    """Return the least mean absolute difference of the crop to any place of any frame."""
    height, width = crop.shape[:2]
    return min(
        float(np.abs(frame[y : y + height, x : x + width].astype(int) - crop).mean())
        for frame in frames
        for y in range(frame.shape[0] - height + 1)
        for x in range(frame.shape[1] - width + 1)
    )


def test_a_truth_is_a_window_of_one_of_the_clips_frames(clip: Path) -> None:
    pairs, frames = _pairs(clip), _decoded(clip)
    assert len(pairs) == 2 * 2  # two shots of one window, two frames each
    for _, high in pairs:
        assert high.shape == (96, 96, 3)
        assert _least_difference(high, frames) < 1


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_lr_is_the_downscaled_truth_with_the_losses_of_an_encoder(clip: Path, scale: int) -> None:
    for low, high in _pairs(clip, scale=scale, smallest=8 * scale):
        assert high.shape == (low.shape[0] * scale, low.shape[1] * scale, 3)
        assert low.shape[0] % 2 == low.shape[1] % 2 == 0
        difference = np.abs(downscale(high, scale).astype(int) - low)[..., 1].mean()
        assert 0 < difference < 4  # a frame earlier or later differs by far more


def test_pairs_of_other_frames_would_be_noticed(clip: Path) -> None:
    """The bound of the test above is below what one frame of motion makes."""
    (low, _), (_, other) = _pairs(clip)[:2]
    assert np.abs(downscale(other, 2).astype(int) - low)[..., 1].mean() > 4


def test_a_reduced_window_is_sharper_and_still_large_enough(clip: Path) -> None:
    reduced = replace(NATIVE, reduced_share=1, factor=(0.5, 0.5))
    sides = {high.shape[:2] for _, high in _pairs(clip, reduced)}
    assert sides == {(48, 64)}
    assert {high.shape[:2] for _, high in _pairs(clip, reduced, smallest=64)} == {(64, 84)}


def test_the_same_seed_gives_the_same_pairs(clip: Path) -> None:
    ours, again, others = _pairs(clip), _pairs(clip), _pairs(clip, seed=1)
    assert all(np.array_equal(p[1], q[1]) for p, q in zip(ours, again, strict=True))
    assert all(np.array_equal(p[0], q[0]) for p, q in zip(ours, again, strict=True))
    assert not all(np.array_equal(p[1], q[1]) for p, q in zip(ours, others, strict=True))


@pytest.mark.parametrize("full_range", [False, True])
def test_black_and_white_keep_their_values(tmp_path: Path, full_range: bool) -> None:
    picture = np.zeros((96, 128, 3), np.uint8)
    picture[:, 64:] = 255
    path = rgb_clip(tmp_path / "bars.mp4", [picture] * 8, full_range)
    for low, high in _pairs(path):
        for side in (low, high):
            assert set(np.unique(side[:, [0, -1]])) <= {0, 1, 2, 253, 254, 255}


def _text(folder: Path) -> Path:
    path = folder / "notes.txt"
    path.write_text("no clip")
    return path


def _sound(folder: Path) -> Path:
    path = folder / "sound.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(800))
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_sound, "has no video stream: give a video file"),
        (_text, r"cannot read clip .*: give a video file"),
        (lambda folder: rgb_clip(folder / "s.mp4", [scene(96, 128, 0)] * 3), "fewer than 4 frames"),
        (
            lambda folder: rgb_clip(folder / "s.mp4", [scene(24, 128, 0)] * 8),
            r"too small \(128x24\)",
        ),
    ],
    ids=["sound", "text", "short", "small"],
)
def test_an_unusable_clip_is_one_line(
    tmp_path: Path, make: Callable[[Path], Path], message: str
) -> None:
    with pytest.raises(TrainError, match=message):
        _pairs(make(tmp_path))


def test_an_unusable_clip_is_found_before_the_images_are_prepared(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"cannot read clip .*: give a video file"):
        Pictures.load([tmp_path / "missing"], (2,), STREAM, [_text(tmp_path)])


# pictures and commands


STREAM = replace(TINY, degradation="stream", patch=16)


def test_pictures_of_folders_and_clips_are_recorded_and_cached(tmp_path: Path, clip: Path) -> None:
    folder = image_folder(tmp_path / "hr", (96, 128))
    alone = Pictures.load([folder], (2,), STREAM)
    both = Pictures.cached([folder], (2,), STREAM, tmp_path / "cache", [clip])
    assert both.record == {**both.record, "folders": ["hr"], "images": 2, "clips": ["clip.mp4"]}
    assert both.record["sha256"] != alone.record["sha256"]
    assert "clips" not in alone.record
    before = len(alone.hr[2])
    assert len(both.hr[2]) > before
    assert all(np.array_equal(a, b) for a, b in zip(both.hr[2][:before], alone.hr[2], strict=True))
    assert Pictures.cached([folder], (2,), STREAM, tmp_path / "cache").record == alone.record


def _run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def test_pack_takes_clips_and_fit_trains_on_them(tmp_path: Path, clip: Path) -> None:
    folder = image_folder(tmp_path / "hr", (136, 160))
    packed, checkpoint = tmp_path / "both.pictures", tmp_path / "net.pt"
    data = ("--recipe", "stream", "--scale", "2")
    made = _run("pack", "rt", *data, "--data", folder, "--clip", clip, "--output", packed)
    assert made.exit_code == 0, made.output
    assert Pictures.unpack(packed).record["clips"] == ["clip.mp4"]
    result = _run(
        *("fit", "rt", *data, "--packed", packed, "--checkpoint", checkpoint, "--steps", "2"),
        *("--batch", "2", "--patch", "16", "--workers", "0"),
    )
    assert result.exit_code == 0, result.output
    assert checkpoint.exists()


def test_clips_need_a_recipe_that_encodes_and_pictures_to_prepare(
    tmp_path: Path, clip: Path
) -> None:
    folder = image_folder(tmp_path / "hr", (96, 128))
    words = ("pack", "rt", "--recipe", "ours", "--scale", "2", "--data", folder, "--clip", clip)
    result = _run(*words, "--output", tmp_path / "p.pictures")
    assert result.exit_code == 1
    assert "recipe 'ours' does not compress pictures: leave out --clip" in result.output
    packed = ("--packed", clip, "--clip", clip, "--checkpoint", tmp_path / "net.pt")
    result = _run("fit", "rt", "--recipe", "stream", *packed)
    assert result.exit_code == 2
    assert "--clip needs --data" in result.output
