"""Measures how much of a recording is lost when a process dies or the disk is full.

`python -m bench.recordings [--disk FOLDER]`, from the repository's root: real relays record a clip
of numbered pictures in every container, and are disturbed. Prints a table, container x disturbance,
of the seconds that are missing from the file, beside what another output of the same relay has.
FOLDER is a small separate file system (`mount -t tmpfs -o size=3m tmpfs FOLDER`); without one the
column for the full disk is omitted.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import av

from tests.rtmp import wait_for
from tests.streams import Marked, RelayProcess, make_marked, number_of

CONTAINERS: Final = ("mp4", "mov", "mkv", "ts", "flv")
_FPS: Final = 25
_CLIP: Final = Marked(seconds=40.0, size=(160, 90), fps=_FPS)
_BEFORE_FAULT_S: Final = 6.0
_AFTER_FAULT_S: Final = 5.0
_START_TIMEOUT_S: Final = 60.0


def numbers(path: Path) -> list[int]:
    """Return the numbers of a recording's pictures; raise if the file cannot be decoded."""
    with av.open(str(path)) as file:
        return [number_of(picture) for picture in file.decode(video=0)]


def writer_of(path: Path) -> int:
    """Return the PID of the relay's process that has a file open."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            links = [str(link.readlink()) for link in (process / "fd").iterdir()]
        except OSError:
            continue
        if str(path) in links and "vsr/live" in (process / "cmdline").read_text():
            return int(process.name)
    raise RuntimeError(f"no process of the relay has {path} open")


def record_disturbed(
    folder: Path, clip: Path, recording: Path, disturb: Callable[[RelayProcess, Path], None]
) -> tuple[float, int]:
    """Record, disturb, and return the missing seconds and the number of files."""
    shutil.rmtree(folder, ignore_errors=True)
    reference = folder / "reference.ts"
    with RelayProcess(folder, str(clip), str(recording), str(reference)) as relay:
        wait_for(lambda: relay.said.count("connected") == 2, _START_TIMEOUT_S, relay.said)
        time.sleep(_BEFORE_FAULT_S)
        disturb(relay, recording)
        if relay.process.poll() is None:
            time.sleep(_AFTER_FAULT_S)
            relay.stop(signal.SIGINT)
    time.sleep(1.0)  # a recording's process may outlive the relay
    files = sorted(recording.parent.glob(f"{recording.stem}*{recording.suffix}"))
    found = {number for file in files for number in numbers(file)}
    wanted = set(numbers(reference))
    for file in files:
        file.unlink()
    return len(wanted - found) / _FPS, len(files)


def kill_relay(relay: RelayProcess, _recording: Path) -> None:
    """Kill the relay with SIGKILL."""
    relay.process.kill()
    relay.process.wait()


def kill_child(_relay: RelayProcess, recording: Path) -> None:
    """Kill the process that writes the file."""
    os.kill(writer_of(recording), signal.SIGKILL)


def fill_disk(relay: RelayProcess, recording: Path) -> None:
    """Fill the disk for 4 s."""
    ballast = recording.with_name("ballast")
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    wait_for(lambda: "the disk is full" in relay.said, 30.0, relay.said)
    time.sleep(4.0)
    ballast.unlink()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--disk", type=Path, help="folder on a small file system, for the full disk"
    )
    parser.add_argument("containers", nargs="*", default=CONTAINERS)
    options = parser.parse_args()
    ways = {"kill -9 relay": kill_relay, "kill -9 child": kill_child}
    if options.disk:
        ways["disk full for 4 s"] = fill_disk
    write = sys.stdout.write
    write("| container | " + " | ".join(ways) + " |\n| --- |" + " --- |" * len(ways) + "\n")
    with tempfile.TemporaryDirectory() as name:
        clip = make_marked(Path(name, "clip.flv"), _CLIP)
        for container in options.containers:
            cells = []
            for way, disturb in ways.items():
                place = options.disk if "disk" in way else Path(name)
                recording = place / f"rec.{container}"
                lost, files = record_disturbed(Path(name, "relay"), clip, recording, disturb)
                cells.append(f"{lost:.2f} s ({files} file{'s' * (files > 1)})")
            write(f"| {container} | " + " | ".join(cells) + " |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
