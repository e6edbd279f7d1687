"""What a run did, in numbers and in words: the head of `--report` and the exit code."""

import math
import platform
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import av

from vsr.errors import EXIT_DEGRADED, EXIT_DONE, EXIT_INTERRUPTED
from vsr.media.limits import processors
from vsr.report.ledger import LatencyLedger, Ledger
from vsr.version import __version__

PACKAGES: Final = ("av", "openvino", "onnx", "numpy")
"""What a report and `vsr doctor` name with their versions."""


@dataclass(kw_only=True)
class Report:
    """What a run did. `facts()` is the head of the .json report."""

    input: dict[str, Any]
    output: dict[str, Any]
    start_frame: int = 0
    frames_in: int = 0
    frames_out: int = 0
    lost: int = 0
    concealed: int = 0
    packets_refused: int = 0
    unsent: int = 0
    """Pictures that the worst of a relay's outputs did not send."""
    taken_over: int = 0
    """Frames that an earlier run of the same command has done; `frames_in` counts them too."""
    resumable: bool = False
    """Whether the same command goes on from where this run was stopped."""
    seconds: float = 0.0
    interrupted: bool = False
    notes: list[str] = field(default_factory=list)
    """What was converted or left out, in words."""
    losses: list[str] = field(default_factory=list)
    """What was lost, in words."""
    live: dict[str, Any] = field(default_factory=dict)
    """Of a relay: sessions, repeated pictures, rung changes, outputs; empty for files."""
    deadline: float | None = None
    """Seconds a picture may take from arrival to packet; None for files."""
    ledger: LatencyLedger = field(default_factory=Ledger)

    @property
    def degraded(self) -> bool:
        """Whether anything of the input is missing or damaged in the output."""
        missing = self.frames_in - self.frames_out
        return any((self.lost, self.concealed, self.packets_refused, self.unsent, missing))

    @property
    def exit_code(self) -> int:
        """The exit code of `vsr run`."""
        if self.interrupted:
            return EXIT_INTERRUPTED
        return EXIT_DEGRADED if self.degraded else EXIT_DONE

    @property
    def fps(self) -> float:
        """Frames per second over the whole run, draining included."""
        done = self.frames_out - self.taken_over
        return done / self.seconds if self.seconds else 0.0

    def closing_words(self) -> list[str]:
        """What a person should know after the run and has not been told yet."""
        lines = []
        if self.interrupted:
            next_frame = self.start_frame + self.frames_in
            how = f"To continue, use --start-frame {next_frame} and another output"
            if self.resumable:
                how = "Run the same command to resume"
            lines.append(
                f"stopped after {self.frames_out} frames; {self.output['name']} holds them. {how}"
            )
        if self.degraded and not self.interrupted:
            lines.append(
                f"finished, but degraded: {self.lost} frames lost, {self.concealed} damaged, "
                f"{self.packets_refused} packets of other streams refused"
                + "".join(f"; {note}" for note in self.losses)
            )
        return lines

    def _deadline(self) -> dict[str, Any]:
        if self.deadline is None:
            return {"ms": None, "misses": 0}
        ms = 1000 * self.deadline
        return {"ms": ms, "misses": self.ledger.count_later_than(ms)}

    def facts(self) -> dict[str, Any]:
        """Everything but the rows."""
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
            },
            "stages": self.ledger.stages(),
            "fps": round(self.fps, 3),
            "deadline": self._deadline(),
            "live": self.live,
            "interrupted": self.interrupted,
            "notes": [*self.notes, *self.losses],
            **self.ledger.extent(),
        }

    def facts_of(self, part: Ledger, seconds: float) -> dict[str, Any]:
        """The facts of some rows of a relay, which came in so many seconds."""
        dropped = part.count_events("dropped")
        unsent = part.count_later_than(math.inf)  # dropped, or sent by no output
        report = replace(
            self, ledger=part, frames_in=len(part), frames_out=len(part) - unsent, lost=dropped,
            concealed=part.count_events("concealed"), seconds=seconds, interrupted=False,
            notes=[], losses=[], live={},
        )  # fmt: skip
        return report.facts()


def versions() -> dict[str, str]:
    """Versions of vsr, Python and the libraries that do the work."""
    found = {"vsr": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    found["ffmpeg"] = str(getattr(av, "ffmpeg_version_info", "unknown"))
    return found


def machine() -> dict[str, Any]:
    """The machine as far as it explains a speed."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": platform.processor() or platform.machine(),
        "cores": processors(),
    }
