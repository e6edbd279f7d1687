"""How many processors a container's limit grants."""

import os
from pathlib import Path

import pytest

from vsr.inference import models, openvino
from vsr.inference.cpu import cpu_limit
from vsr.media.colour import Colour


@pytest.fixture(autouse=True)
def _eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def _files(folder: Path, own: str, files: dict[str, str]) -> tuple[Path, Path]:
    for name, text in files.items():
        path = folder / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "own").write_text(own)
    return folder / "groups", folder / "own"


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "10000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "1600000 100000\n"}, None),
        ("0::/\n", {"cpu.max": "rubbish"}, None),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "max 100000\n"}, 3),
        ("0::/not/here\n", {"cpu.max": "400000 100000\n"}, 4),
        ("3:cpuset:/\n2:cpu,cpuacct:/x\n0::/\n",
         {"cpu/x/cpu.cfs_quota_us": "250000\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, 3),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("", {}, None),
    ],
)  # fmt: skip
def test_the_limit_of_control_groups(
    tmp_path: Path, own: str, files: dict[str, str], limit: int | None
) -> None:
    assert cpu_limit(*_files(tmp_path, own, files)) == limit


def test_without_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert cpu_limit(tmp_path, tmp_path / "own") is None


def test_openvino_takes_as_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "cpu_limit", lambda: 1)
    backend = openvino.OpenVinoBackend("CPU")
    network = models.find("bicubic", 2, backend, "fp32").graph(Colour()).onnx((32, 24))
    compiled = backend._compiled(network, {"PERFORMANCE_HINT": "THROUGHPUT"})
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
