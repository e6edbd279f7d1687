"""LPIPS without torch gives the same scores as the implementation with torch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner

from tests.clips import Clip, make_clip
from vsr.cli.main import main
from vsr.compare.compare import CompareSettings, compare
from vsr.compare.lpips import Lpips
from vsr.errors import InputError
from vsr.network.lpips import SHAPES

SIZE = (64, 48)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, which test the computation of LPIPS as well as trained weights do."""
    rng = np.random.default_rng(5)
    made: dict[str, Any] = {}
    for name, shape in SHAPES.items():
        spread = 1 / np.sqrt(np.prod(shape[1:]))
        made[name] = (rng.normal(0, spread, shape)).astype(np.float32)
        if name.startswith("lin"):
            made[name] = np.abs(made[name])
    path = tmp_path_factory.mktemp("weights") / "lpips.npz"
    np.savez(path, **made)
    return path


def _pictures(size: tuple[int, int]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    rng = np.random.default_rng(2)
    one = rng.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    return one, np.clip(one + rng.integers(-20, 20, one.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [SIZE, (31, 31), (83, 65)])
def test_it_is_what_training_measures(weights: Path, size: tuple[int, int]) -> None:
    pytest.importorskip("torch")
    from train.measure.perceptual import Lpips as WithTorch

    one, other = _pictures(size)
    measure = Lpips(weights)
    assert measure(one, other) == pytest.approx(WithTorch.load(weights)(one, other), rel=1e-4)
    assert measure(one, one) == 0.0
    assert measure(one[:30], other[:30]) is None


def test_the_command_measures_it(weights: Path, tmp_path: Path) -> None:
    clip = {"size": SIZE, "frames": 4, "audio": ()}
    truth, coarse = (
        make_clip(tmp_path / f"{crf}.mkv", Clip(**clip, options={"crf": crf}))  # type: ignore[arg-type]
        for crf in ("0", "44")
    )
    words = ["compare", str(coarse), str(truth), "--reference", str(truth)]
    outputs = ["-o", str(tmp_path / "x.json"), "-o", str(tmp_path / "x.html")]
    done = CliRunner().invoke(main, [*words, *outputs, "--lpips", str(weights)])
    assert done.exit_code == 0, done.output
    assert "lpips" in done.stdout.splitlines()[1]
    page = (tmp_path / "x.html").read_text("utf-8")
    assert "LPIPS over time" in page
    told = json.loads((tmp_path / "x.json").read_text("utf-8"))
    off, equal = (video["totals"]["lpips"] for video in told["videos"])
    assert set(off) == {"mean", "max", "p99", "p95", "p50"}
    assert off["max"] == off["p99"] >= off["p95"] >= off["p50"] > 0
    assert equal["max"] == 0.0


def test_pictures_that_are_too_small_are_said(weights: Path, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.mkv", Clip(size=(32, 24), frames=2, audio=()))
    found = compare([clip], clip, CompareSettings(lpips=weights))
    assert "lpips" not in found.measures()
    assert found.measures() == ["psnr", "psnr_y", "ssim", "flicker"]
    assert "LPIPS was not measured: it needs frames of 31x31 or more" in found.notes
    assert "XPSNR was not measured: the frames are too small" in found.notes


@pytest.mark.parametrize("size", [(2, 2), (16, 8), (44, 46), (46, 46)])
def test_small_pictures_are_measured_by_what_can(tmp_path: Path, size: tuple[int, int]) -> None:
    clip = make_clip(tmp_path / "in.mkv", Clip(size=size, frames=3, audio=(), codec="ffv1"))
    found = compare([clip], clip)
    assert found.totals(0)["psnr"]["mean"] is None  # identical
    assert found.totals(0).get("ssim", {"min": 1.0})["min"] == 1.0
    assert ("xpsnr" in found.measures()) == (size == (46, 46))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "No such file"),
        (b"", r"LPIPS weights .*: it is not an \.npz file$"),
        (b"PK nothing", r": it is not an \.npz file$"),
        (b"worker_processes 1;", r": it is not an \.npz file$"),
        (
            {"conv0.weight": np.zeros(3)},
            r"array conv0.weight has shape \(3,\), not \(64, 3, 11, 11\)",
        ),
        ({"other": np.zeros(3)}, "array conv0.weight is missing"),
        ({"conv0.weight": np.array([{}], object)}, ": array conv0.weight does not hold plain num"),
    ],
)
def test_what_has_no_weights_is_told_in_a_line(
    tmp_path: Path, content: Any, complaint: str
) -> None:
    path = tmp_path / "weights.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.savez(path, **content)
    with pytest.raises(InputError, match=complaint):
        Lpips(path)
