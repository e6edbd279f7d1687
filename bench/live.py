"""Measures what viewers of a relay receive, by input protocol: a table.

`python -m bench.live [CASE...] [--starts N] [--seconds S]`, from the repository's root. Each case
publishes a clip that flashes and beeps each second, relays it, and watches the output with a viewer
that is independent of `vsr`; if nginx serves the source, another one watches that. Needs nginx
with its RTMP module and ffmpeg; RTSP and GStreamer's publisher need Debian's
gir1.2-gst-rtsp-server-1.0 and gstreamer1.0-plugins-bad. `bench.start` and `bench.recovery` measure
starts and faults.
"""

import argparse
import functools
import http.server
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.live_figures import COLUMNS, cpu_s, row, rss_mib
from tests.flash_beep import Clip, Process, View, make_clip
from tests.programs import FFMPEG
from tests.rtmp import Server, free_port, wait_for
from tests.streams import RelayProcess

_TIMEOUT_S: Final = 60.0
_RUN_S: Final = 60
"""Length of a clip, in seconds; it is stopped when the case ends."""
_CPU_DELAY_S: Final = 4.0
"""Delay from a relay's start to the first reading of its CPU time, in seconds."""
_SYSTEM_PYTHON: Final = "/usr/bin/python3"
"""Debian's Python, which has GStreamer's bindings."""

_RTSP_SERVER: Final = """
import sys, gi
gi.require_version("Gst", "1.0"); gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer, GLib
Gst.init(None)
clip, port, sound = sys.argv[1:]
audio = {"aac": "d. ! queue ! aacparse ! rtpmp4gpay name=pay1 pt=97",
         "pcmu": "d. ! queue ! aacparse ! avdec_aac ! audioconvert ! audioresample "
                 "! audio/x-raw,rate=8000,channels=1 ! mulawenc ! rtppcmupay name=pay1 pt=0"}[sound]
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(f"( filesrc location={clip} ! qtdemux name=d d. ! queue ! h264parse "
                   f"! rtph264pay config-interval=1 name=pay0 pt=96 {audio} )")
server = GstRtspServer.RTSPServer()
server.set_service(port)
server.get_mount_points().add_factory("/live", factory)
server.attach(None)
GLib.MainLoop().run()
"""


@dataclass(frozen=True)
class Bench:
    """Resources of a case: folder, server, and a stack that cleans up."""

    folder: Path
    server: Server
    stack: ExitStack

    def clip(self, name: str, **facts: Any) -> Path:
        """Return a clip; create it if it does not exist."""
        path = self.folder / name
        return path if path.exists() else make_clip(path, Clip(seconds=_RUN_S, **facts))

    def run(self, *command: object) -> None:
        """Start a program that is killed when the case ends."""
        process = subprocess.Popen(
            [str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)


Case = Callable[[Bench], tuple[str, list[str]]]
"""Function that starts the source, and returns its URL and further options of the relay."""


def _rtmp(late: float, sound: str = "aac") -> Case:
    def start(bench: Bench) -> tuple[str, list[str]]:
        clip = bench.clip(f"{sound}.flv", sound=sound)
        bench.stack.enter_context(Process("publish", bench.server.url("in"), clip, late, _RUN_S))
        return bench.server.url("in"), []

    return start


def _udp(bench: Bench) -> tuple[str, list[str]]:
    port = free_port()
    url = f"udp://127.0.0.1:{port}"
    bench.run(*_ffmpeg(bench.clip("aac.mp4")), "-f", "mpegts", f"{url}?pkt_size=1316")
    return url, []


def _hls(kind: str) -> Case:
    def start(bench: Bench) -> tuple[str, list[str]]:
        folder = Path(tempfile.mkdtemp(dir=bench.folder))
        bench.run(
            *_ffmpeg(bench.clip("aac.mp4")), "-f", "hls", "-hls_time", 2, "-hls_list_size", 5,
            "-hls_segment_type", kind, "-hls_flags", "delete_segments", folder / "live.m3u8",
        )  # fmt: skip
        wait_for((folder / "live.m3u8").exists, _TIMEOUT_S, "no playlist was written")
        port = bench.stack.enter_context(_served(folder))
        return f"http://127.0.0.1:{port}/live.m3u8", []

    return start


def _http_flv(bench: Bench) -> tuple[str, list[str]]:
    url = f"http://127.0.0.1:{free_port()}/live.flv"
    bench.run(*_ffmpeg(bench.clip("aac.flv")), "-f", "flv", "-listen", 1, url)
    time.sleep(1)
    return url, []


def _http_ts(burst_s: float) -> Case:
    """Serve MPEG-TS over HTTP at full speed (0), or in bursts of `burst_s` seconds."""

    def start(bench: Bench) -> tuple[str, list[str]]:
        data = bench.clip("aac.ts").read_bytes()
        size = round(len(data) * burst_s / _RUN_S) or len(data)
        server = bench.stack.enter_context(socket.create_server(("127.0.0.1", 0)))

        def serve() -> None:
            with suppress(OSError):
                peer, _ = server.accept()
                peer.recv(2000)
                peer.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n")
                for place in range(0, len(data), size):
                    peer.sendall(data[place : place + size])
                    time.sleep(burst_s)

        threading.Thread(target=serve, daemon=True).start()
        return f"http://127.0.0.1:{server.getsockname()[1]}/live.ts", []

    return start


def _rtsp(sound: str) -> Case:
    def start(bench: Bench) -> tuple[str, list[str]]:
        port = free_port()
        bench.run(_SYSTEM_PYTHON, "-c", _RTSP_SERVER, bench.clip("aac.mp4"), port, sound)
        time.sleep(2)
        return f"rtsp://127.0.0.1:{port}/live", []

    return start


def _listen_ffmpeg(bench: Bench) -> tuple[str, list[str]]:
    url = f"rtmp://127.0.0.1:{free_port()}/live/key"
    clip = bench.clip("aac.flv")
    _publish_repeatedly(bench, *_ffmpeg(clip), "-f", "flv", url)
    return url, ["--listen"]


def _listen_gstreamer(bench: Bench) -> tuple[str, list[str]]:
    url = f"rtmp://127.0.0.1:{free_port()}/live/key"
    _publish_repeatedly(
        bench, "gst-launch-1.0", "filesrc", f"location={bench.clip('aac.mp4')}", "!", "qtdemux",
        "name=d", "d.", "!", "queue", "!", "h264parse", "!", "flvmux", "name=m", "streamable=true",
        "!", "rtmp2sink", f"location={url}", "d.", "!", "queue", "!", "aacparse", "!", "m.",
    )  # fmt: skip
    return url, ["--listen"]


CASES: Final[dict[str, Case]] = {
    **{f"RTMP, sound {late} ms late": _rtmp(late / 1000) for late in (0, 40, 150, 300, 900)},
    "RTMP, MP3 300 ms late": _rtmp(0.3, "libmp3lame"),
    "UDP, MPEG-TS": _udp,
    "HLS, MPEG-TS": _hls("mpegts"),
    "HLS, fMP4": _hls("fmp4"),
    "HTTP-FLV": _http_flv,
    "HTTP, full speed": _http_ts(0.0),
    "HTTP, bursts of 2 s": _http_ts(2.0),
    "RTSP, AAC": _rtsp("aac"),
    "RTSP, PCMU": _rtsp("pcmu"),
    "--listen, ffmpeg": _listen_ffmpeg,
    "--listen, GStreamer": _listen_gstreamer,
}


def _ffmpeg(clip: Path) -> list[object]:
    return [FFMPEG, "-v", "error", "-re", "-i", clip, "-c", "copy"]


def _publish_repeatedly(bench: Bench, *command: object) -> None:
    """Start a publisher and restart it whenever it exits, as it fails until a relay listens."""
    stop = threading.Event()

    def publish() -> None:
        while not stop.is_set():
            process = subprocess.Popen(
                [str(word) for word in command],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            while process.poll() is None and not stop.wait(0.2):
                pass
            process.kill()
            process.wait()
            stop.wait(0.5)

    thread = threading.Thread(target=publish)
    thread.start()
    bench.stack.callback(thread.join)
    bench.stack.callback(stop.set)


@contextmanager
def _served(folder: Path) -> Iterator[int]:
    """Serve a folder over HTTP; yield the port."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def run(name: str, start: int, folder: Path, server: Server, seconds: float) -> dict[str, str]:
    """Run a case once; return a row of the table."""
    source: View | None = None
    with ExitStack() as stack:
        url, options = CASES[name](Bench(folder, server, stack))
        began = time.monotonic()
        relay = stack.enter_context(
            RelayProcess(folder / f"{time.time_ns()}", url, server.url("out"), *options)
        )
        viewer = stack.enter_context(Process("view", server.url("out"), seconds))
        if url == server.url("in"):
            beside = stack.enter_context(Process("view", url, seconds + _CPU_DELAY_S))
        time.sleep(_CPU_DELAY_S)
        cpu, at = cpu_s(relay.process.pid), time.monotonic()
        view = viewer.view(_TIMEOUT_S + seconds)
        cpu = (cpu_s(relay.process.pid) - cpu) / (time.monotonic() - at)
        if url == server.url("in"):
            source = beside.view(_TIMEOUT_S + seconds)
        rss = rss_mib(relay.process.pid)
        relay.stop()
    if not relay.report["live"]:
        raise SystemExit(f"{name}: the relay never went live; its log: {relay.said}")
    return {
        "case": name, "start": str(start), **row(view, relay.report, began, source),
        "CPU": f"{cpu:.0%}", "RSS MiB": f"{rss:.0f}",
    }  # fmt: skip


def main(words: list[str] | None = None) -> None:
    """Run the named cases, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", nargs="*", help=f"substrings of these names: {', '.join(CASES)}")
    parser.add_argument("--starts", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=8.0, help="watching time of a viewer")
    given = parser.parse_args(words)
    chosen = [name for name in CASES if not given.case or any(c in name for c in given.case)]
    if not shutil.which("gst-launch-1.0"):
        chosen = [name for name in chosen if "RTSP" not in name and "GStreamer" not in name]
        sys.stderr.write("RTSP and GStreamer are skipped: gst-launch-1.0 is not installed\n")
    print_row(COLUMNS)
    print_row(["---"] * len(COLUMNS))
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder) / "nginx") as server:
        for name in chosen:
            for start in range(1, given.starts + 1):
                row = run(name, start, Path(folder), server, given.seconds)
                print_row([row[column] for column in COLUMNS])


def print_row(cells: Any) -> None:
    """Print a row of the table."""
    sys.stdout.write(f"| {' | '.join(cells)} |\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
