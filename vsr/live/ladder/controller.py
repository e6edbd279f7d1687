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
_FORGIVING: Final = 0.97
"""Decay per second of a rung's cost above its best, because system load is temporary."""
_WORTH_A_TRY: Final = 2.0
"""Estimated cost, in frame intervals, up to which a rung is tried again with a single frame."""


@dataclass(frozen=True, kw_only=True)
class LadderSettings:
    """Limits of a ladder; times in seconds."""

    interval: float
    """Frame interval of the source."""
    max_latency: float
    """Limit of the time from a frame's arrival to its packet."""
    tail: float = 0.02
    """Initial estimate of the time for encoding and writing, before it is measured."""
    room: float = 0.85
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
    def likely(self) -> float:
        """Upper estimate for the next frame."""
        return self.mean + 2 * self.spread

    def add(self, seconds: float) -> None:
        self.spread += _SMOOTHING * (abs(seconds - self.mean) - self.spread)
        self.mean += _SMOOTHING * (seconds - self.mean)
        self.best = min(self.best, self.mean)

    def relearn(self, seconds: float) -> None:
        """Average the mean with a single newer time, with equal weights."""
        self.mean = (self.mean + seconds) / 2
        self.spread /= 2
        self.best = min(self.best, self.mean)

    def forgive(self, seconds: float) -> None:
        """Decay towards the best mean after `seconds` without a measurement."""
        kept = _FORGIVING**seconds
        best = min(self.best, self.mean)
        self.mean = best + (self.mean - best) * kept
        self.spread *= kept


class Ladder:
    """Picks rungs from measured times. Not thread-safe."""

    def __init__(self, costs: Sequence[float], settings: LadderSettings, now: float) -> None:
        """`costs` are measured seconds per frame, best rung first; starts at the best that fits."""
        self.settings = settings
        self._costs = [_Cost(mean=cost, best=cost) for cost in costs]
        self._patience = settings.patience
        self._since = self._seen = now
        self._climbed_at: float | None = None
        self._tried_at = now
        self._try_pause = settings.patience
        """Delay before the next trial of a rung above (s); doubles after each failed trial."""
        self.tail = settings.tail
        """Smoothed time for encoding and writing (s)."""
        self.changes = 0
        self.rung = next(
            (k for k, cost in enumerate(self._costs) if self._lasting(cost)), len(costs) - 1
        )

    def choose(self, now: float, arrived: float, waiting: int) -> int:
        """Return the rung for a frame with `waiting` more queued behind it, or `DROP`.

        Occasionally returns a higher rung for a single frame, because its cost may have been
        measured under load; `rung` is unchanged by that.
        """
        self._forgive(now)
        left = arrived + self.settings.max_latency - self.tail - now
        if not self._holds(self.rung, left, waiting):
            self._go_down(now, left, waiting)
        elif (above := self._climb(now, left, waiting)) is not None:
            self._move(above, now)
            self._climbed_at = now
        elif (above := self._try(now, left, waiting)) is not None:
            self._tried_at = now
            return above
        if waiting and self._costs[-1].mean > left and self.rung == len(self._costs) - 1:
            return DROP
        return self.rung

    def done(self, rung: int, seconds: float) -> None:
        """Record how long a frame took on a rung (s)."""
        if rung == self.rung:
            self._costs[rung].add(seconds)
            return
        self._costs[rung].relearn(seconds)
        good, settings = self._lasting(self._costs[rung]), self.settings
        longer = min(2 * self._try_pause, settings.longest_patience)
        self._try_pause = settings.patience if good else longer

    def followed(self, seconds: float) -> None:
        """Record the time of encoding and writing (s), clipped to half of the latency limit."""
        self.tail += _SMOOTHING * (min(seconds, self.settings.max_latency / 2) - self.tail)

    def learn(self, rung: int, seconds: float, now: float) -> None:
        """Set the cost of a rung's new engine; switch to a better rung immediately."""
        self._costs[rung] = _Cost(mean=seconds, best=seconds)
        if rung < self.rung and self._lasting(self._costs[rung]):
            self._move(rung, now)

    def give_up(self, rung: int) -> None:
        """Exclude a rung whose engine failed permanently."""
        self._costs[rung] = _Cost(mean=float("inf"))

    def _lasting(self, cost: _Cost) -> bool:
        """Return whether a rung keeps up with the source, with headroom."""
        return cost.likely <= self.settings.room * self.settings.interval

    def _holds(self, rung: int, left: float, waiting: int) -> bool:
        """Return whether a rung is in time for this frame and the queue behind it."""
        cost = self._costs[rung]
        # the k-th queued frame has k more intervals, and k + 1 frames are computed until then
        behind = waiting * (cost.mean - self.settings.interval)
        return cost.mean + max(0.0, behind) <= left and cost.likely <= max(left, 0)

    def _go_down(self, now: float, left: float, waiting: int) -> None:
        lighter = range(self.rung + 1, len(self._costs))
        fitting = (k for k in lighter if self._holds(k, left, waiting) and self._keeps_up(k))
        target = next(fitting, len(self._costs) - 1)
        if target == self.rung:
            return
        if self._climbed_at is not None and now - self._climbed_at < self._patience:
            self._patience = min(2 * self._patience, self.settings.longest_patience)
        self._move(target, now)

    def _keeps_up(self, rung: int) -> bool:
        return self._costs[rung].mean <= self.settings.interval

    def _climb(self, now: float, left: float, waiting: int) -> int | None:
        """Return the nearest higher rung that keeps up, to climb to; None if it is not time."""
        if waiting or now - self._since < self._patience:
            return None
        above = self._above(self._lasting)
        return above if above is not None and self._costs[above].likely <= left else None

    def _try(self, now: float, left: float, waiting: int) -> int | None:
        """Return the higher rung to try with a single frame; None if it is not time."""
        pause = now - max(self._since, self._tried_at)
        if waiting or pause < self._try_pause:
            return None
        most = _WORTH_A_TRY * self.settings.interval
        above = self._above(lambda cost: cost.mean <= most)
        return above if above is not None and self._costs[above].likely <= left / 2 else None

    def _above(self, suits: Callable[[_Cost], bool]) -> int | None:
        return next((k for k in reversed(range(self.rung)) if suits(self._costs[k])), None)

    def _move(self, rung: int, now: float) -> None:
        self.rung, self._since = rung, now
        self._climbed_at = None
        self._try_pause = self.settings.patience
        self.changes += 1

    def _forgive(self, now: float) -> None:
        passed, self._seen = now - self._seen, now
        for rung, cost in enumerate(self._costs):
            if rung != self.rung and cost.mean != float("inf"):
                cost.forgive(passed)
