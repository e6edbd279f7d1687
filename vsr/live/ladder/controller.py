"""Chooses the network for each frame of a live stream so that it is sent in time.

A relay meets its deadline by lowering quality, never by adding delay. The rungs range from the
configured network down to bicubic. The ladder steps down immediately if the next frame or those
queued behind it would be late. It climbs only with headroom and after a delay (patience), which
doubles each time a climb has to be reverted. A rung that is lost, or slower on this computer than a
better one, is skipped. The code only computes with times passed by the caller: no clock, no thread.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

DROP: Final = -1
"""Returned instead of a rung: even the lightest would be late, and a newer frame waits."""
_SMOOTHING: Final = 0.1
"""Weight of the newest time in a rung's mean and spread (after RFC 6298, section 2)."""
_DECAY: Final = 0.97
"""Decay per second of a rung's cost above its best, because system load is temporary."""
_MAX_TRIAL_COST: Final = 2.0
"""Estimated cost, in frame intervals, up to which a rung is tried again with a single frame."""


@dataclass(frozen=True, kw_only=True)
class LadderSettings:
    """Limits of a ladder; times in seconds."""

    interval: float
    """Frame interval of the source."""
    max_latency: float
    """Limit of the time from a frame's arrival to its packet."""
    encode_s: float = 0.02
    """Initial estimate of the time for encoding and writing, before it is measured."""
    max_load: float = 0.85
    """Largest cost of a rung, as a fraction of the interval, at which the ladder climbs to it."""
    patience: float = 10.0
    """Delay before the first climb."""
    longest_patience: float = 300.0


@dataclass
class _Cost:
    """Time per frame of one rung: mean, spread and best mean so far (s)."""

    mean: float
    spread: float = 0.0
    best: float = float("inf")

    @property
    def upper_estimate(self) -> float:
        """Upper estimate for the next frame."""
        return self.mean + 2 * self.spread

    def add(self, seconds: float) -> None:
        self.spread += _SMOOTHING * (abs(seconds - self.mean) - self.spread)
        self.mean += _SMOOTHING * (seconds - self.mean)
        self.best = min(self.best, self.mean)

    def average_with(self, seconds: float) -> None:
        """Average the mean with a single newer time, with equal weights."""
        self.mean = (self.mean + seconds) / 2
        self.spread /= 2
        self.best = min(self.best, self.mean)

    def decay(self, seconds: float) -> None:
        """Decay towards the best mean after `seconds` without a measurement."""
        factor = _DECAY**seconds
        best = min(self.best, self.mean)
        self.mean = best + (self.mean - best) * factor
        self.spread *= factor


class Ladder:
    """Picks rungs from measured times. Not thread-safe."""

    def __init__(self, costs: Sequence[float], settings: LadderSettings, now: float) -> None:
        """`costs` are measured seconds per frame, best rung first; starts at the best that fits."""
        self.settings = settings
        self._costs = [_Cost(mean=cost, best=cost) for cost in costs]
        self._patience = settings.patience
        self._changed_at = self._last_time = now
        self._climbed_at: float | None = None
        self._last_trial_at = now
        self._trial_delay = settings.patience
        """Delay before the next trial of a rung above (s); doubles after each failed trial."""
        self.encode_s = settings.encode_s
        """Smoothed time for encoding and writing (s)."""
        self.changes = 0
        self.rung = next(
            (k for k, cost in enumerate(self._costs) if self._has_headroom(cost)), len(costs) - 1
        )

    def choose(self, now: float, arrived: float, waiting: int) -> int:
        """Return the rung for a frame with `waiting` more queued behind it, or `DROP`.

        Occasionally returns a higher rung for a single frame, because its cost may have been
        measured under load; `rung` is unchanged by that.
        """
        self._decay_costs(now)
        left = arrived + self.settings.max_latency - self.encode_s - now
        if not self._is_in_time(self.rung, left, waiting):
            self._step_down(now, left, waiting)
        elif (above := self._rung_to_climb_to(now, left, waiting)) is not None:
            self._change_to(above, now)
            self._climbed_at = now
        elif (above := self._rung_to_try(now, left, waiting)) is not None:
            self._last_trial_at = now
            return above
        if waiting and self._costs[-1].mean > left and self.rung == len(self._costs) - 1:
            return DROP
        return self.rung

    def record_cost(self, rung: int, seconds: float) -> None:
        """Record how long a frame took on a rung (s)."""
        if rung == self.rung:
            self._costs[rung].add(seconds)
            return
        self._costs[rung].average_with(seconds)
        good, settings = self._has_headroom(self._costs[rung]), self.settings
        longer = min(2 * self._trial_delay, settings.longest_patience)
        self._trial_delay = settings.patience if good else longer

    def record_encoding(self, seconds: float) -> None:
        """Record the time of encoding and writing (s), clipped to half of the latency limit."""
        self.encode_s += _SMOOTHING * (min(seconds, self.settings.max_latency / 2) - self.encode_s)

    def set_cost(self, rung: int, seconds: float, now: float) -> None:
        """Set the cost of a rung's new engine; switch to a better rung immediately."""
        self._costs[rung] = _Cost(mean=seconds, best=seconds)
        if rung < self.rung and self._has_headroom(self._costs[rung]):
            self._change_to(rung, now)

    def exclude(self, rung: int) -> None:
        """Exclude a rung whose engine failed permanently."""
        self._costs[rung] = _Cost(mean=float("inf"))

    def _has_headroom(self, cost: _Cost) -> bool:
        """Return whether a rung keeps up with the source, with headroom."""
        return cost.upper_estimate <= self.settings.max_load * self.settings.interval

    def _is_in_time(self, rung: int, left: float, waiting: int) -> bool:
        """Return whether a rung is in time for this frame and the queue behind it."""
        cost = self._costs[rung]
        # the k-th queued frame has k more intervals, and k + 1 frames are computed until then
        behind = waiting * (cost.mean - self.settings.interval)
        return cost.mean + max(0.0, behind) <= left and cost.upper_estimate <= max(left, 0)

    def _step_down(self, now: float, left: float, waiting: int) -> None:
        lighter = range(self.rung + 1, len(self._costs))
        fitting = (k for k in lighter if self._is_in_time(k, left, waiting) and self._keeps_up(k))
        target = next(fitting, len(self._costs) - 1)
        if target == self.rung:
            return
        if self._climbed_at is not None and now - self._climbed_at < self._patience:
            self._patience = min(2 * self._patience, self.settings.longest_patience)
        self._change_to(target, now)

    def _keeps_up(self, rung: int) -> bool:
        return self._costs[rung].mean <= self.settings.interval

    def _rung_to_climb_to(self, now: float, left: float, waiting: int) -> int | None:
        """Return the nearest higher rung that keeps up, to climb to; None if it is not time."""
        if waiting or now - self._changed_at < self._patience:
            return None
        above = self._nearest_above(self._has_headroom)
        return above if above is not None and self._costs[above].upper_estimate <= left else None

    def _rung_to_try(self, now: float, left: float, waiting: int) -> int | None:
        """Return the higher rung to try with a single frame; None if it is not time."""
        pause = now - max(self._changed_at, self._last_trial_at)
        if waiting or pause < self._trial_delay:
            return None
        most = _MAX_TRIAL_COST * self.settings.interval
        above = self._nearest_above(lambda cost: cost.mean <= most)
        return (
            above if above is not None and self._costs[above].upper_estimate <= left / 2 else None
        )

    def _nearest_above(self, suits: Callable[[_Cost], bool]) -> int | None:
        return next((k for k in reversed(range(self.rung)) if suits(self._costs[k])), None)

    def _change_to(self, rung: int, now: float) -> None:
        self.rung, self._changed_at = rung, now
        self._climbed_at = None
        self._trial_delay = self.settings.patience
        self.changes += 1

    def _decay_costs(self, now: float) -> None:
        passed, self._last_time = now - self._last_time, now
        for rung, cost in enumerate(self._costs):
            if rung != self.rung and cost.mean != float("inf"):
                cost.decay(passed)
