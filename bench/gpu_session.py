"""Runs everything that needs a GPU within a time limit, the most important first.

See bench/gpu_session.sh.

`python -m bench.gpu_session --out FOLDER [--minutes 8] [--dry-run] [-- TRAINING WORDS]` writes what
each step said and took into FOLDER/session.json after every step, so that a machine that is taken
away leaves what was done. The last step trains with the time that is left. `--dry-run` runs
each step as far as possible without a GPU; all must succeed.
"""

import argparse
import json
import logging
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

log = logging.getLogger("gpu_session")
ROOT: Final = Path(__file__).parents[1]
PYTHON: Final = sys.executable
_TAIL: Final = 20_000
"""Maximum number of characters kept of a step's output."""
_STOP_MARGIN_S: Final = 20.0
"""Time before the limit, in seconds, at which training is interrupted: it writes its checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command, and its replacement in a dry run without a GPU."""

    name: str
    command: Sequence[str]
    dry: Sequence[str]
    limit_s: float
    """Time limit, in seconds, so that time is left for the other steps."""
    required: bool = False
    """Whether its requirements must be met: `gpu` tests then fail without a GPU, not skip."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a step."""

    name: str
    command: str
    code: int | None
    """Exit code; None: the step was stopped at its time limit."""
    seconds: float
    output: str


def steps(training: Sequence[str]) -> list[Step]:
    """Return all steps, the most important first; training gets the remaining time."""
    module = (PYTHON, "-m")
    tests = (*module, "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu")
    engines = (*module, "bench.engines", "c-dcscn", "dcscn", "carn-m")
    held = "tests/inference"
    one_kernel = f"{held}/test_kernels.py::test_residual_e_equals_torch[(1, 1, 1)]"
    few = ("--size", "16x12", "--rounds", "1", "--threads", "1")
    return [
        Step(
            name="machine", command=("nvidia-smi",), dry=(*module, "vsr", "--version"), limit_s=20,
        ),
        Step(
            name="tests", command=tests, dry=(*tests, "--collect-only", f"{held}/test_cuda.py"),
            limit_s=120, required=True,
        ),
        Step(
            name="engines", limit_s=90,
            command=(*engines, "--backend", "tensorrt-rtx", "--size", "640x360"),
            dry=(*module, "bench.engines", "c-dcscn", *few),
        ),
        Step(
            name="kernels", command=(PYTHON, "bench/kernels.py"), limit_s=60,
            dry=(*module, "pytest", "-q", one_kernel),
        ),
        Step(
            name="copies", command=(*module, "bench.copies"), limit_s=30,
            dry=(*module, "bench.copies", "--help"),
        ),
        Step(
            name="training", limit_s=float("inf"),
            command=(*module, "train", *training), dry=(*module, "train", "fit", "--help"),
        ),
    ]  # fmt: skip


def run(step: Step, dry: bool, until: float) -> Outcome:
    """Run a step up to its own or the session's time limit; then send SIGINT, later SIGKILL."""
    command = list(step.dry if dry else step.command)
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    if step.required and not dry:
        environment["VSR_REQUIRE_GPU"] = "1"
    began = time.monotonic()
    limit = min(step.limit_s, max(1.0, until - began - _STOP_MARGIN_S))
    try:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    except OSError as exc:
        return Outcome(
            name=step.name, command=" ".join(command), code=127, seconds=0, output=str(exc)
        )
    code: int | None = None
    try:
        output, _ = process.communicate(timeout=limit)
        code = process.returncode
    except subprocess.TimeoutExpired:
        process.send_signal(2)
        try:
            output, _ = process.communicate(timeout=_STOP_MARGIN_S / 2)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
    seconds = round(time.monotonic() - began, 1)
    return Outcome(
        name=step.name,
        command=" ".join(command),
        code=code,
        seconds=seconds,
        output=output[-_TAIL:],
    )


def session(out: Path, minutes: float, dry: bool, training: Sequence[str]) -> list[Outcome]:
    """Run all steps, and write the results after each."""
    out.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 60 * minutes
    done: list[Outcome] = []
    for step in steps(training):
        if step.name == "training" and not training:
            continue
        log.info("%s ...", step.name)
        done.append(run(step, dry, until))
        log.info("%s: exit code %s after %.1f s", step.name, done[-1].code, done[-1].seconds)
        session_facts = {
            "schema": "vsr-gpu-session/1", "dry": dry, "machine": platform.platform(),
            "steps": [asdict(outcome) for outcome in done],
        }  # fmt: skip
        (out / "session.json").write_text(json.dumps(session_facts, indent=1) + "\n", "utf-8")
    return done


def main(arguments: Any = None) -> int:
    """Parse, run, and return 1 if a step failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("training", nargs="*", help="arguments of `python -m train`, after --")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%T")
    done = session(options.out, options.minutes, options.dry_run, options.training)
    failed = [o.name for o in done if o.code not in (0, None)]
    if failed:
        log.info("failed: %s", ", ".join(failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
