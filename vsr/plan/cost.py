"""What a stage costs for a frame, and what a run of several stages costs together."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

STAGES: Final = ("decode", "network", "encode")
_SHARED: Final = 1.05
"""What three stages lose by sharing the processors: queues, caches, threads that wait."""


@dataclass(frozen=True)
class Cost:
    """Milliseconds a frame: by the clock, and of processor time over all threads."""

    wall_ms: float
    cpu_ms: float
    elsewhere: bool = False
    """Whether it is computed on another device, so that only the clock counts."""

    def alone_ms(self, cores: int) -> float:
        """What the stage takes when nothing else runs: other programs lengthen only the wall time.

        No shorter than its processor time on all cores, and no longer than on one.
        """
        if self.elsewhere:
            return self.wall_ms
        return min(max(self.wall_ms, self.cpu_ms / cores), self.cpu_ms)

    def times(self, factor: float) -> "Cost":
        """The cost of so many times the pixels."""
        return Cost(self.wall_ms * factor, self.cpu_ms * factor, self.elsewhere)


@dataclass(frozen=True)
class Forecast:
    """The expected time of a frame through all stages at once, on so many cores."""

    stages: Mapping[str, Cost]
    cores: int
    together: Cost | None = None
    """What a frame took in a trial of all stages; None where that would take too long."""
    start_ms: float = 0.0
    """Until the first frame is made."""

    @property
    def frame_ms(self) -> float:
        """What the trial took; without one the slowest stage, or the sum of processor time on all
        cores if that is more."""
        if self.together is not None:
            return self.together.wall_ms
        slowest = max(cost.alone_ms(self.cores) for cost in self.stages.values())
        shared = sum(cost.cpu_ms for cost in self.stages.values()) / self.cores
        return max(slowest, _SHARED * shared)

    @property
    def fps(self) -> float:
        """Frames per second, once it runs."""
        return 1000 / self.frame_ms

    def seconds(self, frames: int) -> float:
        """How long a run of so many frames takes."""
        return (self.start_ms + frames * self.frame_ms) / 1000

    @property
    def limit(self) -> str:
        """The stage of `STAGES` that takes the most of the machine."""
        return max(self.stages, key=lambda name: self.stages[name].alone_ms(self.cores))
