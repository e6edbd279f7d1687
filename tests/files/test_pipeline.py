"""The pipeline's threads: order, back-pressure, errors of every stage, early end, no deadlock."""

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import vsr
from tests.clips import Clip, make_clip
from tests.facts import contents
from vsr.inference import models, upscaler
from vsr.inference.backend import load_backend
from vsr.media import prefetch as queues
from vsr.media import sink
from vsr.media import source as source_module
from vsr.media.colour import Colour
from vsr.media.frame import Frame
from vsr.media.prefetch import prefetch

TIMEOUT = 20


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """Assert that each test here leaves no pipeline thread running."""
    before = set(threading.enumerate())
    yield
    ours = {"decode", "infer", "prefetch"}
    assert not [t for t in threading.enumerate() if t not in before and t.name in ours]


def within_time(deed: Callable[[], object]) -> object:
    """Run `deed` on a thread, and fail if it does not end within the timeout."""
    result: list[object] = []
    worker = threading.Thread(target=lambda: result.append(deed()), daemon=True)
    worker.start()
    worker.join(TIMEOUT)
    assert not worker.is_alive(), "it hangs"
    return result[0]


def test_order_is_kept() -> None:
    assert within_time(lambda: list(prefetch(range(1000), depth=3))) == list(range(1000))


def test_an_empty_upstream_ends() -> None:
    assert within_time(lambda: list(prefetch([]))) == []


def test_the_worker_is_at_most_depth_ahead() -> None:
    taken = 0
    arrived = threading.Semaphore(0)

    def upstream() -> Iterator[int]:
        nonlocal taken
        for k in range(100):
            taken = k + 1
            arrived.release()
            yield k

    items = prefetch(upstream(), depth=3)
    assert next(items) == 0
    for _ in range(1 + 3 + 1):  # one consumed, three queued, one held by the worker
        assert arrived.acquire(timeout=TIMEOUT)
    assert not arrived.acquire(timeout=0.3)
    assert taken == 5
    items.close()


def test_an_error_arrives_after_the_items_before_it() -> None:
    def upstream() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("broken")

    seen: list[int] = []

    def consume() -> str:
        try:
            seen.extend(prefetch(upstream()))
        except ValueError as exc:
            return str(exc)
        return ""

    def one_by_one() -> str:
        items = prefetch(upstream())
        try:
            for item in items:
                seen.append(item)
        except ValueError as exc:
            return str(exc)
        return ""

    assert within_time(one_by_one) == "broken"
    assert seen == [1, 2]
    assert within_time(consume) == "broken"


def test_stopping_early_closes_the_upstream() -> None:
    closed = threading.Event()

    def upstream() -> Iterator[int]:
        try:
            yield from range(10**9)
        finally:
            closed.set()

    items = prefetch(upstream(), depth=2)
    assert next(items) == 0
    within_time(items.close)
    assert closed.is_set()


def test_an_error_while_closing_is_not_lost() -> None:
    def upstream() -> Iterator[int]:
        try:
            yield 1
        finally:
            raise OSError("cannot close")

    with pytest.raises(OSError, match="cannot close"):
        list(prefetch(upstream()))


class WorkerDied(BaseException):
    """An error that is no Exception, so that `except Exception` does not catch it."""


@pytest.mark.parametrize("stage", ["decode", "infer", "collect", "encode"])
def test_a_stage_that_dies_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    clip = make_clip(tmp_path / "in.mp4", Clip(frames=40))
    owner, name = {
        "decode": (source_module.Source, "_frame"),
        "infer": (upscaler.Upscaler, "_submit"),
        "collect": (upscaler.Upscaler, "_collect"),
        "encode": (sink.Sink, "_encode"),
    }[stage]
    original, calls = getattr(owner, name), iter(range(10**6))

    def dying(self: object, *arguments: object) -> object:
        if next(calls) == 5:
            raise WorkerDied(stage)
        return original(self, *arguments)

    monkeypatch.setattr(owner, name, dying)

    def attempt() -> str:
        try:
            vsr.upscale(clip, tmp_path / "out.mp4", model="bicubic", preset="ultrafast")
        except WorkerDied as exc:
            return str(exc)
        return "it went on"

    assert within_time(attempt) == stage
    assert {p.name for p in tmp_path.iterdir()} == {"in.mp4"}


def test_stop_ends_early_with_a_playable_file(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.mp4", Clip(frames=200))
    stop = threading.Event()

    def on_progress(progress: vsr.Progress) -> None:
        if progress.frames >= 20:
            stop.set()

    report = vsr.upscale(
        clip, tmp_path / "out.mp4", model="bicubic", preset="ultrafast",
        encoder_options={"tune": "zerolatency"}, on_progress=on_progress, stop=stop,
    )  # fmt: skip
    assert report.interrupted
    assert report.exit_code == 130
    assert 20 <= report.frames_out == report.frames_in < 200
    assert contents(tmp_path / "out.mp4").frames == report.frames_out
    assert f"--start-frame {report.frames_out}" in report.closing_words()[0]


@pytest.mark.parametrize("frames", [12, 100])
def test_an_error_in_on_progress_ends_the_run(tmp_path: Path, frames: int) -> None:
    clip = make_clip(tmp_path / "in.mp4", Clip(frames=frames))

    def on_progress(_: vsr.Progress) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        vsr.upscale(clip, tmp_path / "out.mp4", model="bicubic", on_progress=on_progress)
    assert {p.name for p in tmp_path.iterdir()} == {"in.mp4"}


def test_an_oserror_of_the_callback_is_the_callbacks(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.mp4", Clip())

    def on_progress(_: vsr.Progress) -> None:
        raise OSError(28, "my own disk")

    with pytest.raises(OSError, match="my own disk") as caught:
        vsr.upscale(clip, tmp_path / "out.mp4", model="bicubic", on_progress=on_progress)
    assert not isinstance(caught.value, vsr.VsrError)


def test_a_stop_that_came_too_late_changes_nothing(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.mp4", Clip())
    stop = threading.Event()

    def on_progress(progress: vsr.Progress) -> None:
        if progress.frames == 12:
            stop.set()

    report = vsr.upscale(
        clip, tmp_path / "out.mp4", model="bicubic", on_progress=on_progress, stop=stop
    )
    assert (report.exit_code, report.frames_out, report.closing_words()) == (0, 12, [])


def test_a_stop_before_the_first_frame_is_an_interruption(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.mp4", Clip())
    stop = threading.Event()
    stop.set()
    with pytest.raises(vsr.VsrError, match=r"before the first frame|was being opened") as caught:
        vsr.upscale(clip, tmp_path / "out.mp4", model="bicubic", stop=stop)
    assert caught.value.exit_code == 130
    assert {p.name for p in tmp_path.iterdir()} == {"in.mp4"}


def test_frames_lost_between_stages_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_clip(tmp_path / "in.mp4", Clip())
    original = upscaler.Upscaler.process

    def forgetful(self: upscaler.Upscaler, items: Iterator[Frame]) -> Iterator[object]:
        kept = (i for i in original(self, items) if not isinstance(i, Frame) or i.index != 5)
        yield from kept

    monkeypatch.setattr(upscaler.Upscaler, "process", forgetful)
    report = vsr.upscale(clip, tmp_path / "out.mp4", model="bicubic")
    assert (report.frames_in, report.frames_out, report.exit_code) == (12, 11, 3)


def test_an_upstream_that_is_none_raises_instead_of_hanging() -> None:
    def consume() -> str:
        try:
            return str(list(prefetch(5)))  # type: ignore[arg-type]
        except TypeError as exc:
            return str(exc)

    assert "not iterable" in str(within_time(consume))


def test_an_engine_is_freed_with_its_last_user(tmp_path: Path) -> None:
    """OpenVINO's callbacks once kept all compiled networks and their threads alive (a leak)."""
    backend = load_backend()
    model = models.find("bicubic", 2, backend)
    scaler = upscaler.Upscaler(model, backend, Colour(), (64, 48))
    source = source_module.Source(str(make_clip(tmp_path / "in.mp4", Clip())))
    assert len(list(scaler.process(i for i in source if isinstance(i, Frame)))) == 12
    source.close()
    engine = weakref.ref(scaler._engine)
    assert engine() is not None
    del scaler
    gc.collect()
    assert engine() is None


def test_more_packets_than_the_hand_over_holds_do_not_block(tmp_path: Path) -> None:
    """All audio precedes the first frame, so packets must pass through a full pipeline."""
    clip = make_clip(tmp_path / "in.mkv", Clip(frames=50, start=3.0, audio=("aac", "ac3")))
    within_time(
        lambda: vsr.upscale(clip, tmp_path / "out.mkv", model="bicubic", preset="ultrafast")
    )
    assert contents(tmp_path / "out.mkv").packets == contents(clip).packets
    assert queues.QUEUE_DEPTH < 50
