"""Tests that vsr makes no unrequested network access and leaves no files outside its cache."""

import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

import pytest

from tests.clips import Clip, make_clip
from tests.rtmp import free_port

ROOT: Final = Path(__file__).parents[1]
ALONE: Final = ROOT / "tests" / "alone.py"
VSR: Final = (sys.executable, "-m", "vsr")
UNSHARE: Final = ("unshare", "--map-root-user", "--net")
PROXIES: Final = ("http_proxy", "https_proxy", "all_proxy")
EVERY_NAME: Final = "import vsr; [getattr(vsr, name) for name in vsr.__all__]"
OPENVINO: Final = "import openvino"
ASKS: Final = """
import socket
try:
    socket.getaddrinfo("statistics.example", 443)
except OSError:
    pass
"""
TRAIN: Final = """
from train.__main__ import main
from train.measure.shipped import openvino_core
openvino_core()
main(("fit c-dcscn --data hr --checkpoint net.pt --steps 2 --batch 2 --patch 8 --workers 0 "
      "--threads 1 --precision 32-true").split())
"""
RUN: Final = (
    *VSR, "run", "in.mp4", "out.mp4", "--model", "c-dcscn", "--report", "report.html",
)  # fmt: skip
RELAY: Final = (*VSR, "relay", "in.mp4", "URL", "--model", "bicubic", "--status", "127.0.0.1:0")


def _namespaces() -> bool:
    """Return whether this machine permits creating a network namespace."""
    if not shutil.which("unshare"):
        return False
    return not subprocess.run([*UNSHARE, "true"], check=False, capture_output=True).returncode


class Recorder:
    """A proxy that counts connections and closes them, for machines without namespaces.

    It detects only requests that honour `https_proxy`, as OpenVINO's telemetry does.
    """

    def __init__(self) -> None:
        self.asked = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:  # closed
                return
            self.asked += 1
            connection.close()

    def close(self) -> None:
        self._server.close()


class Cell:
    """Runs commands with a separate home folder, and records network access and stray files."""

    def __init__(self, folder: Path) -> None:
        self.home, self.work = folder / "home", folder / "work"
        self.temporary = folder / "tmp"
        for made in (self.home, self.work, self.temporary):
            made.mkdir()
        self.attempts = 0

    def run(self, *command: str) -> str:
        """Run a command, count its network accesses in `attempts`, and return its output."""
        env = {k: v for k, v in os.environ.items() if k.lower() not in PROXIES}
        env = {k: v for k, v in env.items() if not k.startswith("XDG_") and k != "CI"}
        env |= {"HOME": str(self.home), "TMPDIR": str(self.temporary), "PYTHONPATH": str(ROOT)}
        report = self.work.parent / "attempts"
        recorder = None if _namespaces() else Recorder()
        if recorder is None:
            command = (*UNSHARE, sys.executable, str(ALONE), str(report), *command)
        else:
            env |= dict.fromkeys(PROXIES, recorder.url)
        done = subprocess.run(
            command, cwd=self.work, env=env, check=False, text=True, timeout=120,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if recorder is None:
            self.attempts = int(report.read_text())
        else:
            self.attempts = recorder.asked
            recorder.close()
        assert done.returncode == 0, done.stdout
        return done.stdout

    def strays(self) -> list[str]:
        """Return the home folder's files outside vsr's cache, and all temporary files."""
        ours = self.home / ".cache" / "vsr"
        found = [path for path in self.home.rglob("*") if not path.is_dir()]
        left = [path for path in found if not path.is_relative_to(ours)]
        left += [path for path in self.temporary.rglob("*") if not path.is_dir()]
        return [str(path) for path in left]


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    return Cell(tmp_path)


def test_what_is_looked_for_would_be_found(cell: Cell) -> None:
    """By default, OpenVINO sends telemetry and stores an id. A DNS lookup is detected too."""
    cell.run(sys.executable, "-c", OPENVINO)
    assert cell.attempts > 0
    assert cell.strays() != []
    if _namespaces():
        cell.run(sys.executable, "-c", ASKS)
        assert cell.attempts > 0


@pytest.mark.parametrize(
    "command",
    [
        (sys.executable, "-c", EVERY_NAME),
        (*VSR, "doctor"),
        (*VSR, "models"),
        (*VSR, "build-engine", "--list"),
        RUN,
        RELAY,
        (sys.executable, "-c", TRAIN),
    ],
    ids=["import", "doctor", "models", "engines", "run", "relay", "train"],
)
def test_nothing_is_reached_for_nor_left(cell: Cell, command: tuple[str, ...]) -> None:
    if command[-1] == TRAIN:
        pytest.importorskip("torch")
        from tests.training import image_folder

        image_folder(cell.work / "hr")
    make_clip(cell.work / "in.mp4", Clip(frames=12))
    url = f"udp://127.0.0.1:{free_port()}"
    cell.run(*(url if word == "URL" else word for word in command))
    assert cell.attempts == 0
    assert cell.strays() == []
    made = {RUN: {"out.mp4", "report.html", "report.receipt.json"}, TRAIN: {"hr", "net.pt"}}
    wanted = {"in.mp4"} | made.get(command, made.get(command[-1], set()))
    assert {path.name for path in cell.work.iterdir()} == wanted


def test_openvino_of_another_program_keeps_its_telemetry() -> None:
    """A telemetry module imported before vsr stays in place; otherwise none remains."""
    code = (
        "import sys, types; mine = sys.modules['openvino_telemetry'] = types.ModuleType('mine');"
        "import vsr.inference.openvino; assert sys.modules['openvino_telemetry'] is mine"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    code = "import sys, vsr.inference.openvino; assert 'openvino_telemetry' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
