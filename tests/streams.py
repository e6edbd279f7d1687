"""Clips with numbered frames, a process that publishes them, relay processes and a recorder."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from tests.rtmp import Viewer, wait_for

ROOT = Path(__file__).parents[1]
RATE = 48_000
SAMPLES = 1024
BITS = 10
"""Number of black or white blocks along the top, which encode a frame's number."""
BLOCK_ROWS = 16
PATIENCE_S = 4.0
"""Pause after which a recording ends, in seconds."""


@dataclass(frozen=True, kw_only=True)
class Marked:
    """Parameters of a clip with numbered frames."""

    seconds: float = 8.0
    size: tuple[int, int] = (160, 90)
    fps: int = 25
    codec: str = "libx264"
    sound: str | None = "aac"
    rate: int = RATE
    b_frames: int = 0
    gop_s: float = 1.0
    first: int = 0
    """Number of the first frame."""
    start_s: float = 0.0
    """Time of the first frame, in seconds."""


def make_marked(path: Path, clip: Marked = Marked()) -> Path:
    """Write such a clip, with noise as audio, so that no two audio packets are alike."""
    with av.open(str(path), "w") as out:
        video = out.add_stream(clip.codec, rate=clip.fps)
        assert isinstance(video, av.VideoStream)
        video.width, video.height = clip.size
        video.pix_fmt = "yuv420p"
        video.codec_context.gop_size = round(clip.gop_s * clip.fps)
        video.codec_context.thread_count = 1
        video.codec_context.max_b_frames = clip.b_frames
        video.options = {"preset": "ultrafast", "bf": str(clip.b_frames), "b-adapt": "0"}
        if clip.codec == "libx265":
            video.options = {"preset": "ultrafast", "x265-params": "log-level=none"}
        sound = out.add_stream(clip.sound, rate=clip.rate) if clip.sound else None
        random, samples = np.random.default_rng(clip.first), 0
        for k in range(round(clip.seconds * clip.fps)):
            picture = av.VideoFrame.from_ndarray(_planes(clip, clip.first + k), format="yuv420p")
            picture.time_base = Fraction(1, clip.fps)
            picture.pts = k + round(clip.start_s * clip.fps)
            out.mux(video.encode(picture))
            while sound is not None and samples < (k + 1) * clip.rate / clip.fps:
                noise = random.uniform(-0.2, 0.2, (1, SAMPLES)).astype(np.float32)
                part = av.AudioFrame.from_ndarray(
                    np.repeat(noise, 2, axis=0), format="fltp", layout="stereo"
                )
                part.sample_rate, part.time_base = clip.rate, Fraction(1, clip.rate)
                part.pts = samples + round(clip.start_s * clip.rate)
                samples += SAMPLES
                out.mux(sound.encode(part))
        out.mux(video.encode(None))
        if sound is not None:
            out.mux(sound.encode(None))
    return path


def _planes(clip: Marked, number: int) -> "np.ndarray[Any, Any]":
    width, height = clip.size
    planes = np.full((height + 2 * ((height + 1) // 2) * ((width + 1) // 2) // width, width), 128)
    planes[:height] = 100 + np.arange(width) % 64
    for bit in range(BITS):
        left, right = bit * width // BITS, (bit + 1) * width // BITS
        planes[:BLOCK_ROWS, left:right] = 220 if number >> bit & 1 else 30
    return planes.astype(np.uint8)


def number_of(picture: av.VideoFrame, scale: int = 2) -> int:
    """Return the number encoded in a frame of a clip upscaled by `scale`."""
    luma = np.from_dlpack(picture.planes[0])[: BLOCK_ROWS * scale // 2, : picture.width]
    edges = [bit * picture.width // BITS for bit in range(BITS + 1)]
    means = [luma[:, a + 4 : b - 4].mean() for a, b in itertools.pairwise(edges)]
    return sum(int(mean > 125) << bit for bit, mean in enumerate(means))


class Publisher:
    """A process that publishes clips one after the other, in real time."""

    def __init__(self, url: str, *clips: Path) -> None:
        command = [sys.executable, "-m", "tests.streams", url, *map(str, clips)]
        self.process = subprocess.Popen(command, cwd=ROOT)

    def __enter__(self) -> "Publisher":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """Kill the process, so that it cannot end the stream."""
        self.process.kill()
        self.process.wait()


def publish(url: str, clips: Sequence[str]) -> None:
    """Send the clips' packets to a URL, each unchanged and when its dts is due."""
    form = "flv" if url.startswith("rtmp") else "mpegts"
    began = time.monotonic()
    with av.open(url, "w", format=form) as out, av.open(clips[0]) as like:
        streams = [out.add_stream_from_template(s, opaque=True) for s in like.streams]
        last: dict[int, int] = {}
        for clip in clips:
            with av.open(clip) as source:
                for packet in source.demux():
                    if packet.dts is None or packet.time_base is None:
                        continue
                    due = began + float(packet.dts * packet.time_base)
                    time.sleep(max(0.0, due - time.monotonic()))
                    index = packet.stream.index
                    if packet.dts <= last.get(index, packet.dts - 1):
                        continue  # two clips overlap
                    last[index] = packet.dts
                    packet.stream = streams[index]
                    out.mux_one(packet)


class RelayProcess:
    """`vsr relay` as users start it, with a high latency limit because the machine may be busy."""

    def __init__(self, folder: Path, *words: str, model: str | None = "bicubic") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.report_path = folder / "report.json"
        self._log = folder / "relay.log"
        command = [sys.executable, "-m", "vsr", "relay"]
        command += [] if model is None else ["--model", model]
        command += ["--preset", "ultrafast", "--report", str(self.report_path)]
        command += ["--max-latency", "3000", *words]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}
            )

    def __enter__(self) -> "RelayProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def said(self) -> str:
        """The log so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def await_words(self, words: str, seconds: float = 30, count: int = 1) -> None:
        """Wait until the log has the words `count` times; fail at the timeout or process end."""

        def heard() -> bool:
            text = self.said
            if text.count(words) >= count:
                return True
            assert self.process.poll() is None, f"ended before '{words}': {text}"
            return False

        try:
            wait_for(heard, seconds, f"'{words}' was not said")
        except AssertionError as exc:
            raise AssertionError(f"{exc}; it said: {self.said}") from exc

    def stop(self, number: int = signal.SIGTERM, seconds: float = 10) -> float:
        """Send a signal; return the time that the process took to end, in seconds."""
        began = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(seconds)
        return time.monotonic() - began

    @property
    def report(self) -> dict[str, Any]:
        """The report written at the end of the relay."""
        return json.loads(self.report_path.read_text(encoding="utf-8"))


class Recorder(Viewer):
    """A viewer that keeps packet data, with long timeouts because the machine may be busy."""

    ends_after_s = PATIENCE_S

    def __init__(self, url: str, patience: float = 30.0) -> None:
        self.packets: list[tuple[str, float, bytes]] = []
        self.extradata: bytes | None = None
        self.audio: tuple[str, int] | None = None
        self.size = (0, 0)
        self.codec = ""
        super().__init__(url, patience)

    def _note(self, packet: "av.Packet[Any]") -> None:
        context = packet.stream.codec_context
        if packet.stream.type == "video" and self.extradata is None:
            self.extradata, self.codec = context.extradata, context.name
            self.size = (context.width, context.height)
        if packet.stream.type == "audio" and self.audio is None:
            self.audio = (context.name, context.rate)
        if packet.dts is not None and packet.pts is not None:
            at = float(packet.pts * packet.time_base)
            self.packets.append((packet.stream.type, at, bytes(packet)))
        super()._note(packet)

    def shown(self) -> list[tuple[int, float]]:
        """Return the number and time (s) of every frame."""
        decoder = av.CodecContext.create("h264", "r")
        decoder.extradata = self.extradata
        found = []
        for kind, at, data in list(self.packets):
            if kind == "video":
                packet: av.Packet[Any] = av.Packet(data)
                packet.pts, packet.time_base = round(at * 1000), Fraction(1, 1000)
                found += [(number_of(p), p.pts / 1000) for p in decoder.decode(packet)]
        return found

    def pause(self, since: float = 0.0) -> float:
        """Return the longest time (s) between two frames since a `time.monotonic` value."""
        came = [s.arrived for s in self.of("video") if s.arrived > since]
        return max(b - a for a, b in itertools.pairwise([since, *came] if since else came))


if __name__ == "__main__":
    threading.Thread(target=publish, args=(sys.argv[1], sys.argv[2:]), daemon=False).start()
