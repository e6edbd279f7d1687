"""Regression tests for bugs that the fuzzer found, one per kind of bug."""

import struct
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

import vsr
from tests.clips import Clip, make_clip
from vsr.inference import models
from vsr.inference.backend import Backend
from vsr.inference.tiles import plan_tiles
from vsr.media.timestamps import Packet, subtract_ticks
from vsr.media.transcode import limit_samples


def _with_matrix(path: Path, values: tuple[int, ...]) -> Path:
    """Write an MP4 with the given matrix in its video track's header."""
    data = bytearray(make_clip(path, Clip(frames=3)).read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = struct.pack(">9i", *values)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("container", ["mp4", "mkv"])
@pytest.mark.parametrize("shift", [2**31 - 1, -(2**31), 3 << 29])
def test_a_picture_moved_beyond_what_a_matrix_holds(
    tmp_path: Path, container: str, shift: int
) -> None:
    """Upscaling multiplies the shift by the scale, which overflowed 32 bits."""
    one = 1 << 16
    source = _with_matrix(tmp_path / "in.mp4", (0, one, 0, -one, 0, 0, shift, 0, 1 << 30))
    report = vsr.upscale(source, tmp_path / f"out.{container}", model="bicubic")
    assert report.frames_out == 3


@pytest.mark.parametrize("size", [(6008, 2679), (3840, 2160), (2679, 6009)])
def test_large_pictures_are_interpolated_in_parts(backend: Backend, size: tuple[int, int]) -> None:
    """A picture of 16 million pixels, in a file of 138 bytes, took more than 1 GiB."""
    plan = plan_tiles(models.find("bicubic", 2, backend), *size)
    assert plan.width * plan.height <= 2560 * 1440
    assert len(plan.columns) * len(plan.rows) > 1


@pytest.mark.parametrize("size", [(1920, 1080), (2560, 1440)])
def test_usual_pictures_are_interpolated_at_once(backend: Backend, size: tuple[int, int]) -> None:
    plan = plan_tiles(models.find("bicubic", 2, backend), *size)
    assert (plan.width, plan.height) == size


@pytest.mark.parametrize("wrong", [4e6, -1e30, float("inf"), float("nan")])
def test_sound_far_beyond_full_scale(wrong: float) -> None:
    """FFmpeg's AAC encoder never returns from such samples: a damaged file hung forever."""
    good = np.sin(np.arange(1024) / 20).astype(np.float32)
    for samples, kept in ((good, good), (good * np.float32(1.5), good * np.float32(1.5))):
        frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
        limit_samples(frame)
        assert np.array_equal(frame.to_ndarray()[0], kept)
    bad = good.copy()
    bad[100:200] = wrong
    frame = av.AudioFrame.from_ndarray(bad[None], format="flt", layout="mono")
    limit_samples(frame)
    left = frame.to_ndarray()[0]
    assert np.isfinite(left).all() and abs(left).max() <= 32
    assert np.array_equal(left[:100], good[:100])


def test_meaningless_tags_of_a_picture_are_left_behind(tmp_path: Path) -> None:
    """A tag copied from a damaged TIFF made the output unreadable for FFmpeg."""
    exif = Image.Exif()
    exif[0], exif[11], exif[0x010F] = 32773, "a program", "Maker"
    source, output = tmp_path / "in.tiff", tmp_path / "out.tiff"
    Image.new("RGB", (32, 24), "red").save(source, exif=exif)
    vsr.upscale(source, output, model="bicubic")
    with Image.open(output) as large, av.open(str(output)) as file:
        assert {0, 11, 0x010F} & set(large.getexif()) == {11, 0x010F}
        assert next(file.decode(video=0)).width == 64


@pytest.mark.parametrize(
    ("time", "ticks"), [(-(2**63) + 5, 900), (2**63 - 5, -900), (2**63 - 1, 0)]
)
def test_times_at_the_end_of_all_numbers(time: int, ticks: int) -> None:
    """A packet's time minus the output's start overflowed 64 bits."""
    packet: Packet = av.Packet(b"x")
    packet.pts = subtract_ticks(time, ticks)
    assert packet.pts is not None and abs(packet.pts) <= 2**62
    assert (subtract_ticks(900, 100), subtract_ticks(None, 100)) == (800, None)
