"""Tests of the precision of third-party networks: measured once, close to fp32, and saved."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vsr.errors import BackendError, UsageError
from vsr.inference import fastest, models, openvino
from vsr.inference.fastest import measure_fastest, textured_picture
from vsr.inference.tensorrt.library import choose_precision
from vsr.media.colour import Colour
from vsr.network.graph import bicubic_network

PRECISIONS = ("fp32", "bf16", "fp16")
MEASURED = models._fastest_precision
"""The real function, which tests/conftest.py replaces."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(fastest, "default_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


def _runs(
    seconds: dict[str, float], errors: dict[str, float]
) -> Callable[[str], Callable[[], object]]:
    def compile_in(precision: str) -> Callable[[], object]:
        if precision not in seconds:
            raise BackendError("cannot be compiled")

        def run() -> object:
            time.sleep(seconds[precision])
            return np.full((1, 1, 8, 8), 0.5 + errors.get(precision, 0.0))

        return run

    return compile_in


@pytest.mark.parametrize(
    ("seconds", "errors", "best"),
    [
        ({"fp32": 0.06, "bf16": 0.02, "fp16": 0.04}, {"bf16": 0.002, "fp16": 0.0001}, "bf16"),
        ({"fp32": 0.06, "bf16": 0.02, "fp16": 0.04}, {"bf16": 0.01, "fp16": 0.0001}, "fp16"),
        ({"fp32": 0.02, "bf16": 0.06, "fp16": 0.06}, {}, "fp32"),
        ({"fp32": 0.06, "fp16": 0.02}, {"fp16": float("nan")}, "fp32"),
        ({"fp32": 0.04}, {}, "fp32"),
    ],
)  # fmt: skip
def test_the_fastest_within_50_db_is_chosen(
    seconds: dict[str, float], errors: dict[str, float], best: str
) -> None:
    assert measure_fastest(PRECISIONS, _runs(seconds, errors), "a network here", 1.0) == best


@pytest.mark.parametrize(("seconds", "rounds"), [(0.5, 5), (2.0, 1)])
def test_a_slow_network_is_timed_once(
    monkeypatch: pytest.MonkeyPatch, seconds: float, rounds: int
) -> None:
    clock, runs = [0.0], {"fp32": 0, "bf16": 0}

    def compile_in(precision: str) -> Callable[[], object]:
        def run() -> object:
            clock[0] += seconds / (2 if precision == "bf16" else 1)
            runs[precision] += 1
            return np.full((1, 1, 8, 8), 0.5)

        return run

    monkeypatch.setattr(fastest, "now", lambda: clock[0])
    assert measure_fastest(("fp32", "bf16"), compile_in, "a network here", 1.0) == "bf16"
    assert runs == dict.fromkeys(runs, 1 + rounds)  # the first run warms up


@pytest.mark.parametrize("runs_before", [0, 2])
def test_a_precision_that_fails_to_run_is_left_out(
    runs_before: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock, failing = [0.0], "bf16"

    def compile_in(precision: str) -> Callable[[], object]:
        runs = iter(range(10))

        def run() -> object:
            if precision == failing and next(runs) >= runs_before:
                raise RuntimeError("no such instruction")
            clock[0] += 0.03 if precision == "fp32" else 0.01
            return np.full((1, 1, 8, 8), 0.5)

        return run

    monkeypatch.setattr(fastest, "now", lambda: clock[0])
    with caplog.at_level("INFO"):
        assert measure_fastest(PRECISIONS, compile_in, "a network here", 1.0) == "fp16"
    assert "precision bf16 failed (no such instruction): leaving it out" in caplog.messages
    failing = "fp32"
    with pytest.raises(BackendError, match="does not run: no such instruction"):
        measure_fastest(PRECISIONS, compile_in, "another", 1.0)


def test_what_was_measured_is_remembered_and_logged_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    compile_in = _runs({"fp32": 0.03, "bf16": 0.01}, {})
    with caplog.at_level("INFO"):
        assert measure_fastest(PRECISIONS, compile_in, "one", 1.0) == "bf16"
        assert measure_fastest(PRECISIONS, _runs({}, {}), "one", 1.0) == "bf16"
    assert caplog.text.count("precision: bf16") == 1
    with pytest.raises(BackendError):
        measure_fastest(PRECISIONS, _runs({}, {}), "two", 1.0)
    (folder / "precisions.json").write_text('["damaged"')
    assert measure_fastest(PRECISIONS, compile_in, "one", 1.0) == "bf16"
    assert json.loads((folder / "precisions.json").read_text()) == {"one": "bf16"}


def test_a_foreign_network_is_measured_on_this_machine(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "_fastest_precision", MEASURED)
    path = tmp_path / "net.onnx"
    path.write_bytes(bicubic_network(2).SerializeToString())
    backend = openvino.OpenVinoBackend("CPU")
    model = models.find(str(path), None, backend)
    assert model.precision in backend.float_precisions()
    [(key, precision)] = json.loads((folder / "precisions.json").read_text()).items()
    assert precision == model.precision
    assert model.sha256 in key and backend.device in key
    assert models.find(str(path), None, backend, "fp32").precision == "fp32"


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_other_floats_are_near_full_precision_or_refused(precision: str) -> None:
    backend = openvino.OpenVinoBackend("CPU")
    if precision not in backend.float_precisions():
        with pytest.raises(UsageError, match=f"does not support {precision}"):
            models.find("c-dcscn", 2, backend, precision)
        return
    luma = np.rint(16 + 219 * textured_picture(1, (64, 48))[0, 0]).astype(np.uint8)
    chroma = np.full((24, 32), 128, np.uint8)
    made = []
    for each in ("fp32", precision):
        model = models.find("c-dcscn", 2, backend, each)
        assert model.precision == each
        engine = backend.compile(model.graph(Colour()), (64, 48))
        made.append(engine.submit((luma, chroma, chroma)).result()[0].astype(float))
    error = np.square(made[0] - made[1]).mean()
    assert 10 * np.log10(255**2 / error) > 50
    plain = models.in_fp32(model)
    assert plain is not None and plain.precision == "fp32"


def test_gpus_have_no_bf16() -> None:
    with pytest.raises(UsageError, match="fp16"):
        choose_precision("bf16")
