"""Defines `Report`, the result of a run: facts of `--report`, closing messages and exit code."""

import math
import platform
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import av

from vsr.errors import EXIT_DEGRADED, EXIT_DONE, EXIT_INTERRUPTED
from vsr.media.limits import processor_count
from vsr.report.ledger import LatencyLedger, Ledger
from vsr.version import __version__

PACKAGES: Final = ("av", "openvino", "onnx", "numpy")
"""Packages whose versions are listed in a report and by `vsr doctor`."""


@dataclass(kw_only=True)
class Report:
    """The result of a run. `facts()` is the .json report without the rows."""

    input: dict[str, Any]
    output: dict[str, Any]
    start_frame: int = 0
    frames_in: int = 0
    frames_out: int = 0
    lost: int = 0
    cut_off: bool = False
    """Whether the input is cut off although no frame is missing."""
    concealed: int = 0
    packets_refused: int = 0
    unsent: int = 0
    """Number of frames dropped by the relay output that dropped the most."""
    taken_over: int = 0
    """Number of frames finished by an earlier run of the same command; part of `frames_in` and
    `frames_out`."""
    resumable: bool = False
    """Whether the same command resumes where this run was stopped."""
    seconds: float = 0.0
    interrupted: bool = False
    notes: list[str] = field(default_factory=list)
    """Messages about what was converted or left out."""
    losses: list[str] = field(default_factory=list)
    """Messages about what was lost."""
    live: dict[str, Any] = field(default_factory=dict)
    """Facts of a relay: sessions, repeated frames, rung changes, outputs; empty for files."""
    totals: dict[str, Any] = field(default_factory=dict)
    """More counts of a relay's frames: `sent` (repeated ones too), `repeated`, `late`, `by_rung`;
    empty for files."""
    deadline: float | None = None
    """Maximum latency of a frame from arrival to packet, in seconds; None for files."""
    ledger: LatencyLedger = field(default_factory=Ledger)

    @property
    def degraded(self) -> bool:
        """Whether anything of the input is missing or damaged in the output."""
        missing = self.frames_in - self.frames_out
        lost = (self.lost, self.cut_off, self.concealed, self.packets_refused, self.unsent)
        return any((*lost, missing))

    @property
    def exit_code(self) -> int:
        """Exit code of `vsr run`."""
        if self.interrupted:
            return EXIT_INTERRUPTED
        return EXIT_DEGRADED if self.degraded else EXIT_DONE

    @property
    def fps(self) -> float:
        """Frames per second over the whole run, draining included."""
        done = self.frames_out - self.taken_over
        return done / self.seconds if self.seconds else 0.0

    def closing_words(self) -> list[str]:
        """Return messages for the user at the end of the run: how it was stopped or degraded."""
        lines = []
        if self.interrupted:
            next_frame = self.start_frame + self.frames_in
            how = f"To continue, use --start-frame {next_frame} and another output"
            if self.resumable:
                how = "Run the same command to resume"
            lines.append(
                f"stopped after {self.frames_out} frames, written to {self.output['name']}. {how}"
            )
        if self.degraded and not self.interrupted:
            lines.append(
                f"finished, but degraded: {self.lost} frames lost, {self.concealed} damaged, "
                f"{self.packets_refused} packets of other streams rejected"
                + "".join(f"; {note}" for note in self.losses)
            )
        return lines

    def _fps_sent(self) -> dict[str, float]:
        """Return the rate of a relay's sent frames, with the repeated ones, as a viewer sees it."""
        if not self.totals:
            return {}
        return {"fps_sent": round(self.totals["sent"] / self.seconds, 3) if self.seconds else 0.0}

    def _deadline_facts(self) -> dict[str, Any]:
        if self.deadline is None:
            return {"ms": None, "misses": 0}
        ms = 1000 * self.deadline
        return {"ms": ms, "misses": self.ledger.count_later_than(ms)}

    def facts(self) -> dict[str, Any]:
        """Return everything but the rows."""
        return {
            "versions": versions(),
            "machine": machine(),
            "input": self.input,
            "output": self.output,
            "frames": {
                "in": self.frames_in,
                "out": self.frames_out,
                "dropped": self.lost,
                "concealed": self.concealed,
                **self.totals,
            },
            "stages": self.ledger.stages(),
            "fps": round(self.fps, 3),
            **self._fps_sent(),
            "deadline": self._deadline_facts(),
            "live": self.live,
            "interrupted": self.interrupted,
            "notes": [*self.notes, *self.losses],
            **self.ledger.missing_row_facts(),
        }

    def facts_of(self, part: Ledger, seconds: float) -> dict[str, Any]:
        """Return the facts of `part`, rows of a relay that arrived within `seconds`."""
        dropped = part.count_events("dropped")
        unsent = part.count_later_than(math.inf)  # dropped, or sent by no output
        report = replace(
            self, ledger=part, frames_in=len(part), frames_out=len(part) - unsent, lost=dropped,
            concealed=part.count_events("concealed"), seconds=seconds, interrupted=False,
            notes=[], losses=[], live={}, totals={},
        )  # fmt: skip
        return report.facts()


def versions() -> dict[str, str]:
    """Return the versions of vsr, Python, `PACKAGES` and FFmpeg."""
    found = {"vsr": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    found["ffmpeg"] = str(getattr(av, "ffmpeg_version_info", "unknown"))
    return found


def machine() -> dict[str, Any]:
    """Return the machine's properties that affect speed."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": platform.processor() or platform.machine(),
        "cores": processor_count(),
    }
