"""Outputs by name (HLS, stdout, unsupported codecs), their retries and their processes."""

import itertools
import logging
import re
import socket
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import av
import pytest

import vsr
from tests.streams import ROOT, Marked, RelayProcess, make_marked, number_of
from vsr.live.output import spares as spares_module
from vsr.live.output.opening import error_text
from vsr.live.output.output import Output
from vsr.live.output.plan import check_outputs, kind_of, muxer_for, output_name
from vsr.live.output.reasons import Reasons, with_hint
from vsr.live.output.spares import Spares
from vsr.live.relay import Relay
from vsr.live.settings import OutputSettings, RelaySettings
from vsr.media.encoder import EncoderSettings

CLIP = Marked(seconds=5.0, size=(64, 36))
LAST = {"model": "bicubic", "max_latency": 5.0}


def test_hls_is_a_playlist_of_segments(tmp_path: Path) -> None:
    clip = make_marked(tmp_path / "in.flv", CLIP)
    target = tmp_path / "live.m3u8"
    Relay(str(clip), [str(target)], RelaySettings(**LAST)).run(threading.Event())  # type: ignore[arg-type]
    text = target.read_text()
    assert text.startswith("#EXTM3U")
    assert text.count("#EXTINF") == len(list(tmp_path.glob("live*.ts"))) == 3
    with av.open(str(target)) as played:
        assert [number_of(p) for p in played.decode(video=0)] == list(range(125))


@pytest.mark.parametrize(("words", "container"), [([], "mpegts"), (["--format", "flv"], "flv")])
def test_a_relay_between_two_pipes(tmp_path: Path, words: list[str], container: str) -> None:
    clip = make_marked(tmp_path / "in.ts", CLIP)
    command = [sys.executable, "-m", "vsr", "relay", "-i", "-", "-", "--model", "bicubic"]
    command += ["--max-latency", "10000", *words]
    with clip.open("rb") as piped:
        done = subprocess.run(
            command, stdin=piped, capture_output=True, cwd=ROOT, check=False, timeout=90
        )
    assert done.returncode in (0, 3), done.stderr
    assert b"stdin" in done.stderr
    out = tmp_path / "out"
    out.write_bytes(done.stdout)
    with av.open(str(out)) as played:
        assert played.format.name == container
        assert {s.type for s in played.streams} == {"video", "audio"}
        assert sum(1 for _ in played.decode(video=0)) > 50


def test_a_reader_that_leaves_ends_the_relay(tmp_path: Path) -> None:
    clip = make_marked(tmp_path / "in.flv", CLIP)
    command = [sys.executable, "-m", "vsr", "relay", str(clip), "-", "--loop", "--model", "bicubic"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert len(process.stdout.read(4000)) == 4000
        process.stdout.close()
        said = process.stderr.read().decode()
        assert process.wait(30) in (0, 3)
    assert "stdout" in said


def test_what_an_output_is_by_its_name() -> None:
    names = ["rtmp://h/a/k", "rec.mp4", "live/x.M3U8", "-", "pipe:5"]
    assert [kind_of(name) for name in names] == ["url", "file", "playlist", "pipe", "pipe"]
    assert muxer_for("-") == "mpegts"
    assert muxer_for("-", "mkv") == "matroska"
    assert (output_name("-"), output_name("rtmp://h/a/k")) == ("stdout", "rtmp://h/a/***")


@pytest.mark.parametrize(
    ("url", "codec", "container", "words"),
    [
        ("out.webm", "av1", None, r"\.webm cannot hold AAC, .*: use \.mkv, \.mp4 or \.ts$"),
        ("out.y4m", None, None, r"\.y4m cannot hold AAC, .*: use \.mkv, \.mp4 or \.ts$"),
        ("out.3gp", "hevc", None, r"live hevc: use \.mkv or \.mp4 or \.ts, or --codec h264$"),
        ("out.ts", "av1", None, r"live av1: use \.mkv or \.mp4, or --codec h264$"),
        ("out.m3u8", "av1", None, r"live av1: use \.mkv or \.mp4, or --codec h264$"),
        ("out.flv", "ffv1", None, r"live ffv1: use \.mkv or \.mp4, or --codec h264$"),
        ("udp://h:9", "av1", None, "udp:// outputs cannot contain av1: use -c h264$"),
        ("-", "av1", "ts", "cannot contain av1: use -c h264 or --format mkv$"),
        ("out.ts", None, "flv", "--format applies only to OUTPUT -"),
        ("-", None, "mp4", "ts, flv, mkv, nut"),
        ("rtmp://h", None, None, "has no stream key"),
        ("h/app/s3cret", None, None, "neither a URL, such as rtmp://HOST/APPLICATION/KEY, nor"),
    ],
)
def test_what_cannot_be_is_a_usage_error_at_once(
    tmp_path: Path, url: str, codec: str | None, container: str | None, words: str
) -> None:
    place = url if "://" in url or url == "-" else str(tmp_path / url)
    with pytest.raises(vsr.UsageError, match=words) as told:
        check_outputs([place], OutputSettings(container=container), EncoderSettings(codec=codec))
    assert "s3cret" not in str(told.value)


def test_the_endings_offered_for_a_recording_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(vsr.UsageError, match="neither a URL") as told:
        check_outputs([str(tmp_path / "out.xyz")])
    endings = re.findall(r"\.(\w+)(?:,|$)", str(told.value))
    assert {"mp4", "mkv", "ts", "m3u8"} <= set(endings)
    check_outputs([str(tmp_path / f"out.{ending}") for ending in endings])


def test_a_codec_that_no_relay_can_send_is_refused_before_the_output_that_cannot_hold_it(
    tmp_path: Path,
) -> None:
    encoder = EncoderSettings(codec="prores")
    with pytest.raises(vsr.UsageError, match="prores_ks provides no stream header"):
        Relay("in.mp4", [str(tmp_path / "out.ts")], vsr.RelaySettings(encoder=encoder))


def test_a_reason_is_told_once_in_an_outage_and_refusals_hint_at_the_key() -> None:
    reasons = Reasons()
    assert [reasons.add(why) for why in ("a", "b", "a")] == [True, True, False]
    reasons.clear()
    assert not reasons.has_any
    assert reasons.add("a")
    for why in ("Server returned 401 Unauthorized", "403 Forbidden", "NetStream.Publish.BadName"):
        assert "stream key" in with_hint(why)
    for why in ("Connection refused", "Broken pipe", "the output process exited unexpectedly"):
        assert with_hint(why) == why


def test_later_reasons_are_logged_too(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG, "vsr")
    monkeypatch.setattr("vsr.live.output.output.encode_plan", lambda *_: b"")
    output = Output("rtmp://host/live/k3y", None, number=2)  # type: ignore[arg-type]
    for why in ("Connection refused", "Connection refused", "401 Unauthorized"):
        output._begin_retry(why)
    warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warned == [
        "output 2, rtmp://host/live/***: Connection refused; retrying",
        "output 2, rtmp://host/live/***: 401 Unauthorized (check the stream key); still retrying",
    ]


def test_spare_processes_are_taken_once_and_leave_nothing() -> None:
    spares = Spares(2)
    one = spares.take()
    assert one is not None
    (left,) = spares._processes
    spares.close()
    assert left.returncode is not None
    assert spares.take() is None
    assert one.poll() is None
    one.kill()
    one.communicate()


def test_a_process_that_cannot_be_started_does_not_keep_others_from_starting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, attempts = spares_module.start_child, itertools.count()

    def start_all_but_the_first(*args: Any, **options: Any) -> Any:
        if next(attempts) == 0:
            raise BlockingIOError("fork: resource temporarily unavailable")
        return start(*args, **options)

    monkeypatch.setattr(spares_module, "start_child", start_all_but_the_first)
    with closing(Spares(3)) as spares:
        assert len(spares._processes) == 2


def test_a_source_that_sends_nothing_is_named(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        RelayProcess(
            tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}/k3y", str(tmp_path / "a.ts")
        ) as relay,
    ):
        relay.await_words("waiting for http://127.0.0.1", 30)
        assert "k3y" not in relay.said


def test_only_what_explains_a_failure_is_kept_of_ffmpegs_log() -> None:
    said = [
        (16, "extract_extradata", "Codec 'aac' (86018) is not supported by the bitstream filter\n"),
        (16, "extract_extradata", "vc1 (70)\n"),
        (16, "tcp", "Connection to tcp://127.0.0.1:9 failed: Connection refused\n"),
        (16, "rtmp", "Cannot open connection tcp://127.0.0.1:9\n"),
    ]
    words = error_text(ConnectionRefusedError(111, "Connection refused"), said)
    assert words == "Connection refused"  # said once
    said = [(16, "tcp", "Failed to resolve hostname nohost: Name or service not known\n")]
    words = error_text(OSError(5, "Input/output error"), said)
    assert words == (
        "Input/output error (Failed to resolve hostname nohost: Name or service not known)"
    )
