"""Audio that begins or changes in a running connection, without losing the session."""

import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import av
import pytest

from tests.live.test_listen import _number
from tests.live.test_live_parts import _frame
from tests.rtmp import free_port, wait_for
from tests.rtmp_peer import Peer, flv_of, messages_of
from tests.streams import Marked, make_marked
from vsr.live.audio import OutputAudio
from vsr.live.input.ingest import Ingest
from vsr.live.input.mailbox import AudioPacket, Connected, Lost, Mailbox
from vsr.live.input.rtmp.replay import ReplayBuffer
from vsr.live.output.encode import AudioItem
from vsr.live.rtmp.chunks import AUDIO, VIDEO, Message, flv_tag
from vsr.live.settings import IngestSettings
from vsr.media.frame import Frame

LATE_S = 2.0
KEY = "k3y"


def _clip(folder: Path, gop_s: float) -> list[Message]:
    """Return a clip's messages, audio from `LATE_S` on only; no metadata announces audio."""
    path = make_marked(folder / "clip.mp4", Marked(seconds=7, gop_s=gop_s))
    held: Message | None = None
    found = []
    for message in messages_of(flv_of(path)):
        if message.kind == AUDIO and message.body[1] == 0:
            held = message
        elif message.kind == VIDEO or (message.kind == AUDIO and message.time >= 1000 * LATE_S):
            if message.kind == AUDIO and held is not None:
                found.append(Message(AUDIO, message.time, held.body, 1))
                held = None
            found.append(message)
    return found


class Taken:
    """Collects the output of an `Ingest` on a thread."""

    def __init__(self, url: str, listen: bool) -> None:
        self.connected: list[Connected] = []
        self.numbers: list[int] = []
        self.sounds: list[float] = []
        self.lost: list[Lost] = []
        self.heard: float | None = None
        """Arrival time of the first audio on `time.monotonic`, or None."""
        self._mailbox = Mailbox(frames=1000)
        self.ingest = Ingest(url, IngestSettings(listen=listen), self._mailbox)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Taken":
        self.ingest.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.ingest.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            item: Any = self._mailbox.take(0.05)
            if isinstance(item, Frame):
                self.numbers.append(_number(item))
            elif isinstance(item, AudioPacket):
                self.heard = self.heard or time.monotonic()
                self.sounds.append(item.time)
            elif isinstance(item, Connected):
                self.connected.append(item)
            elif isinstance(item, Lost):
                self.lost.append(item)


def _assert_going_on(taken: Taken) -> None:
    """Assert that no frame came twice; the only key frame is the first frame."""
    assert taken.numbers == sorted(set(taken.numbers))


def _paced(messages: list[Message], began: float) -> Iterator[Message]:
    for message in messages:
        time.sleep(max(0.0, began + message.time / 1000 - time.monotonic()))
        yield message


def test_sound_that_a_publisher_sends_late_is_taken_up_and_no_picture_waits_for_a_key_frame(
    tmp_path: Path,
) -> None:
    messages = _clip(tmp_path, gop_s=7)
    port = free_port()
    with Taken(f"rtmp://127.0.0.1:{port}/live/{KEY}", listen=True) as taken, Peer(port) as peer:
        assert peer.publish(KEY).code == "NetStream.Publish.Start"
        for message in _paced(messages, time.monotonic()):
            peer.put(message)
        wait_for(lambda: taken.numbers and taken.numbers[-1] >= 160, 20, "pictures stopped")
    assert [one.audio is not None for one in taken.connected] == [False, True]
    assert not [one for one in taken.lost if not one.reason.endswith("disconnected")]
    assert taken.sounds
    assert taken.sounds[0] < LATE_S + 3.0  # 1 s of it is a margin for a slow machine
    _assert_going_on(taken)


def _changing(folder: Path, gop_s: float) -> list[Message]:
    """Return a clip's messages, whose audio is AAC until `LATE_S` and MP3 from then on."""
    aac, mp3 = (
        list(messages_of(flv_of(make_marked(folder / f"{sound}.mp4", clip))))
        for sound in ("aac", "libmp3lame")
        if (clip := Marked(seconds=6, gop_s=gop_s, sound=sound))
    )
    border = 1000 * LATE_S
    messages = [m for m in aac if m.kind == VIDEO or (m.kind == AUDIO and m.time < border)]
    messages += [m for m in mp3 if m.kind == AUDIO and m.time >= border]
    return sorted(messages, key=lambda m: m.time)


def test_sound_that_changes_its_codec_is_taken_up(tmp_path: Path) -> None:
    messages = _changing(tmp_path, gop_s=6)
    port = free_port()
    with Taken(f"rtmp://127.0.0.1:{port}/live/{KEY}", listen=True) as taken, Peer(port) as peer:
        assert peer.publish(KEY).code == "NetStream.Publish.Start"
        for message in _paced(messages, time.monotonic()):
            peer.put(message)
        wait_for(lambda: taken.numbers and taken.numbers[-1] >= 140, 20, "pictures stopped")
    decoders = [one.audio.name for one in taken.connected if one.audio is not None]
    assert [name[:3] for name in decoders] == ["aac", "mp3"]
    assert max(taken.sounds) > LATE_S + 2.0
    _assert_going_on(taken)


def _with_second_track(messages: list[Message], legacy: bool) -> Iterator[Message]:
    """Yield a clip's messages with a second audio track from `LATE_S` on, as in Enhanced RTMP.

    `legacy`: whether the first track uses plain RTMP instead of Enhanced RTMP.
    """
    header = next(m for m in messages if m.kind == AUDIO)
    begun = False
    for message in messages:
        if message.kind != AUDIO:
            yield message
            continue
        kind, data = message.body[1], message.body[2:]
        extended = Message(AUDIO, message.time, bytes([0x90 | kind]) + b"mp4a" + data, 1)
        yield message if legacy else extended
        if message.time >= 1000 * LATE_S:
            heads = [] if begun else [b"\x95\x00mp4a\x01" + header.body[2:]]
            begun = True
            for body in (*heads, b"\x95\x01mp4a\x01" + data):
                yield Message(AUDIO, message.time, body, 1)


@pytest.mark.parametrize("legacy", [True, False])
def test_a_second_track_that_a_publisher_sends_late_changes_nothing(
    tmp_path: Path, legacy: bool
) -> None:
    clip = make_marked(tmp_path / "clip.mp4", Marked(seconds=5, gop_s=5))
    messages = _with_second_track(list(messages_of(flv_of(clip))), legacy)
    port = free_port()
    with Taken(f"rtmp://127.0.0.1:{port}/live/{KEY}", listen=True) as taken, Peer(port) as peer:
        assert peer.publish(KEY).code == "NetStream.Publish.Start"
        for message in _paced(list(messages), time.monotonic()):
            peer.put(message)
        wait_for(lambda: taken.numbers and taken.numbers[-1] >= 120, 20, "pictures stopped")
    assert len(taken.connected) == 1
    assert taken.numbers == list(range(taken.numbers[0], taken.numbers[-1] + 1))
    assert len(taken.sounds) == len(set(taken.sounds)) > 150


def test_a_rewound_stream_repeats_neither_pictures_nor_sound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a rewind, earlier items arrive again; only newer ones are passed on."""
    ingest = Ingest("rtmp://127.0.0.1/live/k", IngestSettings(), Mailbox(frames=1))
    feed, audio = SimpleNamespace(rewind=lambda: (6, 7)), object()
    monkeypatch.setattr(ingest, "_open_source", lambda feed: None)
    ingest._newest, ingest._newest_audio = 5 / 25, 4.0
    ingest._reopen(cast(Any, feed))
    packets = [SimpleNamespace(stream=audio, pts=k, time_base=1) for k in (2, 3, 4, 5)]
    other = SimpleNamespace(stream=object(), pts=0, time_base=1)
    again = [*(_frame(k) for k in range(9)), other, *packets]
    got: list[Any] = list(ingest._without_repeats(iter(cast(Any, again)), cast(Any, audio)))
    assert [item.index for item in got[:3]] == [6, 7, 8]
    assert got[3:] == [other, packets[3]]
    ingest._newest = 8 / 25  # times step back: only as many frames as were replayed are skipped
    ingest._reopen(cast(Any, feed))
    items = [_frame(0) for _ in range(8)]
    assert len(list(ingest._without_repeats(iter(items), None))) == 2


@contextmanager
def _server(messages: list[Message]) -> Iterator[tuple[str, list[int]]]:
    """Serve HTTP-FLV as live servers do: headers, then all messages from the last key frame."""
    began, served, stop = time.monotonic(), list[int](), threading.Event()

    def serve(peer: socket.socket) -> None:
        peer.recv(4000)
        served.append(len(served))
        peer.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: video/x-flv\r\n\r\n")
        peer.sendall(b"FLV\x01\x05\x00\x00\x00\x09\x00\x00\x00\x00")
        place, replay = 0, ReplayBuffer()
        while place < len(messages) and began + messages[place].time / 1000 < time.monotonic():
            replay.add(messages[place])
            place += 1
        with peer, suppress(OSError):
            for message in replay:
                peer.sendall(flv_tag(message))
            for message in _paced(messages[place:], began):
                if stop.is_set():
                    return
                peer.sendall(flv_tag(message))
            stop.wait(20)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],)).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/live.flv", served
        stop.set()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_sound_that_a_server_sends_late_is_taken_from_a_second_connection(tmp_path: Path) -> None:
    messages = _clip(tmp_path, gop_s=1)
    with _server(messages) as (url, served), Taken(url, listen=False) as taken:
        wait_for(lambda: taken.numbers and taken.numbers[-1] >= 160, 30, "pictures stopped")
    assert [one.audio is not None for one in taken.connected] == [False, True]
    assert len(served) == 2
    assert not taken.lost
    assert taken.sounds
    assert taken.sounds[0] < LATE_S + 4.0


def test_sound_that_changes_its_codec_in_a_pulled_stream_is_taken_up(tmp_path: Path) -> None:
    messages = _changing(tmp_path, gop_s=1)
    with _server(messages) as (url, served), Taken(url, listen=False) as taken:
        wait_for(lambda: taken.numbers and taken.numbers[-1] >= 140, 30, "pictures stopped")
    decoders = [one.audio.name for one in taken.connected if one.audio is not None]
    assert [name[:3] for name in decoders] == ["aac", "mp3"]
    assert len(served) == 2
    assert not taken.lost
    assert max(taken.sounds) > LATE_S + 2.0


def test_sound_that_changes_its_rate_within_its_codec_is_decoded_right(tmp_path: Path) -> None:
    before, after = (
        [m for m in messages_of(flv_of(make_marked(tmp_path / f"{rate}.mp4", clip)))
         if m.kind == AUDIO]
        for rate in (48_000, 44_100)
        if (clip := Marked(seconds=1, rate=rate))
    )  # fmt: skip
    messages = before + [Message(AUDIO, m.time + 1000, m.body, 1) for m in after]
    flv = io.BytesIO(b"FLV\x01\x04\0\0\0\x09\0\0\0\0" + b"".join(map(flv_tag, messages)))
    packets: list[AudioItem] = []
    with av.open(flv, options={"analyzeduration": "100000"}) as source:
        stream = source.streams.audio[0]
        sound = OutputAudio(stream.codec_context)
        for packet in source.demux(stream):
            if packet.pts is not None and packet.time_base is not None:
                at = float(packet.pts * packet.time_base)
                packets += sound.convert(packet, at, at)
    assert sound._timeline._kind is not None
    assert sound._timeline._kind[2] == 44_100
    times = [float(one.packet.pts * one.packet.time_base) for one in packets]
    assert times == sorted(times)
    assert times[-1] > 1.9
    assert sound.counts.undecodable == 0


@pytest.mark.parametrize(
    ("kind", "bodies", "kept"),
    [
        (VIDEO, ["1700", "1701", "2701", "1701", "2701"], ["1700", "1701", "2701"]),
        (VIDEO, ["9068766331", "9168766331", "a168766331"], None),
        (AUDIO, ["af00", "af01"], ["af00"]),
        (AUDIO, ["904d703461", "914d703461"], ["904d703461"]),
        (AUDIO, ["af00", "af01", "2f01"], []),
    ],
    ids=["AVC", "enhanced HEVC", "AAC", "enhanced AAC", "AAC, then MP3"],
)
def test_headers_and_what_follows_a_key_frame_are_kept(
    kind: int, bodies: list[str], kept: list[str] | None
) -> None:
    replay = ReplayBuffer()
    for k, body in enumerate(bodies):
        replay.add(Message(kind, k, bytes.fromhex(body)))
    assert [message.body.hex() for message in replay] == (bodies if kept is None else kept)


def test_sound_without_a_header_is_announced_by_its_first_message_and_not_repeated() -> None:
    replay = ReplayBuffer()
    for k, (kind, body) in enumerate(
        ((VIDEO, "1700"), (VIDEO, "1701"), (VIDEO, "2701"), (AUDIO, "2f01"), (AUDIO, "2f02"))
    ):
        replay.add(Message(kind, k, bytes.fromhex(body)))
    kept = [(message.time, message.body.hex()) for message in replay]
    assert kept == [(1, "1700"), (3, "2f01"), (1, "1701"), (2, "2701"), (4, "2f02")]


def test_what_is_kept_is_bounded() -> None:
    replay = ReplayBuffer()
    replay.add(Message(VIDEO, 0, b"\x17\x01" + bytes(1 << 20)))
    for k in range(40):
        replay.add(Message(VIDEO, k, b"\x27\x01" + bytes(1 << 20)))
        assert sum(len(message.body) for message in replay) <= (16 << 20) + 4
    assert not list(replay)
