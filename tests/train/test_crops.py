"""Tests of the model cards' pictures: their source, and that they show the shipped networks."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from train.errors import TrainError
from train.measure.metrics import psnr
from train.measure.shipped import openvino_enlarge
from train.ship.crops import (
    FOLDER,
    SCENES,
    SIDE,
    Scene,
    cut_scene,
    draw_crops,
    load_scene,
    scene_pair,
)
from train.ship.naming import network_and_purpose

pytestmark = pytest.mark.usefixtures("one_thread")
ENGINES = Path(__file__).parents[2] / "engines"
MODELS: dict[str, Any] = json.loads((ENGINES / "manifest.json").read_text("utf-8"))["models"]
FORMS = [(name, key, entry) for name, scales in MODELS.items() for key, entry in scales.items()]


def _floats(data: bytes | Path) -> Any:
    source = io.BytesIO(data) if isinstance(data, bytes) else data
    return np.asarray(Image.open(source).convert("RGB")).astype(float)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_a_scene_is_what_the_film_shows(data: Path, scene: Scene) -> None:
    clip = data / "video/clips/bbb_720p24_vp8_vorbis.webm"
    ours = cut_scene(clip, scene)
    assert ours.shape == (SIDE, SIDE, 3)
    assert np.array_equal(ours, load_scene(scene))


def test_a_clip_that_is_too_short_is_refused() -> None:
    sample = ENGINES.parent / "examples/sample.mp4"
    with pytest.raises(TrainError, match=r"sample.mp4 ends before 99 s"):
        cut_scene(sample, Scene(name="late", second=99.0, left=0, top=0))


@pytest.mark.parametrize("compressed", [False, True], ids=["clean", "compressed"])
@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_lr_and_hr_show_the_same_and_compression_costs(scale: int, compressed: bool) -> None:
    lr, hr = scene_pair(SCENES[0], scale, compressed)
    assert hr.shape == (lr.shape[0] * scale, lr.shape[1] * scale, 3)
    again, _ = scene_pair(SCENES[0], scale, compressed)
    assert np.array_equal(lr, again)
    height, width = (n // scale for n in hr.shape[:2])
    mean = hr.reshape(height, scale, width, scale, 3).mean((1, 3))
    assert np.abs(mean - lr).mean() < (12 if compressed else 6)


def test_a_sheet_has_bicubic_network_and_truth_in_a_line_a_scene() -> None:
    def nearest(x: Any) -> Any:
        return x.repeat(2, axis=2).repeat(2, axis=3)

    sheet = _floats(draw_crops(nearest, "mine", 2, "rgb", compressed=False))
    cell, gap = 2 * 96, 6
    assert sheet.shape[1] == gap + 3 * (cell + gap)
    columns = [sheet[gap : gap + cell, gap + i * (cell + gap) :][:, :cell] for i in range(3)]
    errors = [psnr(column[..., 1], columns[2][..., 1]) for column in columns[:2]]
    assert 20 < errors[1] < errors[0] < 50  # nearest is worse than bicubic, both differ from HR


@pytest.mark.parametrize(
    ("name", "key", "entry"), FORMS, ids=lambda v: v if isinstance(v, str) else ""
)
def test_every_shipped_network_has_its_picture(name: str, key: str, entry: Any) -> None:
    assert entry["crops"]["file"] == entry["file"].replace(".onnx", ".jpg")
    assert (ENGINES / entry["crops"]["file"]).exists()
    assert entry["crops"]["file"] in (ENGINES / "README.md").read_text("utf-8")


@pytest.mark.parametrize("name", ["c-dcscn", "dcscn-stream"])
def test_the_picture_shows_what_the_shipped_file_makes(name: str) -> None:
    entry = MODELS[name]["x2"]
    enlarge = openvino_enlarge((ENGINES / entry["file"]).read_bytes())
    compressed = bool(network_and_purpose(name)[1])
    drawn = draw_crops(enlarge, name, 2, entry["colour"], compressed)
    difference = _floats(drawn) - _floats(ENGINES / entry["crops"]["file"])
    assert float(np.abs(difference).mean()) < 0.5  # libraries round differently


def test_pictures_are_small_and_none_is_left_over() -> None:
    pictures = [*ENGINES.rglob("*.jpg"), *FOLDER.iterdir()]
    assert sum(path.stat().st_size for path in pictures) < 1.5e6
    listed = {ENGINES / entry["crops"]["file"] for _, _, entry in FORMS}
    assert set(ENGINES.rglob("*.jpg")) == listed
    assert {path.stem for path in FOLDER.iterdir()} == {scene.name for scene in SCENES}
