"""FrameMatcher the frames of several videos by their times."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from vsr.files.frames import Reader
from vsr.media.frame import Frame

_TOLERANCE = Fraction(2, 5)
"""Maximum time difference of matching frames, in frame durations of the highest rate: larger than
the rounding of times in containers, smaller than the distance to a neighbouring frame."""


@dataclass
class FrameMatcher:
    """Yields the frames that all videos have at the same time, in order; iterate once.

    If two frames of a video are near enough, as a variable rate allows, the nearer one is taken.
    With `align`, times count from each video's first frame. Reading stops at the end of the
    shortest video. Use from one thread.
    """

    readers: Sequence[Reader]
    align: bool = False
    starts: list[Fraction] = field(init=False)
    """Presentation time of each video's first frame, in seconds."""
    unmatched_frames: list[int] = field(init=False)
    """Number of frames of each video without a match, up to the end of the shortest video."""

    def __post_init__(self) -> None:
        self.unmatched_frames = [0] * len(self.readers)
        self.starts = []

    def __iter__(self) -> Iterator[tuple[Frame, ...]]:
        tolerance = _TOLERANCE / max(reader.info.rate for reader in self.readers)
        videos = [iter(reader) for reader in self.readers]
        current = [next(video, None) for video in videos]
        following = [next(video, None) for video in videos]
        while True:
            frames = [frame for frame in current if frame is not None]
            if len(frames) < len(current):
                return
            self.starts = self.starts or [_time(frame) for frame in frames]
            shifts = self.starts if self.align else [Fraction(0)] * len(frames)
            times = [_time(frame) - shift for frame, shift in zip(frames, shifts, strict=True)]
            latest = max(times)
            behind = [
                latest - time > tolerance
                or (after is not None and abs(_time(after) - shift - latest) < latest - time)
                for time, after, shift in zip(times, following, shifts, strict=True)
            ]
            if not any(behind):
                yield tuple(frames)
            for k, video in enumerate(videos):
                if behind[k] or not any(behind):
                    self.unmatched_frames[k] += behind[k]
                    current[k], following[k] = following[k], next(video, None)


def _time(frame: Frame) -> Fraction:
    return frame.pts * frame.time_base
