"""The two ends of `bench/soak.py`: a publisher that never stops, and a viewer that only counts.

Every picture shows its number, and no two packets of sound in a clip are equal. So the viewer knows
what was published, and the offset between sound and picture.
"""

import contextlib
import multiprocessing
import threading
import time
from pathlib import Path
from typing import Any, Final

import av

from bench.soak_figures import wrap_difference
from tests.streams import Marked, make_marked, number_of

CLIP_S: Final = 16
"""Length of the clip, in seconds: a whole number of AAC frames of 1024 samples at 48 kHz."""
_PATIENCE_S: Final = 10.0


def publish(url: str, clip: str, sent: Any) -> None:
    """Call `send` until the connection fails; runs in a child process."""
    with contextlib.suppress(av.error.FFmpegError, OSError):
        send(url, clip, sent)


def send(url: str, clip: str, sent: Any) -> None:
    """Send a clip in a loop, in real time; count its pictures in `sent` (a shared Value)."""
    began, last, turn = time.monotonic(), dict[int, int](), 0
    with av.open(url, "w", format="flv") as out, av.open(clip) as like:
        streams = [out.add_stream_from_template(s, opaque=True) for s in like.streams]
        while True:
            with av.open(clip) as source:
                for packet in source.demux():
                    if packet.dts is None or packet.pts is None or packet.time_base is None:
                        continue
                    index, shift = packet.stream.index, round(turn * CLIP_S / packet.time_base)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    if packet.dts <= last.get(index, packet.dts - 1):
                        continue  # overlaps packets from after the previous clip's end
                    last[index] = packet.dts
                    due = began + float(packet.dts * packet.time_base)
                    time.sleep(max(0.0, due - time.monotonic()))
                    packet.stream = streams[index]
                    sent.value += packet.stream.type == "video"
                    out.mux_one(packet)
            turn += 1


class Source:
    """The publisher's process, which can be killed and restarted."""

    def __init__(self, url: str, clip: Path) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._sent = self._context.Value("q", 0)
        self._url, self._clip = url, clip
        self._process = self._started()

    def _started(self) -> Any:
        given = (self._url, str(self._clip), self._sent)
        process = self._context.Process(target=publish, args=given, daemon=True)
        process.start()
        return process

    @property
    def sent(self) -> int:
        """Number of pictures sent, by all processes so far."""
        return int(self._sent.value)

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        self._process.kill()
        self._process.join()

    def revive(self) -> None:
        """Restart the process if it has ended: it was killed, or lost its server."""
        if not self._process.is_alive():
            self._process = self._started()

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class Watcher:
    """Watches a relayed clip on a thread, and reconnects; keeps figures, but no packets."""

    def __init__(self, url: str, clip: Path, fps: int) -> None:
        self.frames = 0
        self.backward = 0
        self.connections = 0
        self.counted = 0
        """Number of pictures from the first key picture to the last, over all connections."""
        self.published = 0
        """Expected value of `counted`, from the numbers of the key pictures."""
        self.av_change = 0.0
        """Change of the A/V offset since the first one, in seconds."""
        self.av_worst = 0.0
        self._url, self._fps = url, fps
        self._sounds = _sounds(clip)
        self._av_first: float | None = None
        self._stop = threading.Event()
        self.forget()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Watcher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5)

    def forget(self) -> None:
        """Reset the state of the connection."""
        self._dts: dict[str, float] = {}
        self._key: tuple[int, int] | None = None
        self._sound_shift: float | None = None

    def _run(self) -> None:
        options = {"analyzeduration": "100000"}
        while not self._stop.wait(0.2):
            self.forget()
            with (
                contextlib.suppress(av.error.FFmpegError, OSError),
                av.open(
                    self._url, options=options, timeout=(_PATIENCE_S, 2.0), format="flv"
                ) as source,
            ):
                self.connections += 1
                for packet in source.demux():
                    self.note(packet)
                    if self._stop.is_set():
                        return

    def note(self, packet: "av.Packet[Any]") -> None:
        """Count a packet of the current connection."""
        if packet.dts is None or packet.pts is None or packet.time_base is None:
            return
        kind, dts = packet.stream.type, float(packet.dts * packet.time_base)
        self.backward += dts <= self._dts.get(kind, -1.0)
        self._dts[kind] = dts
        at = float(packet.pts * packet.time_base)
        if kind == "audio":
            known = self._sounds.get(bytes(packet))
            self._sound_shift = at - known if known is not None else self._sound_shift
            return
        if packet.is_keyframe:
            self._key_picture(packet, at)
        self.frames += 1

    def _key_picture(self, packet: "av.Packet[Any]", at: float) -> None:
        """Decode a key picture to find the position in the clip; no other picture is decoded."""
        decoder = av.CodecContext.create("h264", "r")
        decoder.extradata = packet.stream.codec_context.extradata
        number = number_of([*decoder.decode(packet), *decoder.decode(None)][0])
        before, self._key = self._key, (number, self.frames)
        if before is None:
            return
        seen = self.frames - before[1]
        due = round((number - before[0]) % (CLIP_S * self._fps))
        self.counted += seen
        self.published += due
        if seen == due and self._sound_shift is not None:  # no picture is missing or repeated
            apart = wrap_difference(at - number / self._fps - self._sound_shift, CLIP_S)
            self._av_first = apart if self._av_first is None else self._av_first
            self.av_change = apart - self._av_first
            self.av_worst = max(self.av_worst, abs(self.av_change))


def _sounds(clip: Path) -> dict[bytes, float]:
    """Return packet of the clip's sound -> presentation time in seconds."""
    with av.open(str(clip)) as source:
        return {
            bytes(p): float(p.pts * p.time_base)
            for p in source.demux(audio=0)
            if p.pts is not None and p.time_base is not None
        }


def make_clip(path: Path, size: tuple[int, int], fps: int) -> Path:
    """Write the published clip: `CLIP_S` seconds of numbered pictures and noise."""
    return make_marked(path, Marked(seconds=CLIP_S, size=size, fps=fps, gop_s=1.0))
