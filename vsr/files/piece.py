"""Encodes one segment of a video into a file of its own."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import av

from vsr.errors import OutputError, reason
from vsr.files.assemble import reorder_of
from vsr.files.journal_lines import Segment
from vsr.media.encoder import EncoderSettings, VideoFormat
from vsr.media.frame import Frame, now
from vsr.media.limits import cpu_limit, processors
from vsr.media.sink import Sink

_MOST_THREADS: Final = 16
"""FFmpeg's own encoders take no more by themselves."""
_X265_FRAMES: Final = ((32, 5), (16, 4), (8, 3), (4, 2))
"""(processors, pictures that x265 encodes at once on so many) by its own choice."""
_OWN_THREADS: Final = frozenset({"libsvtav1"})
"""Encoders whose output is the same with any number of threads."""


def encoder_threads(encoder: str) -> int | None:
    """How many threads an encoder takes here by itself; None where that changes nothing.

    The number is part of what decides an encoder's output: it is fixed for all of a run's segments,
    wherever they are made.
    """
    count = cpu_limit() or processors()
    if encoder in _OWN_THREADS:
        return None
    if encoder == "libx264":
        return max(1, count * 3 // 2)
    if encoder == "libx265":
        return next((frames for least, frames in _X265_FRAMES if count >= least), 1)
    return 1 if count == 1 else min(count + 1, _MOST_THREADS)


def with_threads(settings: EncoderSettings, threads: int | None) -> EncoderSettings:
    """The settings with that number of threads, unless they say another."""
    if threads is None:
        return settings
    return replace(settings, options={"threads": str(threads), **settings.options})


class Piece:
    """A segment that is being encoded. Use from one thread, in a `with` block around all writing.

    The file's times begin at 0, as NUT has it; it holds video alone.
    """

    def __init__(
        self, path: Path, first: Frame, video: VideoFormat, encoder: EncoderSettings, in_band: bool
    ) -> None:
        """`first`: the frame that is written first. Raises UsageError and OutputError."""
        self.path = path
        self._unit = video.time_base
        begin = first.pts * first.time_base
        self._sink = Sink(path, video, encoder, offset=begin, headers_in_band=in_band)
        self._began = now()
        self._shown: list[int] = []
        self._duration = self._concealed = 0

    def __enter__(self) -> "Piece":
        return self

    def __exit__(self, *_: object) -> None:
        self._sink.__exit__()

    @property
    def frames(self) -> int:
        """Frames that were written."""
        return len(self._shown)

    def write(self, frame: Frame) -> list[Frame]:
        """Encode a frame; return frames as `Sink.write` does."""
        self._shown.append(frame.pts)
        self._concealed += frame.event == "concealed"
        self._duration = frame.duration
        return self._sink.write(frame)

    def drain(self) -> list[Frame]:
        """Flush the encoder; return its last frames, as `write` does."""
        return self._sink.drain()

    def finish(self, number: int, follows: int | None, lost: Callable[[], int]) -> Segment:
        """End the file, once it is drained; return what the journal says of it.

        `lost`: frames of the input that could not be decoded. Raises OutputError.
        """
        self._sink.close()
        try:
            frames, reorder = reorder_of(self.path, self._unit)
            if frames != len(self._shown):
                raise OutputError(f"{self.path} has {frames} of {len(self._shown)} frames")
            with self.path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            return Segment(
                number=number, follows=follows, file=self.path.name, frames=frames,
                first_pts=self._shown[0], last_pts=self._shown[-1], last_duration=self._duration,
                reorder=reorder, bytes=self.path.stat().st_size, sha256=digest,
                concealed=self._concealed, lost=lost(),
                ms=round(1000 * (now() - self._began), 1),
            )  # fmt: skip
        except (av.error.FFmpegError, OSError) as exc:
            raise OutputError(f"cannot read {self.path}: {reason(exc)}") from exc
