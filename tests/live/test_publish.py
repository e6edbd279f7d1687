"""Live encoding: every frame is matched to its packet, and failing encoders are handled."""

import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import av
import pytest

import vsr
from tests.rtmp import free_port
from tests.streams import Marked, make_marked, number_of
from vsr.live.input.mailbox import AudioPacket
from vsr.live.output.encode import LiveEncoder
from vsr.live.output.encoding import Encoding, open_live_encoder
from vsr.live.output.output import Output
from vsr.live.relay import Relay
from vsr.live.settings import RelaySettings
from vsr.media.encoder import EncoderSettings
from vsr.media.frame import Frame
from vsr.report.report import Report


@pytest.mark.parametrize("options", [{}, {"tune": "film", "rc-lookahead": "8"}])
def test_an_encoder_that_holds_pictures_back_loses_none_and_no_time(
    tmp_path: Path, options: dict[str, str]
) -> None:
    """As NVENC may, and x264 with lookahead."""
    clip = make_marked(tmp_path / "in.flv", Marked(seconds=2, sound=None))
    target = tmp_path / "out.flv"
    encoder = EncoderSettings(options={"preset": "ultrafast", **options})
    settings = RelaySettings(model="bicubic", scale=2, max_latency=5.0, encoder=encoder)
    report = Relay(str(clip), [str(target)], settings).run(threading.Event())
    assert (report.frames_in, report.frames_out) == (50, 50)
    held = report.ledger.stages()["encode"]["p50"]
    assert held > 35 or not options
    assert report.ledger.stages()["total"]["p50"] >= held > 0
    with av.open(str(target)) as out:
        pictures = list(out.decode(video=0))
    assert [number_of(p) for p in pictures] == list(range(50))
    assert [k for k, p in enumerate(pictures) if p.key_frame] == [0]  # not requested twice
    times = [p.time for p in pictures if p.time is not None]
    assert times == pytest.approx([k / 25 for k in range(50)], abs=0.0015)


def test_rows_and_packets_go_together_where_b_frames_come_in_another_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are matched by pts. By order, a B-frame's row would get a P-frame's packet."""
    sent: list[tuple[float, int]] = []
    offer = Output.offer

    def offered(
        self: Output, packet: Any, kind: Any, delivery: Any = None, origin: float | None = None
    ) -> None:
        if kind == "video":
            sent.append((float(packet.pts * packet.time_base), delivery._frame.index))
        offer(self, packet, kind, delivery, origin)

    monkeypatch.setattr(Output, "offer", offered)
    clip = make_marked(tmp_path / "in.flv", Marked(seconds=2, sound=None))
    options = {"preset": "ultrafast", "tune": "film", "bf": "2", "b_strategy": "0"}
    encoder = EncoderSettings(options=options)
    settings = RelaySettings(model="bicubic", scale=2, max_latency=5.0, encoder=encoder)
    report = Relay(str(clip), [str(tmp_path / "out.flv")], settings).run(threading.Event())
    assert report.frames_out == 50
    order = [index for _, index in sent]
    assert order != sorted(order), "there are no B-frames in this"
    assert [time for time, _ in sent] == pytest.approx([k / 25 for k in order], abs=0.001)


def test_a_relay_from_python(tmp_path: Path) -> None:
    clip = make_marked(tmp_path / "in.flv", Marked(seconds=1))
    target, told = tmp_path / "out.flv", tmp_path / "report.html"
    settings = vsr.RelaySettings(model="bicubic", scale=3, max_latency=5.0)
    report = vsr.relay(str(clip), str(target), settings=settings, report=told)
    assert (report.frames_in, report.frames_out, report.exit_code) == (25, 25, 0)
    assert report.output["size"] == [480, 270]
    assert "<html" in told.read_text(encoding="utf-8")
    with pytest.raises(vsr.UsageError, match="cannot publish to gopher"):
        vsr.relay(str(clip), ["gopher://host/out"], settings=settings)


class _Encoder:
    """Wraps a real encoder and fails at one frame, as a driver may."""

    def __init__(self, real: av.VideoCodecContext, fails_at: int) -> None:
        self._real, self._left = real, fails_at
        self.name = real.name

    def encode(self, picture: av.VideoFrame | None) -> list[Any]:
        self._left -= 1
        if self._left == 0:
            raise av.error.ExternalError(1, "the encoder is gone")
        return list(self._real.encode(picture))


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Frame at which each relay encoder fails, in the order of opening; 0 for never."""
    fails_at: list[int] = []
    begin = LiveEncoder.__init__

    def init(self: LiveEncoder, *args: Any) -> None:
        begin(self, *args)
        first = self._encodings[1.0]
        make = first._opener
        first._opener = lambda: _Encoder(make(), fails_at.pop(0))  # type: ignore
        first.context = first._opener()

    monkeypatch.setattr(LiveEncoder, "__init__", init)
    yield fails_at


def test_an_encoder_that_fails_is_opened_again(
    tmp_path: Path, failing: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    failing += [20, 0]
    clip = make_marked(tmp_path / "in.flv", Marked(seconds=2, sound=None))
    target = tmp_path / "out.flv"
    settings = RelaySettings(model="bicubic", scale=2, max_latency=5.0)
    report = Relay(str(clip), [str(target)], settings).run(threading.Event())
    assert (report.frames_in, report.frames_out, report.exit_code) == (50, 49, 3)
    assert caplog.text.count("the encoder libx264 failed: the encoder is gone") == 1
    with av.open(str(target)) as out:
        numbers = [number_of(p) for p in out.decode(video=0)]
    assert numbers == [*range(19), *range(20, 50)]


def test_an_encoder_that_fails_again_and_again_ends_a_relay(
    tmp_path: Path, failing: list[int]
) -> None:
    failing += [3, 1, 1, 1, 1]
    clip = make_marked(tmp_path / "in.flv", Marked(seconds=2, sound=None))
    settings = RelaySettings(model="bicubic", scale=2, max_latency=5.0)
    relay = Relay(str(clip), [str(tmp_path / "out.flv")], settings)
    with pytest.raises(vsr.OutputError, match="the encoder libx264 failed: the encoder is gone"):
        relay.run(threading.Event())


def test_what_made_room_while_engines_were_loaded_is_not_missed(tmp_path: Path) -> None:
    """A live source continues meanwhile; that audio is not part of the output."""
    clip = make_marked(tmp_path / "in.flv", Marked(seconds=1))
    settings = RelaySettings(model="bicubic", scale=2, max_latency=5.0)
    relay = Relay(str(clip), [str(tmp_path / "out.flv")], settings)
    for _ in range(1500):
        relay._mailbox.put(AudioPacket(av.Packet(b"."), 0.0))
    assert relay._mailbox.audio_dropped == 500
    report = relay.run(threading.Event())
    assert (report.live["sound_dropped"], report.packets_refused, report.exit_code) == (0, 0, 0)


class _Slow:
    """A second output that gets half of the bitrate from the tenth query of `share` on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, until: int = 1000) -> None:
        self.asked, self.until = 0, until
        monkeypatch.setattr(Output, "share", property(self.share))

    def share(self, output: Output) -> float:
        if output._number != 2:
            return 1.0
        self.asked += 1
        return 0.5 if 10 <= self.asked < self.until else 1.0


def _two_outputs(tmp_path: Path) -> Report:
    clip = make_marked(tmp_path / "in.flv", Marked(seconds=1, sound=None))
    settings = RelaySettings(model="bicubic", scale=2, max_latency=5.0)
    outputs = [str(tmp_path / name) for name in ("1.flv", "2.flv")]
    report = Relay(str(clip), outputs, settings).run(threading.Event())
    assert [output["pictures"] for output in report.live["outputs"]] == [25, 25]
    return report


def test_an_encoder_that_a_slow_line_cannot_have_ends_no_relay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As with a graphics card that accepts no more encoder sessions."""
    opened: list[Any] = []

    def opens(settings: EncoderSettings, video: Any) -> av.VideoCodecContext:
        opened.append(settings)
        if len(opened) > 2:  # the first one checks the settings
            raise vsr.OutputError("no more sessions")
        return open_live_encoder(settings, video)

    monkeypatch.setattr("vsr.live.output.encode.open_live_encoder", opens)
    _Slow(monkeypatch)
    assert _two_outputs(tmp_path).exit_code == 0
    assert len(opened) == 3
    assert caplog.text.count("no more sessions") == 1


def test_an_encoder_that_fails_at_its_end_is_told_and_ends_no_relay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """First the encoder of the slow output, then, at the end, the shared encoder."""

    class Ends(_Encoder):
        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

        def encode(self, picture: av.VideoFrame | None) -> list[Any]:
            if picture is None:
                raise av.error.ExternalError(1, "the encoder is gone")
            return super().encode(picture)

    begin = Encoding.__init__

    def init(self: Encoding, opener: Any, step: float) -> None:
        begin(self, lambda: cast(av.VideoCodecContext, Ends(opener(), 0)), step)

    monkeypatch.setattr(Encoding, "__init__", init)
    _Slow(monkeypatch, until=15)
    assert _two_outputs(tmp_path).exit_code == 0
    assert caplog.text.count("the encoder is gone") == 2


def test_what_fails_after_the_last_picture_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def drain(_: Encoding) -> Any:
        raise ArithmeticError("a defect")

    monkeypatch.setattr(Encoding, "drain", drain)
    _two_outputs(tmp_path)
    assert "the encoder failed and the last frames are lost: a defect" in caplog.text
    assert "does not respond" not in caplog.text


def test_the_last_picture_may_be_reported_by_another_thread() -> None:
    """A slow encoder thread may take the frame between a check of the queue and the pop."""

    class Taken(deque[Frame]):
        def __len__(self) -> int:
            return 1

    encoder = LiveEncoder.__new__(LiveEncoder)
    encoder._completed = Taken()
    encoder._report_completed()


def test_an_encoder_that_hangs_does_not_hold_up_the_end(
    tmp_path: Path, failing: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing += [0]
    hangs, stop = threading.Event(), threading.Event()
    monkeypatch.setattr(_Encoder, "encode", lambda *_: hangs.set() or stop.wait(30) or [])
    monkeypatch.setattr("vsr.live.output.encode._QUEUE_SIZE", 2)
    clip = make_marked(tmp_path / "in.flv", Marked(seconds=8, sound=None))
    settings = RelaySettings(model="bicubic", scale=2)
    relay = Relay(str(clip), [str(tmp_path / "out.flv")], settings)
    ended = threading.Event()
    gone = threading.Event()

    def run() -> None:
        relay.run(gone)
        ended.set()

    threading.Thread(target=run, daemon=True).start()
    assert hangs.wait(30)
    time.sleep(0.5)  # so that all queues are full
    gone.set()
    assert ended.wait(5)
    assert relay.report.interrupted
    stop.set()


def test_a_recording_destroys_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "vsr")
    clip = make_marked(tmp_path / "in.flv", Marked(seconds=1, sound=None))
    target = tmp_path / "out.flv"
    target.write_bytes(b"precious")
    settings = RelaySettings(model="bicubic", max_latency=5.0)
    for _ in range(2):
        vsr.relay(str(clip), str(target), settings=settings)
    assert target.read_bytes() == b"precious"
    for name in ("out-2.flv", "out-3.flv"):
        assert f"writing {tmp_path / name}" in caplog.text
        with av.open(str(tmp_path / name)) as out:
            assert len(list(out.decode(video=0))) == 25
    with pytest.raises(vsr.UsageError, match="input and output are the same"):
        vsr.relay(str(clip), str(clip), settings=settings)


def test_what_never_came_out_is_an_error_and_a_start_that_fails_keeps_the_last_report(
    tmp_path: Path,
) -> None:
    clip = make_marked(tmp_path / "in.flv", Marked(seconds=1, sound=None))
    settings = RelaySettings(model="bicubic", max_latency=5.0)
    url, told = f"rtmp://127.0.0.1:{free_port()}/live/k3y", tmp_path / "report.json"
    with pytest.raises(vsr.OutputError, match="nothing was published: Connection refused"):
        vsr.relay(str(clip), url, settings=settings, report=told)
    before = told.read_bytes()
    with pytest.raises(vsr.InputError):
        vsr.relay(str(tmp_path / "none.flv"), url, settings=settings, report=told)
    assert told.read_bytes() == before


@pytest.mark.parametrize(
    ("encoder", "words"),
    [
        (EncoderSettings(codec="vp9"), "libvpx-vp9 provides no stream header"),
        (EncoderSettings(preset="nonsense"), "encoder libx264 has no preset 'nonsense'"),
        (EncoderSettings(options={"wings": "2"}), "has no option 'wings'"),
    ],
)
def test_an_encoder_that_cannot_be_is_told_before_anything_is_waited_for(
    tmp_path: Path, encoder: EncoderSettings, words: str
) -> None:
    settings = RelaySettings(encoder=encoder)
    with pytest.raises(vsr.VsrError, match=words):
        Relay("rtmp://127.0.0.1:1/live/in", [str(tmp_path / "out.flv")], settings)
