"""Tests of the CPU and memory limits of a process, from control groups and the system."""

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from tests.clips import make_clip
from vsr.inference import models, openvino
from vsr.media import decoder
from vsr.media import encoder as encoders
from vsr.media.colour import Colour
from vsr.media.encoder import EncoderSettings, VideoFormat, open_encoder
from vsr.media.limits import cpu_limit, free_memory
from vsr.media.parameters import add_threads
from vsr.media.scheduling import keep_scheduling


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
    compiled = backend._compile(network, {"PERFORMANCE_HINT": "THROUGHPUT"})
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1


@pytest.mark.parametrize(
    ("encoder", "parameters"),
    [("libx264", ""), ("libx265", "pools=2"), ("libsvtav1", "lp=2")],
)
def test_encoders_and_decoders_take_no_more_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: str, parameters: str
) -> None:
    for module in (decoder, encoders):
        monkeypatch.setattr(module, "cpu_limit", lambda: 2)
    context: Any = av.CodecContext.create(encoder, "w")
    video = VideoFormat(size=(128, 96), rate=Fraction(25), time_base=Fraction(1, 25))
    with keep_scheduling():
        open_encoder(context, EncoderSettings(), video)
    assert context.thread_count == 2
    options: dict[str, str] = {}
    add_threads(encoder, 2, options)
    assert options == ({} if not parameters else {f"{encoder[3:]}-params": parameters})
    with av.open(str(make_clip(tmp_path / "in.mkv"))) as source:
        stream = source.streams.video[0]
        assert decoder.prepare_decoder(stream, "in.mkv", "AUTO", None) == 3 + 4
        assert stream.codec_context.thread_count == 3


CPU_GROUPS = Path("/sys/fs/cgroup/cpu")


@pytest.mark.skipif(
    not os.access(CPU_GROUPS / "cgroup.procs", os.W_OK), reason="no group can be made here"
)
def test_a_real_group_of_half_a_processor_means_one_thread() -> None:
    group = CPU_GROUPS / f"vsr-test-{os.getpid()}"
    group.mkdir()
    code = (
        f"open({str(group / 'cgroup.procs')!r}, 'w').write('0')\n"
        "from vsr.media.limits import cpu_limit, processor_count\n"
        "print(cpu_limit() or processor_count())"
    )
    try:
        (group / "cpu.cfs_period_us").write_text("100000")
        (group / "cpu.cfs_quota_us").write_text("50000")
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        assert int(found.stdout) == 1
    finally:
        group.rmdir()


_MEMINFO = "MemTotal: 16000 kB\nMemFree: 100 kB\nMemAvailable: 8000 kB\n"


@pytest.mark.parametrize(
    ("own", "files", "free"),
    [
        ("0::/\n", {}, 8000 * 1024),
        ("0::/\n", {"memory.max": "max\n", "memory.current": "5\n"}, 8000 * 1024),
        ("0::/a\n", {"memory.max": "900000\n", "memory.current": "500000\n"}, 400_000),
        ("0::/a\n", {"unified/a/memory.max": "9000\n", "unified/a/memory.current": "5000\n"}, 4000),
        ("0::/\n", {"memory.max": "9000\n", "memory.current": "8000\n",
                    "memory.stat": "anon 1\ninactive_file 700\n"}, 1700),
        ("0::/\n", {"memory.max": "9000\n", "memory.current": "9500\n"}, 0),
        ("4:memory:/x/y\n0::/\n", {"memory/x/memory.limit_in_bytes": "9000\n",
                                   "memory/x/memory.usage_in_bytes": "2000\n"}, 7000),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": f"{2**63 - 4096}\n",
                          "memory/memory.usage_in_bytes": "2000\n"}, 8000 * 1024),
        ("0::/\n", {"memory.max": "rubbish"}, 8000 * 1024),
    ],
)  # fmt: skip
def test_memory_that_is_left(tmp_path: Path, own: str, files: dict[str, str], free: int) -> None:
    (tmp_path / "meminfo").write_text(_MEMINFO)
    assert free_memory(*_files(tmp_path, own, files), tmp_path / "meminfo") == free


def test_memory_of_systems_that_do_not_say(tmp_path: Path) -> None:
    assert free_memory(tmp_path, tmp_path / "own", tmp_path / "meminfo") is None
