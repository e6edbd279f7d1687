"""Tests of `train evaluate --video`: scores on compressed clips, computed independently too."""

import io
import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from click.testing import CliRunner

from tests.clips import Clip, make_clip
from train.__main__ import main
from train.data.resize import downscale, keys_cubic
from train.errors import TrainError
from train.measure.compressed import VideoSettings, enlarged_codes, read_clip, score_clip
from train.measure.evaluate import Enlarge, Method
from train.measure.planes import Planes, lanczos3, rgb_from_yuv, shrink
from train.nets import bicubic

Pixels = npt.NDArray[np.uint8]
SETTINGS = VideoSettings(crfs=(20, 35), frames=3, window=7, preset="veryfast")
BT601, BT709 = (0.299, 0.114), (0.2126, 0.0722)


def _clip(path: Path, **changes: object) -> Path:
    lossless = {"qp": "0", "preset": "ultrafast"}
    given = {"size": (128, 96), "frames": 9, "audio": (), "options": lossless, **changes}
    return make_clip(path, Clip(**given))  # type: ignore[arg-type]


def _grey_clip(path: Path, width: int, height: int) -> Path:
    """Encode nine lossless grey frames of moving waves."""
    y, x = np.mgrid[:height, :width]
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25, options={"qp": "0", "preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        for k in range(9):
            waves = 120 + 50 * np.sin(x / 3 + k) + 40 * np.cos(y / 4 - k / 2)
            planes = np.full((height * 3 // 2, width), 128, np.uint8)
            planes[:height] = waves.astype(np.uint8)
            out.mux(video.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        out.mux(video.encode(None))
    return path


def _cubic(scale: int) -> Enlarge:
    def run(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return bicubic(torch.from_numpy(x).double(), scale).float().numpy()

    return run


def _independent_psnr(path: Path, crf: int, scale: int) -> float:
    """Return bicubic's mean PSNR on frames 0, 3 and 6 of 7, with PyAV and `train.nets.bicubic`."""
    with av.open(str(path)) as container:
        whole = [f.to_ndarray()[: f.height] for f in container.decode(video=0)][:7]
    small = [downscale(y, scale) for y in whole]
    file, height, width = io.BytesIO(), *small[0].shape
    options = {"crf": str(crf), "preset": "veryfast", "threads": "1"}
    with av.open(file, "w", format="matroska") as out:
        video = out.add_stream("libx264", rate=25, options=options)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        for k, y in enumerate(small):
            grey = np.full((height // 2, width), 128, np.uint8)
            frame = av.VideoFrame.from_ndarray(np.concatenate((y, grey)), format="yuv420p")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    file.seek(0)
    with av.open(file, "r") as made:
        decoded = [f.to_ndarray()[:height] for f in made.decode(video=0)]
    scores = []
    for k in (0, 3, 6):
        x = torch.from_numpy(decoded[k].astype(np.float64))[None, None]
        ours = bicubic(x, scale)[0, 0].round().clamp(0, 255).numpy()
        error = (ours - whole[k])[scale:-scale, scale:-scale]
        scores.append(10 * math.log10(255**2 / np.mean(error**2)))
    return float(np.mean(scores))


@pytest.mark.parametrize("scale", [2, 3])
def test_bicubics_score_is_the_one_computed_independently(tmp_path: Path, scale: int) -> None:
    clip = _grey_clip(tmp_path / "clip.mp4", 48 * scale, 40 * scale)
    settings = VideoSettings(scale=scale, crfs=(20, 35), frames=3, window=7, preset="veryfast")
    rows = {(r.crf, r.method): r for r in score_clip(clip, [], settings)}
    assert set(rows) == {(crf, name) for crf in (20, 35) for name in ("bicubic", "lanczos")}
    for crf in (20, 35):
        expected = _independent_psnr(clip, crf, scale)
        assert rows[crf, "bicubic"].psnr == pytest.approx(expected, abs=0.005)
    assert rows[20, "bicubic"].psnr > rows[35, "bicubic"].psnr + 1
    assert rows[20, "bicubic"].kbps > rows[35, "bicubic"].kbps
    assert all(0 < row.ssim < 1 and row.scale == scale for row in rows.values())


def test_a_network_that_is_bicubic_scores_as_bicubic(tmp_path: Path) -> None:
    clip = _clip(tmp_path / "clip.mp4", matrix=1)
    methods = [
        Method(label=colour, enlarge=_cubic(2), colour=colour, scale=2) for colour in ("y", "rgb")
    ]
    rows = {r.method: r.psnr for r in score_clip(clip, methods, SETTINGS) if r.crf == 20}
    # float32 rounds ties differently
    assert rows["y"] == pytest.approx(rows["bicubic"], abs=0.005)
    assert rows["rgb"] == pytest.approx(rows["bicubic"], abs=0.005)  # Y is computed from RGB


def test_lpips_gets_luma_as_a_grey_picture_of_full_range(tmp_path: Path) -> None:
    seen = []

    def distance(ours: Pixels, truth: Pixels) -> float:
        seen.append((ours, truth))
        return len(seen) / 10

    clip = _clip(tmp_path / "clip.mp4", matrix=1)
    settings = replace(SETTINGS, crfs=(20,), frames=2, lpips=distance)
    (first, _) = score_clip(clip, [], settings)
    assert first.method == "bicubic" and first.lpips == pytest.approx((0.1 + 0.2) / 2)
    whole = read_clip(clip, settings).frames[0].y[2:-2, 2:-2].astype(float)
    truth = np.clip(np.floor((whole - 16) * 255 / 219 + 0.5), 0, 255)
    assert (seen[0][1] == truth[..., None]).all() and seen[0][0].shape == (*whole.shape, 3)


@pytest.mark.parametrize("weights", [BT601, BT709])
def test_codes_mean_the_colours_of_their_matrix(weights: tuple[float, float]) -> None:
    kr, kb = weights
    for rgb in ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.2, 0.7, 0.4)):
        y = kr * rgb[0] + (1 - kr - kb) * rgb[1] + kb * rgb[2]
        u, v = (rgb[2] - y) / (2 - 2 * kb), (rgb[0] - y) / (2 - 2 * kr)
        codes = [round(16 + 219 * y), round(128 + 224 * u), round(128 + 224 * v)]
        sizes = ((4, 6), (2, 3), (2, 3))
        flat = [np.full(s, c, np.uint8) for s, c in zip(sizes, codes, strict=True)]
        found = rgb_from_yuv(Planes(*flat), weights)
        assert found.shape == (3, 4, 6)
        assert np.abs(found - np.array(rgb)[:, None, None]).max() < 0.01


def test_an_rgb_networks_luma_goes_back_through_the_clips_matrix() -> None:
    grey = Planes(*(np.full(s, 128, np.uint8) for s in ((4, 4), (2, 2), (2, 2))))
    red = np.zeros((1, 3, 8, 8), np.float32)
    red[:, 0] = 1
    method = Method(label="red", enlarge=lambda _: red, colour="rgb", scale=2)
    assert (enlarged_codes(grey, method, BT601) == round(16 + 219 * 0.299)).all()
    assert (enlarged_codes(grey, method, BT709) == round(16 + 219 * 0.2126)).all()


def test_results_beyond_the_codes_are_clipped() -> None:
    grey = Planes(*(np.full(s, 128, np.uint8) for s in ((4, 4), (2, 2), (2, 2))))
    out = np.array([[[[-3.0, 3.0]]]], np.float32)
    method = Method(label="far", enlarge=lambda _: out, colour="y", scale=2)
    assert enlarged_codes(grey, method, BT601).tolist() == [[0, 255]]


def test_a_reduced_picture_keeps_its_chroma_beside_its_luma() -> None:
    """Check that a chroma ramp still matches the luma ramp after reduction by 2."""
    x = np.arange(128.0)
    y = np.broadcast_to((60 + x).round().astype(np.uint8), (16, 128))
    u = np.broadcast_to((60 + x[::2]).round().astype(np.uint8), (8, 64))  # sited on even columns
    small = shrink(Planes(y, u, u), 2)
    inside = slice(4, -4)
    assert small.y.shape == (8, 64) and small.u.shape == (4, 32)
    difference = small.y[0, ::2][inside].astype(float) - small.u[0][inside]
    assert np.abs(difference).max() <= 1


def test_lanczos_has_three_lobes_and_keeps_the_samples() -> None:
    assert lanczos3(np.array([0.0, 1.0, 2.0, 3.5])) == pytest.approx([1, 0, 0, 0], abs=1e-12)
    assert lanczos3(np.array([1.5, 2.5])).tolist() == pytest.approx([-0.135095, 0.024317], abs=1e-6)
    assert keys_cubic(np.array([1.5]))[0] == -0.0625


def test_a_full_range_clip_is_measured_in_limited_range(tmp_path: Path) -> None:
    path = _clip(tmp_path / "full.mp4", range=2, frames=2)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        full = frame.to_ndarray()[: frame.height].astype(np.float64)
    clip = read_clip(path, SETTINGS)
    assert np.abs(clip.frames[0].y - (16 + full * 219 / 255)).max() <= 1


def test_an_odd_clip_is_cropped_so_that_the_small_one_is_even(tmp_path: Path) -> None:
    path = _clip(tmp_path / "odd.mkv", size=(131, 101), codec="libvpx-vp9", options={}, frames=2)
    clip = read_clip(path, SETTINGS)
    assert clip.frames[0].y.shape == (100, 128)
    assert clip.frames[0].u.shape == (50, 64)


@pytest.mark.parametrize(("tag", "weights"), [(1, BT709), (5, BT601), (2, BT601)])
def test_a_clips_matrix_is_its_tag_or_bt601_for_small_untagged_ones(
    tmp_path: Path, tag: int, weights: tuple[float, float]
) -> None:
    assert read_clip(_clip(tmp_path / "a.mp4", matrix=tag, frames=1), SETTINGS).weights == weights


def test_the_same_clip_gives_the_same_score_twice(tmp_path: Path) -> None:
    clip = _clip(tmp_path / "clip.mp4")
    assert list(score_clip(clip, [], SETTINGS)) == list(score_clip(clip, [], SETTINGS))


def test_clips_that_cannot_be_used_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no clip")
    with pytest.raises(TrainError, match=r"cannot read clip .*text\.mp4"):
        read_clip(tmp_path / "text.mp4", SETTINGS)
    with pytest.raises(TrainError, match=r"none\.mp4"):
        read_clip(tmp_path / "none.mp4", SETTINGS)
    with pytest.raises(TrainError, match="too small"):
        read_clip(_clip(tmp_path / "small.mp4", size=(62, 62)), SETTINGS)
    wrong = Method(label="x1", enlarge=lambda x: x, colour="y", scale=2)
    with pytest.raises(TrainError, match="its scale is not"):
        list(score_clip(_clip(tmp_path / "clip.mp4"), [wrong], SETTINGS))


def test_the_command_prints_a_column_for_every_method(tmp_path: Path) -> None:
    body = 'sr = Resize <mode = "nearest"> (lr, , by)'
    factors = "by = Constant <value = float[4] {1.0, 1.0, 2.0, 2.0}> ()"
    head = '<ir_version: 8, opset_import: ["" : 17]> t (float[N,1,H,W] lr) => (float[N,1,a,b] sr)'
    onnx.save_model(
        onnx.parser.parse_model(f"{head} {{ {factors} {body} }}"), str(tmp_path / "x2.onnx")
    )
    clip = _clip(tmp_path / "clip.mp4")
    words = ["evaluate", "--onnx", str(tmp_path / "x2.onnx"), "--video", str(clip), str(clip)]
    words += ["--crf", "23", "35", "--frames", "2", "--preset", "ultrafast"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    label = f"{tmp_path.name}/x2"
    assert lines[0] == f"| clip, x2 | crf | kbit/s | bicubic | lanczos | {label} |"
    assert [line.split(" | ")[:2] for line in lines[2:4]] == [["| clip", "23"], ["| clip", "35"]]
    assert lines[4].startswith("| mean |")
    assert "x264 ultrafast" in result.stdout
    bad = CliRunner().invoke(main, [*words[:3], "--video", str(tmp_path / "none.mp4")])
    assert bad.exit_code == 1
    assert bad.stderr.splitlines()[-1].startswith("Error: ")
