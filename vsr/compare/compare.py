"""Reads videos side by side and measures each against a reference."""

import contextlib
import operator
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from vsr.compare.keep import Keeper
from vsr.compare.match import Matches
from vsr.compare.picture import rgb
from vsr.compare.result import Comparison, Row, VideoFacts
from vsr.compare.scores import VMAF, Scored, Scorer, filters_for, has_vmaf
from vsr.errors import InputError, InterruptedRunError, UsageError
from vsr.files.frames import Reader, frames
from vsr.media.frame import Frame
from vsr.media.location import is_url, url_for_messages

if TYPE_CHECKING:
    from vsr.compare.lpips import Lpips


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
        work = _Work(readers, settings)
        for done in work:
            if stop is not None and stop.is_set():
                raise InterruptedRunError("stopped: nothing was written")
            if on_progress:
                on_progress(done)
        return work.result(original=reference is not None)


class _Work:
    """The state of a running comparison."""

    def __init__(self, readers: Sequence[Reader], settings: CompareSettings) -> None:
        self._readers, self._settings = readers, settings
        self._matches = Matches(readers, settings.align)
        self._scorer, self._keeper = Scorer(), Keeper()
        self._lpips = _lpips(settings.lpips) if settings.lpips else None
        self._times: list[float] = []
        self._rows: list[Row] = []
        self._first: Sequence[Frame] = ()
        self._common: tuple[int, int] = (0, 0)

    def __iter__(self) -> "_Work":
        self._pairs = iter(self._matches)
        return self

    def __next__(self) -> int:
        """Measure the next matching frames; return the number of matches so far."""
        most = self._settings.max_frames
        matched = None if most == len(self._times) else next(self._pairs, None)
        if matched is None:
            for scored in self._scorer.rest():
                self._take(scored)
            raise StopIteration
        self._first = self._first or matched
        self._times.append(float(matched[0].pts * matched[0].time_base))
        for scored in self._scorer.feed(matched):
            self._take(scored)
        return len(self._times)

    def _take(self, scored: tuple[Scored, ...]) -> None:
        index = len(self._rows)
        time = self._times[index]
        values = tuple(
            each.values | ({} if each.flicker is None else {"flicker": each.flicker})
            for each in scored[1:]
        )
        values = tuple(map(operator.or_, values, self._looks(scored)))
        self._rows.append(Row(time, values, scored[0].flicker))
        self._common = (scored[0].picture.width, scored[0].picture.height)
        self._keeper.see(index, time, scored)

    def _looks(self, scored: tuple[Scored, ...]) -> list[dict[str, float]]:
        """Return {"lpips": value} for each video; an empty dict if LPIPS is not measured."""
        if self._lpips is None:
            return [{} for _ in scored[1:]]
        pictures = [
            rgb(each.picture, frame.colour) for each, frame in zip(scored, self._first, strict=True)
        ]
        found = [self._lpips(pictures[0], other) for other in pictures[1:]]
        return [{} if value is None else {"lpips": value} for value in found]

    def result(self, original: bool) -> Comparison:
        """Return the results. Raise InputError if no frames matched."""
        if not self._rows:
            raise InputError(self._why_nothing())
        facts = [self._facts(k) for k in range(len(self._readers))]
        return Comparison(
            reference=facts[0],
            videos=facts[1:],
            size=self._common,
            peak=2 ** self._first[0].format.bits - 1,
            original=original,
            rows=self._rows,
            moments=self._keeper.moments(),
            notes=self._notes(facts),
            alone=tuple(self._matches.alone),
            colours=[frame.colour for frame in self._first],
        )

    def _why_nothing(self) -> str:
        names = " and ".join(_short(reader.path) for reader in self._readers)
        starts = ", ".join(f"{float(start):.3f} s" for start in self._matches.starts)
        return f"no frames of {names} have the same times (they begin at {starts}): try --align"

    def _facts(self, k: int) -> VideoFacts:
        reader = self._readers[k]
        info, path = reader.info, Path(reader.path)
        return VideoFacts(
            name=_short(reader.path),
            size=(info.width, info.height),
            rate=info.rate,
            codec=info.codec,
            pixel_format=info.pixel_format,
            seconds=round((info.frames or len(self._rows)) / float(info.rate), 3),
            bytes=path.stat().st_size if path.is_file() else None,
        )

    def _notes(self, facts: Sequence[VideoFacts]) -> list[str]:
        notes = []
        size = "x".join(map(str, self._common))
        for fact in facts:
            if fact.size != self._common:
                notes.append(f"{fact.name} was enlarged to {size} (bicubic) to be compared")
        for k, fact in enumerate(facts):
            if alone := self._matches.alone[k]:
                notes.append(f"{alone} frames of {fact.name} have no partner and were left out")
        first = self._first[0]
        for frame, fact in zip(self._first[1:], facts[1:], strict=True):
            if frame.format.bits != first.format.bits or fact.pixel_format != facts[0].pixel_format:
                notes.append(f"{fact.name} was measured in the reference's {facts[0].pixel_format}")
            if frame.colour != first.colour:
                notes.append(f"{fact.name} is tagged with another colour than the reference")
        for name in sorted({"ssim", "xpsnr"} - set(filters_for(self._common))):
            notes.append(f"{name.upper()} was not measured: the pictures are too small for it")
        if self._lpips is not None and min(self._common) < (least := self._lpips.smallest):
            notes.append(f"LPIPS was not measured: it takes pictures of {least} pixels a side")
        if not has_vmaf():
            notes.append(f"VMAF was not measured: the FFmpeg inside PyAV has no {VMAF}")
        return notes


def _lpips(weights: Path) -> "Lpips":
    from vsr.compare.lpips import Lpips  # imports OpenVINO, which nothing else here needs

    return Lpips(weights)


def _short(path: str) -> str:
    """Return the file's name, or the URL without its secrets."""
    return url_for_messages(path) if is_url(path) else Path(path).name
