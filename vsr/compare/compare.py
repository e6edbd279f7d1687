"""Reads videos side by side and measures each against a reference."""

import contextlib
import operator
import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Final

from vsr.compare.match import FrameMatcher
from vsr.compare.moments import MomentSelector
from vsr.compare.picture import to_rgb
from vsr.compare.result import Comparison, Row, VideoFacts
from vsr.compare.scores import VMAF, ScoredPicture, Scorer, has_vmaf, supported_filters
from vsr.errors import InputError, InterruptedRunError, UsageError
from vsr.files.frames import Reader, frames
from vsr.media.frame import Frame
from vsr.media.location import is_url, url_for_messages

if TYPE_CHECKING:
    from vsr.compare.lpips import Lpips

_MAX_DISTORTION: Final = 0.02
"""Relative difference of aspect ratios up to which a video counts as undistorted: sizes are rounded
to even numbers."""


@dataclass(frozen=True, kw_only=True)
class CompareSettings:
    """Settings of a comparison. Raises UsageError for numbers out of range."""

    max_frames: int | None = None
    """Maximum number of frames to compare; None: all."""
    lpips: Path | None = None
    """Path of the LPIPS weights (.npz); None: LPIPS is not measured."""
    align: bool = False
    """Whether times count from each video's first frame; otherwise they are used unchanged."""

    def __post_init__(self) -> None:
        if self.max_frames is not None and self.max_frames < 1:
            raise UsageError(f"max_frames is {self.max_frames}: it must be 1 or more")


def compare(
    videos: Sequence[str | os.PathLike[str]],
    reference: str | os.PathLike[str] | None = None,
    settings: CompareSettings | None = None,
    *,
    on_progress: Callable[[int], None] | None = None,
    stop: Event | None = None,
) -> Comparison:
    """Measure `videos` against `reference`; if it is None, against the first of them.

    `on_progress` receives the number of finished frames, on the calling thread. Raises UsageError
    for fewer than two videos, InputError if a video or the LPIPS weights cannot be read or no
    frames match, and InterruptedRunError if `stop` is set.
    """
    settings = settings or CompareSettings()
    names = [os.fspath(name) for name in ((reference,) if reference else ()) + tuple(videos)]
    if len(names) < 2:
        raise UsageError("give two videos to compare, or one and --reference or --models")
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(frames(name)) for name in names]
        run = _Run(readers, settings)
        for done in run:
            if stop is not None and stop.is_set():
                raise InterruptedRunError("stopped: nothing was written")
            if on_progress:
                on_progress(done)
        return run.result(has_original=reference is not None)


class _Run:
    """The state of a running comparison."""

    def __init__(self, readers: Sequence[Reader], settings: CompareSettings) -> None:
        self._readers, self._settings = readers, settings
        self._matcher = FrameMatcher(readers, settings.align)
        self._scorer, self._selector = Scorer(), MomentSelector()
        self._lpips = _lpips(settings.lpips) if settings.lpips else None
        self._matched = 0
        """Number of matches so far."""
        self._pending_times: deque[float] = deque()
        """Times of the matches that the filters still delay."""
        self._rows: list[Row] = []
        self._first_frames: Sequence[Frame] = ()
        self._common_size: tuple[int, int] = (0, 0)

    def __iter__(self) -> "_Run":
        self._pairs = iter(self._matcher)
        return self

    def __next__(self) -> int:
        """Measure the next matching frames; return the number of matches so far."""
        done = self._matched == self._settings.max_frames
        matched = None if done else next(self._pairs, None)
        if matched is None:
            for scored in self._scorer.flush():
                self._add_row(scored)
            raise StopIteration
        self._first_frames = self._first_frames or matched
        self._matched += 1
        self._pending_times.append(float(matched[0].pts * matched[0].time_base))
        for scored in self._scorer.push(matched):
            self._add_row(scored)
        return self._matched

    def _add_row(self, scored: tuple[ScoredPicture, ...]) -> None:
        index = len(self._rows)
        time = self._pending_times.popleft()
        values = tuple(
            each.values | ({} if each.flicker is None else {"flicker": each.flicker})
            for each in scored[1:]
        )
        values = tuple(map(operator.or_, values, self._lpips_values(scored)))
        self._rows.append(Row(time, values, scored[0].flicker))
        self._common_size = (scored[0].picture.width, scored[0].picture.height)
        self._selector.add(index, time, scored)

    def _lpips_values(self, scored: tuple[ScoredPicture, ...]) -> list[dict[str, float]]:
        """Return {"lpips": value} for each video; an empty dict if LPIPS is not measured."""
        if self._lpips is None:
            return [{} for _ in scored[1:]]
        pictures = [
            to_rgb(each.picture, frame.colour)
            for each, frame in zip(scored, self._first_frames, strict=True)
        ]
        distances = [self._lpips(pictures[0], other) for other in pictures[1:]]
        return [{} if value is None else {"lpips": value} for value in distances]

    def result(self, has_original: bool) -> Comparison:
        """Return the results. Raise InputError if no frames matched."""
        if not self._rows:
            raise InputError(self._no_match_message())
        facts = [self._video_facts(k) for k in range(len(self._readers))]
        return Comparison(
            reference=facts[0],
            videos=facts[1:],
            size=self._common_size,
            peak=2 ** self._first_frames[0].format.bits - 1,
            has_original=has_original,
            rows=self._rows,
            moments=self._selector.moments(),
            notes=self._notes(facts),
            unmatched_frames=tuple(self._matcher.unmatched_frames),
            colours=[frame.colour for frame in self._first_frames],
        )

    def _no_match_message(self) -> str:
        names = " and ".join(_display_name(reader.path) for reader in self._readers)
        starts = ", ".join(f"{float(start):.3f} s" for start in self._matcher.starts)
        return f"no frames of {names} have matching times (first frames at {starts}): try --align"

    def _video_facts(self, k: int) -> VideoFacts:
        reader = self._readers[k]
        info, path = reader.info, Path(reader.path)
        return VideoFacts(
            name=_display_name(reader.path),
            size=(info.width, info.height),
            rate=info.rate,
            codec=info.codec,
            pixel_format=info.pixel_format,
            seconds=round((info.frames or len(self._rows)) / float(info.rate), 3),
            bytes=path.stat().st_size if path.is_file() else None,
        )

    def _notes(self, facts: Sequence[VideoFacts]) -> list[str]:
        notes = []
        width, height = self._common_size
        for fact in facts:
            if fact.size != self._common_size:
                note = f"{fact.name} was upscaled to {width}x{height} (bicubic) for the comparison"
                ratio = fact.size[0] * height / (fact.size[1] * width)
                distorted = abs(ratio - 1) > _MAX_DISTORTION
                notes.append(f"{note}, which distorts it: crop it first" if distorted else note)
        for k, fact in enumerate(facts):
            if count := self._matcher.unmatched_frames[k]:
                notes.append(f"{count} frames of {fact.name} have no matching frame: skipped")
        first = self._first_frames[0]
        for frame, fact in zip(self._first_frames[1:], facts[1:], strict=True):
            if frame.format.bits != first.format.bits or fact.pixel_format != facts[0].pixel_format:
                notes.append(
                    f"{fact.name} was converted to the reference's pixel format "
                    f"({facts[0].pixel_format}) for the comparison"
                )
            if frame.colour != first.colour:
                notes.append(f"{fact.name} has other colour tags than the reference")
        for name in sorted({"ssim", "xpsnr"} - set(supported_filters(self._common_size))):
            notes.append(f"{name.upper()} was not measured: the frames are too small")
        if self._lpips is not None and min(self._common_size) < (least := self._lpips.smallest):
            notes.append(f"LPIPS was not measured: it needs frames of {least}x{least} or more")
        if not has_vmaf():
            notes.append(f"VMAF was not measured: PyAV's FFmpeg is built without {VMAF}")
        return notes


def _lpips(weights: Path) -> "Lpips":
    from vsr.compare.lpips import Lpips  # imports OpenVINO, which nothing else here needs

    return Lpips(weights)


def _display_name(path: str) -> str:
    """Return the file's name, or the URL without its secrets."""
    return url_for_messages(path) if is_url(path) else Path(path).name
