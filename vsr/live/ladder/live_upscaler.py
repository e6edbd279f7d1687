"""Upscales each frame of a live stream by the best network that is fast enough for it."""

import math
from dataclasses import replace
from typing import Final

from vsr.inference.flicker import FlickerFilter, filters_flicker
from vsr.live.common import RelayLog
from vsr.live.ladder.controller import DROP, Ladder, LadderSettings
from vsr.live.ladder.rung_models import optional_count
from vsr.live.ladder.rungs import FALLBACK, Rungs
from vsr.live.ladder.warm_up import trial_frame
from vsr.live.settings import RelaySettings
from vsr.media.frame import Frame, Stamps, now
from vsr.report.report import Report

_TOO_SLOW: Final = (
    "{} takes {:.1f} ms per frame here, which exceeds {:.0%} of the frame interval of {:.1f} ms: "
    "{} is used until it is fast enough"
)
_FAILED_TRIALS: Final = 2
"""Number of failed trials after which the configured network is reported as too slow."""
_TIMED_FRAMES: Final = 4


class LiveUpscaler:
    """Runs the engines of a ladder, as its controller chooses. Use from one thread."""

    def __init__(
        self, rungs: Rungs, settings: RelaySettings, interval: float, report: Report, log: RelayLog
    ) -> None:
        """`interval`: frame interval of the source (s). `log` gets changes, `report` notes."""
        self._engines, self._version = rungs, rungs.version
        filtered = [filters_flicker(name, settings.flicker_filter) for name in rungs.names]
        seconds = _filter_cost(rungs) if any(filtered) else 0.0
        self._filter_costs = [seconds * each for each in filtered]
        """Time of the flicker filter per frame, by rung (s)."""
        self._costs = self._measured_costs()
        limits = LadderSettings(interval=interval, max_latency=settings.max_latency)
        self._ladder = Ladder(self._costs, limits, now())
        self._rung = self._ladder.rung
        self._flicker_filter = FlickerFilter(settings.flicker_filter)
        self._report, self._log = report, log
        self._awaits_best = optional_count(settings) == 0 and len(rungs.names) > 1
        """Whether the configured network was not used yet, and no note says why."""
        self._failed_trials = 0
        self._note_if_hopeless(self._costs[0])

    @property
    def network(self) -> str:
        """Name of the network in use."""
        return self._engines.names[self._rung]

    @property
    def changes(self) -> int:
        """Number of changes of the network so far."""
        return self._ladder.changes

    def set_interval(self, seconds: float) -> None:
        """Adopt another frame interval of the source."""
        self._ladder.set_interval(seconds, now())

    def upscale(self, frame: Frame, waiting: int, encode_s: float | None) -> Frame | None:
        """Return the enlarged frame; None if it would be late and must be dropped.

        `waiting`: number of frames queued behind it; `encode_s`: time for encoding and writing (s),
        None if unknown. Raises BackendError if even bicubic fails.
        """
        if encode_s is not None:
            self._ladder.record_encoding(encode_s)
        if self._version != self._engines.version:
            self._update_costs()
        rung = self._ladder.choose(now(), frame.stamps.read, waiting)
        if rung == DROP:
            return None
        self._change_to(rung)
        began = now()
        done = self._flicker_filter.filtered(frame, self._engines.upscale(frame, rung))
        if done.event != FALLBACK:
            self._ladder.record_cost(rung, now() - began)
        elif self._engines.is_disabled(rung):
            self._ladder.exclude(rung)
        return done

    def try_better_network(self, frame: Frame, waiting: int) -> None:
        """Time a better network on a copy of a sent frame, if the ladder needs to know."""
        rung = self._ladder.rung_to_try(now(), waiting)
        if rung is None:
            return
        began = now()
        copy = replace(frame, stamps=Stamps(), event="")
        if self._engines.upscale(copy, rung).event == FALLBACK:
            self._ladder.record_trial(rung, None, now())
            if self._engines.is_disabled(rung):
                self._ladder.exclude(rung)
            return
        took = now() - began + self._filter_costs[rung]
        if not self._ladder.record_trial(rung, took, now()) and rung == 0:
            self._failed_trials += 1
            if self._failed_trials >= _FAILED_TRIALS:
                self._note_too_slow(took)

    def _update_costs(self) -> None:
        """Update the ladder's costs after engines were loaded or replaced. Raises BackendError."""
        self._version = self._engines.version
        if self._engines.failure is not None:
            raise self._engines.failure
        costs = self._measured_costs()
        for rung in reversed(range(len(costs))):
            if costs[rung] != self._costs[rung]:
                self._ladder.set_cost(rung, costs[rung], now())
        self._costs = costs
        self._note_if_hopeless(costs[0])

    def _measured_costs(self) -> list[float]:
        return [a + b for a, b in zip(self._engines.costs, self._filter_costs, strict=True)]

    def _change_to(self, rung: int) -> None:
        self._awaits_best = self._awaits_best and rung != 0
        if rung != self._rung:
            names = self._engines.names
            self._log.info("switched to network %s, was %s", names[rung], self.network)
            self._rung = rung

    def _note_if_hopeless(self, seconds: float) -> None:
        """Note that the configured network is too slow if the ladder will not even try it."""
        if not math.isinf(seconds) and self._ladder.is_hopeless(seconds):
            self._note_too_slow(seconds)

    def _note_too_slow(self, seconds: float) -> None:
        if self._awaits_best:
            self._awaits_best = False
            limits, name = self._ladder.settings, self._engines.names[0]
            note = _TOO_SLOW.format(
                name, 1000 * seconds, limits.max_load, 1000 * limits.interval, self.network
            )
            self._report.notes.append(note)
            self._log.warning("%s", note)


def _filter_cost(rungs: Rungs) -> float:
    """Measure the flicker filter on frames of the rungs' sizes; return the time per frame (s)."""
    before = trial_frame(rungs.size, rungs.planes)
    after = replace(trial_frame(rungs.out_size, rungs.planes), rung=rungs.names[0])
    flicker_filter, times = FlickerFilter(), list[float]()
    for _ in range(_TIMED_FRAMES):
        began = now()
        flicker_filter.filtered(before, after)
        times.append(now() - began)
    return min(times[1:])  # the first frame is not filtered
