"""Encodes one segment of a video into a separate file."""

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
from vsr.media.limits import cpu_limit, processor_count
from vsr.media.sink import Sink

_MAX_THREADS: Final = 16
"""Maximum number of threads that FFmpeg's own encoders use by default."""
_X265_FRAMES: Final = ((32, 5), (16, 4), (8, 3), (4, 2))
"""(minimum number of processors, number of frames that x265 then encodes in parallel by default).
"""
_THREAD_INDEPENDENT: Final = frozenset({"libsvtav1"})
"""Encoders whose output does not depend on the number of threads."""


def encoder_threads(encoder: str) -> int | None:
    """Return an encoder's default number of threads here; None if it does not affect the output.

    An encoder's output depends on the number, so it is fixed for all segments of a run, on all
    computers.
    """
    count = cpu_limit() or processor_count()
    if encoder in _THREAD_INDEPENDENT:
        return None
    if encoder == "libx264":
        return max(1, count * 3 // 2)
    if encoder == "libx265":
        return next((frames for least, frames in _X265_FRAMES if count >= least), 1)
    return 1 if count == 1 else min(count + 1, _MAX_THREADS)


def with_threads(settings: EncoderSettings, threads: int | None) -> EncoderSettings:
    """Return the settings with that number of threads, unless they already set one."""
    if threads is None:
        return settings
    return replace(settings, options={"threads": str(threads), **settings.options})


class SegmentWriter:
    """A segment that is being encoded. Use from one thread, in a `with` block around all writing.

    The file is NUT, contains only video, and its times begin at 0.
    """

    def __init__(
        self, path: Path, first: Frame, video: VideoFormat, encoder: EncoderSettings, in_band: bool
    ) -> None:
        """`first`: the first frame of the segment. Raises UsageError and OutputError."""
        self.path = path
        self._unit = video.time_base
        begin = first.pts * first.time_base
        self._sink = Sink(path, video, encoder, offset=begin, headers_in_band=in_band)
        self._started = now()
        self._pts: list[int] = []
        self._duration = self._concealed = 0

    def __enter__(self) -> "SegmentWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._sink.__exit__()

    @property
    def frames(self) -> int:
        """Number of frames passed to `write`."""
        return len(self._pts)

    def write(self, frame: Frame) -> list[Frame]:
        """Encode a frame; return frames as `Sink.write` does."""
        self._pts.append(frame.pts)
        self._concealed += frame.event == "concealed"
        self._duration = frame.duration
        return self._sink.write(frame)

    def drain(self) -> list[Frame]:
        """Flush the encoder; return its last frames, as `write` does."""
        return self._sink.drain()

    def finish(self, number: int, follows: int | None, lost: Callable[[], int]) -> Segment:
        """Close the file, after `drain`; return the segment for the journal.

        `lost`: returns the number of input frames that could not be decoded. Raises OutputError.
        """
        self._sink.close()
        try:
            frames, reorder = reorder_of(self.path, self._unit)
            if frames != len(self._pts):
                raise OutputError(f"{self.path} contains only {frames} of {len(self._pts)} frames")
            with self.path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            return Segment(
                number=number, follows=follows, file=self.path.name, frames=frames,
                first_pts=self._pts[0], last_pts=self._pts[-1], last_duration=self._duration,
                reorder=reorder, bytes=self.path.stat().st_size, sha256=digest,
                concealed=self._concealed, lost=lost(),
                ms=round(1000 * (now() - self._started), 1),
            )  # fmt: skip
        except (av.error.FFmpegError, OSError) as exc:
            raise OutputError(f"cannot read {self.path}: {reason(exc)}") from exc
