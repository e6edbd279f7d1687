"""Tests of export to ONNX, manifest and card: the file computes the same as the network."""

import json
import logging
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from tests.networks import ALL_NETWORKS, channels, roughened
from tests.train.conftest import Traces
from train.__main__ import main
from train.errors import TrainError
from train.fit.recipe import Recipe
from train.fit.trainer import Trainer
from train.measure.evaluate import evaluate
from train.measure.shipped import openvino_enlarge
from train.nets import NETS, Net, build
from train.ship.export import (
    Target,
    _stream_method,
    difference,
    export,
    export_scale,
)
from train.ship.provenance import read

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).parents[2]
TINY = Recipe(steps=6, batch=2, patch=8)
DATA = {"folders": ["synthetic"], "images": 2}

# An export takes seconds. COVERING has every layer and every upsampling method. OTHERS use the same
# code; they differ in the choice of layers, in widths (c-dcscn), in scale (CSRCNN's x4 is a part of
# its x8) or only in name (-l1).
COVERING = [
    ("carn-m", 2),
    ("carn-m", 4),
    ("dcscn", 2),
    ("csrcnn", 2),
    ("pcarn-m", 3),
    ("rt", 2),
]
OTHERS = [
    ("carn-m", 3), ("dcscn", 3), ("dcscn", 4), ("csrcnn", 8), ("carn", 4), ("carn-nl", 3),
    ("carn-ng", 4), ("carn-baseline", 2), ("pcarn", 3), ("pcarn-l1", 2), ("pcarn-m-l1", 4),
    ("c-dcscn", 2),
]  # fmt: skip

IMPORTED = "dcscn"
"""Network whose checkpoint has third-party weights in its history; it is traced above."""

FEWER = {"csrcnn": {"blocks": (2, 2, 2), "residuals": 1, "convolutions": 1}}
"""Settings with fewer repeated parts, which cost export time and run the same code."""


@pytest.mark.parametrize(
    ("name", "scale"),
    [*COVERING, *(OTHERS if ALL_NETWORKS else [])],
)
def test_onnx_on_openvino_equals_torch_at_odd_sizes(name: str, scale: int, traces: Traces) -> None:
    only = (scale,) if "dcscn" in name else None
    net = roughened(build(name, only, **FEWER.get(name, {})))
    enlarge = openvino_enlarge(traces.anew(net, scale).SerializeToString())
    for height, width in ((21, 27), (8, 31), (1, 3)):
        assert difference(net, scale, enlarge, height, width) < 1e-5, (height, width)
    batch = np.random.default_rng(1).random((3, channels(net), 5, 9), np.float32)
    one_by_one = [enlarge(picture[None])[0] for picture in batch]
    assert np.abs(enlarge(batch) - one_by_one).max() < 1e-5


def test_every_network_is_compared() -> None:
    assert set(NETS) == {name for name, _ in COVERING + OTHERS}


# all parts of an export


@dataclass(frozen=True)
class Exported:
    """Exported file of a random network, its manifest entry and its card."""

    path: Path
    entry: dict[str, Any]
    card: str


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with one picture."""
    folder = tmp_path_factory.mktemp("pictures") / "waves"
    folder.mkdir()
    y, x = np.mgrid[:40, :48]
    waves = 128 + 90 * np.sin(x / np.array([2.0, 3.0, 4.0])[:, None, None] + y / 5)
    Image.fromarray(waves.astype(np.uint8).transpose(1, 2, 0)).save(folder / "waves.png")
    return folder


def _checkpoint(
    path: Path, name: str, scales: tuple[int, ...] = (2,), imported: bool = False
) -> Path:
    """Save a checkpoint of a random network; only its averaged weights are roughened."""
    trainer = Trainer.new(name, TINY, scales)
    trainer.step, trainer.data = 5, DATA
    trainer.history = [{"imported": "elsewhere.pth", "sha256": "0" * 64}] if imported else []
    roughened(trainer.average)
    trainer.save(path)
    return path


@pytest.fixture(scope="module")
def exported(
    tmp_path_factory: pytest.TempPathFactory, benchmark: Path
) -> Callable[[str], Exported]:
    """Return a function that exports a random network by name, once, to one `engines` folder."""
    folder = tmp_path_factory.mktemp("exported")
    made: dict[str, Exported] = {}

    def make(name: str) -> Exported:
        if name not in made:
            checkpoint = _checkpoint(
                folder / f"{name}.pt", name.removesuffix("-stream"), imported=name == IMPORTED
            )
            [path] = export(
                checkpoint, Target(engines=folder / "engines", model=name, benchmarks=[benchmark])
            )
            models = json.loads((folder / "engines/manifest.json").read_text("utf-8"))["models"]
            page = (folder / "engines/README.md").read_text("utf-8")
            card = page.split(f"## {name}\n")[1].split("\n## ")[0]
            made[name] = Exported(path, models[name]["x2"], card)
        return made[name]

    return make


def test_the_averaged_weights_are_exported(exported: Callable[[str], Exported]) -> None:
    enlarge = openvino_enlarge(exported("carn-m").path.read_bytes())
    assert difference(roughened(build("carn-m", (2,))), 2, enlarge) < 1e-5
    assert difference(Trainer.new("carn-m", TINY, (2,)).net.eval(), 2, enlarge) > 0.1


def test_manifest_entry_states_what_was_exported(
    exported: Callable[[str], Exported], benchmark: Path
) -> None:
    made = exported("carn-m")
    content, entry = made.path.read_bytes(), made.entry
    measured = evaluate(openvino_enlarge(content), benchmark, 2, "rgb")
    assert entry["file"] == "carn-m/x2.onnx"
    assert (entry["colour"], entry["precision"], entry["range"]) == ("rgb", "fp32", [0.0, 1.0])
    assert (entry["parameters"], entry["receptive_field_radius"]) == (257_027, 21)
    assert entry["multadds_720p"] / 1e9 == pytest.approx(91.2, abs=0.05)
    assert entry["psnr"] == {"waves": measured}
    assert entry["licence"] == "Apache-2.0"


def test_manifest_entry_states_how_it_was_trained(exported: Callable[[str], Exported]) -> None:
    made = exported("carn-m")
    named = {"recipe": "ours", "steps": 5, "provenance": "carn-m/provenance.toml"}
    assert made.entry["training"] == named
    chain = read(made.path.parent)["x2.onnx"]
    assert chain.sha256 == made.entry["sha256"]
    [(name, stage)] = chain.stages
    assert name == "carn-m-x2-ours"
    assert (stage["step"], stage["data"], stage["precision"]) == (5, DATA, "32-true")
    assert (stage["recipe"]["name"], stage["recipe"]["patch"]) == ("ours", TINY.patch)


def test_a_card_names_paper_training_and_figures(exported: Callable[[str], Exported]) -> None:
    card = exported("carn-m").card
    assert "Cascading Residual Network*, ECCV 2018; the mobile form. Trained by this" in card
    assert "licence Apache-2.0." in card
    assert "| x2 | 257,027 | 91.2G |" in card
    authors = "its authors: 600,000 of 64, on the 800 pictures of DIV2K"
    assert f"Trained for 5 steps of 2 patches ({authors}): x2." in card
    row = "| carn-m-x2-ours | - | ours | 5 of 6 | 2 of 8x8 | 0.002 | 2 of synthetic | x2 |"
    assert row in card.splitlines()
    assert "![carn-m x2 beside bicubic](carn-m/x2.jpg)" in card
    assert "`python -m train reproduce carn-m` trains it again" in card


def test_weights_that_began_as_others_are_said_to_be(exported: Callable[[str], Exported]) -> None:
    made = exported(IMPORTED)
    stages = [stage for _, stage in read(made.path.parent)["x2.onnx"].stages]
    assert [set(stage) >= {"imported"} for stage in stages] == [True, False]
    assert made.entry["licence"] != "Apache-2.0"
    assert "Weights of others; licence of the weights' authors." in made.card
    assert "| imported | - | weights of others: elsewhere.pth |" in made.card
    assert "| dcscn-x2-ours | imported | ours |" in made.card
    assert "Trained by this project" not in made.card


def test_exported_file_tells_nothing_about_the_machine(
    exported: Callable[[str], Exported],
) -> None:
    for name in ("carn-m", "c-dcscn-stream"):
        content = exported(name).path.read_bytes()
        places = (ROOT, Path(sys.prefix), Path(torch.__file__).parent, Path.cwd())
        for word in (*map(str, places), "site-packages", ".py", "stack_trace", "File "):
            assert word.encode() not in content, word


def test_a_second_export_leaves_the_first_in_the_manifest(
    exported: Callable[[str], Exported],
) -> None:
    first = exported("carn-m")
    exported("c-dcscn-stream")
    engines = first.path.parents[1]
    manifest = json.loads((engines / "manifest.json").read_text("utf-8"))
    assert manifest["schema"] == "vsr-engines/3"
    assert set(manifest["models"]) >= {"c-dcscn-stream", "carn-m"}
    assert manifest["models"]["carn-m"]["x2"] == first.entry
    files = {p.name for p in engines.rglob("*") if p.is_file()}  # no partial file
    assert files == {
        "manifest.json",
        "README.md",
        "x2.onnx",
        "x2.stream.onnx",
        "provenance.toml",
        "x2.jpg",
        "x2.stream.jpg",
    }


def test_weights_for_streams_stand_beside_those_of_the_same_network(
    exported: Callable[[str], Exported],
) -> None:
    made = exported("c-dcscn-stream")
    assert made.entry["file"] == "c-dcscn/x2.stream.onnx"
    assert made.path.parts[-2:] == ("c-dcscn", "x2.stream.onnx")
    assert "its Table 1. For compressed video. Trained by this project" in made.card


@pytest.mark.parametrize(
    ("model", "file"),
    [
        ("carn-m", "carn-m/x3.onnx"),
        ("carn-m-stream", "carn-m/x3.stream.onnx"),
        ("carn-m-sharp", "carn-m/x3.sharp.onnx"),
        ("my-streams", "my-streams/x3.onnx"),
        ("a-stream-b", "a-stream-b/x3.onnx"),
    ],
)
def test_where_a_model_goes_follows_from_its_name(model: str, file: str) -> None:
    assert Target(engines=Path("e"), model=model).file(3) == Path("e") / file


@pytest.mark.parametrize(
    ("model", "label"),
    [
        ("c-dcscn-sharp", "stream"),
        ("rt-sharp", "c-dcscn-stream"),
        ("c-dcscn-stream", None),
        ("rt", None),
    ],
)
def test_sharp_weights_are_compared_with_those_for_streams(model: str, label: str | None) -> None:
    engines = Path(__file__).parents[2] / "engines"
    found = _stream_method(Target(engines=engines, model=model), 2)
    assert [method.label for method in found] == ([label] if label else [])
    assert all(method.scale == 2 and method.colour == "y" for method in found)


def test_the_command_exports_every_scale_and_says_where(tmp_path: Path, benchmark: Path) -> None:
    checkpoint = _checkpoint(tmp_path / "net.pt", "carn-m", (2, 4))
    (tmp_path / "engines").mkdir()
    words = ["export", str(checkpoint), "--engines", str(tmp_path / "engines")]
    result = CliRunner().invoke(main, [*words, "--data-set", str(benchmark)])
    assert result.exit_code == 0, result.output
    paths = [tmp_path / f"engines/carn-m/x{scale}.onnx" for scale in (2, 4)]
    assert result.stdout.split() == [str(path) for path in paths]
    entries = json.loads((tmp_path / "engines/manifest.json").read_text("utf-8"))["models"]
    assert {key: e["file"] for key, e in entries["carn-m"].items()} == {
        "x2": "carn-m/x2.onnx",
        "x4": "carn-m/x4.onnx",
    }
    for path, scale in zip(paths, (2, 4), strict=True):
        assert openvino_enlarge(path.read_bytes())(np.zeros((1, 3, 5, 6), np.float32)).shape == (
            1, 3, 5 * scale, 6 * scale,
        )  # fmt: skip


def test_exporting_a_scale_that_the_network_lacks_is_refused_in_one_line(tmp_path: Path) -> None:
    checkpoint = _checkpoint(tmp_path / "net.pt", "c-dcscn")
    words = ["export", str(checkpoint), "--engines", str(tmp_path), "--scale", "3"]
    result = CliRunner().invoke(main, words)
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert "no scale 3" in result.stderr


@pytest.mark.parametrize(("name", "words"), [("pcarn-m", ()), ("pcarn-l1", ("--model", "pcarn"))])
def test_an_l1_network_does_not_get_the_name_of_the_adversarial_one(
    tmp_path: Path, name: str, words: tuple[str, ...]
) -> None:
    """PCARN's paper calls the L1 networks PCARN (L1) and PCARN-M (L1)."""
    Trainer.new(name, TINY, (2,), channels=8).save(tmp_path / "net.pt")
    words = ("export", str(tmp_path / "net.pt"), "--engines", str(tmp_path / "engines"), *words)
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1
    assert "had no adversarial training" in result.stderr
    assert re.search(r": use --model pcarn(-m)?-l1$", result.stderr.strip())
    assert not (tmp_path / "engines").exists()


def test_an_adversarial_network_does_not_get_the_name_of_the_l1_one(tmp_path: Path) -> None:
    recipe = replace(TINY, loss=((0, "gan"),))
    Trainer.new("pcarn-m", recipe, (2,), channels=8).save(tmp_path / "net.pt")
    with pytest.raises(TrainError, match=r"excludes: use --model pcarn-m$"):
        export(tmp_path / "net.pt", Target(engines=tmp_path, model="pcarn-m-l1"))
    assert not (tmp_path / "pcarn-m-l1").exists()


def test_an_onnx_that_computes_something_else_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, traces: Traces
) -> None:
    def faulty(net: Net, scale: int) -> onnx.ModelProto:
        model = traces.to_onnx(net, scale)
        [bias] = [v for v in model.graph.initializer if v.name == "last.bias"]
        values = onnx.numpy_helper.to_array(bias) + np.float32(2e-5)
        bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
        return model

    monkeypatch.setattr("train.ship.export.to_onnx", faulty)
    with pytest.raises(TrainError, match=r"differ by 2.*e-05: not exported"):
        export_scale(roughened(build("c-dcscn")), 2, Target(engines=tmp_path, model="c-dcscn"), [])
    assert not list(tmp_path.iterdir())


def test_a_network_that_computes_no_numbers_is_not_written(tmp_path: Path) -> None:
    net = roughened(build("c-dcscn"))
    with torch.no_grad():
        next(net.parameters()).fill_(float("nan"))
    with pytest.raises(TrainError, match="differ by nan: not exported"):
        export_scale(net, 2, Target(engines=tmp_path, model="c-dcscn"), [])
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "c-dcscn").write_text("a file where the folder should be")
    with pytest.raises(TrainError, match=r"^cannot write .*c-dcscn/x2.onnx: File exists$"):
        export_scale(roughened(build("c-dcscn")), 2, Target(engines=tmp_path, model="c-dcscn"), [])


def test_a_network_of_another_name_gets_a_card_without_a_paper_and_no_other_words(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = _checkpoint(tmp_path / "net.pt", "c-dcscn")
    with caplog.at_level(logging.INFO):
        export(checkpoint, Target(engines=tmp_path / "engines", model="mine"))
    page = (tmp_path / "engines/README.md").read_text("utf-8")
    assert "## mine\n\nTrained by this project; licence Apache-2.0.\n\n" in page
    said = [r.name for r in caplog.records if r.levelno >= logging.INFO]
    assert set(said) == {"train.ship.export"}  # no messages of torch's exporter
    assert capfd.readouterr() == ("", "")
