"""Progress information that a run passes to its callback."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Progress of a run at one moment."""

    frames: int
    total: int
    """Expected number of frames; 0 if unknown."""
    position: float
    """Duration of the input processed so far, in seconds."""
    elapsed: float
    """Time since the first frame was requested, in seconds."""
    lost: int = 0
    finished: bool = False

    @property
    def fps(self) -> float:
        """Frames per second so far."""
        return self.frames / self.elapsed if self.elapsed > 0 else 0.0

    @property
    def speed(self) -> float:
        """Ratio of processed to elapsed time: 1.0 is real time."""
        return self.position / self.elapsed if self.elapsed > 0 else 0.0

    @property
    def remaining(self) -> float | None:
        """Estimated time left, in seconds; None if unknown."""
        if not self.total or not self.frames:
            return None
        return max(0.0, (self.total - self.frames) / self.fps)
