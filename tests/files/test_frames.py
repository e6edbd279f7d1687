"""`vsr.frames`, `vsr.upscale_frames` and `vsr.Writer` together give the output of `vsr run`."""

import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.clips import Clip, make_clip
from tests.facts import contents
from vsr.errors import InputError, OutputError, UsageError
from vsr.files.frames import Writer, frames, upscale_frames
from vsr.files.upscale import upscale
from vsr.media.encoder import EncoderSettings
from vsr.media.frame import Frame


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "in.mp4", Clip(size=(64, 48), frames=12))


def test_frames_come_with_their_time_picture_and_colour(clip: Path) -> None:
    before = contents(clip)
    with frames(clip) as reader:
        assert (reader.info.width, reader.info.height) == (64, 48)
        found = list(reader)
    assert [frame.pts * frame.time_base for frame in found] == before.pts
    assert [frame.time for frame in found] == [float(pts) for pts in before.pts]
    assert {frame.to_rgb().shape for frame in found} == {(48, 64, 3)}
    assert {frame.colour for frame in found} == {reader.info.colour}
    assert reader.lost == 0


def test_a_run_by_hand_writes_what_vsr_run_writes(tmp_path: Path, clip: Path) -> None:
    settings = EncoderSettings(options={"threads": "1"})
    with frames(clip) as reader, Writer(tmp_path / "b.mp4", like=reader, encoder=settings) as out:
        for frame in upscale_frames(reader, model="bicubic"):
            out.write(frame)
    upscale(clip, tmp_path / "a.mp4", model="bicubic", encoder_options={"threads": "1"})
    ours, theirs = contents(tmp_path / "b.mp4"), contents(tmp_path / "a.mp4")
    assert ours.packets == theirs.packets
    assert (ours.size, ours.pts, ours.kinds) == ((128, 96), theirs.pts, ["video", "audio"])
    assert (ours.matrix, ours.range, ours.sar) == (theirs.matrix, theirs.range, theirs.sar)


def test_a_writer_without_the_rest(tmp_path: Path, clip: Path) -> None:
    with Writer(tmp_path / "out.mkv", like=clip, copy=False) as out:
        for frame in frames(clip):
            out.write(frame)
    found = contents(tmp_path / "out.mkv")
    assert (found.kinds, found.frames) == (["video"], 12)


def test_an_error_leaves_nothing_of_the_output(tmp_path: Path, clip: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="on the way"),
        Writer(tmp_path / "o.mp4", like=clip) as out,
    ):
        out.write(next(iter(frames(clip))))
        raise RuntimeError("on the way")
    assert {path.name for path in tmp_path.iterdir()} == {"in.mp4"}


def test_without_a_frame_there_is_no_file(tmp_path: Path, clip: Path) -> None:
    with Writer(tmp_path / "out.mp4", like=clip):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"in.mp4"}


def test_frames_are_enlarged_lazily_and_a_few_at_a_time(clip: Path) -> None:
    asked = 0

    def counted() -> Iterator[Frame]:
        nonlocal asked
        for frame in frames(clip):
            asked += 1
            yield frame

    flow = upscale_frames(counted(), model="bicubic")
    assert asked == 0
    first = next(flow)
    assert (first.index, first.planes[0].shape) == (0, (96, 128))
    assert 1 <= asked <= 6
    assert [frame.index for frame in flow] == list(range(1, 12))


def test_another_size_on_the_way_gets_an_engine_of_its_own(tmp_path: Path, clip: Path) -> None:
    other = make_clip(tmp_path / "b.mp4", Clip(size=(80, 32), frames=3, audio=()))
    both = [*frames(clip), *frames(other), *frames(clip)]
    sizes = [frame.planes[0].shape for frame in upscale_frames(both, model="bicubic")]
    assert sizes == [(96, 128)] * 12 + [(64, 160)] * 3 + [(96, 128)] * 12


def test_nothing_in_gives_nothing_out() -> None:
    assert list(upscale_frames([], model="bicubic")) == []


def test_planes_outlive_the_reader(clip: Path) -> None:
    kept = list(frames(clip))
    means = [frame.planes[0].mean() for frame in kept]
    gc.collect()
    assert [frame.planes[0].mean() for frame in kept] == means
    assert np.std(means) >= 0


def test_a_writer_takes_frames_in_order_until_it_is_closed(tmp_path: Path, clip: Path) -> None:
    first, second, *_ = frames(clip)
    with Writer(tmp_path / "a.mp4", like=clip) as out:
        out.write(first)
        with pytest.raises(UsageError, match="a frame at 0 s is not later than the one before"):
            out.write(first)
        with pytest.raises(UsageError, match="ndarray is not a frame"):
            out.write(first.to_rgb())  # type: ignore[arg-type]
        out.write(second)
        out.close()
        with pytest.raises(UsageError, match="is closed"):
            out.write(second)
    assert contents(tmp_path / "a.mp4").frames == 2


def test_wrong_requests_are_told(tmp_path: Path, clip: Path) -> None:
    with pytest.raises(UsageError, match="batch is 0"):
        upscale_frames([], model="bicubic", batch=0)
    with pytest.raises(UsageError, match="unknown model"):
        upscale_frames([], model="none")
    with pytest.raises(UsageError, match="is a path: pass frames"):
        next(upscale_frames("in.mp4", model="bicubic"))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no such file"):
        frames(tmp_path / "none.mp4")
    with pytest.raises(UsageError, match="same file"):
        Writer(clip, like=clip, overwrite=True)
    with pytest.raises(OutputError, match="exists"):
        Writer(make_clip(tmp_path / "b.mp4", Clip(frames=2)), like=clip)
