"""Servers that accept a connection but not the stream, and outputs that can never work."""

import errno
import io
import itertools
import os
import re
import threading
import time
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest
from av.codec.context import Flags

import vsr
from tests.programs import needs_nginx
from tests.rtmp import Server, wait_for
from tests.streams import Marked, make_marked
from vsr.live.output.delivery import Delivery
from vsr.live.output.encode import LiveEncoder
from vsr.live.output.opening import add_stream
from vsr.live.output.output import Output
from vsr.live.output.pauses import Pauses
from vsr.live.output.plan import OutputStreams, check_outputs
from vsr.live.output.probation import NOT_AGAIN, REFUSED, Probation
from vsr.live.output.reasons import Reasons
from vsr.live.output.record import Record
from vsr.live.output.state import OutputState, State
from vsr.live.output.tally import Tally
from vsr.live.relay import Relay
from vsr.live.settings import OutputSettings
from vsr.media.encoder import EncoderSettings
from vsr.media.frame import Frame

URL = "rtmp://host/live/k3y"
BROKEN = os.strerror(errno.EPIPE)


def _record() -> Record:
    frame = Frame.__new__(Frame)
    frame.event, frame.stamps = "", type("Stamps", (), {"sent": 0.0})()  # type: ignore[assignment]
    return Record(b"", True, 0.0, delivery=Delivery(frame, 1, lambda _: None), origin=None)


def _session(probation: Probation, why: str, seconds: float, packets: int = 3) -> str:
    for _ in range(packets):
        probation.sent(_record(), 0.0, 0.001, 0.0)
    if probation.is_passed(seconds):
        probation.accept()
    return probation.end_session(why, seconds)


def _counts(tally: Tally) -> tuple[int, int]:
    return tally.pictures, tally.pictures_dropped


def test_sessions_that_end_at_once_are_a_refusal_and_send_nothing() -> None:
    probation = Probation(URL, tally := Tally())
    whys = [_session(probation, why, 0.05) for why in (BROKEN, "End of file", BROKEN, BROKEN)]
    assert whys == [BROKEN, BROKEN, REFUSED, REFUSED]
    assert _counts(tally) == (0, 12)
    assert not probation.was_accepted
    assert _session(probation, BROKEN, 20.0) == BROKEN
    assert _counts(tally) == (3, 12)
    assert (probation.was_accepted, probation.is_refused) == (True, False)


@pytest.mark.parametrize(
    ("url", "why", "seconds"),
    [
        (URL, BROKEN, 1.5),
        (URL, "the output process exited unexpectedly", 0.1),  # killed, or the end of the relay
        ("out.mkv", BROKEN, 0.1),
        ("udp://host:1", BROKEN, 0.1),
    ],
)
def test_other_ends_are_no_refusal(url: str, why: str, seconds: float) -> None:
    probation = Probation(url, tally := Tally())
    for k in range(1, 5):
        assert _session(probation, why, seconds) == why
        assert _counts(tally) == (3 * k, 0)


def test_results_of_a_known_server_are_not_held_back() -> None:
    probation = Probation(URL, tally := Tally())
    probation.sent(_record(), 0.0, 0.001, 0.0)
    assert _counts(tally) == (0, 0)
    assert not probation.is_passed(0.9)
    assert probation.is_passed(1.0)
    probation.accept()
    probation.sent(_record(), 0.0, 0.001, 0.0)
    assert _counts(tally) == (2, 0)


def test_the_pauses_of_a_refusal_grow_up_to_a_minute() -> None:
    pauses = Pauses(OutputSettings())
    refused = [pauses.after(0.05, refused=True) for _ in range(12)]
    assert all(a < b for a, b in itertools.pairwise(refused[:5]))
    assert 48 <= refused[-1] <= 60
    assert pauses.after(0.05, refused=False) <= 3
    assert pauses.after(10.0, refused=False) <= 0.5


def test_a_server_that_comes_back_is_not_punished_for_its_absence() -> None:
    pauses = Pauses(OutputSettings())
    assert max(pauses.after(0.0, refused=False) for _ in range(40)) <= 3
    assert pauses.after(0.05, refused=True) <= 3
    assert 4 < pauses.after(0.05, refused=True) <= 6
    assert pauses.after(0.0, refused=False) <= 3
    assert pauses.after(0.05, refused=True) <= 3


def test_a_server_that_accepted_the_stream_before_is_asked_more_often() -> None:
    """It may hold the last session until that times out."""
    probation = Probation(URL, Tally())
    _session(probation, BROKEN, 20.0)
    whys = [_session(probation, BROKEN, 0.05) for _ in range(3)]
    assert whys == [BROKEN, BROKEN, NOT_AGAIN]
    pauses = Pauses(OutputSettings())
    told = [pauses.after(0.05, refused=True, known=True) for _ in range(9)]
    assert 8 <= max(told) <= 10


def test_a_server_that_is_away_no_longer_counts_as_refusing() -> None:
    probation = Probation(URL, Tally())
    whys = [_session(probation, BROKEN, 0.05) for _ in range(3)]
    assert whys[-1] == REFUSED
    assert _session(probation, "End of file", 0.0, packets=0) == "End of file"
    assert probation.is_refused  # it closes the connection a little earlier
    assert _session(probation, "Connection refused", 0.0, packets=0) == "Connection refused"
    assert not probation.is_refused
    assert _session(probation, BROKEN, 0.05) == REFUSED


@pytest.mark.parametrize(("accepted", "hint"), [(False, True), (True, False)])
def test_a_server_that_has_worked_is_not_doubted(
    accepted: bool, hint: bool, caplog: pytest.LogCaptureFixture
) -> None:
    output = Output.__new__(Output)
    output.name, output._url, output._lock = "o", URL, threading.Lock()
    output._state, output._reasons = OutputState(), Reasons()
    output._probation = Probation(URL, Tally())
    output._probation.was_accepted = accepted
    output._begin_retry(os.strerror(errno.EIO))
    assert ("is it an RTMP server" in caplog.text) is hint


@needs_nginx
def test_a_server_that_denies_publishing_is_named_once_and_counts_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "vsr")
    clip = make_marked(tmp_path / "in.flv", Marked(seconds=3))
    settings: dict[str, Any] = {"model": "bicubic", "max_latency": 5.0}
    with (
        Server(tmp_path / "nginx", "deny publish all;") as server,
        pytest.raises(vsr.OutputError, match=f"nothing was published: {REFUSED}"),
    ):
        vsr.relay(str(clip), server.url("k3y"), settings=vsr.RelaySettings(**settings))
    assert caplog.text.count(REFUSED) == 1
    assert caplog.text.count("connected") == 1
    assert "reconnected" not in caplog.text
    assert "0 were sent" in caplog.text
    assert "k3y" not in caplog.text


@pytest.mark.parametrize(
    ("name", "codec", "words"),
    [
        ("rtmp://host/live/k3y", "ffv1", "rtmp:// outputs cannot contain ffv1: use -c h264"),
        ("rtsp://host/live", "ffv1", "rtsp:// outputs cannot contain ffv1"),
        ("udp://host:9", "libsvtav1", "udp:// outputs cannot contain av1"),
        ("pipe:7", "ffv1", "mpegts on stdout cannot contain ffv1"),
        ("out.m3u8", "ffv1", "out.m3u8 cannot contain live ffv1"),
        ("out.flv", "ffv1", "out.flv cannot contain live ffv1"),
    ],
)
def test_a_codec_that_an_output_cannot_contain_is_a_usage_error(
    tmp_path: Path, name: str, codec: str | None, words: str
) -> None:
    name = str(tmp_path / name) if name.startswith("out.") else name
    with pytest.raises(vsr.UsageError, match=re.escape(words)):
        check_outputs([name], None, EncoderSettings(codec=codec))


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.ts", "a.m3u8", "a.flv", "rtmp://h/a/k"])
def test_hevc_can_be_in_all_that_is_usual(tmp_path: Path, name: str) -> None:
    where = name if "://" in name else str(tmp_path / name)
    check_outputs([where], None, EncoderSettings(codec="hevc"))


@needs_nginx
@pytest.mark.parametrize("others", [[], ["out.flv"]])
def test_an_output_that_can_never_work_is_not_retried(
    tmp_path: Path, others: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    clip = make_marked(tmp_path / "in.flv", Marked(seconds=2, size=(160, 90), sound=None))
    options = {"x265-params": "log-level=none"}
    encoder = EncoderSettings(codec="hevc", preset="ultrafast", options=options)
    settings = vsr.RelaySettings(model="bicubic", max_latency=5.0, encoder=encoder)
    with Server(tmp_path / "nginx") as server:
        outputs = [server.url("k3y"), *(str(tmp_path / name) for name in others)]
        if others:
            report = vsr.relay(str(clip), outputs, settings=settings)
            assert [each["pictures"] for each in report.live["outputs"]] == [0, 50]
            assert report.exit_code == 3
        else:
            with pytest.raises(vsr.OutputError, match="does not announce support for hevc"):
                vsr.relay(str(clip), outputs, settings=settings)
    assert caplog.text.count("does not announce support") == 1
    assert "; not retrying" in caplog.text
    assert (tmp_path / "nginx" / "error.log").read_text().count("connect: app=") == 1


def test_pictures_that_stay_in_the_encoder_count_for_every_output() -> None:
    tally = Tally()
    tally.sent(_record(), 0.0, 0.001, 0.0)
    tally.dropped(_record())
    tally.settle(75)
    assert _counts(tally) == (1, 74)


def test_lines_about_the_stream_template_explain_no_error() -> None:
    """FFmpeg complains about the dummy packet of the template, as for FFV1."""
    encoder = av.CodecContext.create("ffv1", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = 64, 36, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25)
    encoder.flags |= Flags.global_header
    encoder.open()
    (facts,) = OutputStreams(video=encoder, audio=None).facts()
    av.logging.set_level(av.logging.ERROR)
    with (
        av.logging.Capture(local=False) as logged,
        av.open(io.BytesIO(), "w", format="matroska") as output,
    ):
        add_stream(output, facts)
        assert logged == []


@needs_nginx
def test_a_file_waits_for_a_server_that_comes_up_a_little_later(tmp_path: Path) -> None:
    clip = make_marked(tmp_path / "in.flv", Marked(seconds=2))
    server = Server(tmp_path / "nginx")
    settings = vsr.RelaySettings(model="bicubic", max_latency=5.0)
    relay = Relay(str(clip), [server.url("k3y")], settings)
    thread = threading.Thread(target=relay.run, args=(threading.Event(),), daemon=True)

    def is_refused() -> bool:
        outputs = relay.board.snapshot(0.0).outputs
        return any(output.state == "retrying" for output in outputs)

    thread.start()
    wait_for(is_refused, 20, "not refused")
    time.sleep(2)  # longer than what an output keeps for the start of a session
    with server:
        thread.join(20)
    assert not thread.is_alive()
    assert (relay.report.frames_in, relay.report.frames_out) == (50, 50)


@pytest.mark.parametrize(
    ("states", "ready"),
    [
        (["open"], True),
        (["open", "retrying"], True),
        (["open", "closed"], True),
        (["open", "connecting"], False),
        (["retrying", "closed"], False),
    ],
)
def test_outputs_are_ready_when_one_is_open_and_none_is_untried(
    states: list[State], ready: bool
) -> None:
    encoder = LiveEncoder.__new__(LiveEncoder)
    outputs: Any = [SimpleNamespace(state=OutputState(state=state)) for state in states]
    encoder._outputs = outputs
    assert encoder.is_ready is ready
