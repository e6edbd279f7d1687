"""A run on a real Ray cluster of two local nodes, one of which is killed during the run."""

import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

import vsr
from tests.clips import Clip, make_clip
from tests.files.test_jobs import ROOT, SECONDS, _coded, _command, _segments
from vsr.errors import UsageError

FRAMES = 200
needs_ray = pytest.mark.skipif(
    find_spec("ray") is None, reason="needs Ray: pip install 'vsr-stream[ray]'"
)


@pytest.fixture(scope="module")
def nodes() -> "Iterator[subprocess.Popen[str]]":
    """A Ray cluster of two nodes with one CPU each; each line on its stdin kills one node."""
    command = [sys.executable, "-m", "tests.ray_nodes"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as run:  # type: ignore[call-overload]
        yield run
        run.stdin.close()


@needs_ray
def test_a_node_that_is_killed_costs_nothing(
    tmp_path: Path, nodes: "subprocess.Popen[str]"
) -> None:
    assert nodes.stdout is not None and nodes.stdin is not None
    address = nodes.stdout.readline().strip()
    source = make_clip(tmp_path / "in.mkv", Clip(size=(96, 72), frames=FRAMES))
    one, target, report = tmp_path / "one.mkv", tmp_path / "out.mkv", tmp_path / "r.csv"
    vsr.upscale(source, one, model="bicubic", preset="ultrafast", segment=SECONDS)
    command = _command(source, target, "--cluster", address, "--report", report)
    with subprocess.Popen(command, cwd=ROOT) as run:
        while _segments(target) < 3:
            assert run.poll() is None, "it was done before it could be disturbed"
            time.sleep(0.01)
        nodes.stdin.write("one less\n")
        nodes.stdin.flush()
    assert run.returncode == 0
    assert _coded(target) == _coded(one)
    lines = report.read_text("utf-8").splitlines()
    assert len(lines) == 1 + FRAMES and lines[0].endswith("event,host,device")
    check = [sys.executable, "-m", "vsr", "cluster", "check", "--cluster", address]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len([line for line in done.stdout.splitlines() if "libx264" in line]) == 2


def test_without_ray_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_clip(tmp_path / "in.mkv", Clip(frames=5))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'vsr-stream\[ray\]'"):
        vsr.upscale(source, tmp_path / "out.mkv", model="bicubic", cluster="auto")
