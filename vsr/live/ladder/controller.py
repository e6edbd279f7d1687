"""Chooses the network for each picture of a live stream so that it is sent in time.

A relay holds its deadline by lowering quality, never by lagging. The rungs go from the network
asked for down to bicubic. Going down happens at once, when the next picture or those that wait
behind it would be late; going up needs room to spare and patience, which doubles each time that a
climb had to be taken back. A rung that is lost, or slower here than a better one, is passed over.
Plain arithmetic on times that the caller hands in: no clock, no thread.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

DROP: Final = -1
"""Instead of a rung: not even the lightest would be in time, and a newer picture waits."""
_SMOOTHING: Final = 0.1
"""Weight of the newest time in a rung's mean and spread (RFC 6298, section 2, has the idea)."""
_FORGIVING: Final = 0.97
"""What remains after a second of what a rung cost beyond its best: load passes."""
_WORTH_A_TRY: Final = 2.0
"""Intervals that a rung may seem to cost, and yet a picture is spent to see whether it does."""


@dataclass(frozen=True, kw_only=True)
class LadderSettings:
    """Limits that a ladder keeps; times in seconds."""

    interval: float
    """Between two pictures of the source."""
    max_latency: float
    """From a picture's arrival to its packet."""
    tail: float = 0.02
    """What encoding and writing take after the network, before that is measured."""
    room: float = 0.85
    """Share of the interval that a rung may cost before the ladder climbs to it."""
    patience: float = 10.0
    """Before the first climb."""
    longest_patience: float = 300.0


@dataclass
class _Cost:
    """Time of one rung per picture: mean, spread and best mean so far (s)."""

    mean: float
    spread: float = 0.0
    best: float = float("inf")

    @property
    def likely(self) -> float:
        """An upper estimate for the next picture."""
        return self.mean + 2 * self.spread

    def add(self, seconds: float) -> None:
        self.spread += _SMOOTHING * (abs(seconds - self.mean) - self.spread)
        self.mean += _SMOOTHING * (seconds - self.mean)
        self.best = min(self.best, self.mean)

    def relearn(self, seconds: float) -> None:
        """Average in a single time that is newer than the known mean."""
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
    """Controller that picks rungs from measured times. Not thread-safe."""

    def __init__(self, costs: Sequence[float], settings: LadderSettings, now: float) -> None:
        """`costs` are measured seconds a picture, best rung first; starts at the best that fits."""
        self.settings = settings
        self._costs = [_Cost(mean=cost, best=cost) for cost in costs]
        self._patience = settings.patience
        self._since = self._seen = now
        self._climbed_at: float | None = None
        self._tried_at = now
        self._try_pause = settings.patience
        """Before the next try of the rung above; the longer the more were in vain."""
        self.tail = settings.tail
        """What encoding and writing take now (s)."""
        self.changes = 0
        self.rung = next(
            (k for k, cost in enumerate(self._costs) if self._lasting(cost)), len(costs) - 1
        )

    def choose(self, now: float, arrived: float, waiting: int) -> int:
        """Return the rung for a picture, with `waiting` more behind it; or `DROP`.

        Now and then a single picture is given to a rung above, whose cost may have been measured
        at a bad moment; `rung` tells where the ladder stands.
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
        """Record the seconds that a picture of a rung took."""
        if rung == self.rung:
            self._costs[rung].add(seconds)
            return
        self._costs[rung].relearn(seconds)
        good, settings = self._lasting(self._costs[rung]), self.settings
        longer = min(2 * self._try_pause, settings.longest_patience)
        self._try_pause = settings.patience if good else longer

    def followed(self, seconds: float) -> None:
        """Record the seconds of encoding and writing; at most half the latency counts."""
        self.tail += _SMOOTHING * (min(seconds, self.settings.max_latency / 2) - self.tail)

    def learn(self, rung: int, seconds: float, now: float) -> None:
        """Set the cost of a rung's new engine; a better rung is taken at once."""
        self._costs[rung] = _Cost(mean=seconds, best=seconds)
        if rung < self.rung and self._lasting(self._costs[rung]):
            self._move(rung, now)

    def give_up(self, rung: int) -> None:
        """Exclude a rung whose engine failed for good."""
        self._costs[rung] = _Cost(mean=float("inf"))

    def _lasting(self, cost: _Cost) -> bool:
        """Whether a rung keeps up with the source."""
        return cost.likely <= self.settings.room * self.settings.interval

    def _holds(self, rung: int, left: float, waiting: int) -> bool:
        """Whether a rung is in time for this picture and the queue behind it."""
        cost = self._costs[rung]
        # picture k behind has k intervals more time, and k + 1 pictures to be computed till then
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
        """Return the rung to go up to: the nearest that keeps up; None if it is not time."""
        if waiting or now - self._since < self._patience:
            return None
        above = self._above(self._lasting)
        return above if above is not None and self._costs[above].likely <= left else None

    def _try(self, now: float, left: float, waiting: int) -> int | None:
        """Return the rung above that a single picture is given to; None if it is not time."""
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
