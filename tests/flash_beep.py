"""Clips that flash and beep each second, and a viewer that measures both in a received stream.

The viewer does not use `vsr`: it opens a URL with FFmpeg as any player does, and detects frame
numbers, flashes and beeps in the decoded stream. `python -m tests.flash_beep view URL SECONDS`
runs it as a separate process, `publish URL CLIP LATE SECONDS` publishes a clip with delayed
audio.
"""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import numpy as np

ROOT: Final = Path(__file__).parents[1]
SAMPLES: Final = 1024
BEEP_S: Final = 0.06
FLASH: Final = 3
"""Duration of a flash, in frames."""
BITS: Final = 16
"""Number of black or white blocks along the bottom, which encode a frame's number."""
_LIT: Final = 125
_LOUD: Final = 0.15
_APART_S: Final = 0.3
"""Minimum time between the end of a beep and the next beep, in seconds."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Parameters of a clip."""

    seconds: int = 20
    size: tuple[int, int] = (160, 90)
    fps: int = 25
    codec: str = "libx264"
    sound: str | None = "aac"
    rate: int = 48_000
    layout: str = "stereo"
    b_frames: int = 0
    beeps_from: float = 0.0
    """Start of the audio, in seconds."""


def make_clip(path: Path, clip: Clip = Clip()) -> Path:
    """Write such a clip: every second begins with a flash at the top left and a 1 kHz beep."""
    with av.open(str(path), "w") as out:
        video = out.add_stream(clip.codec, rate=clip.fps)
        assert isinstance(video, av.VideoStream)
        video.width, video.height = clip.size
        video.pix_fmt = "yuvj420p" if clip.codec == "mjpeg" else "yuv420p"
        video.codec_context.gop_size = clip.fps
        video.codec_context.thread_count = 1
        video.codec_context.max_b_frames = clip.b_frames
        if clip.codec == "libx264":
            video.options = {"preset": "ultrafast", "bf": str(clip.b_frames), "b-adapt": "0"}
        sound = (
            out.add_stream(clip.sound, rate=clip.rate, layout=clip.layout) if clip.sound else None
        )
        place = round(clip.beeps_from * clip.rate)
        for k in range(clip.seconds * clip.fps):
            picture = av.VideoFrame.from_ndarray(_picture(clip, k), format="yuv420p")
            picture.time_base, picture.pts = Fraction(1, clip.fps), k
            out.mux(video.encode(picture))
            while sound is not None and place < (k + 1) * clip.rate / clip.fps:
                part = _sound(clip, place, sound.codec_context.frame_size or SAMPLES)
                place += part.samples
                out.mux(sound.encode(part))
        out.mux(video.encode(None))
        if sound is not None:
            out.mux(sound.encode(None))
    return path


def _picture(clip: Clip, number: int) -> "np.ndarray[Any, Any]":
    width, height = clip.size
    planes = np.full((height + 2 * ((height + 1) // 2) * ((width + 1) // 2) // width, width), 128)
    planes[:height] = 90 + (np.arange(width) + 3 * number) % 64
    planes[: height // 3, : width // 3] = 235 if number % clip.fps < FLASH else 16
    for bit in range(BITS):
        left, right = bit * width // BITS, (bit + 1) * width // BITS
        planes[height - height // 6 : height, left:right] = 235 if number >> bit & 1 else 16
    return planes.astype(np.uint8)


def _sound(clip: Clip, place: int, size: int) -> av.AudioFrame:
    at = np.arange(place, place + size) / clip.rate
    wave = 0.6 * np.sin(2 * np.pi * 1000 * at) * (at % 1 < BEEP_S)
    channels = av.AudioLayout(clip.layout).nb_channels
    whole = np.repeat(wave[None].astype(np.float32), channels, axis=0)
    frame = av.AudioFrame.from_ndarray(whole, format="fltp", layout=clip.layout)
    frame.sample_rate, frame.pts, frame.time_base = clip.rate, place, Fraction(1, clip.rate)
    return frame


@dataclass
class View:
    """Measurements of a viewer; times are stream times (s), `walls` are `time.monotonic`."""

    error: str = ""
    opened_s: float = 0.0
    sizes: list[tuple[int, int]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    walls: list[float] = field(default_factory=list)
    flashes: list[float] = field(default_factory=list)
    beeps: list[float] = field(default_factory=list)
    steps_back: int = 0
    """Number of packets whose dts is not after that of the previous packet of the stream."""

    @property
    def offsets(self) -> list[float]:
        """Delay of each flash after its beep, in ms, for flashes with a beep within 0.5 s."""
        near = [(f, min(self.beeps, key=lambda b: abs(b - f))) for f in self.flashes if self.beeps]
        return [round(1000 * (f - b), 1) for f, b in near if abs(f - b) < 0.5]

    @property
    def fps(self) -> float:
        """Frame rate of the stream."""
        span = self.times[-1] - self.times[0] if len(self.times) > 1 else 0.0
        return (len(self.times) - 1) / span if span else 0.0

    @property
    def missing(self) -> int:
        """Number of flashes without a beep within 0.5 s, except the first and last flash."""
        return sum(
            min((abs(b - f) for b in self.beeps), default=9.0) > 0.5 for f in self.flashes[1:-1]
        )

    @property
    def repeated(self) -> int:
        """Number of frames that repeat the previous frame."""
        return sum(a == b for a, b in zip(self.numbers, self.numbers[1:], strict=False))

    @property
    def skipped(self) -> int:
        """Number of frames whose number neither repeats nor follows the previous one."""
        pairs = zip(self.numbers, self.numbers[1:], strict=False)
        return sum(b not in (a, a + 1) for a, b in pairs)


def view(url: str, seconds: float) -> View:
    """Watch a URL for `seconds` after opening it; retry until it opens."""
    found, began = View(), time.monotonic()
    options = {"rtmp_live": "live"} if url.startswith("rtmp") else {}
    if url.startswith("rtsp"):
        options = {"rtsp_transport": "tcp"}
    while True:
        try:
            source = av.open(url, options=options, timeout=(10, 10))
            break
        except (av.error.FFmpegError, OSError) as exc:
            if time.monotonic() - began > seconds + 20:
                found.error = str(exc)
                return found
            time.sleep(0.2)
    with source:
        found.opened_s = time.monotonic() - began
        try:
            _watch(source, found, seconds)
        except (av.error.FFmpegError, OSError) as exc:
            found.error = str(exc)
    return found


def _watch(source: "av.container.InputContainer", found: View, seconds: float) -> None:
    ears, lit, last = _Ears(found.beeps), True, dict[int, int]()
    end = time.monotonic() + seconds
    streams = [*source.streams.video[:1], *source.streams.audio[:1]]
    for packet in source.demux(streams):
        if time.monotonic() > end:
            return
        if packet.dts is None:
            continue
        found.steps_back += packet.dts <= last.get(packet.stream.index, packet.dts - 1)
        last[packet.stream.index] = packet.dts
        for frame in _decoded(packet):
            if isinstance(frame, av.AudioFrame):
                ears.hear(frame)
            elif isinstance(frame, av.VideoFrame) and frame.time is not None:
                found.walls.append(time.monotonic())
                was, lit = lit, _look(frame, found)
                if lit and not was:
                    found.flashes.append(frame.time)


def _decoded(packet: "av.Packet[Any]") -> Iterator[Any]:
    with contextlib.suppress(av.error.InvalidDataError):
        yield from packet.decode()


def _look(frame: av.VideoFrame, found: View) -> bool:
    luma = np.from_dlpack(frame.planes[0])[: frame.height, : frame.width]
    height, width = luma.shape
    if not found.sizes or found.sizes[-1] != (width, height):
        found.sizes.append((width, height))
    row, step = luma[height - height // 12 - 2 : height - height // 12 + 2], width / BITS
    number = 0
    for bit in range(BITS):
        block = row[:, int((bit + 0.3) * step) : int((bit + 0.7) * step)]
        number |= int(block.mean() > _LIT) << bit
    found.numbers.append(number)
    assert frame.time is not None
    found.times.append(frame.time)
    return bool(luma[height // 10 : height // 4, width // 10 : width // 4].mean() > _LIT)


class _Ears:
    """Detects the start times of beeps."""

    def __init__(self, beeps: list[float]) -> None:
        self._beeps, self._ended = beeps, -9.0

    def hear(self, frame: av.AudioFrame) -> None:
        whole = frame.to_ndarray()
        channels = frame.layout.nb_channels
        samples = whole[0] if frame.format.is_planar else whole.reshape(-1)[::channels]
        level = np.abs(samples.astype(np.float64))
        if samples.dtype.kind == "i":
            level /= np.iinfo(samples.dtype).max
        loud = np.flatnonzero(level > _LOUD)
        if not len(loud) or frame.time is None:
            return
        begin = frame.time + float(loud[0]) / frame.sample_rate
        if begin - self._ended > _APART_S:
            self._beeps.append(begin)
        self._ended = frame.time + float(loud[-1]) / frame.sample_rate


def publish(url: str, clip: str, late: float, seconds: float) -> None:
    """Publish a clip in real time, but send each audio packet `late` seconds after its time."""
    with (
        av.open(clip) as source,
        av.open(
            url, "w", format="mpegts" if url.startswith("udp") else "flv",
            container_options={"max_interleave_delta": "1", "flush_packets": "1"},
        ) as out,
    ):  # fmt: skip
        streams = {s.index: out.add_stream_from_template(s, opaque=True) for s in source.streams}
        due = []
        for packet in source.demux():
            if packet.dts is not None and packet.pts >= 0:
                at = float(packet.dts * packet.time_base)
                due.append((at + late * (packet.stream.type == "audio"), len(due), packet))
        due.sort(key=lambda item: item[:2])
        began, first = time.monotonic(), float(due[0][2].dts * due[0][2].time_base)
        for at, _, packet in due:
            if at > seconds:
                break
            if float(packet.dts * packet.time_base) < first:
                continue  # FLV accepts no packet earlier than the first one
            time.sleep(max(0.0, began + at - time.monotonic()))
            packet.pts += round(Fraction(1, 5) / packet.time_base)  # so that no time is negative
            packet.dts += round(Fraction(1, 5) / packet.time_base)
            packet.stream = streams[packet.stream.index]
            out.mux_one(packet)


class Process:
    """The viewer or the publisher in a separate process."""

    def __init__(self, *words: object) -> None:
        command = [sys.executable, "-m", "tests.flash_beep", *map(str, words)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def view(self, timeout: float = 90) -> View:
        """Wait for the viewer to end and return its measurements."""
        out, _ = self.process.communicate(timeout=timeout)
        return View(**json.loads(out))


def main(words: list[str]) -> None:
    """View or publish, according to the arguments."""
    if words[0] == "view":
        json.dump(asdict(view(words[1], float(words[2]))), sys.stdout)
    else:
        publish(words[1], words[2], float(words[3]), float(words[4]))


if __name__ == "__main__":
    main(sys.argv[1:])
