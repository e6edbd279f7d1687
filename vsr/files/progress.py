"""What a run tells while it goes on."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The progress of a run."""

    frames: int
    total: int
    """Frames expected, 0 when unknown."""
    position: float
    """Seconds of the input that are done."""
    elapsed: float
    """Seconds since the first frame was asked for."""
    lost: int = 0
    finished: bool = False

    @property
    def fps(self) -> float:
        """Frames per second so far."""
        return self.frames / self.elapsed if self.elapsed > 0 else 0.0

    @property
    def speed(self) -> float:
        """Input seconds per second: 1.0 is real time."""
        return self.position / self.elapsed if self.elapsed > 0 else 0.0

    @property
    def remaining(self) -> float | None:
        """Seconds left, None when unknown."""
        if not self.total or not self.frames:
            return None
        return max(0.0, (self.total - self.frames) / self.fps)
