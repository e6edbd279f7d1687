"""Measures audio/video drift in a long video: an hour at 29.97 frames per second.

`python -m bench.hour [--minutes 60] [--ending .mp4]`, from the repository's root: a
generated clip, with a white frame and a beep about every half minute, is upscaled by bicubic.
Prints the largest difference of a frame's time from n * 1001/30000 s, and the delay from flash to
beep at the start and the end, of input and output. The exit code is 1 from 1 ms on.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np

import vsr

RATE: Final = Fraction(30_000, 1001)
FLASH_INTERVAL: Final = 900
"""Number of pictures from one flash to the next."""
_SOUND: Final = 48_000
_BEEP: Final = 2_880
_BLOCK: Final = 1024
_LIMIT_S: Final = 0.001


@dataclass(kw_only=True)
class FilmTimes:
    """Times found in a film, in seconds."""

    pictures: int = 0
    worst: float = 0.0
    """Largest difference of a picture's time from its nominal time."""
    flashes: list[float] = field(default_factory=list)
    beeps: list[float] = field(default_factory=list)

    @property
    def offsets(self) -> list[float]:
        """Delay of each beep after its flash."""
        return [b - f for f, b in zip(self.flashes, self.beeps, strict=True)]


def make(path: Path, minutes: float) -> None:
    """Write the film, 64x36 with mono AAC."""
    count = round(minutes * 60 * RATE)
    black = np.full((54, 64), 16, np.uint8)
    black[36:] = 128
    white = black.copy()
    white[:36] = 235
    samples = _samples(count)
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=RATE, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 64, 36, "yuv420p"
        video.codec_context.thread_count = 1
        sound = out.add_stream("aac", rate=_SOUND, layout="mono")
        place = 0
        for k in range(count):
            frame = av.VideoFrame.from_ndarray(
                white if k % FLASH_INTERVAL == 0 else black, "yuv420p"
            )
            frame.pts, frame.time_base = k, 1 / RATE
            out.mux(video.encode(frame))
            while place < (k + 1) * _SOUND / RATE:
                piece = av.AudioFrame.from_ndarray(
                    samples[None, place : place + _BLOCK], format="fltp", layout="mono"
                )
                piece.rate, piece.pts, piece.time_base = _SOUND, place, Fraction(1, _SOUND)
                place += _BLOCK
                out.mux(sound.encode(piece))
        for stream in (video, sound):
            out.mux(stream.encode(None))


def _samples(pictures: int) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
    """Return silence with a beep of 60 ms at each flash."""
    samples = np.zeros(round(pictures * _SOUND / RATE) + 2 * _BLOCK, np.float32)
    beep = np.sin(2 * np.pi * 1000 / _SOUND * np.arange(_BEEP)).astype(np.float32)
    for k in range(0, pictures, FLASH_INTERVAL):
        begin = round(k * _SOUND / RATE)
        end = min(begin + _BEEP, samples.size)
        samples[begin:end] = beep[: end - begin]
    return samples


def read_times(path: Path) -> FilmTimes:
    """Decode a film and return its times."""
    seen, quiet_from = FilmTimes(), -1.0
    with av.open(str(path)) as film:
        film.streams.video[0].thread_type = "AUTO"
        for frame in film.decode(video=0, audio=0):
            assert frame.time is not None
            if isinstance(frame, av.VideoFrame):
                seen.worst = max(seen.worst, abs(frame.time - float(seen.pictures / RATE)))
                if np.from_dlpack(frame.planes[0])[8, 8] > 125:
                    seen.flashes.append(frame.time)
                seen.pictures += 1
                continue
            loud = np.flatnonzero(np.abs(frame.to_ndarray()[0]) > 0.25)
            if loud.size and frame.time + loud[0] / _SOUND > quiet_from:
                seen.beeps.append(frame.time + loud[0] / _SOUND)
                quiet_from = seen.beeps[-1] + 10
    return seen


def main(words: list[str] | None = None) -> int:
    """Parse, run, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--ending", default=".mp4", help="suffix of both files")
    given = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="vsr-hour-") as name:
        source, target = (Path(name, f"{kind}{given.ending}") for kind in ("in", "out"))
        make(source, given.minutes)
        began = time.monotonic()
        report = vsr.upscale(source, target, model="bicubic", preset="ultrafast")
        seconds = time.monotonic() - began
        before, after = read_times(source), read_times(target)
    drift = max(abs(a - after.offsets[0]) for a in after.offsets)
    moved = max(abs(a - b) for a, b in zip(after.offsets, before.offsets, strict=True))
    sys.stdout.write(
        f"{given.minutes:g} min, {report.frames_in} frames in, {after.pictures} out, "
        f"{seconds:.0f} s\n"
        f"largest frame time error: input {before.worst * 1e3:.4f} ms, "
        f"output {after.worst * 1e3:.4f} ms\n"
        f"{len(after.flashes)} flashes, delay of the beep: first {after.offsets[0] * 1e3:.4f} ms, "
        f"last {after.offsets[-1] * 1e3:.4f} ms; drift {drift * 1e3:.4f} ms, "
        f"against the input {moved * 1e3:.4f} ms\n"
    )
    same = before.pictures == after.pictures and len(before.beeps) == len(after.beeps)
    return 0 if same and max(after.worst, drift, moved) < _LIMIT_S else 1


if __name__ == "__main__":
    sys.exit(main())
