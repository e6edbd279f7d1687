"""Tests of sources: threads end on close, and memory limits."""

import gc
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path

import av
import pytest

from tests.clips import Clip, make_clip
from vsr.errors import InputError
from vsr.live.input.source import LiveSource
from vsr.media.fields import analyse_fields
from vsr.media.frame import Frame
from vsr.media.reading import Reading
from vsr.media.source import Source


def threads() -> set[str]:
    """Return the ids of this process' threads, including FFmpeg's."""
    return {task.name for task in Path("/proc/self/task").iterdir()}


@pytest.fixture
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted on Linux")
@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("count", [0, 5, 50])
@pytest.mark.parametrize("kind", [Source, partial(LiveSource, timeout_s=1.0)])
def test_a_closed_source_lets_its_decoders_threads_go_at_once(
    tmp_path: Path, kind: Callable[[str], Source | LiveSource], count: int
) -> None:
    clip = make_clip(tmp_path / "in.mp4", Clip(frames=20))
    before = threads()
    source = kind(str(clip))
    info = source.info
    own = threads() - before
    assert own, "the decoder has no threads of its own"
    frames = list(islice((item for item in source if isinstance(item, Frame)), count))
    source.close()
    assert not own & threads()  # threads of earlier tests may change
    source.close()
    assert [frame.planes[0].shape for frame in frames] == [(info.height, info.width)] * len(frames)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted on Linux")
@pytest.mark.usefixtures("_no_collector")
def test_a_source_that_cannot_be_read_leaves_no_threads(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.ts", Clip(frames=20, audio=("mp2",)))
    before = threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Source, "_decoded", lambda self, packet: iter(packet.decode()[:0]))
        with pytest.raises(InputError, match="no frame of it can be decoded"):
            Source(str(clip))
    assert threads() <= before  # threads of earlier tests may end


def test_a_machine_of_any_memory_decodes(tmp_path: Path) -> None:
    """FFmpeg rejects a pixel limit (`max_pixels`) of 2^31 or more, however large the memory is."""
    clip = make_clip(tmp_path / "in.mkv")
    for memory in (None, 2**28, 2**34, 2**44):
        with closing(Source(str(clip), Reading(memory=memory))) as source:
            assert sum(isinstance(item, Frame) for item in source) == 12


def test_the_analysis_of_a_beginning_waits_for_its_decoders_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the decoder is freed under the GIL, for which a thread that logs waits: a deadlock."""
    clip = make_clip(tmp_path / "in.mp4", Clip(frames=40))
    flushed: list[bool] = []
    monkeypatch.setattr("vsr.media.fields.flush_decoder", lambda d: flushed.append(d.is_open))
    with av.open(str(clip)) as container:
        analyse_fields(container, container.streams.video[0])
        assert flushed == [True]
