"""Upscales each frame of a live stream by the best network that is fast enough for it."""

import math
from dataclasses import replace
from typing import Final

from vsr.inference.flicker import FlickerFilter
from vsr.live.common import RelayLog
from vsr.live.ladder.controller import DROP, Ladder, LadderSettings
from vsr.live.ladder.rung_models import optional_count
from vsr.live.ladder.rungs import FALLBACK, Rungs
from vsr.live.settings import RelaySettings
from vsr.media.frame import Frame, Stamps, now
from vsr.report.report import Report

_TOO_SLOW: Final = (
    "{} takes {:.1f} ms per frame here, but frames arrive every {:.1f} ms: {} is used until it is "
    "fast enough"
)


class LiveUpscaler:
    """Runs the engines of a ladder, as its controller chooses. Use from one thread."""

    def __init__(
        self, rungs: Rungs, settings: RelaySettings, interval: float, report: Report, log: RelayLog
    ) -> None:
        """`interval`: frame interval of the source (s). `log` gets changes, `report` notes."""
        self._engines, self._version, self._costs = rungs, rungs.version, rungs.costs
        limits = LadderSettings(interval=interval, max_latency=settings.max_latency)
        self._ladder = Ladder(self._costs, limits, now())
        self._rung = self._ladder.rung
        self._flicker_filter = FlickerFilter(settings.flicker_filter)
        self._report, self._log = report, log
        self._awaits_best = optional_count(settings) == 0
        """Whether the configured network was not used yet, and no note says why."""
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
        self._ladder.settings = replace(self._ladder.settings, interval=seconds)

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
        took = now() - began
        if not self._ladder.record_trial(rung, took, now()) and rung == 0:
            self._note_too_slow(took)

    def _update_costs(self) -> None:
        """Update the ladder's costs after engines were loaded or replaced. Raises BackendError."""
        self._version = self._engines.version
        if self._engines.failure is not None:
            raise self._engines.failure
        costs = self._engines.costs
        for rung in reversed(range(len(costs))):
            if costs[rung] != self._costs[rung]:
                self._ladder.set_cost(rung, costs[rung], now())
        self._costs = costs
        self._note_if_hopeless(costs[0])

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
            interval_ms = 1000 * self._ladder.settings.interval
            names = self._engines.names
            note = _TOO_SLOW.format(names[0], 1000 * seconds, interval_ms, self.network)
            self._report.notes.append(note)
            self._log.warning("%s", note)
