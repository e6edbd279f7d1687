"""Memory limit: large frames reduce parallelism, and frames that do not fit are refused."""

import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vsr
from tests.clips import Clip, make_clip, make_resizing_clip
from vsr.errors import InputError
from vsr.media.frame import Frame
from vsr.media.prefetch import prefetch
from vsr.media.reading import Reading
from vsr.media.source import Source

MIB = 2**20


def _frames(pixels: int, made: list[int]) -> Iterator[Frame]:
    for k in itertools.count():
        made.append(k)
        planes = (np.zeros((1, pixels), np.uint8),) * 3
        yield Frame(planes=planes, index=k, pts=k, time_base=Fraction(1, 25), duration=1)


@pytest.mark.parametrize(("pixels", "most"), [(10, 10), (100, 5), (1000, 3)])
def test_pictures_between_stages_are_bounded_by_bytes(pixels: int, most: int) -> None:
    """A 900-byte queue holds 8 frames of 30 bytes (depth limit), 3 of 300, or one of 3,000.

    The consumer and the worker hold one more frame each.
    """
    made: list[int] = []
    flow = prefetch(_frames(pixels, made), room=900)
    for taken in range(1, 6):
        next(flow)
        for _ in range(200):  # until the worker blocks
            before = len(made)
            if before >= taken + most - 1:
                break
        assert len(made) <= taken + most - 1
    flow.close()


@pytest.mark.parametrize("name", ["in.mp4", "in.png", "in.gif"])
def test_pictures_that_cannot_be_held_are_refused_in_a_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if path.suffix == ".mp4":
        make_clip(path, Clip(size=(640, 480), frames=2, audio=()))
    else:
        Image.new("P", (640, 480)).save(path)
    out = tmp_path / f"out{path.suffix}"
    with pytest.raises(InputError, match="640x480") as caught:
        vsr.upscale(path, out, model="bicubic", memory=MIB)
    assert "1 MiB" in str(caught.value) and "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_made_of_them_counts(tmp_path: Path) -> None:
    """8 MiB suffice for frames of 640x480, but not for an encoder of frames of 1280x960."""
    path = make_clip(tmp_path / "in.mp4", Clip(size=(640, 480), frames=2, audio=()))
    with pytest.raises(
        InputError, match=r"from 640x480 to 1280x960 requires about \d\d MiB"
    ) as caught:
        vsr.upscale(path, tmp_path / "out.mp4", model="bicubic", memory=8 * MIB)
    assert "--scale" in str(caught.value)


def test_an_encoder_looks_less_far_ahead_where_that_fits(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "in.mp4", Clip(size=(640, 480), frames=9, audio=()))
    out = tmp_path / "out.mp4"
    usual = vsr.upscale(path, out, model="bicubic", memory=200 * MIB, overwrite=True)
    frugal = vsr.upscale(path, out, model="bicubic", memory=90 * MIB, overwrite=True)
    assert [note for note in usual.notes if "lookahead" in note] == []
    assert [note for note in frugal.notes if "without lookahead" in note]
    assert usual.frames_out == frugal.frames_out == 9
    assert b" bframes=0 " in out.read_bytes()  # x264 writes its settings into the stream


def test_a_decoder_works_on_fewer_large_pictures_at_once(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "in.mp4", Clip(size=(640, 480), frames=9, audio=()))
    memory = 8 * 640 * 480 * 3 // 2  # one frame is an eighth of it
    source = Source(str(path), Reading(memory=memory))
    assert source.video.codec_context.thread_count == 1
    assert sum(isinstance(item, Frame) for item in source) == 9
    source.close()
    plenty = Source(str(path), Reading(memory=2**50))
    assert sum(isinstance(item, Frame) for item in plenty) == 9
    assert plenty.pictures_held >= source.pictures_held
    plenty.close()


def test_pictures_that_grow_on_the_way_beyond_all_bounds(tmp_path: Path) -> None:
    """A damaged header may state any size: the decoder refuses it before it allocates memory."""
    path = make_resizing_clip(tmp_path / "in.ts", [(64, 48), (960, 720), (64, 48)], frames=6)
    source = Source(str(path), Reading(memory=MIB))
    frames = [item for item in source if isinstance(item, Frame)]
    source.close()
    assert 6 <= len(frames) <= 12  # not the six large ones
    assert source.losses.lost
