"""Several relays in one process: which errors end a relay, and which ones restart it."""

import itertools
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import av
import pytest

from tests.programs import needs_nginx
from tests.rtmp import FPS, Server, free_port, wait_for
from tests.streams import ROOT, Marked, Publisher, Recorder, RelayProcess, make_marked, number_of
from vsr.errors import OutputError
from vsr.live import supervisor as fleet
from vsr.live.common import Backoff
from vsr.live.ladder.pool import Pool
from vsr.live.output.encode import LiveEncoder
from vsr.live.playout import Playout
from vsr.live.settings import IngestSettings, RelaySettings
from vsr.live.supervisor import RelayJob, run_all
from vsr.media.encoder import EncoderSettings
from vsr.media.frame import Frame
from vsr.report.rolling import RollingSettings, rotate_report

START = 40.0
"""Longest wait for a relay to start on a busy machine, in seconds."""
QUICK = Backoff(first=0.05, longest=0.4)
SETTINGS = RelaySettings(
    model="bicubic", scale=2, max_latency=5.0, encoder=EncoderSettings(preset="ultrafast")
)


@pytest.fixture(autouse=True)
def info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "vsr")


def _member(
    name: str, source: str | Path, target: Path, settings: RelaySettings = SETTINGS,
    report: Path | None = None,
) -> RelayJob:  # fmt: skip
    named = replace(settings, name=name, rolling=RollingSettings(report=report))
    return RelayJob(input=str(source), outputs=(str(target),), settings=named)


LOOPED = replace(SETTINGS, ingest=IngestSettings(loop=True))


class _Running:
    """Runs relays on a thread."""

    def __init__(self, members: Sequence[RelayJob]) -> None:
        self.stop = threading.Event()
        self.code = -1
        self._members = members
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.code = run_all(self._members, self.stop, Pool(), QUICK)

    def end(self, seconds: float = 10.0) -> int:
        """Stop the relays; return their exit code."""
        self.stop.set()
        self._thread.join(seconds)
        assert not self._thread.is_alive()
        return self.code


@contextmanager
def _running(*members: RelayJob) -> Iterator[_Running]:
    running = _Running(members)
    try:
        yield running
    finally:
        running.end()


def _pauses(text: str, name: str) -> list[float]:
    return [float(s) for s in re.findall(rf"{name}: .*restarting in (\S+) s", text)]


def test_pauses_grow_to_a_bound_and_leave_a_little_to_chance() -> None:
    backoff = Backoff(first=1.0, longest=10.0)
    for failures, longest in enumerate([1, 1, 2, 4, 8, 10, 10]):
        found = {backoff.pause(failures) for _ in range(200)}
        assert 0.8 * longest <= min(found) < 0.85 * longest
        assert 0.95 * longest < max(found) <= longest
    assert backoff.pause(10**6) <= 10
    assert Backoff(first=3.0, longest=1.0, growth=1.6).pause(9) > 2.3  # never less than the first
    assert (fleet.PAUSES.pause(1) <= 1, fleet.PAUSES.pause(99) > 45) == (True, True)


def test_a_source_that_was_given_up_is_taken_up_again_and_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"rtmp://127.0.0.1:{free_port()}/live/k3y"
    settings = replace(SETTINGS, ingest=IngestSettings(retry_max=1))
    with _running(_member("cam", url, tmp_path / "out.flv", settings)) as running:
        wait_for(lambda: len(_pauses(caplog.text, "cam")) > 6, START, caplog.text)
        began = time.monotonic()
        assert running.end() == 130
        assert time.monotonic() - began < 2  # during a pause or an attempt
    pauses = _pauses(caplog.text, "cam")
    assert all(a < b or b >= 0.79 * QUICK.longest for a, b in itertools.pairwise(pauses))
    assert pauses[0] <= QUICK.first
    assert 0.79 * QUICK.longest <= pauses[-1] <= QUICK.longest
    assert "cam: error: cannot open rtmp://127.0.0.1" in caplog.text
    assert "k3y" not in caplog.text


@pytest.mark.parametrize("hopeless", [False, True])
def test_outputs_that_can_never_work_end_a_relay_for_good(tmp_path: Path, hopeless: bool) -> None:
    member = _member("cam", "rtmp://host/live/in", tmp_path / "out.flv")
    relay: Any = SimpleNamespace(has_report=True, is_hopeless=hopeless)
    supervised = fleet._Supervised(member, threading.Event(), Pool(), QUICK)
    supervised._relay = relay
    assert supervised._classify(OutputError("nothing was published"))[0] is hopeless


@pytest.mark.parametrize(("over", "opened"), [(True, False), (True, True), (False, False)])
def test_outputs_that_were_open_may_work_again(over: bool, opened: bool) -> None:
    playout = Playout.__new__(Playout)
    encoder: Any = SimpleNamespace(is_over=over, was_open=opened)
    playout._encoder = encoder
    assert playout.is_hopeless is (over and not opened)


def _file(folder: Path) -> Path:
    path = folder / "no.flv"
    path.write_text("no video at all")
    return path


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"model": "x"}, 2, "unknown model 'x'"),
        ({"backend": "x"}, 2, "unknown backend 'x'"),
        ({"encoder": EncoderSettings(codec="x")}, 2, "unknown codec 'x'"),
        ({"encoder": EncoderSettings(preset="x")}, 2, "encoder libx264 has no preset 'x'"),
        ({"slate": Path("none.png")}, 1, "cannot read the slate"),
    ],
)
def test_what_its_user_must_put_right_ends_one_relay_for_good(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: dict[str, Any], code: int, words: str
) -> None:
    url = f"rtmp://127.0.0.1:{free_port()}/live/in"
    wrong = _member("wrong", url, tmp_path / "a.flv", replace(SETTINGS, **change))
    with _running(wrong, _member("right", url, tmp_path / "b.flv")) as running:
        wait_for(lambda: "wrong: error: " in caplog.text, START, caplog.text)
        wait_for(lambda: "right: cannot open" in caplog.text, START, caplog.text)
        time.sleep(3 * QUICK.first)
        assert running.end() == code  # although the other was stopped
    assert caplog.text.count("wrong: ") == 1
    assert words in caplog.text
    assert "restarting in" not in caplog.text


@pytest.mark.parametrize("settings", [SETTINGS, LOOPED])
@pytest.mark.parametrize("source", ["none.flv", "no.flv"])
def test_a_file_that_is_none_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, settings: RelaySettings, source: str
) -> None:
    _file(tmp_path)
    member = _member("one", tmp_path / source, tmp_path / "out.flv", settings)
    assert run_all([member], threading.Event(), Pool(), QUICK) == 1
    assert caplog.text.count("one: ") == 1
    assert "restarting in" not in caplog.text


def test_an_output_that_cannot_be_ends_one_relay_for_good_but_not_one_that_was_live(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Like a disk that never existed, and one that disappears, here together with the source."""
    clip = make_marked(tmp_path / "in.flv", Marked(seconds=1, sound=None))
    disk = tmp_path / "disk"
    disk.mkdir()
    members = [
        _member("never", clip, tmp_path / "none" / "out.flv", LOOPED),
        _member("once", clip, disk / "out.flv", LOOPED),
    ]
    with _running(*members) as running:
        wait_for(lambda: "once: live: " in caplog.text, START, caplog.text)
        time.sleep(2 * QUICK.longest)
        away = tmp_path / "away"
        disk.rename(away)
        clip.rename(tmp_path / "gone.flv")
        wait_for(lambda: len(_pauses(caplog.text, "once")) > 3, START, caplog.text)
        away.rename(disk)
        (tmp_path / "gone.flv").rename(clip)
        wait_for(lambda: caplog.text.count("once: live: ") > 1, START, caplog.text)
        assert running.end() == 1
    assert caplog.text.count("never: error: the output folder does not exist") == 1
    assert caplog.text.count("never: ") == 1
    assert _pauses(caplog.text, "once")[0] <= QUICK.first  # a long run resets the backoff
    assert "once: error: no such file" in caplog.text
    assert "once: error: the output folder does not exist" in caplog.text


class _Broken:
    """An encoder that always fails, as without its driver."""

    def __init__(self, real: av.VideoCodecContext) -> None:
        self.name = real.name

    def encode(self, picture: av.VideoFrame | None) -> list[Any]:
        raise av.error.ExternalError(1, "the encoder is gone")


def _encoder_dies(monkeypatch: pytest.MonkeyPatch, is_bad: Callable[[], bool]) -> None:
    begin = LiveEncoder.__init__

    def init(self: LiveEncoder, *args: Any) -> None:
        begin(self, *args)
        if is_bad() and "bad" in args[0][0]:
            encoding: Any = self._encodings[1.0]
            make = encoding._opener
            encoding._opener = lambda: _Broken(make())
            threading.Timer(0.5, lambda: setattr(encoding, "context", encoding._opener())).start()

    monkeypatch.setattr(LiveEncoder, "__init__", init)


def _playout_fails(monkeypatch: pytest.MonkeyPatch, is_bad: Callable[[], bool]) -> None:
    picture = Playout._process_frame

    def fail(self: Playout, frame: Frame) -> None:
        if is_bad() and self._log._name == "bad" and self._clock.last > 0.4:
            raise RuntimeError("a defect\nof ours")
        picture(self, frame)

    monkeypatch.setattr(Playout, "_process_frame", fail)


def _backend_fails(monkeypatch: pytest.MonkeyPatch, is_bad: Callable[[], bool]) -> None:
    """Fail for one relay only, which is identified by its frame size."""
    from vsr.live.ladder import rungs

    class Upscaler(rungs.Upscaler):
        def process(self, frames: Any) -> Any:
            frames = list(frames)
            if is_bad() and frames[0].index > 10 and frames[0].planes[0].shape == (90, 160):
                raise RuntimeError("the device is gone")
            return super().process(frames)

    monkeypatch.setattr(rungs, "Upscaler", Upscaler)


FAULTS = {
    "error: the encoder libx264 failed: the encoder is gone": _encoder_dies,
    "unexpected RuntimeError: a defect of ours (report it)": _playout_fails,
    "error: bicubic failed too: the device is gone": _backend_fails,
}


@pytest.mark.parametrize("words", FAULTS)
def test_a_relay_that_breaks_is_started_again_and_no_other_notices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, words: str
) -> None:
    clip = make_marked(tmp_path / "in.flv", Marked(seconds=2, size=(160, 90)))
    other = make_marked(tmp_path / "other.flv", Marked(seconds=3, size=(192, 96), sound=None))
    FAULTS[words](monkeypatch, lambda: caplog.text.count("restarting in") < 2)
    told = tmp_path / "report.json"
    members = [
        _member("bad", clip, tmp_path / "bad.flv", LOOPED, told),
        _member("good", other, tmp_path / "good.flv"),
    ]
    with _running(*members) as running:
        wait_for(lambda: caplog.text.count("bad: live: ") == 3, START, caplog.text)
        third = tmp_path / "bad-3.flv"
        wait_for(lambda: third.exists() and third.stat().st_size > 50_000, START, caplog.text)
        wait_for(lambda: "good: " + str(other) in caplog.text, START, caplog.text)
        assert running.end() == 130
    assert caplog.text.count(f"bad: {words}; restarting in ") == 2
    assert "Traceback" not in caplog.text
    with av.open(str(third)) as out:
        assert sum(1 for _ in out.decode(video=0)) > 5
    with av.open(str(tmp_path / "good.flv")) as out:
        assert [number_of(p) for p in out.decode(video=0)] == list(range(3 * FPS))
    reports = sorted(path.name for path in tmp_path.glob("report*"))
    assert reports[-1] == "report.json"  # of the last run; the others are of failed runs
    assert [bool(re.fullmatch(r"report-\d{8}T\d{6}Z\.json", name)) for name in reports[:-1]] == [
        True, True,
    ]  # fmt: skip


def test_a_defect_tells_no_stream_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keys = ("rtmp://127.0.0.1/live/k3y-of-input", "rtmp://127.0.0.1/live/k3y-of-output")

    def fails(*_: Any) -> NoReturn:
        raise OSError(5, f"{keys[0]} into k3y-of-output")

    monkeypatch.setattr("vsr.live.relay.Relay.run", fails)
    with _running(RelayJob(input=keys[0], outputs=keys[1:], settings=SETTINGS)):
        wait_for(lambda: "restarting in" in caplog.text, 10, "not told")
    told = [record.getMessage() for record in caplog.records]
    assert any("rtmp://127.0.0.1/live/*** into ***" in words for words in told)
    assert "k3y" not in "".join(told)


def test_reports_of_runs_that_failed_do_not_fill_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = RollingSettings(report=tmp_path / "r.json", keep=3)
    other = tmp_path / "r-notes.json"
    other.write_text("mine")
    for number in range(6):
        monkeypatch.setattr("vsr.report.rolling.time.time", lambda n=number: 1.8e9 + n / 2)
        (tmp_path / "r.json").write_text(str(number))
        rotate_report(settings)
    kept = sorted(tmp_path.glob("r-2*.json"))
    assert [path.read_text() for path in kept] == ["3", "4", "5"]
    assert not (tmp_path / "r.json").exists()
    assert other.read_text() == "mine"
    rotate_report(RollingSettings())  # without a report, nothing is renamed


class _Fleet(RelayProcess):
    """`vsr relay --config` as users start it."""

    def __init__(self, folder: Path, text: str) -> None:
        config = folder / "relays.toml"
        config.write_text(text, encoding="utf-8")
        self._log = folder / "relay.log"
        command = [sys.executable, "-m", "vsr", "relay", "--config", str(config)]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}
            )


@needs_nginx
def test_one_of_several_is_wrong_one_comes_late_and_one_never_pauses(tmp_path: Path) -> None:
    clip = make_marked(tmp_path / "in.flv", Marked(seconds=60))
    late = make_marked(tmp_path / "late.flv", Marked(seconds=40, first=300))
    common = "model = 'bicubic'\npreset = 'ultrafast'\nmax-latency = 3000\n"
    with Server(tmp_path / "nginx") as server, Server(tmp_path / "other") as other:
        other.kill()
        tables = {
            "steady": f"input = '{clip}'\noutputs = ['{server.url('steady')}']",
            "late": f"input = '{other.url('in')}'\noutputs = ['{server.url('late')}']\n"
            "retry-max = 1\nretry-delay = 0.1\nreport = 'late.json'",
            "option": f"input = '{server.url('x')}'\noutputs = ['x.flv']\ncrf = 'x'",
            "codec": f"input = '{server.url('x')}'\noutputs = ['y.flv']\ncodec = 'x'",
            "output": f"input = '{server.url('x')}'\noutputs = ['gopher://host/k3y']",
        }  # fmt: skip
        text = "".join(f"[[relay]]\nname = '{n}'\n{common}{t}\n" for n, t in tables.items())
        text = text.replace("'late.json'", f"'{tmp_path / 'late.json'}'")
        with (
            _Fleet(tmp_path, text) as relays,
            Recorder(server.url("steady")) as steady,
            Recorder(server.url("late")) as viewer,
        ):
            wait_for(lambda: len(steady.of("video")) > FPS, START, relays.said)
            relays.await_words("late: error: cannot open", START, 2)
            other.start()
            with Publisher(other.url("in"), late):
                relays.await_words("late: live: ", START)
                wait_for(lambda: len(viewer.of("video")) > FPS, START, relays.said)
                assert relays.stop() < 15
            steady.stop()
    said = relays.said
    assert relays.process.returncode == 2, said
    for name, words in {
        "option": "Invalid value for '--crf'",
        "codec": "unknown codec 'x'",
        "output": "cannot publish to gopher://",
    }.items():
        assert said.count(f"vsr: {name}: ") == 1
        assert f"vsr: {name}: error: {words}" in said
    assert "Connection refused; stopped after attempt 1 (--retry-max); restarting in" in said
    assert "Traceback" not in said
    numbers = [number for number, _ in steady.shown()]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert steady.pause() < 15
    assert viewer.shown()[0][0] >= 300
    assert (tmp_path / "late.json").exists()
