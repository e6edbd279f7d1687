"""Chooses the network for each frame of a live stream so that it is sent in time.

A relay meets its deadline by lowering quality, never by adding delay. The rungs range from the
configured network down to bicubic. The ladder steps down immediately if the next frame or those
queued behind it would be late. It climbs after a delay (patience), to the best rung that is fast
enough in several trials on copies of sent frames, which nobody sees. The patience doubles each time
a climb has to be reverted, the delay before the next trial with each failed one. The code only
computes with times passed by the caller: no clock, no thread.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

DROP: Final = -1
"""Returned instead of a rung: even the lightest would be late, and a newer frame waits."""
_SMOOTHING: Final = 0.1
"""Weight of the newest time in a rung's mean and spread (after RFC 6298, section 2)."""
_RECENT: Final = 2
"""Number of newest times whose minimum is the current speed: a single slow frame is no load."""
_DECAY: Final = 0.9
"""Decay per second of a rung's cost above its best, because system load is temporary."""
_MAX_TRIAL_COST: Final = 2.0
"""Estimated cost, in frame intervals, up to which a rung is tried."""
_FIRST_TRIAL_S: Final = 1.0
"""Delay before the first trial of a new engine: it was timed while other work went on."""
_GOOD_TRIALS: Final = 3
"""Number of successive good trials after which the ladder climbs."""
_CONFIRM_S: Final = 0.5
"""Delay between these trials, in seconds."""


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
    """Delay from stepping down to the first trial of a better rung, and from it to the second."""
    longest_patience: float = 300.0


@dataclass
class _Rung:
    """Time per frame of one rung: mean, spread and lowest mean so far (s); and its next trial."""

    mean: float
    trial_at: float
    """Time from which on it may be tried."""
    trial_delay: float
    """Delay from a failed trial to the next one (s)."""
    spread: float = 0.0
    best: float = float("inf")
    good_trials: int = 0
    """Number of successive good trials."""
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))
    """Its newest times since the ladder changed to it."""

    def __post_init__(self) -> None:
        self.best = min(self.best, self.mean)

    @property
    def upper_estimate(self) -> float:
        """Upper estimate for the next frame."""
        return self.mean + 2 * self.spread

    @property
    def current(self) -> float:
        """Minimum of the newest times; 0 if there are too few."""
        return min(self.recent) if len(self.recent) == _RECENT else 0.0

    def add(self, seconds: float) -> None:
        self.recent.append(seconds)
        self.spread += _SMOOTHING * (abs(seconds - self.mean) - self.spread)
        self.mean += _SMOOTHING * (seconds - self.mean)
        self.best = min(self.best, self.mean)

    def adopt(self, seconds: float) -> None:
        """Adopt the time of a trial: earlier times are older, and under another load."""
        self.mean, self.spread = seconds, 0.0
        self.best = min(self.best, seconds)

    def decay(self, seconds: float) -> None:
        """Decay towards the best mean after `seconds` without a measurement."""
        factor = _DECAY**seconds
        self.mean = self.best + (self.mean - self.best) * factor
        self.spread *= factor


class Ladder:
    """Picks rungs from measured times. Not thread-safe."""

    def __init__(self, costs: Sequence[float], settings: LadderSettings, now: float) -> None:
        """`costs` are measured seconds per frame, best rung first; starts at the best that fits."""
        self.settings = settings
        self.encode_s = settings.encode_s
        """Smoothed time for encoding and writing (s)."""
        self._rungs = [self._new_rung(cost, now) for cost in costs]
        self._patience = settings.patience
        self._last_time = now
        self._climbed_at: float | None = None
        self.changes = 0
        fitting = (k for k, rung in enumerate(self._rungs) if self._has_headroom(rung))
        self.rung = next(fitting, len(costs) - 1)

    def choose(self, now: float, arrived: float, waiting: int) -> int:
        """Return the rung for a frame with `waiting` more queued behind it, or `DROP`."""
        self._decay_costs(now)
        left = arrived + self.settings.max_latency - self.encode_s - now
        if not self._is_in_time(self.rung, left, waiting):
            self._step_down(now, left, waiting)
        if waiting and self._rungs[-1].mean > left and self.rung == len(self._rungs) - 1:
            return DROP
        return self.rung

    def record_cost(self, rung: int, seconds: float) -> None:
        """Record how long a frame took on the rung in use (s)."""
        self._rungs[rung].add(seconds)

    def record_encoding(self, seconds: float) -> None:
        """Record the time of encoding and writing (s), clipped to half of the latency limit."""
        self.encode_s += _SMOOTHING * (min(seconds, self.settings.max_latency / 2) - self.encode_s)

    def rung_to_try(self, now: float, waiting: int) -> int | None:
        """Return a better rung to time now on a copy of a sent frame; None for none.

        `waiting`: number of frames queued, which a trial would delay.
        """
        if waiting:
            return None
        # a trial delays the next frame at most by its own time
        spare = self._longest_s - self._rungs[self.rung].mean
        for k, rung in enumerate(self._rungs[: self.rung]):
            if self.is_hopeless(rung.mean) or rung.upper_estimate > spare:
                continue
            if now >= rung.trial_at:
                return k
            if rung.good_trials:  # it is to be confirmed first
                return None
        return None

    def is_hopeless(self, seconds: float) -> bool:
        """Return whether a rung that takes so long is not even tried."""
        return seconds > _MAX_TRIAL_COST * self.settings.interval

    def record_trial(self, number: int, seconds: float | None, now: float) -> bool:
        """Record how long a trial took (s), None if it failed; return whether it was good."""
        rung = self._rungs[number]
        if seconds is not None:
            rung.adopt(seconds)
        if seconds is None or not self._has_headroom(rung):
            rung.good_trials = 0
            rung.trial_at = now + rung.trial_delay
            rung.trial_delay = min(2 * rung.trial_delay, self.settings.longest_patience)
            return False
        rung.good_trials += 1
        rung.trial_at = now + _CONFIRM_S
        if rung.good_trials >= _GOOD_TRIALS and number < self.rung:
            self._change_to(number, now)
            self._climbed_at = now
        return True

    def set_cost(self, number: int, seconds: float, now: float) -> None:
        """Set the cost of a rung's new engine; switch to a better rung immediately."""
        self._rungs[number] = self._new_rung(seconds, now)
        if number < self.rung and self._has_headroom(self._rungs[number]):
            self._change_to(number, now)

    def set_interval(self, seconds: float, now: float) -> None:
        """Adopt another frame interval of the source; trials at the old one do not count."""
        if seconds != self.settings.interval:
            self.settings = replace(self.settings, interval=seconds)
            for rung in self._rungs[: self.rung]:
                rung.trial_at, rung.good_trials = now + _FIRST_TRIAL_S, 0
                rung.trial_delay = self.settings.patience

    def exclude(self, number: int) -> None:
        """Exclude a rung whose engine failed permanently."""
        self._rungs[number] = self._new_rung(float("inf"), self._last_time)

    def _new_rung(self, cost: float, now: float) -> _Rung:
        delay = self.settings.patience
        return _Rung(mean=cost, trial_at=now + _FIRST_TRIAL_S, trial_delay=delay)

    def _has_headroom(self, rung: _Rung) -> bool:
        """Return whether a rung keeps up with the source, with headroom, and within the latency."""
        most = min(self.settings.max_load * self.settings.interval, self._longest_s)
        return rung.upper_estimate <= most

    @property
    def _longest_s(self) -> float:
        """Longest time that a frame may take (s), if it does not wait."""
        return self.settings.max_latency - self.encode_s

    def _is_in_time(self, number: int, left: float, waiting: int) -> bool:
        """Return whether a rung is in time for this frame and the queue behind it."""
        cost, least = self._rungs[number], self._under_load(number)
        # the k-th queued frame has k more intervals, and k + 1 frames are computed until then
        mean = max(cost.mean, least)
        behind = waiting * (mean - self.settings.interval)
        return mean + max(0.0, behind) <= left and max(cost.upper_estimate, least) <= max(left, 0)

    def _under_load(self, number: int) -> float:
        """Return a rung's expected time, from the current speed of the rung in use (s)."""
        used = self._rungs[self.rung]
        if number == self.rung or used.best == 0:
            return used.current
        return self._rungs[number].best * max(1.0, used.current / used.best)

    def _step_down(self, now: float, left: float, waiting: int) -> None:
        lighter = range(self.rung + 1, len(self._rungs))
        fitting = (k for k in lighter if self._is_in_time(k, left, waiting) and self._keeps_up(k))
        target = next(fitting, len(self._rungs) - 1)
        if target == self.rung:
            return
        if self._climbed_at is not None and now - self._climbed_at < self._patience:
            self._patience = min(2 * self._patience, self.settings.longest_patience)
        self._change_to(target, now)

    def _keeps_up(self, number: int) -> bool:
        return max(self._rungs[number].mean, self._under_load(number)) <= self.settings.interval

    def _change_to(self, number: int, now: float) -> None:
        self.rung = number
        self._rungs[number].recent.clear()
        for rung in self._rungs[:number]:
            rung.trial_at, rung.good_trials = now + self._patience, 0
            rung.trial_delay = self.settings.patience
        self._climbed_at = None
        self.changes += 1

    def _decay_costs(self, now: float) -> None:
        passed, self._last_time = now - self._last_time, now
        for number, rung in enumerate(self._rungs):
            if number != self.rung and rung.mean != float("inf"):
                rung.decay(passed)
