"""Everything in `engines/`: what the manifest says is what the files are and do."""

import hashlib
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from train.evaluate import Enlarge, evaluate
from train.export import multadds, openvino_enlarge
from train.nets import build

ENGINES = Path(__file__).parents[1] / "engines"
MANIFEST: dict[str, Any] = json.loads((ENGINES / "manifest.json").read_text(encoding="utf-8"))
KEYS = {
    "file", "sha256", "precision", "colour", "range", "receptive_field_radius", "parameters",
    "multadds_720p", "recipe", "step", "psnr", "licence",
}  # fmt: skip
BICUBIC = {2: 33.68, 3: 30.40, 4: 28.43}
"""Set5 PSNR."""

Entry = dict[str, Any]
every_entry = pytest.mark.parametrize(
    ("name", "scale", "entry"),
    [
        pytest.param(name, int(re.findall(r"\d+", key)[0]), entry, id=f"{name}-{key}")
        for name, entries in MANIFEST["models"].items()
        for key, entry in entries.items()
    ],
)


@cache
def _enlarge(file: str) -> Enlarge:
    return openvino_enlarge((ENGINES / file).read_bytes())


def test_manifest_names_its_schema_and_holds_networks() -> None:
    assert MANIFEST["schema"] == "vsr-engines/1"
    assert "c-dcscn" in MANIFEST["models"]


def test_every_network_file_is_listed_exactly_once() -> None:
    listed = [e["file"] for entries in MANIFEST["models"].values() for e in entries.values()]
    there = [path.relative_to(ENGINES).as_posix() for path in ENGINES.rglob("*.onnx")]
    assert sorted(listed) == sorted(there)


def test_engines_holds_no_code() -> None:
    assert not [p for p in ENGINES.rglob("*") if p.suffix in {".py", ".pyc", ".pt", ".pth", ".pkl"}]


@every_entry
def test_file_is_the_one_the_manifest_means(name: str, scale: int, entry: Entry) -> None:
    assert entry["file"].startswith(f"{name}/x{scale}.")
    content = (ENGINES / entry["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == entry["sha256"]


@every_entry
def test_entry_is_complete_and_sensible(name: str, scale: int, entry: Entry) -> None:
    assert set(entry) >= KEYS
    assert entry["precision"] in {"fp32", "fp16", "int8"}
    assert entry["colour"] in {"y", "rgb"}
    assert entry["range"] == [0.0, 1.0]
    assert 0 < entry["receptive_field_radius"] < 64
    assert entry["licence"] == "Apache-2.0"
    assert set(entry["psnr"]) >= {"set5", "set14", "bsd100"}
    assert 0 < entry["step"] <= entry["recipe"]["steps"]


@every_entry
def test_size_and_work_are_those_of_the_network_of_that_name(
    name: str, scale: int, entry: Entry
) -> None:
    net = build(name, scale)
    assert entry["parameters"] == sum(p.numel() for p in net.parameters() if p.requires_grad)
    small = multadds(net, 192, 108)  # all layers grow with the area
    assert entry["multadds_720p"] == pytest.approx(small * (1280 * 720) / (192 * 108), rel=0.005)


@every_entry
def test_network_reads_lr_and_writes_sr_of_any_size(name: str, scale: int, entry: Entry) -> None:
    model = onnx.load(ENGINES / entry["file"])
    onnx.checker.check_model(model, full_check=True)
    sides = {"lr": model.graph.input, "sr": model.graph.output}
    for tensor_name, values in sides.items():
        assert [v.name for v in values] == [tensor_name]
        tensor = values[0].type.tensor_type
        batch, channel, height, width = tensor.shape.dim
        assert tensor.elem_type == onnx.TensorProto.FLOAT
        assert channel.dim_value == (1 if entry["colour"] == "y" else 3)
        assert not any(d.HasField("dim_value") for d in (batch, height, width))


@every_entry
def test_network_file_tells_nothing_about_the_machine(name: str, scale: int, entry: Entry) -> None:
    content = (ENGINES / entry["file"]).read_bytes()
    for word in (b"site-packages", b".py", b"stack_trace", b"/work", b"/home", b"/root", b"/tmp"):
        assert word not in content, word


@every_entry
@pytest.mark.parametrize("size", [(2, 17, 24), (1, 40, 9)], ids=["2x24x17", "1x9x40"])
def test_output_is_scale_times_the_input(
    name: str, scale: int, entry: Entry, size: tuple[int, int, int]
) -> None:
    batch, height, width = size
    channels = 1 if entry["colour"] == "y" else 3
    # a smooth picture: what networks are for, unlike noise
    y, x_ = np.mgrid[0:height, 0:width].astype(np.float32)
    scene = 0.5 + 0.3 * np.sin(x_ / 3 + np.arange(batch)[:, None, None]) * np.cos(y / 4)
    x = np.repeat(scene[:, None], channels, axis=1).astype(np.float32)
    out = _enlarge(entry["file"])(x)
    assert out.shape == (batch, channels, height * scale, width * scale)
    # each block lies over its own pixel and keeps its range
    blocks = out.reshape(batch, channels, height, scale, width, scale).mean((3, 5))
    assert np.corrcoef(blocks.ravel(), x.ravel())[0, 1] > 0.99


@every_entry
def test_network_beats_bicubic_on_set5(name: str, scale: int, entry: Entry) -> None:
    gain = {("c-dcscn", 2): 3.2}.get((name, scale), 2.5 if scale == 2 else 2.0)
    assert entry["psnr"]["set5"]["psnr"] >= BICUBIC[scale] + gain


@every_entry
def test_measured_quality_is_the_manifests(data: Path, name: str, scale: int, entry: Entry) -> None:
    stated = entry["psnr"]["set5"]
    score = evaluate(_enlarge(entry["file"]), data / "images/test/set5", scale, entry["colour"])
    assert score["psnr"] == pytest.approx(stated["psnr"], abs=0.01)
    assert score["ssim"] == pytest.approx(stated["ssim"], abs=0.0005)
    assert score["n"] == stated["n"] == 5
