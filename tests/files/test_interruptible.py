"""A stop while an input does not respond: it takes effect at once, with the right message."""

import http.server
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clips import Clip, make_clip
from tests.facts import contents
from vsr.errors import InputError, InterruptedRunError
from vsr.files.interruptible import open_interruptibly


@pytest.fixture
def silent() -> Iterator[tuple[str, threading.Event]]:
    """URL of a server that accepts connections but never responds, and an event set on connect."""
    connected = threading.Event()
    kept: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    kept.append(server.accept()[0])
                except OSError:
                    return
                connected.set()

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/k3y/film.mp4", connected
    for connection in kept:
        connection.close()


def test_the_first_signal_ends_a_run_whose_input_does_not_answer(
    tmp_path: Path, silent: tuple[str, threading.Event]
) -> None:
    url, connected = silent
    command = [sys.executable, "-m", "vsr", "run", url, str(tmp_path / "out.mp4"), "-m", "bicubic"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert connected.wait(60)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=60)
    took = time.monotonic() - began
    assert process.returncode == 130, words
    assert took < 6, "FFmpeg's own time limit is 10 s"
    assert "stopped while http://127.0.0.1" in words
    assert "k3y" not in words
    assert list(tmp_path.iterdir()) == []


def test_a_stop_is_heard_while_opening(silent: tuple[str, threading.Event]) -> None:
    url, connected = silent
    stop = threading.Event()
    threading.Thread(target=lambda: (connected.wait(60), stop.set()), daemon=True).start()
    with pytest.raises(InterruptedRunError, match="was being opened; nothing was written"):
        open_interruptibly(url, stop)


def test_an_input_that_can_be_opened_is(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.mp4", Clip(size=(64, 48), frames=3))
    source = open_interruptibly(str(clip), threading.Event())
    assert (source.info.width, source.info.height) == (64, 48)
    source.close()


def test_an_input_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        open_interruptibly(str(tmp_path / "none.mp4"), threading.Event())


class HalfFilm(http.server.BaseHTTPRequestHandler):
    """Sends half of the file, sets the event `sent`, and then stalls until `over` is set."""

    film = b""
    sent = threading.Event()
    over = threading.Event()

    def do_GET(self) -> None:
        """Send the headers of the whole file, but only half of the body."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.film)))
        self.end_headers()
        self.wfile.write(self.film[: len(self.film) // 2])
        self.sent.set()
        self.over.wait(60)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def test_the_first_signal_ends_a_run_whose_input_stalls(tmp_path: Path) -> None:
    """The frames received so far make a playable file, without FFmpeg's timeout of 30 s."""
    clip = make_clip(tmp_path / "in.ts", Clip(size=(160, 120), frames=400, audio=()))
    HalfFilm.film = clip.read_bytes()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), HalfFilm) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/film.ts"
        target = tmp_path / "out.mp4"
        command = [sys.executable, "-m", "vsr", "run", url, str(target), "-m", "bicubic"]
        command += ["--progress", "json"]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
        assert process.stdout is not None
        process.stdout.readline()  # frames arrive
        assert HalfFilm.sent.wait(60)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        _, words = process.communicate(timeout=60)
        took = time.monotonic() - began
        HalfFilm.over.set()
        server.shutdown()
    assert process.returncode == 130, words
    assert took < 15, "FFmpeg's own time limit is 30 s"
    assert 1 <= contents(target).frames < 400
