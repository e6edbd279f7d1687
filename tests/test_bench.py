"""Tests that the tools in `bench/` run and print what they should, not how fast anything is."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")
import numpy as np

from bench import engines, flicker, gpu, gpu_report, gpu_session, isa, peers, plan, times
from tests.clips import make_still_clip
from vsr.inference import models
from vsr.inference.backend import Backend
from vsr.network.graph import NetworkFacts, PlaneGraph

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).parents[1]
TINY = ["--size", "16x12", "--rounds", "3", "--threads", "1"]


def _table(text: str) -> list[dict[str, str]]:
    """Return the rows of the markdown table, each as {column: cell}."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    head, rule, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    assert set(rule) == {"---"}
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_engines_prints_a_row_for_every_form(capsys: pytest.CaptureFixture[str]) -> None:
    engines.main(["c-dcscn", *TINY])
    text = capsys.readouterr().out
    training, deploy, *int8, peak = _table(text)
    assert tuple(training) == engines.COLUMNS
    assert (training["form"], deploy["form"]) == ("training", "deploy")
    assert training["times faster"] == ""
    assert re.fullmatch(r"\d+\.\d\d than fp32 training", deploy["times faster"])
    assert [form["precision"] for form in int8] == ["int8"] * len(int8)
    assert ("No int8 form: c-dcscn x2" in text) is not bool(int8)
    for form in (training, deploy, *int8):
        # luma and 4:2:0 chroma of the input, and of the output with 4 times as many samples
        assert form["MB moved"] == f"{16 * 12 * 1.5 * 5 / 1e6:.2f}"
        assert 0 < float(form["p50 ms"]) <= float(form["p99 ms"])
        assert float(form["frames/s"]) > 0
    assert (peak["model"], peak["of peak"]) == ("peak beside c-dcscn", "100%")
    assert re.match(r"16x12, 3 rounds, .+, OpenVINO \S+, 1 thread$", text.splitlines()[0])


def test_flicker_prints_times_and_the_flicker_of_a_still_clip(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = make_still_clip(tmp_path / "in.mkv", 10, frames=1, noise=0)
    flicker.main(["--size", "32x24", "--rounds", "2", "--clip", str(clip)])
    times_, ratios = (_table(part) for part in capsys.readouterr().out.split("\n\n"))
    assert [row["bits"] for row in times_] == ["8", "10"]
    assert all(float(row[name]) > 0 for row in times_ for name in ("still ms", "network ms"))
    assert [row["crf"] for row in ratios] == ["23", "28", "33"]
    assert all(float(row["with"]) <= float(row["without"]) for row in ratios)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--backend", "tensorrt"], "tensorrt is not installed"),
        (["--backend", "tensorrt-rtx"], "NVIDIA driver (libcuda) not found"),
        (["no-such-model"], "no model no-such-model x2"),
        (["c-dcscn", "--scale", "5"], "no model c-dcscn x5"),
        (["--size", "large"], "invalid parse_size value: 'large'"),
    ],
)
def test_engines_refuses_what_it_cannot_measure(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        engines.main([*words, *TINY] if "--size" not in words else words)
    assert caught.value.code == 2
    assert complaint in capsys.readouterr().err


def test_every_ratio_is_the_median_of_the_rounds() -> None:
    slow, fast = (
        engines.Form(name=n, precision="fp32", operations=1.0, request=None, seconds=s)
        for n, s in (("a", [4.0, 9.0, 2.0]), ("b", [2.0, 1.0, 2.0]))
    )
    assert engines.ratio(slow, fast) == 2.0


@pytest.mark.gpu
def test_engines_on_a_gpu_prints_a_row_for_every_precision(
    capsys: pytest.CaptureFixture[str],
) -> None:
    engines.main(["c-dcscn", "--backend", "tensorrt-rtx", "--size", "320x180", "--rounds", "5"])
    rows = _table(capsys.readouterr().out)
    assert [row["precision"] for row in rows] == ["fp32", "fp32", "fp16", "fp16"]
    assert all(float(row["p50 ms"]) > 0 for row in rows)


def test_the_peak_on_a_gpu_is_a_network_that_runs(backend: Backend) -> None:
    network, operations = gpu.dense_stack(16, 12)
    graph = PlaneGraph(network=network, facts=NetworkFacts(scale=1, colour="y"))
    y = np.full((12, 16), 90, np.uint8)
    u = v = np.full((6, 8), 128, np.uint8)
    assert backend.compile(graph, (16, 12)).submit((y, u, v)).result()[0].shape == (12, 16)
    assert operations == 2 * 16 * 12 * 9 * 64 * 64 * gpu.DEPTH


def test_times_are_entered_for_every_form_and_shown_on_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = json.loads((models.ENGINES / "manifest.json").read_text("utf-8"))
    few = {"c-dcscn": {"x2": whole["models"]["c-dcscn"]["x2"]}}
    (tmp_path / "manifest.json").write_text(json.dumps({**whole, "models": few}), "utf-8")
    shutil.copytree(models.ENGINES / "c-dcscn", tmp_path / "c-dcscn")
    times.main(["--engines", str(tmp_path), "--size", "32x24", "--rounds", "2"])
    entry = json.loads((tmp_path / "manifest.json").read_text("utf-8"))["models"]["c-dcscn"]["x2"]
    shortest = [form["ms"]["ms"] for form in (entry, entry["int8"])]
    assert min(shortest) > 0
    assert f"c-dcscn x2: {shortest[0]:g} ms, int8 {shortest[1]:g}" in capsys.readouterr().out
    page = (tmp_path / "README.md").read_text("utf-8")
    assert f"| x2 | {shortest[0]:g} (int8 {shortest[1]:g}) | 37." in page
    assert re.search(r"one 32x24 picture on .+ CPUs, OpenVINO \S+, \d+ thread", page)


def test_a_gpu_session_walks_every_step_without_a_gpu(tmp_path: Path) -> None:
    words = ["bench/gpu_session.sh", str(tmp_path / "out"), "--dry-run"]
    environment = os.environ | {"PYTHON": sys.executable}
    environment.pop("WHEELS", None)
    done = subprocess.run(
        words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "out/session.json").read_text("utf-8"))
    names = [step.name for step in gpu_session.steps(()) if step.name != "training"]
    assert [step["name"] for step in told["steps"]] == names
    assert {step["code"] for step in told["steps"]} == {0}
    text = gpu_report.report(told)
    assert text.startswith("**A dry run on a machine without a GPU")
    assert "| c-dcscn |" in text.split("## Engines")[1]


def test_a_step_that_takes_too_long_is_stopped_and_named() -> None:
    sleeps = (sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(60)")
    step = gpu_session.Step(name="engines", command=sleeps, dry=sleeps, limit_s=1.0)
    outcome = gpu_session.run(step, False, time.monotonic() + 60)
    assert outcome.code is None or outcome.code < 0
    assert (outcome.output.startswith("begun"), outcome.seconds < 30) == (True, True)
    told = {"schema": "vsr-gpu-session/1", "dry": False, "steps": [vars(outcome)]}
    assert "stopped at its time limit after" in gpu_report.report(told)
    with pytest.raises(ValueError, match="not a session file"):
        gpu_report.report({"schema": "vsr-report/1"})


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="no ffmpeg program: it scales the clip")
def test_plan_compares_a_forecast_with_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--sizes", "32x24", "--models", "bicubic", "--frames", "30", "--pairs", "1"]
    plan.main([*words, "--seconds", "0.05"])
    head, _, row = capsys.readouterr().out.splitlines()
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert len(cells) == len(head.strip("|").split("|"))
    assert cells[:2] == ["32x24", "bicubic"]
    assert all(float(cell.split()[0]) > 0 for cell in cells[2:])


def test_peers_says_what_it_skips(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    nowhere = str(tmp_path / "python")
    peers.main(["--python", nowhere])
    assert re.match(
        rf"SKIPPED: {nowhere} has no VapourSynth .*No such file", capsys.readouterr().out
    )
    script = peers.script_of("dcscn", Path("in.mp4"), tmp_path).read_text("utf-8")
    assert f"network_path='{models.ENGINES / 'dcscn/x2.int8.onnx'}'" in script
    compile(script, "dcscn.vpy", "exec")


def test_isa_prints_times_and_shares(capsys: pytest.CaptureFixture[str]) -> None:
    isa.main(["c-dcscn", "--size", "16x12", "--rounds", "1", "--isas", "AVX2"])
    [row] = _table(capsys.readouterr().out)
    assert (row["network"], row["instructions"], row["ratio to first"]) == (
        "c-dcscn",
        "AVX2",
        "1.00",
    )
    shares = [int(share) for share in re.findall(r" (\d+)%", row["time by layer"])]
    assert shares == sorted(shares, reverse=True)
    assert 50 <= sum(shares) <= 101
