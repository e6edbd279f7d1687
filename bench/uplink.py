"""Measures what a slow uplink does to an output: 2.5 Mbit/s over a slower connection.

`python -m bench.uplink [--seconds S] [--line BITS]`, from the repository's root. Needs nginx with
its RTMP module. A real relay publishes noise, which fills the bitrate, and records it beside. The
output's figures are printed from the relay's report.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Final

from bench.output import print_line
from tests.live.test_uplink import noise
from tests.rtmp import Proxy, Server
from tests.streams import RelayProcess

_BITRATE: Final = "2500k"
_NOISE_S: Final = 4.0
_FIGURES: Final = (
    "bitrate_full", "bitrate_lowest", "bitrate_changes", "pictures", "pictures_dropped", "skips",
    "reconnects", "state",
)  # fmt: skip


def main(words: list[str] | None = None) -> None:
    """Run it once and print a row for each figure."""
    parser = argparse.ArgumentParser(prog="python -m bench.uplink", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="time on the slow connection")
    parser.add_argument(
        "--line", type=int, default=1_000_000, help="speed of the connection, in bit/s"
    )
    given = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = noise(folder / "noise.mp4", _NOISE_S)
        with Server(folder / "server") as server, Proxy(server.port, buffer=8192) as proxy:
            url, recording = f"rtmp://127.0.0.1:{proxy.port}/live/key", folder / "rec.mkv"
            with RelayProcess(
                folder / "relay", str(clip), url, str(recording), "--loop", "--bitrate", _BITRATE
            ) as relay:
                relay.await_words("connected", count=2)
                proxy.rate = given.line / 8
                time.sleep(given.seconds)
                relay.stop()
            slow, file = relay.report["live"]["outputs"]
            print_line(f"| figure | output over {given.line} bit/s | recording |")
            print_line("| --- | --- | --- |")
            for figure in _FIGURES:
                print_line(f"| {figure} | {slow.get(figure)} | {file.get(figure)} |")
            shown = slow["pictures"] + slow["pictures_dropped"]
            print_line(f"| dropped | {slow['pictures_dropped'] / shown:.2%} | |")
            print_line(f"| connections | {proxy.connections} | |\n\n{relay.said}")


if __name__ == "__main__":
    main()
