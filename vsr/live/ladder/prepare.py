"""Builds missing engines in a separate process while the relay is live.

TensorRT takes minutes for a new network, holds the GIL for part of that time, and needs memory that
is freed only when the process exits. The process writes the engines to the cache, from which the
relay loads each one when it is reported. This file is also the process's script: it reads JSON (the
order) and writes a line of JSON for each network: `{"ready": 0}` or `{"failed": 0, "why": "..."}`.
"""

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Final

from vsr.errors import VsrError, reason
from vsr.inference.backend import load_backend
from vsr.inference.upscaler import Upscaler
from vsr.live.ladder.rung_models import find_models, rung_names
from vsr.live.settings import RelaySettings
from vsr.media.child import start_child
from vsr.media.colour import Colour
from vsr.media.plane_format import PlaneFormat

log = logging.getLogger(__name__)

_COPIED_SETTINGS: Final = ("scale", "precision", "backend", "device")
"""Settings that are copied unchanged into the order."""


class Preparation:
    """Runs the process that builds engines, and a thread that reads its results."""

    def __init__(
        self,
        settings: RelaySettings,
        size: tuple[int, int],
        colour: Colour,
        planes: PlaneFormat,
        on_ready: Callable[[int], None],
    ) -> None:
        """`on_ready` is called on the thread with the index of a rung whose engine was built."""
        self._on_ready = on_ready
        model, *ladder = rung_names(settings)
        names = {"model": model, "ladder": ladder}
        others = {name: getattr(settings, name) for name in _COPIED_SETTINGS}
        self._order = json.dumps(
            {
                "settings": {**names, **others},
                "size": size,
                "colour": asdict(colour),
                "planes": asdict(planes),
            }
        )
        self._process: subprocess.Popen[str] | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="prepare", daemon=True)

    def start(self) -> None:
        """Start the process; return immediately."""
        self._thread.start()

    def close(self) -> None:
        """Kill the process; finished engines stay in the cache."""
        self._closed = True
        if self._process is not None:
            self._process.kill()

    def _run(self) -> None:
        try:
            self._process = start_child(__name__, text=True, errors="replace")
        except OSError as exc:
            log.error("cannot start the process that builds engines: %s", reason(exc))
            return
        if self._closed:
            self._process.kill()
        last = self._read_output(self._process)
        code = self._process.wait()
        if code and not self._closed:
            log.error("the process that builds engines failed (exit code %d): %s", code, last)

    def _read_output(self, process: "subprocess.Popen[str]") -> str:
        """Read the process's output to its end; return the last line that is not JSON."""
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError), process.stdin:  # its exit code is logged later
            process.stdin.write(self._order)
        last = ""
        with process.stdout:
            for line in process.stdout:
                last = self._handle_line(line) or last
        return last

    def _handle_line(self, line: str) -> str:
        """Handle a line of JSON; return any other line, else an empty string."""
        try:
            facts = dict(json.loads(line))
        except (TypeError, ValueError):
            log.debug("prepare: %s", line.strip())
            return line.strip()
        if self._closed:
            return ""
        if "ready" in facts:
            self._on_ready(int(facts["ready"]))
        else:
            log.warning("%s; OpenVINO remains in use", facts["why"])
        return ""


def _parse_order(text: str) -> tuple[RelaySettings, tuple[int, int], Colour, PlaneFormat]:
    order = json.loads(text)
    chosen, (width, height) = order["settings"], order["size"]
    settings = RelaySettings(**{**chosen, "ladder": tuple(chosen["ladder"])})
    colour, planes = Colour(**order["colour"]), PlaneFormat(**order["planes"])
    return settings, (width, height), colour, planes


def main() -> None:
    """Build the engines listed on standard input and store them in the cache."""
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
    settings, size, colour, planes = _parse_order(sys.stdin.read())
    backend = load_backend(settings.backend, settings.device, live=True)
    for index, model in enumerate(find_models(settings, backend)):
        try:
            Upscaler(model, backend, colour, size, planes=planes)
        except VsrError as exc:
            _report(failed=index, why=str(exc))
        else:
            _report(ready=index)


def _report(**facts: object) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        main()
    except VsrError as exc:
        sys.exit(str(exc))
