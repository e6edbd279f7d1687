"""Time from `vsr relay` to the first picture that a viewer sees, and the processor time of it.

`python -m bench.start [MODEL...] [--starts N] [--gop S]`, from the repository's root. Needs nginx
with its RTMP module. nginx sends a viewer nothing before the source's next key frame, on average
half of `--gop` seconds, which are part of the time.
"""

import argparse
import resource
import statistics
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import av

from tests.rtmp import Server
from tests.streams import Marked, Publisher, RelayProcess, make_marked

_CLIP_S: Final = 120.0
_SIZE: Final = (320, 180)
_SETTLES_S: Final = 3.0
"""For the publisher to begin."""
_PATIENCE_S: Final = 60.0


def first_picture(url: str) -> float:
    """Watch a URL with little probing; return when its first picture was decoded."""
    until = time.monotonic() + _PATIENCE_S
    options = {"rtmp_live": "live", "analyzeduration": "100000"}
    while time.monotonic() < until:
        with (
            suppress(av.error.FFmpegError, OSError),
            av.open(url, options=options, timeout=(_PATIENCE_S, _PATIENCE_S)) as source,
        ):
            for _ in source.decode(video=0):
                return time.monotonic()
    raise SystemExit(f"no picture within {_PATIENCE_S:g} s")


def start(model: str, server: Server, folder: Path) -> tuple[float, float]:
    """Start a relay once; return seconds to the first picture, and its processor time till its end,
    which comes at once."""
    out, before = server.url(f"out{time.monotonic_ns()}"), _children_s()
    began = time.monotonic()
    with RelayProcess(folder / model, server.url("in"), out, model=model) as relay:
        took = first_picture(out) - began
        relay.stop()
    return took, _children_s() - before


def _children_s() -> float:
    """Processor time of child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(words: list[str] | None = None) -> None:
    """Print a row for each model."""
    parser = argparse.ArgumentParser(prog="python -m bench.start", description=__doc__)
    parser.add_argument("models", nargs="*", default=["bicubic", "c-dcscn"])
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--gop", type=float, default=1.0, help="Seconds between key frames.")
    given = parser.parse_args(words)
    say("| model | first picture s (median, least, most) | processor s |\n| --- | --- | --- |")
    with tempfile.TemporaryDirectory() as name, Server(Path(name) / "nginx") as server:
        folder = Path(name)
        clip = Marked(seconds=_CLIP_S, size=_SIZE, gop_s=given.gop)
        with Publisher(server.url("in"), make_marked(folder / "in.flv", clip)):
            time.sleep(_SETTLES_S)
            for model in given.models:
                found = [start(model, server, folder) for _ in range(given.starts)]
                took = [seconds for seconds, _ in found]
                cpu = statistics.median(seconds for _, seconds in found)
                say(
                    f"| {model} | {statistics.median(took):.2f}, {min(took):.2f}, {max(took):.2f} "
                    f"| {cpu:.2f} |"
                )


def say(line: str) -> None:
    """To stdout at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
