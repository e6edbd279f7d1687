"""Tests of `python -m train quantise`: file, manifest entry and card, or a refusal."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import helper, numpy_helper
from PIL import Image

from train.errors import TrainError
from train.measure.drawn import check_int8, pure_colours, ramp
from train.measure.evaluate import Enlarge, evaluate
from train.measure.shipped import openvino_enlarge
from train.ship.quantise import Settings, Task, quantise
from train.ship.quantise_command import quantise as command

pytestmark = pytest.mark.usefixtures("one_thread")
ENGINES = Path(__file__).parents[2] / "engines"
QUICK = Settings(patches=3, held_out=2, black_and_white=1, exponents=(0.5,), powers=(2,))


def _picture(seed: int, width: int, height: int) -> Image.Image:
    """Return a picture of coloured waves."""
    a, b, c = np.random.default_rng(seed).uniform(-9, 9, (3, 3))
    y, x = (n[..., None] for n in np.mgrid[:height, :width] / 200)
    return Image.fromarray((127.5 + 127.5 * np.sin(a * y + b * x + c)).astype(np.uint8))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with just enough images for calibration, and one that is too small."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(60):
        _picture(i, 200, 192).save(folder / f"{i}.bmp")
    Image.new("RGB", (191, 400)).save(folder / "small.png")
    return folder


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a benchmark folder with one picture."""
    folder = tmp_path_factory.mktemp("pictures") / "waves"
    folder.mkdir()
    _picture(60, 60, 72).save(folder / "waves.png")
    return folder


@pytest.fixture
def engines(tmp_path: Path) -> Path:
    """Return an `engines` folder with one network."""
    content = json.loads((ENGINES / "manifest.json").read_text("utf-8"))
    entry = content["models"]["c-dcscn-stream"]["x2"]
    entry.pop("int8", None)
    content["models"] = {"c-dcscn-stream": {"x2": entry}}
    (tmp_path / "c-dcscn").mkdir()
    shutil.copy(ENGINES / entry["file"], tmp_path / entry["file"])
    (tmp_path / "manifest.json").write_text(json.dumps(content), "utf-8")
    return tmp_path


def _files(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_command_writes_file_entry_and_card(engines: Path, photos: Path, waves: Path) -> None:
    manifest = json.loads((engines / "manifest.json").read_text("utf-8"))
    before = manifest["models"]
    plain = (engines / "c-dcscn/x2.stream.onnx").read_bytes()
    known = evaluate(openvino_enlarge(plain), waves, 2, "y")
    before["c-dcscn-stream"]["x2"]["psnr"]["waves"] = known
    (engines / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    words = ["--engines", engines, "--calibration", photos, "--data-set", waves]
    words += ["--most-loss", "3", "--seed", "2"]
    result = CliRunner().invoke(command, [str(word) for word in words], catch_exceptions=False)
    path = engines / "c-dcscn/x2.stream.int8.onnx"
    assert (result.exit_code, result.stdout) == (0, f"{path}\n")
    after = json.loads((engines / "manifest.json").read_text("utf-8"))["models"]
    form = after["c-dcscn-stream"]["x2"].pop("int8")
    assert after == before
    assert form["file"] == "c-dcscn/x2.stream.int8.onnx"
    assert (form["precision"], form["sha256"]) == ("int8", _files(engines)[form["file"]])
    measured = evaluate(openvino_enlarge(path.read_bytes()), waves, 2, "y")
    assert form["psnr"] == {"waves": measured}
    made = form["quantiser"]
    assert made["of"] == before["c-dcscn-stream"]["x2"]["sha256"]
    assert (made["patches"], made["held_out"], made["folders"]) == (48, 12, [photos.name])
    assert made["seed"] == 2
    assert (made["stark"], made["vivid"], made["linear_worth"]) == (6, 14, 0.1)
    assert made["exponent"] in made["exponents"]
    assert "features.0.0" in made["float"]
    card = (engines / "README.md").read_text("utf-8")
    assert f"| waves {measured['psnr'] - known['psnr']:+.3f} |" in card
    assert set(_files(engines)) == {
        form["file"], "c-dcscn/x2.stream.onnx", "manifest.json", "README.md",
    }  # fmt: skip


def _task(engines: Path, photos: Path, waves: Path, most_loss: float = 9) -> Task:
    return Task(
        engines=engines,
        calibration=[photos],
        benchmarks=[waves],
        most_loss=most_loss,
        settings=QUICK,
    )


def test_one_that_loses_too_much_is_not_written(engines: Path, photos: Path, waves: Path) -> None:
    before = _files(engines)
    content = json.loads((engines / "manifest.json").read_text("utf-8"))
    # as if the float network had scored this
    content["models"]["c-dcscn-stream"]["x2"]["psnr"]["waves"] = {"psnr": 99.0}
    (engines / "manifest.json").write_text(json.dumps(content), "utf-8")
    before = _files(engines)
    with pytest.raises(TrainError, match=r"^c-dcscn-stream x2 loses .* dB on waves in int8, more"):
        list(quantise(_task(engines, photos, waves, 0.1)))
    assert _files(engines) == before


def _with_bands(model: onnx.ModelProto, levels: int) -> bytes:
    """Return the network with its output rounded to steps of 1/levels."""
    graph = model.graph
    made, result = graph.node[-1], graph.output[0].name
    assert list(made.output) == [result]
    made.output[0] = "smooth"
    graph.initializer.append(numpy_helper.from_array(np.float32(levels), "levels"))
    for op, inputs, output in (
        ("Mul", ["smooth", "levels"], "scaled"),
        ("Round", ["scaled"], "rounded"),
        ("Div", ["rounded", "levels"], result),
    ):
        graph.node.append(helper.make_node(op, inputs, [output]))
    return model.SerializeToString()


def test_one_with_bands_is_not_written(
    engines: Path, photos: Path, waves: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replace the int8 form by steps of three codes: two thirds of the ramp are within one."""
    before = _files(engines)
    monkeypatch.setattr(
        "train.ship.quantise.best_form", lambda model, *_: (_with_bands(model, 85), {})
    )
    with pytest.raises(
        TrainError, match=r"^c-dcscn-stream x2 shows banding in int8: 6\d\.\d% of a"
    ):
        list(quantise(_task(engines, photos, waves)))
    assert _files(engines) == before


def test_a_ramp_that_is_rounded_once_is_smooth() -> None:
    def steps(levels: int) -> Enlarge:
        return lambda x: np.rint(x * levels) / levels

    once, thrice = (ramp(steps(n), lambda x: x, 1) for n in (255, 85))
    assert once.is_smooth
    assert (once.within_one, once.p99 <= 0.5) == (1.0, True)
    # steps of three codes: the error of an integer code is 0 or 1
    assert thrice.p99 == pytest.approx(1.0, abs=1e-4)
    assert not ramp(steps(63), lambda x: x, 3).is_smooth


def test_one_that_changes_pure_colours_is_refused() -> None:
    """Pure blue becomes darker, as from a range that photographs of skies determined."""

    def without_blue(x: np.ndarray) -> np.ndarray:
        is_blue = (x[:, 2:] == 1) & (x[:, :1] == 0) & (x[:, 1:2] == 0)
        return np.where(is_blue, x * np.float32(0.8), x)

    seen = pure_colours(without_blue, lambda x: x)
    assert seen.largest == pytest.approx(0.2)
    assert seen.mse == pytest.approx(0.2**2 / 8 / 3)
    assert pure_colours(lambda x: x, lambda x: x).are_kept
    with pytest.raises(TrainError, match=r"^a x2 changes pure colours in int8 by up to 0\.200 \("):
        check_int8("a x2", without_blue, lambda x: x, "rgb")
    check_int8("a x2", lambda x: x, lambda x: x, "rgb")


def test_the_float_network_is_measured_where_the_manifest_has_no_figure(
    engines: Path, photos: Path, waves: Path
) -> None:
    with pytest.raises(
        TrainError, match=r"loses -?[0-9.]+ dB on waves in int8, more than the limit of -9"
    ):
        list(quantise(_task(engines, photos, waves, -9)))


@pytest.mark.parametrize(
    ("models", "scales", "message"),
    [
        (["carn"], [], r"^no model 'carn' in .*; it has: c-dcscn-stream$"),
        ([], [3, 8], r"^no model in .* has scale 3, 8$"),
    ],
)
def test_what_is_not_there_is_said(
    engines: Path, photos: Path, waves: Path, models: list[str], scales: list[int], message: str
) -> None:
    with pytest.raises(TrainError, match=message):
        list(quantise(_task(engines, photos, waves), models, scales))


def test_too_few_images_are_counted(engines: Path, waves: Path) -> None:
    with pytest.raises(
        TrainError, match=r"^calibration needs 5 images of at least 192x192, found 0$"
    ):
        list(quantise(_task(engines, waves, waves)))


def test_a_changed_or_missing_float_file_is_not_quantised(
    engines: Path, photos: Path, waves: Path
) -> None:
    path = engines / "c-dcscn/x2.stream.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        TrainError, match=r"^.*x2.stream.onnx differs from its SHA-256 in the manifest"
    ):
        list(quantise(_task(engines, photos, waves)))
    path.unlink()
    with pytest.raises(TrainError, match=r"^cannot read .*x2.stream.onnx: No such file"):
        list(quantise(_task(engines, photos, waves)))


def test_a_folder_without_a_manifest_or_with_a_broken_one_is_named(
    tmp_path: Path, photos: Path, waves: Path
) -> None:
    with pytest.raises(TrainError, match=r"^cannot read .*manifest.json: No such file"):
        list(quantise(_task(tmp_path, photos, waves)))
    (tmp_path / "manifest.json").write_text("{", "utf-8")
    with pytest.raises(TrainError, match=r"^the manifest in .* is damaged: "):
        list(quantise(_task(tmp_path, photos, waves)))
