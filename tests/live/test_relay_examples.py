"""Runs the relay examples in `examples/` as written, with the servers that are installed."""

import getpass
import os
import shlex
import shutil
import string
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.programs import NGINX, RTMP_MODULE, needs_nginx
from tests.rtmp import FPS, Viewer, free_port, wait_for
from tests.streams import ROOT, Marked, Publisher, Recorder, make_marked
from vsr.cli.relay import relay
from vsr.cli.relay_config import option_values, read_config

EXAMPLES = ROOT / "examples"
VSR = "/usr/local/bin/vsr"
START = 40.0
"""Longest wait for a process to start on a busy machine, in seconds."""


def _taken(words: list[str]) -> dict[str, Any]:
    """Parse the options of a relay; fail for an unknown one."""
    with relay.make_context("relay", words) as context:
        return context.params


def _entries(name: str) -> dict[str, str]:
    """Return the last value of every entry of a systemd unit."""
    lines = (EXAMPLES / name).read_text(encoding="utf-8").splitlines()
    pairs = (line.partition("=") for line in lines if line[:1].isupper())
    return {key: value for key, _, value in pairs}


def test_the_relays_of_the_configuration_are_relays() -> None:
    text = (EXAMPLES / "relay.toml").read_text(encoding="utf-8")
    tables = tomllib.loads(text)["relay"]
    relays = read_config(EXAMPLES / "relay.toml")
    assert [one.name for one in relays] == [table["name"] for table in tables]
    for one, table in zip(relays, tables, strict=True):
        assert one.urls == (table["input"], *table["outputs"])
        options = option_values(relay, one.options)
        assert options["model"] == table["model"]


def test_the_service_runs_what_its_credential_names(tmp_path: Path) -> None:
    """With an almost empty environment, as under systemd, and an input that ends."""
    unit = _entries("vsr-relay.service")
    credential, _, source = unit["LoadCredential"].partition(":")
    assert source == "/etc/vsr/relay.toml"
    clip = make_marked(tmp_path / "in.flv", Marked(seconds=1))
    target = tmp_path / "out.mkv"
    (tmp_path / credential).write_text(
        f'[[relay]]\ninput = "{clip}"\noutputs = ["{target}"]\nmodel = "bicubic"\n'
    )
    begin, *words = shlex.split(unit["ExecStart"])
    assert begin == VSR
    given = string.Template(" ".join(words)).substitute(CREDENTIALS_DIRECTORY=tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "vsr", *shlex.split(given)],
        env={"XDG_CACHE_HOME": str(tmp_path / "cache")}, cwd=ROOT, timeout=START,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert target.stat().st_size > 1000
    assert done.stderr.startswith('{"time"')
    # after a signal, the relay ends within 2 s with exit code 130
    assert (unit["KillSignal"], unit["SuccessExitStatus"]) == ("SIGTERM", "130")
    assert float(unit["TimeoutStopSec"]) > 2


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_finds_no_fault_with_the_service(tmp_path: Path) -> None:
    text = (EXAMPLES / "vsr-relay.service").read_text(encoding="utf-8")
    unit = tmp_path / "vsr-relay.service"
    unit.write_text(text.replace(VSR, sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)],
        timeout=30, capture_output=True, text=True, check=False,
    )  # fmt: skip
    told = [line for line in done.stderr.splitlines() if unit.name in line]
    assert (done.returncode, told) == (0, [])


def test_mediamtx_would_start_a_relay() -> None:
    """MediaMTX is in no package registry, so only its command is checked."""
    yaml = pytest.importorskip("yaml", reason="needs PyYAML")
    paths = yaml.safe_load((EXAMPLES / "mediamtx.yml").read_text(encoding="utf-8"))["paths"]
    hook = paths["all_others"]
    assert hook["runOnAvailableRestart"] is True
    command = string.Template(hook["runOnAvailable"]).substitute(RTSP_PORT=8554, MTX_PATH="cam")
    begin, name, *words = shlex.split(command)
    assert (begin, name) == ("vsr", relay.name)
    source, target = _taken(words)["urls"]
    assert (source, target) == ("rtsp://127.0.0.1:8554/cam", "rtmp://127.0.0.1:1935/hd/cam")
    assert paths.keys() == {"~^hd/.+$", "all_others"}  # a relay's output starts no other relay


class _Nginx:
    """nginx with the included example, on a free port and with this tree's relay."""

    def __init__(self, folder: Path) -> None:
        self.port, self.log = free_port(), folder / "vsr-relay.log"
        text = (EXAMPLES / "nginx-rtmp.conf").read_text(encoding="utf-8")
        for before, after in (
            ("1935", str(self.port)), (VSR, f"{sys.executable} -m vsr.cli.main"),
            ("--model c-dcscn", "--model bicubic"), ("/var/log/nginx", str(folder)),
            ("/var/cache/vsr", str(folder)),
        ):  # fmt: skip
            assert before in text, before
            text = text.replace(before, after)
        (folder / "nginx-rtmp.conf").write_text(text)
        user = f"user {getpass.getuser()};" if os.getuid() == 0 else ""
        conf, log = folder / "nginx.conf", folder / "error.log"
        conf.write_text(
            f"daemon off; {user} load_module {RTMP_MODULE}; pid {folder}/nginx.pid; events {{}} "
            f"error_log {log} info; include {folder}/nginx-rtmp.conf;"
        )
        log.touch()
        self._process = subprocess.Popen(
            [NGINX, "-p", str(folder), "-c", str(conf), "-e", str(log)],
            cwd=ROOT, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for(lambda: "start worker process" in log.read_text(), 10, "nginx does not start")

    def __enter__(self) -> "_Nginx":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()  # a kill would leave its worker running
        self._process.wait(10)

    def relays(self) -> list[int]:
        """Return the process ids of the running relays that nginx started."""
        mine = f"rtmp://127.0.0.1:{self.port}/live/cam".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
            except OSError:  # it ended meanwhile
                continue
            if mine in words and b"relay" in words:
                found.append(int(path.parent.name))
        return found


@needs_nginx
def test_nginx_starts_a_relay_for_every_publisher_and_ends_it(tmp_path: Path) -> None:
    clip = make_marked(tmp_path / "in.flv", Marked(seconds=120))  # two starts, if need be slow
    with _Nginx(tmp_path) as nginx:
        url = f"rtmp://127.0.0.1:{nginx.port}"
        with Recorder(f"{url}/hd/cam") as viewer, Publisher(f"{url}/live/cam", clip) as publisher:
            wait_for(lambda: len(viewer.of("video")) > FPS, START, "nothing came out")
            assert viewer.size == (320, 180)
            (first,) = nginx.relays()
            os.kill(first, 9)  # nginx respawns it
            with Viewer(f"{url}/hd/cam", patience=START) as again:
                wait_for(lambda: len(again.of("video")) > FPS, START, "nothing came out again")
            (second,) = nginx.relays()
            assert second != first
            publisher.kill()
            wait_for(lambda: not nginx.relays(), 10, "the relay stayed when its publisher had gone")
    assert "stopping after the frames in progress" in nginx.log.read_text()  # TERM, not KILL
