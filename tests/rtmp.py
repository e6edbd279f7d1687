"""Helpers for tests of live streams: an RTMP server, a fault-injecting proxy, a feed, a viewer."""

import contextlib
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.codec.context import Flags

from tests.programs import NGINX, RTMP_MODULE

Kind = Literal["audio", "video"]
FPS = 25
RATE = 48_000
SIZE = (320, 180)
SAMPLES = 1024
"""Samples per channel in an AAC frame."""


def free_port() -> int:
    """Return a TCP port on the loopback interface that is currently unused."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def wait_for(what: Callable[[], object], seconds: float, why: str) -> None:
    """Wait until `what()` is true; fail with `why` after `seconds`."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, f"after {seconds} s: {why}"
        time.sleep(0.01)


class Server:
    """nginx with its RTMP module on a free port; the application is named `live`."""

    def __init__(self, folder: Path, more: str = "") -> None:
        """Write the configuration; `more` is added to its application block."""
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._folder = folder
        (folder / "nginx.conf").write_text(
            f"""daemon off; master_process off; load_module {RTMP_MODULE};
            pid {folder}/nginx.pid; error_log {folder}/error.log info;
            events {{ worker_connections 64; }}
            rtmp {{ server {{ listen 127.0.0.1:{self.port}; chunk_size 4096;
              access_log {folder}/access.log;
              application live {{ live on; {more} }} }} }}"""
        )
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, key: str) -> str:
        """Return the URL to publish and play a stream."""
        return f"rtmp://127.0.0.1:{self.port}/live/{key}"

    def start(self) -> "Server":
        """Start nginx, or restart it on the same port, and wait until it listens."""
        conf, log = self._folder / "nginx.conf", self._folder / "error.log"
        self._process = subprocess.Popen(
            [NGINX, "-p", str(self._folder), "-c", str(conf), "-e", str(log)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(self._listens, 10, log.read_text() if log.exists() else "nginx does not listen")
        return self

    def _listens(self) -> bool:
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """Kill nginx without a clean shutdown, as a power failure would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> "Server":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()


class Proxy:
    """A TCP proxy to a port; it can stall, throttle and close its connections."""

    def __init__(self, port: int, buffer: int = 0) -> None:
        """`buffer`: receive buffer per connection in bytes, filled during a stall; 0: default."""
        self._target = port
        self._listener = socket.socket()
        if buffer:  # accepted connections inherit it
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self.port = int(self._listener.getsockname()[1])
        self.connections = 0
        self.stalled = threading.Event()
        """While set, the proxy reads from neither side and closes nothing."""
        self.rate = 0.0
        """Rate limit per direction, in bytes per second; 0: no limit."""
        self._open: list[socket.socket] = []
        self._ended = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Close every connection now."""
        for s in self._open:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
            s.close()
        self._open.clear()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while not self._ended.is_set():
                near, _ = self._listener.accept()
                self.connections += 1
                try:
                    far = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    near.close()
                    continue
                self._open += [near, far]
                for a, b in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(a, b), daemon=True).start()

    def _pass_on(self, a: socket.socket, b: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while not self._ended.is_set():
                if self.stalled.is_set():
                    time.sleep(0.01)
                    continue
                data = a.recv(4096)
                if not data:
                    break
                b.sendall(data)
                if self.rate:
                    time.sleep(len(data) / self.rate)
        for s in (a, b):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True)
class Seen:
    """A packet as a viewer received it; times in seconds."""

    kind: str
    pts: float
    dts: float
    key: bool
    size: int
    arrived: float
    """Arrival time on `time.monotonic`."""


class Viewer:
    """Records the packets of a URL on a thread; can start before the publisher."""

    ends_after_s = 1.0
    """Pause after which the stream counts as ended, in seconds."""

    def __init__(self, url: str, patience: float = 10.0) -> None:
        """Wait up to `patience` seconds for the stream; a pause of `ends_after_s` ends it."""
        self.seen: list[Seen] = []
        self.error = ""
        self._url, self._patience = url, patience
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> "Viewer":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def of(self, kind: str) -> list[Seen]:
        """Return the recorded packets of one kind: video or audio."""
        return [s for s in list(self.seen) if s.kind == kind]

    def stop(self) -> None:
        """Stop recording; keep the recorded packets."""
        self._stop.set()
        self._thread.join(5)

    def _run(self) -> None:
        # short probing, so that the first recorded packet is the first one that the server sends
        options = {"analyzeduration": "100000"}
        try:
            with av.open(
                self._url,
                options=options,
                timeout=(self._patience, self.ends_after_s),
                format=self._format(),
            ) as source:
                for packet in source.demux():
                    self._note(packet)
                    if self._stop.is_set():
                        return
        except (av.error.FFmpegError, OSError) as exc:
            self.error = type(exc).__name__

    def _format(self) -> str | None:
        return "flv" if self._url.startswith("rtmp") else None

    def _note(self, packet: "av.Packet[Any]") -> None:
        if packet.dts is None or packet.pts is None:
            return
        base = float(packet.time_base)
        self.seen.append(
            Seen(
                packet.stream.type, packet.pts * base, packet.dts * base, packet.is_keyframe,
                packet.size, time.monotonic(),
            )
        )  # fmt: skip


@dataclass
class Programme:
    """A video encoder of a moving bar and an audio encoder of a tone, kept in sync."""

    bit_rate: int = 400_000
    gop: int = FPS
    noise: bool = False
    """Whether frames contain noise, so that they need the full bit rate."""
    b_frames: int = 0
    frames: int = 0
    samples: int = 0
    video: av.VideoCodecContext = field(init=False)
    audio: av.AudioCodecContext = field(init=False)

    def __post_init__(self) -> None:
        video = av.CodecContext.create("libx264", "w")
        assert isinstance(video, av.VideoCodecContext)
        video.width, video.height = SIZE
        video.pix_fmt, video.time_base = "yuv420p", Fraction(1, 90_000)
        video.framerate, video.bit_rate, video.gop_size = Fraction(FPS), self.bit_rate, self.gop
        video.max_b_frames, video.thread_count = self.b_frames, 1
        tune = {} if self.b_frames else {"tune": "zerolatency"}
        video.options = {"preset": "ultrafast", "bf": str(self.b_frames), "b-adapt": "0", **tune}
        video.flags |= Flags.global_header
        video.open()
        audio = av.CodecContext.create("aac", "w")
        assert isinstance(audio, av.AudioCodecContext)
        audio.sample_rate, audio.layout, audio.format = RATE, "stereo", "fltp"
        audio.time_base = Fraction(1, RATE)
        audio.flags |= Flags.global_header
        audio.open()
        self.video, self.audio = video, audio
        self._random = np.random.default_rng(0)
        self._tone = 0.1 * np.sin(np.arange(SAMPLES) * 2 * np.pi * 8 / SAMPLES)

    def next(self) -> Iterator[tuple["av.Packet[Any]", Kind]]:
        """Encode one more frame and the audio up to its end; yield packets with their kinds."""
        planes = np.zeros((SIZE[1] * 3 // 2, SIZE[0]), np.uint8)
        if self.noise:
            planes[:] = self._random.integers(0, 255, planes.shape, np.uint8)
        planes[:, self.frames % SIZE[0]] = 200
        picture = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        picture.pts, picture.time_base = self.frames * 90_000 // FPS, Fraction(1, 90_000)
        self.frames += 1
        for packet in self.video.encode(picture):
            yield packet, "video"
        while self.samples < self.frames * RATE / FPS:
            both = np.stack([self._tone, self._tone]).astype(np.float32)
            sound = av.AudioFrame.from_ndarray(both, format="fltp", layout="stereo")
            sound.sample_rate, sound.pts = RATE, self.samples
            sound.time_base = Fraction(1, RATE)
            self.samples += SAMPLES
            for packet in self.audio.encode(sound):
                yield packet, "audio"


class Feed:
    """Passes a programme's packets to callbacks in real time, on a thread."""

    def __init__(
        self, takers: list[Callable[["av.Packet[Any]", Kind], None]], programme: Programme
    ) -> None:
        self.programme, self._takers = programme, takers
        self.offered = 0
        """Number of packets passed to each callback."""
        self.took: list[float] = []
        """Duration of each callback call, in seconds."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Feed":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop after the current frame."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(5)

    def _run(self) -> None:
        begun, first = time.monotonic(), self.programme.frames
        while not self._stop.is_set():
            for packet, kind in self.programme.next():
                for take in self._takers:
                    before = time.perf_counter()
                    take(packet, kind)
                    self.took.append(time.perf_counter() - before)
                self.offered += 1
            due = begun + (self.programme.frames - first) / FPS
            self._stop.wait(max(0.0, due - time.monotonic()))
