"""Turns the session.json of bench/gpu_session.sh into markdown tables for docs/gpus.md.

`python -m bench.gpu_report FOLDER/session.json`. The tables are those that the steps printed; a
step that failed or was stopped is named, so that its absence does not read as a result.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

_TITLES: Final = {
    "tests": "Tests marked `gpu`",
    "engines": "Engines",
    "kernels": "Fused residual-E kernel against cuDNN",
    "copies": "Copies",
}


def report(session: Mapping[str, Any]) -> str:
    """Return a session as markdown. Raises ValueError if `session` is not a session."""
    if session.get("schema") != "vsr-gpu-session/1":
        raise ValueError("not a session file of bench/gpu_session.sh")
    lines = []
    if session["dry"]:
        lines += ["**A dry run on a machine without a GPU: these are no measurements.**", ""]
    for step in session["steps"]:
        title = _TITLES.get(step["name"])
        if title is None:
            continue
        lines += [f"## {title}", ""]
        if step["code"] != 0:
            how = (
                "stopped at its time limit" if step["code"] is None else f"failed ({step['code']})"
            )
            lines += [f"{how} after {step['seconds']} s: {_last(step['output'])}", ""]
        table = [line for line in step["output"].splitlines() if line.startswith("|")]
        lines += [*(table or [_last(step["output"])]), ""]
    return "\n".join(lines)


def _last(output: str) -> str:
    return next((line for line in reversed(output.splitlines()) if line.strip()), "no output")


def main(arguments: Any = None) -> None:
    """Parse and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("session", type=Path)
    options = parser.parse_args(arguments)
    sys.stdout.write(report(json.loads(options.session.read_text("utf-8"))) + "\n")


if __name__ == "__main__":
    main()
