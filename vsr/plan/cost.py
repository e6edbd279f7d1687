"""Computes the time per frame of single stages, and of a run of several stages together."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

STAGES: Final = ("decode", "network", "encode")
_SHARING_FACTOR: Final = 1.05
"""Slow-down ratio of three stages that share the processors: queues, caches, waiting threads."""


@dataclass(frozen=True)
class Cost:
    """Time per frame, in milliseconds: wall time, and processor time of all threads."""

    wall_ms: float
    cpu_ms: float
    on_other_device: bool = False
    """Whether another device does the work, so that only wall time counts."""

    def alone_ms(self, cores: int) -> float:
        """Return the stage's time (ms) without other programs, which lengthen only the wall time.

        It is at least the processor time divided by `cores`, and at most the processor time.
        """
        if self.on_other_device:
            return self.wall_ms
        return min(max(self.wall_ms, self.cpu_ms / cores), self.cpu_ms)

    def times(self, factor: float) -> "Cost":
        """Return the cost for `factor` times the pixels."""
        return Cost(self.wall_ms * factor, self.cpu_ms * factor, self.on_other_device)


@dataclass(frozen=True)
class Forecast:
    """Expected time per frame of all stages in parallel, on `cores` cores."""

    stages: Mapping[str, Cost]
    cores: int
    trial_cost: Cost | None = None
    """Measured cost per frame in a trial of all stages; None if a trial would take too long."""
    start_ms: float = 0.0
    """Time until the first frame is made, in milliseconds."""

    @property
    def frame_ms(self) -> float:
        """Time per frame in the trial; without one, the time of the slowest stage, or the total
        processor time divided by the cores (times `_SHARING_FACTOR`) if that is more."""
        if self.trial_cost is not None:
            return self.trial_cost.wall_ms
        slowest = max(cost.alone_ms(self.cores) for cost in self.stages.values())
        shared = sum(cost.cpu_ms for cost in self.stages.values()) / self.cores
        return max(slowest, _SHARING_FACTOR * shared)

    @property
    def fps(self) -> float:
        """Frames per second, without the start."""
        return 1000 / self.frame_ms

    def seconds(self, frames: int) -> float:
        """Return the duration of a run of that number of frames, in seconds."""
        return (self.start_ms + frames * self.frame_ms) / 1000

    @property
    def bottleneck(self) -> str:
        """The stage of `STAGES` with the longest time per frame."""
        return max(self.stages, key=lambda name: self.stages[name].alone_ms(self.cores))
