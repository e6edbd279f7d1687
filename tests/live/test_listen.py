"""`--listen`: which RTMP publishers vsr accepts or refuses, and the streams that it receives."""

import ctypes
import logging
import os
import random
import socket
import subprocess
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import numpy as np
import pytest

from tests.programs import needs_ffmpeg
from tests.rtmp import free_port, wait_for
from tests.rtmp_peer import Peer, chunked, flv_of, messages_of, until
from tests.streams import BITS, Marked, Publisher, make_marked
from vsr.errors import InputError, UsageError
from vsr.live.input.ingest import Ingest
from vsr.live.input.mailbox import AudioPacket, Connected, Lost, Mailbox
from vsr.live.input.rtmp import server as rtmp_server
from vsr.live.input.rtmp.address import ListenAddress
from vsr.live.input.rtmp.connection import Connection
from vsr.live.input.rtmp.server import RtmpListener
from vsr.live.input.rtmp.session import PublishedStream, RefusedError, negotiate
from vsr.live.input.rtmp.tls import Certificate
from vsr.live.input.source import LiveSource
from vsr.live.rtmp.amf import ProtocolError, decode, encode
from vsr.live.rtmp.chunks import (
    ABORT,
    ACKNOWLEDGEMENT,
    AGGREGATE,
    AUDIO,
    COMMAND_AMF3,
    DATA,
    SET_CHUNK_SIZE,
    VIDEO,
    WINDOW_SIZE,
    ChunkReader,
    Message,
    flv_tag,
)
from vsr.live.settings import IngestSettings
from vsr.media.frame import Frame

KEY = "s3cret-stream-key"
MOST = 1 << 16
FUZZ = 300


class Ear:
    """A listener on a free port that accepts one publisher after the other."""

    def __init__(
        self, silence: float = 5.0, deadline: float = 10.0, certificate: Certificate | None = None
    ) -> None:
        self.port = free_port()
        self._scheme = "rtmps" if certificate else "rtmp"
        self.url = self.url_of(KEY)
        self.listener = RtmpListener(self.url, silence, deadline, certificate)
        self.listener.open()
        self.silence = silence

    def url_of(self, key: str, application: str = "live") -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}/{application}/{key}"

    def __enter__(self) -> "Ear":
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.close()

    def watch(self) -> "Watch":
        """Accept the next publisher on a thread."""
        return Watch(self)


class Watch:
    """Records the stream of one publisher."""

    def __init__(self, ear: Ear) -> None:
        self.frames: list[Frame] = []
        self.sounds = 0
        self.end = ""
        self.codec = ""
        self._ear = ear
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        ear = self._ear
        try:
            with (
                closing(ear.listener.accept()) as feed,
                closing(LiveSource(ear.url, ear.silence, None, feed)) as source,
            ):
                self.codec = source.codec
                for item in source:
                    if isinstance(item, Frame):
                        self.frames.append(item)
                    else:
                        self.sounds += 1
            self.end = "no error"
        except InputError as exc:
            self.end = str(exc)

    def join(self) -> "Watch":
        """Wait until the publisher's stream ends."""
        wait_for(lambda: self.end, 20, "the publisher's end was not seen")
        self._thread.join(5)
        return self

    @property
    def numbers(self) -> list[int]:
        """Numbers encoded in the frames."""
        return [_number(frame) for frame in self.frames]


def _number(frame: Frame) -> int:
    """Return the number encoded in a frame of a clip."""
    luma = frame.planes[0][:8]
    width = luma.shape[1]
    means = [
        np.mean(luma[:, b * width // BITS + 4 : (b + 1) * width // BITS - 4]) for b in range(BITS)
    ]
    return sum(int(mean > 125) << bit for bit, mean in enumerate(means))


@pytest.fixture
def ear() -> Iterator[Ear]:
    with Ear() as ear:
        yield ear


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_marked(tmp_path_factory.mktemp("clips") / "a.mp4", Marked(seconds=2))


@pytest.fixture(scope="module")
def flv(clip: Path) -> bytes:
    return flv_of(clip)


def _ffmpeg(url: str, clip: Path, log: Path, *words: str) -> "subprocess.Popen[bytes]":
    command = ["ffmpeg", "-loglevel", "error", "-nostdin", "-re", "-i", str(clip), "-c", "copy"]
    with log.open("wb") as out:
        return subprocess.Popen([*command, *words, "-f", "flv", url], stderr=out)


# --- real publishers ------------------------------------------------------------------------------


@needs_ffmpeg
def test_ffmpeg_publishes_and_every_picture_arrives_in_time(
    ear: Ear, clip: Path, tmp_path: Path
) -> None:
    watch = ear.watch()
    process = _ffmpeg(ear.url, clip, tmp_path / "log")
    watch.join()
    assert process.wait(10) == 0, (tmp_path / "log").read_text()
    assert watch.numbers == list(range(50))
    assert watch.sounds > 80
    assert watch.end == f"the publisher of rtmp://127.0.0.1:{ear.port}/live/*** disconnected"
    # the stream was accepted at once, and no frame waited for the next ones
    late = [f.stamps.decoded - f.time for f in watch.frames]
    assert max(late[10:]) - min(late) < 1.0


def test_pyav_publishes(ear: Ear, clip: Path) -> None:
    watch = ear.watch()
    with Publisher(ear.url, clip) as publisher:
        watch.join()
        assert publisher.process.wait(10) == 0
    assert watch.numbers == list(range(50))


@needs_ffmpeg
def test_others_are_refused_and_do_not_disturb_who_publishes(
    ear: Ear, clip: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        watch = ear.watch()
        first = _ffmpeg(ear.url, clip, tmp_path / "first")
        wait_for(lambda: len(watch.frames) > 5, 20, "nothing is published")
        wrong = {
            "wrong stream key": ear.url_of("wrong"),
            "unknown application": ear.url_of(KEY, "other"),
            "another publisher is connected": ear.url,
        }
        others = {
            words: _ffmpeg(url, clip, tmp_path / words.split()[0]) for words, url in wrong.items()
        }
        player = subprocess.run(
            ["ffmpeg", "-nostdin", "-i", ear.url, "-f", "null", "-"],
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
        for words, process in others.items():
            assert process.wait(20) != 0
            assert words in (tmp_path / words.split()[0]).read_text()
        assert player.returncode != 0
        assert "playback is not supported" in player.stderr
        watch.join()
    assert first.wait(10) == 0
    assert watch.numbers == list(range(50))
    for words in [*wrong, "playback is not supported"]:
        lines = [r for r in caplog.records if words in r.message and r.levelno > logging.INFO]
        assert len(lines) == 1
    assert KEY not in caplog.text


def test_librtmp_publishes(ear: Ear, flv: bytes) -> None:
    """OBS contains a copy of librtmp."""
    try:
        library = ctypes.CDLL("librtmp.so.1")
    except OSError:
        pytest.skip("needs librtmp (Debian: librtmp1)")
    library.RTMP_Alloc.restype = ctypes.c_void_p
    watch, session = ear.watch(), ctypes.c_void_p(library.RTMP_Alloc())
    library.RTMP_Init(session)
    url = ctypes.create_string_buffer(ear.url.encode())
    assert library.RTMP_SetupURL(session, url)
    library.RTMP_EnableWrite(session)
    assert library.RTMP_Connect(session, None)
    assert library.RTMP_ConnectStream(session, 0)
    at = 13
    while at < len(flv):
        size = 15 + int.from_bytes(flv[at + 1 : at + 4])
        assert library.RTMP_Write(session, flv[at : at + size], size) > 0
        at += size
    library.RTMP_Close(session)
    library.RTMP_Free(session)
    watch.join()
    assert watch.end.endswith("disconnected")
    assert watch.numbers == list(range(50))


def test_hevc_passes_as_it_is(ear: Ear, tmp_path: Path) -> None:
    clip = make_marked(tmp_path / "a.mp4", Marked(seconds=1, codec="libx265"))
    watch = ear.watch()
    with Publisher(ear.url, clip):
        watch.join()
    assert watch.codec == "hevc"
    assert watch.numbers == list(range(25))


def test_a_stream_without_sound(ear: Ear, tmp_path: Path) -> None:
    clip = make_marked(tmp_path / "a.mp4", Marked(seconds=3, sound=None))
    watch = ear.watch()
    with Publisher(ear.url, clip):
        watch.join()
    assert (watch.numbers, watch.sounds) == (list(range(75)), 0)


def test_a_stream_of_sound_alone_is_said_to_be_one(ear: Ear, flv: bytes) -> None:
    watch = ear.watch()
    with Peer(ear.port) as peer:
        peer.publish(KEY)
        facts = encode("@setDataFrame", "onMetaData", {"audiocodecid": 10.0, "stereo": True})
        peer.put(Message(DATA, 0, facts, 1))
        for message in messages_of(flv):
            if message.kind == AUDIO:
                peer.put(message)
        watch.join()
    assert watch.end.endswith("has no video that can be decoded (it holds audio)")


def test_a_publisher_is_killed_and_comes_back(clip: Path) -> None:
    port, box = free_port(), Mailbox(frames=500)
    url = f"rtmp://127.0.0.1:{port}/live/{KEY}"
    ingest = Ingest(url, IngestSettings(listen=True, retry_max=1), box)
    ingest.start()
    items: list[Frame | AudioPacket | Connected | Lost] = []

    def seen(kind: type, count: int) -> Callable[[], bool]:
        def look() -> bool:
            while (item := box.take(0)) is not None:
                items.append(item)
            return sum(isinstance(item, kind) for item in items) >= count

        return look

    try:
        assert box.take(0.3) is None  # no publisher, and no repeated reports of it
        for round_ in (1, 2):
            before = sum(isinstance(item, Frame) for item in items)
            with Publisher(url, clip):
                wait_for(seen(Frame, before + 10), 20, "no pictures")
            wait_for(seen(Lost, round_), 10, "its end was not seen")
    finally:
        ingest.close()
    kinds = [type(item) for item in items if isinstance(item, Connected | Lost)]
    assert kinds == [Connected, Lost, Connected, Lost]
    for lost in (item for item in items if isinstance(item, Lost)):
        assert lost.reason.startswith(f"the publisher of rtmp://127.0.0.1:{port}/live/*** ")
        assert (lost.delay, lost.final, lost.failed) == (0.0, False, False)


# --- the protocol, step by step -------------------------------------------------------------------


@pytest.mark.parametrize("kind", [20, COMMAND_AMF3])
def test_the_answers_of_a_session(ear: Ear, kind: int) -> None:
    with Peer(ear.port) as peer:
        assert peer.publish(KEY, kind=kind).code == "NetStream.Publish.Start"
        with closing(ear.listener.accept()) as stream, Peer(ear.port) as other:
            assert other.publish(KEY).code == "NetStream.Publish.BadName"
            assert other.is_closed()
            peer.put(Message(VIDEO, 0, b"picture", 1))
            assert stream.read(1 << 20)[:5] == b"FLV\x01\x05"
    with Peer(ear.port) as peer:  # the slot is free again
        assert peer.publish(KEY).code == "NetStream.Publish.Start"


@pytest.mark.parametrize("application", ["other", "", "liv", "live2", f"live/{KEY}", "/"])
def test_a_wrong_application_is_rejected(ear: Ear, application: str) -> None:
    with Peer(ear.port) as peer:
        assert peer.connect(application).code == "NetConnection.Connect.Rejected"
        assert peer.is_closed()


@pytest.mark.parametrize("key", ["", "wrong", KEY + "x", KEY[:-1], KEY.upper(), "\x00", "é"])
def test_a_wrong_key_is_refused(ear: Ear, key: str) -> None:
    with Peer(ear.port) as peer:
        assert peer.publish(key).code == "NetStream.Publish.BadName"
        assert peer.is_closed()


def test_a_player_is_refused(ear: Ear) -> None:
    with Peer(ear.port) as peer:
        peer.connect()
        peer.command("createStream", 2.0, None)
        peer.command("play", 3.0, None, KEY)
        assert peer.answer("onStatus").code == "NetStream.Play.Failed"
        assert peer.is_closed()
        for _ in range(2):  # the answer arrives although more data was sent
            peer.send(b"more")


@pytest.mark.parametrize(
    ("application", "key", "url"),
    [
        ("a/b", "KEY", "rtmp://127.0.0.1/a/b/KEY"),
        ("a", "b/KEY", "rtmp://127.0.0.1/a/b/KEY"),  # as ffmpeg splits some URLs
        ("/a/", "KEY?x=1", "rtmp://127.0.0.1:1935/a/KEY?x=1"),
    ],
)
def test_publishers_split_an_address_in_more_than_one_way(
    application: str, key: str, url: str
) -> None:
    place = ListenAddress.parse(url)
    assert place.port == 1935
    assert place.may_match(application)
    assert place.matches(application, key)
    assert not place.matches(application, key + "x")
    assert "KEY" not in place.name


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"rtmps://127.0.0.1/live/{KEY}", "give --tls-cert"),
        (f"srt://127.0.0.1/live/{KEY}", "rtmps:// only"),
        ("live.mp4", "rtmps:// only"),
        ("rtmp://127.0.0.1:1935/live", "an application and a key"),
        (f"rtmp://127.0.0.1:99999/live/{KEY}", "not a valid address"),
        (f"rtmp://me:pw@127.0.0.1/live/{KEY}", "does not support user and password"),
    ],
)
def test_an_address_that_cannot_be_listened_at(url: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        Ingest(url, IngestSettings(listen=True), Mailbox(frames=1))
    assert KEY not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_port_in_use_and_a_host_that_is_not_ours(ear: Ear) -> None:
    for url, words in (
        (ear.url, f"cannot listen at 127.0.0.1:{ear.port}: Address already in use; choose"),
        ("rtmp://192.0.2.1:1935/live/k", r"cannot listen at 192.0.2.1:1935: Cannot assign"),
    ):
        listener = RtmpListener(url, 5.0)
        with pytest.raises(InputError, match=words):
            listener.open()
        listener.close()


def test_it_listens_at_its_own_host_alone(ear: Ear) -> None:
    with socket.socket() as other:
        other.settimeout(1)
        assert other.connect_ex(("127.0.0.2", ear.port)) != 0
    with socket.socket() as own:
        assert own.connect_ex(("127.0.0.1", ear.port)) == 0


# --- clients that are not publishers --------------------------------------------------------------


def test_garbage_ends_its_own_connection_and_is_told_once(
    ear: Ear, caplog: pytest.LogCaptureFixture
) -> None:
    random_ = random.Random(0)
    noise = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        *(bytes([random_.randrange(4, 256)]) + random_.randbytes(5000) for _ in range(20)),
        b"\x03" + bytes(2 * 1536) + b"\xff" * 3000,
        b"\x03" + bytes(2 * 1536) + chunked(Message(20, 0, b"\x02\x00"), 3, 128),
        b"\x03" + bytes(2 * 1536) + chunked(Message(20, 0, encode("publish", 1.0)), 3, 128),
    ]
    for data in noise:
        with Peer(ear.port) as peer, suppress(OSError):
            peer.send(data)
            assert peer.is_closed()
    with Peer(ear.port) as peer:
        assert peer.publish(KEY).code == "NetStream.Publish.Start"
    told = [r.message for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(told) == 1
    assert "127.0.0.1 refused: not an RTMP client (RTMP version byte is 71" in told[0]
    assert "\n" not in told[0]


def test_slow_ones_are_let_go_and_keep_no_publisher_out(caplog: pytest.LogCaptureFixture) -> None:
    with Ear(deadline=3.0) as ear:
        slow = [Peer(ear.port) for _ in range(rtmp_server._MAX_PENDING)]
        slow[0].send(b"\x03")
        slow[1].send(b"\x03" + bytes(1536))
        listener = ear.listener
        wait_for(lambda: len(listener._connections) == len(slow), 5, "not all are in")
        wait_for(
            lambda: sum(one.handshake_bytes > 0 for one in listener._connections) == 2, 5, "deaf"
        )
        began = time.monotonic()
        with Peer(ear.port) as another:
            assert slow[2].is_closed()  # the oldest silent client makes room
            assert another.publish(KEY).code == "NetStream.Publish.Start"
        assert time.monotonic() - began < 2.0
        slow[3].handshake()
        for peer in slow:
            assert peer.is_closed()
        for peer in slow:
            peer.socket.close()
        wait_for(lambda: not ear.listener._connections, 5, "places are not free again")
    assert caplog.text.count("too many connections") == 1
    assert caplog.text.count("did not publish within 3 s") == 1


def test_a_flood_of_half_open_connections_keeps_no_publisher_out() -> None:
    """100 connections per second from one address, while a slow publisher connects."""
    with Ear(deadline=10.0) as ear, ExitStack() as flood:
        ended = threading.Event()

        def connect() -> None:
            while not ended.wait(0.01):
                with suppress(OSError):
                    flood.callback(socket.create_connection(("127.0.0.1", ear.port), 5).close)

        thread = threading.Thread(target=connect, daemon=True)
        thread.start()
        try:
            wait_for(
                lambda: len(ear.listener._connections) >= rtmp_server._MAX_PENDING, 20, "no flood"
            )
            with Peer(ear.port) as publisher:
                publisher.send(b"\x03" + bytes(1536))
                time.sleep(1.0)  # latency of the publisher's line
                publisher.socket.settimeout(10)
                assert publisher.socket.recv(1) == b"\x03"
        finally:
            ended.set()
            thread.join()


def test_those_who_come_and_go_leave_nothing_behind(ear: Ear) -> None:
    def held() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - as cheap as it gets

    before, threads = held(), threading.active_count()
    for k in range(40):
        peer = Peer(ear.port)
        if k % 2:
            peer.publish("wrong")
        peer.socket.close()
        wait_for(lambda: not ear.listener._connections, 5, "it is still talked to")
    wait_for(lambda: held() <= before, 5, "descriptors are left")
    wait_for(lambda: threading.active_count() <= threads, 5, "threads are left")


# --- the stream -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 128, 1000, 1 << 20])
def test_chunks_of_any_size_and_times_of_four_bytes(ear: Ear, flv: bytes, size: int) -> None:
    watch = ear.watch()
    with Peer(ear.port) as peer:
        peer.publish(KEY)
        peer.put(Message(SET_CHUNK_SIZE, 0, size.to_bytes(4)), 2)
        peer.size = size
        for message in messages_of(flv, later=0xFFFFFF - 1000):  # on both sides of the limit
            peer.put(message)
        peer.command("FCUnpublish", 6.0, None, KEY)
        peer.command("deleteStream", 7.0, None, 1.0)
        watch.join()
    assert watch.numbers == list(range(50))
    times = [frame.time for frame in watch.frames]
    assert times == pytest.approx([(0xFFFFFF - 1000) / 1000 + k / 25 for k in range(50)], abs=0.05)


def test_a_publisher_that_says_nothing_any_more_is_lost() -> None:
    with Ear(silence=0.5) as ear, Peer(ear.port) as peer:
        peer.publish(KEY)
        with closing(ear.listener.accept()) as stream:
            peer.put(Message(VIDEO, 0, b"picture", 1))
            assert stream.read(13) == b"FLV\x01\x05\x00\x00\x00\x09\x00\x00\x00\x00"
            assert stream.read(1 << 20) == flv_tag(Message(VIDEO, 0, b"picture"))
            stop = threading.Event()

            def chatter() -> None:  # only audio and video count
                with suppress(OSError):
                    while not stop.wait(0.02):
                        peer.put(Message(DATA, 0, encode("onFI", {}), 1))

            talker = threading.Thread(target=chatter)
            talker.start()
            began = time.monotonic()
            with pytest.raises(InputError, match=r"\*\*\* sent no data for 0.5 s"):
                stream.read(1)
            assert 0.4 < time.monotonic() - began < 2.0
            stop.set()
            talker.join()
            assert stream.read(1) == b""
        assert peer.is_closed()


def test_the_time_in_which_nobody_reads_is_no_silence_of_the_publisher() -> None:
    """The reader may pause after any message to pace the frames."""
    with Ear(silence=0.5) as ear, Peer(ear.port) as peer:
        peer.publish(KEY)
        with closing(ear.listener.accept()) as stream:
            for message in (
                Message(VIDEO, 0, b"picture", 1),
                Message(DATA, 0, encode("onMetaData", {}), 1),
                Message(VIDEO, 40, b"another", 1),
            ):
                peer.put(message)
                time.sleep(0.8)
                data = b""
                while not data.endswith(flv_tag(message)):
                    data += stream.read(1 << 20)


def test_closing_ends_whoever_waits() -> None:
    ended: list[str] = []

    def wait(what: Callable[[], object]) -> threading.Thread:
        def run() -> None:
            try:
                what()
            except InputError as exc:
                ended.append(str(exc))

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    with Ear() as ear, Peer(ear.port) as peer:
        peer.publish(KEY)
        stream = ear.listener.accept()
        threads = [wait(lambda: stream.read(1)), wait(ear.listener.accept)]
        began = time.monotonic()
        ear.listener.close()
        for thread in threads:
            thread.join(5)
        assert time.monotonic() - began < 1.5
        assert len(ended) == 2
        with pytest.raises(OSError):
            Peer(ear.port)
    assert KEY not in "".join(ended)


def test_what_was_received_is_acknowledged(ear: Ear) -> None:
    with Peer(ear.port) as peer:
        peer.publish(KEY)
        peer.put(Message(WINDOW_SIZE, 0, (10_000).to_bytes(4)), 2)
        with closing(ear.listener.accept()) as stream:
            for k in range(3):
                peer.put(Message(VIDEO, k, bytes(5000), 1))
                while stream.read(1 << 20)[-4:] != (5011).to_bytes(4):
                    pass
            count = int.from_bytes(peer.await_kind(ACKNOWLEDGEMENT).body)
            assert 10_000 <= count < 20_000


def test_an_aggregate_is_taken_apart(ear: Ear) -> None:
    inner = [Message(VIDEO, 700, b"one"), Message(AUDIO, 720, b"two"), Message(VIDEO, 740, b"six")]
    with Peer(ear.port) as peer:
        peer.publish(KEY)
        peer.put(Message(AGGREGATE, 5000, b"".join(map(flv_tag, inner)), 1))
        with closing(ear.listener.accept()) as stream:
            data = stream.read(1 << 20)
    moved = [Message(m.kind, m.time + 4300, m.body, 1) for m in inner]
    assert list(messages_of(data)) == moved


def test_metadata_announces_what_there_is(ear: Ear) -> None:
    for facts, flags in (
        ({"width": 64.0, "videocodecid": 7.0}, 1),
        ({"audiocodecid": 10.0, "width": 64.0}, 5),
        ({"hasAudio": False, "hasVideo": True, "audiocodecid": 0.0}, 1),
        ({"title": "x"}, 5),
    ):
        with Peer(ear.port) as peer:
            peer.publish(KEY)
            peer.put(Message(DATA, 0, encode("onTextData", {"text": "no"}), 1))
            peer.put(Message(DATA, 0, encode("@setDataFrame", "onMetaData", facts), 1))
            with closing(ear.listener.accept()) as stream:
                data = stream.read(1 << 20)
        assert data[4] == flags
        assert data[13 + 11 :].startswith(encode("onMetaData", facts))


# --- chunks and AMF values ------------------------------------------------------------------------


def _messages(data: bytes, most: int = MOST, step: int = 1) -> list[Message]:
    reader, found = ChunkReader(most), []
    for at in range(0, len(data), step):
        reader.feed(data[at : at + step])
        while (message := reader.take()) is not None:
            found.append(message)
    return found


def test_every_form_of_header() -> None:
    data = bytes.fromhex(
        "04 000064 000003 08 01000000 616161"  # full header: time 100, 3 bytes, audio, stream 1
        "44 000014 000002 09 6262"  # time + 20, other length and kind
        "84 00000a 6363"  # time + 10
        "c4 6464"  # time + 10 again
        "0000 000001 000001 12 00000000 65"  # chunk stream 64
        "010100 000002 000001 12 00000000 66"  # chunk stream 65
    )
    expected = [
        Message(8, 100, b"aaa", 1),
        Message(9, 120, b"bb", 1),
        Message(9, 130, b"cc", 1),
        Message(9, 140, b"dd", 1),
        Message(18, 1, b"e"),
        Message(18, 2, b"f"),
    ]
    for step in (1, 7, 1000):
        assert _messages(data, step=step) == expected


@pytest.mark.parametrize("extend_all", [True, False])
def test_extended_times_of_both_customs(extend_all: bool) -> None:
    sent = [Message(9, when, bytes(range(250)) * 2, 1) for when in (0xFFFFFE, 0xFFFFFF, 0xFFFFFFF0)]
    data = b"".join(chunked(message, 4, 128, extend_all) for message in sent)
    assert _messages(data) == sent
    # a time difference that needs four bytes, repeated by a message without a header
    step = bytes.fromhex("01000000")
    more = b"\xc4" + step * extend_all
    rest = bytes(128) + (more + bytes(128)) * 2 + more + bytes(500 - 3 * 128)
    found = _messages(data + bytes.fromhex("84 ffffff") + step + rest + more + rest)
    assert [m.time for m in found[3:]] == [0x00FFFFF0, 0x01FFFFF0]


def test_messages_between_each_other_and_one_that_is_given_up() -> None:
    a, b = Message(9, 5, bytes(300), 1), Message(8, 6, b"sound", 1)
    parts = chunked(a, 6, 128), chunked(b, 4, 128)
    first = parts[0][: 12 + 128]
    whole = first + parts[1] + parts[0][len(first) :]
    assert _messages(whole) == [b, a]
    given_up = first + chunked(Message(ABORT, 0, (6).to_bytes(4)), 2, 128) + parts[0] + parts[1]
    assert _messages(given_up) == [a, b]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (bytes.fromhex("04 000000 ffffff 09 01000000"), "message of 16777215 bytes"),
        (bytes.fromhex("c4 00"), "without a previous message"),
        (chunked(Message(SET_CHUNK_SIZE, 0, bytes(4)), 2, 128), "chunk size of 0 bytes"),
        (chunked(Message(SET_CHUNK_SIZE, 0, b"\1"), 2, 128), "truncated"),
        (b"".join(chunked(Message(9, 0, b""), n, 9) for n in range(2, 64)) * 2
         + b"".join(b"\0" + bytes([n]) + bytes(11) for n in range(9)), "more than 64"),
    ],
)  # fmt: skip
def test_what_is_no_chunk(data: bytes, words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        _messages(data)


def test_values_come_back_as_they_went() -> None:
    values = ["connect", 1.0, {"app": "live", "a": [1.5, None, True], "b": {}}, False, "", "é", []]
    assert decode(encode(*values)) == values
    data = (
        "0a 00000001 0b 3ff0000000000000 0000  06  0c 00000001 61  08 00000009 0001 62 05 0000 09"
    )
    assert decode(bytes.fromhex(data)) == [[1.0], None, "a", {"b": None}]


def test_damaged_values_raise_one_error_alone() -> None:
    whole = encode("connect", 1.0, {"app": "live", "list": [1.0, {"x": None}], "yes": True})
    for end in range(1, len(whole)):
        with suppress(ProtocolError):
            decode(whole[:end])
    for bad in (b"\x0a\xff\xff\xff\xff", b"\x0a\0\0\0\1" * 1000, b"\x11", bytes(MOST + 1)):
        with pytest.raises(ProtocolError):
            decode(bad)


# --- fuzzing and limits ---------------------------------------------------------------------------


def _session(flv: bytes) -> bytes:
    """Return all bytes that a publisher sends."""
    said = [
        Message(20, 0, encode("connect", 1.0, {"app": "live"})),
        Message(20, 0, encode("createStream", 2.0, None)),
        Message(20, 0, encode("publish", 3.0, None, KEY, "live")),
    ]
    data = b"\x03" + bytes(2 * 1536) + b"".join(chunked(m, 3, 128) for m in said)
    return data + b"".join(chunked(m, 4, 128) for m in list(messages_of(flv))[:40])


def _take_in(data: bytes) -> int:
    """Run a whole session on these bytes; return the number of bytes read from the stream."""
    near, far = socket.socketpair()
    place = ListenAddress.parse(f"rtmp://127.0.0.1/live/{KEY}")
    wire = Connection(near, MOST)
    sender = threading.Thread(target=_send, args=(far, data))
    sender.start()
    length = 0
    try:
        negotiate(wire, place, lambda: True, until(5))
        stream = PublishedStream(wire, place.name, 5.0, lambda: None)
        while part := stream.read(4096):
            assert len(part) <= 4096
            length += len(part)
    except (RefusedError, ProtocolError, OSError, InputError) as exc:
        assert not isinstance(exc, TimeoutError)
    finally:
        wire.close()
        sender.join(5)
        far.close()
    return length


def _send(far: socket.socket, data: bytes) -> None:
    with suppress(OSError):
        far.sendall(data)
        far.shutdown(socket.SHUT_WR)


def test_mutated_sessions_end_as_they_should(flv: bytes) -> None:
    whole = _session(flv)
    assert _take_in(whole) > 10_000
    came = []
    for seed in range(FUZZ):
        dice = random.Random(seed)
        data = bytearray(whole)
        head = seed % 2 * 3073  # every second session keeps its handshake
        for _ in range(dice.choice((1, 1, 2, 8, 64))):
            at = dice.randrange(head, len(data))
            what = dice.randrange(4)
            if what == 0:
                data[at] = dice.randrange(256)
            elif what == 1:
                data[at] = 1 << dice.randrange(8)
            elif what == 2:
                del data[at : at + dice.randrange(1, 200)]
            else:
                data[at:at] = dice.randbytes(dice.randrange(1, 200))
        came.append(_take_in(bytes(data)))
    assert sum(length > 0 for length in came) > FUZZ // 10  # some reach the stream
    assert max(came) < 2 * len(whole)


def test_memory_is_bounded_whatever_is_announced() -> None:
    most, piece = 1 << 18, bytes(4096)
    dice = random.Random(1)
    tracemalloc.start()
    try:
        for _ in range(3):
            reader = ChunkReader(most)
            reader.feed(chunked(Message(SET_CHUNK_SIZE, 0, (4096).to_bytes(4)), 2, 128))
            with pytest.raises(ProtocolError, match="incomplete messages exceed"):
                for number in range(4, 64):  # sixty messages that are never completed
                    head = bytes([number]) + bytes(3) + (most - 1).to_bytes(3) + b"\x09" + bytes(4)
                    for k in range(10):
                        reader.feed((head if k == 0 else bytes([0xC0 | number])) + piece)
                        assert reader.take() is None
            noise = ChunkReader(most)
            with suppress(ProtocolError):
                for _ in range(2000):
                    noise.feed(dice.randbytes(1000))
                    while noise.take() is not None:
                        pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 * most
