"""Run `vsr run` on each available real clip, and check that it keeps all but the pixels."""

import os
from pathlib import Path

import pytest

import vsr
from tests.facts import UNSPECIFIED, contents

FRAMES = 8
"""Number of frames taken from a long clip; VSR_ALL_FRAMES=1 takes all of them."""
LONG = {
    "bbb_720p24_vp8_vorbis.webm", "crystal_480p30_h264_aac.mp4", "dog_720p30_h264_aac.mp4",
    "marathon_400p30_h264.mp4", "person_432p10_h264_long.mp4", "screen_720p30_h264_aac.mp4",
    "roof_portrait_av1_10bit_hdr10_aac.mp4", "station_240p60_h264_fullrange_aac.mp4",
    "bbb_800x640_sar64_45.mp4", "roof_768p_hevc_fullrange_vfr_rot.mp4",
    "cat_720p_h264_vfr_rot180_aac.mp4", "testsrc_bt709_full_range.mp4", "testsrc_bt2020_10bit.mp4",
    "testsrc_321x241_444_10bit_hevc.mp4",
}  # fmt: skip
SAYS = {
    "roof_768p_hevc_fullrange_vfr_rot.mp4": "cannot contain data #2",
}


def clips() -> list[Path]:
    video = Path(os.environ.get("VSR_DATA", "/nowhere")) / "video"
    return sorted(p for folder in ("clips", "format") for p in video.glob(f"{folder}/*.*"))


@pytest.mark.skipif(not os.environ.get("VSR_DATA"), reason="VSR_DATA is not set: no real clips")
@pytest.mark.parametrize("clip", clips(), ids=lambda path: path.name)
def test_a_real_clip_keeps_frames_times_sound_shape_and_colours(clip: Path, tmp_path: Path) -> None:
    whole = os.environ.get("VSR_ALL_FRAMES") or clip.name not in LONG
    limit = None if whole else FRAMES
    target = tmp_path / "out.mp4"
    report = vsr.upscale(clip, target, model="bicubic", preset="ultrafast", max_frames=limit)
    before, after = contents(clip, most_frames=limit), contents(target)

    assert report.exit_code == 0
    assert after.pts == before.pts
    assert after.size == (2 * before.size[0], 2 * before.size[1])
    assert (after.sar, after.rotation) == (before.sar, before.rotation)
    assert after.range == (before.range or 1)
    assert (after.primaries, after.transfer) == (before.primaries, before.transfer)
    assert after.pixel_format.replace("yuvj", "yuv") == before.pixel_format.replace("yuvj", "yuv")
    untagged = 6 if before.size[1] < 720 else 1
    assert after.matrix == (untagged if before.matrix == UNSPECIFIED else before.matrix)

    sounds = [i for i, kind in enumerate(before.kinds) if kind in ("audio", "subtitle")]
    kept = [i for i, kind in enumerate(after.kinds) if kind in ("audio", "subtitle")]
    for old, new in zip(sounds, kept, strict=True):
        packets = after.packets[new]
        assert packets == before.packets[old][: len(packets) if limit else None]
        assert abs(after.first_pts[new] - before.first_pts[old]) < 1e-4

    expected = SAYS.get(clip.name)
    assert [expected in note for note in report.notes if expected] == [True] * bool(expected)
    assert bool(report.notes) == bool(expected)
