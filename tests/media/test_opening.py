"""Tests of opening and reading under a clock that jumps, which PyAV's timeouts depend on."""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from tests.clips import Clip, make_clip
from tests.http_folder import served
from vsr.errors import InputError
from vsr.live.input.source import LiveSource
from vsr.media.frame import Frame
from vsr.media.source import Source

FRAMES = 60
SOURCES = pytest.mark.parametrize(
    "kind", [Source, partial(LiveSource, timeout_s=5.0)], ids=["run", "relay"]
)


@pytest.fixture(name="jump", params=[-1.0, 100.0], ids=["back", "ahead"])
def _jump(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function after which the clock jumps by that many seconds whenever it is read."""

    def begin() -> None:
        times = itertools.count(time.monotonic(), request.param)
        monkeypatch.setattr("time.monotonic", lambda: next(times))

    return begin


@pytest.fixture(name="clip")
def _clip(tmp_path: Path) -> Path:
    """Return a clip that is larger than what FFmpeg reads of a URL to open it."""
    clip = Clip(size=(320, 240), frames=FRAMES, audio=(), options={"qp": "0"})
    return make_clip(tmp_path / "in.ts", clip)


@pytest.fixture(name="url")
def _url(clip: Path) -> Iterator[str]:
    with served(clip.parent) as (address, _):
        yield f"{address}/{clip.name}"


def _count_frames(source: Source | LiveSource) -> int:
    with closing(source):
        return sum(isinstance(item, Frame) for item in source)


@SOURCES
def test_files_are_read_without_timeouts(
    clip: Path, jump: Callable[[], None], kind: Callable[[str], Source | LiveSource]
) -> None:
    jump()
    source = kind(str(clip))
    assert _count_frames(source) == FRAMES
    assert source.losses.lost == 0
    assert not source.losses.notes


@SOURCES
def test_a_url_cannot_be_opened_while_the_clock_jumps(
    url: str, jump: Callable[[], None], kind: Callable[[str], Source | LiveSource]
) -> None:
    jump()
    with pytest.raises(InputError, match=r"http://127\.0\.0\.1:\d+/\*\*\*"):
        kind(url)


def test_a_stream_breaks_off_where_the_clock_jumps(url: str, jump: Callable[[], None]) -> None:
    source = LiveSource(url, 5.0)
    jump()
    with pytest.raises(InputError, match=r"http://127\.0\.0\.1:\d+/\*\*\* (failed|sent no data)"):
        _count_frames(source)


def test_a_download_is_used_up_to_where_the_clock_jumps(url: str, jump: Callable[[], None]) -> None:
    source = Source(url)
    jump()
    assert 0 < _count_frames(source) < FRAMES
    assert source.losses.lost >= 1
    why = ("no data for 30 s", "Clock has been changed to before timeout start")
    assert source.losses.notes["end"].removeprefix("reading stopped early: ") in why


def test_an_mp4_that_a_server_cannot_send_in_parts(tmp_path: Path) -> None:
    """Python's server ignores ranges, so that FFmpeg cannot go back from the index at the end."""
    make_clip(tmp_path / "in.mp4", Clip(size=(320, 240), frames=FRAMES, options={"qp": "0"}))
    with (
        served(tmp_path) as (address, _),
        pytest.raises(InputError, match="sends whole files only: download the file, or move the"),
    ):
        Source(f"{address}/in.mp4")
