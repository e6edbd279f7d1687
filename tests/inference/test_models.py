"""Tests of finding networks: the built-in ones and third-party ONNX files."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import helper, numpy_helper

from vsr.errors import BackendError, ModelError, UsageError, VsrError
from vsr.inference import cpu, models
from vsr.inference.backend import Backend
from vsr.inference.look import model_name_for
from vsr.media.colour import Colour
from vsr.media.frame import Plane
from vsr.network.graph import PlaneGraph

TWICE = "twice = Constant <value = float[4] {1.0, 1.0, 2.0, 2.0}> ()"
REPEAT = f'{TWICE} sr = Resize <mode = "nearest"> (lr, , twice)'
"""Network that repeats each pixel 2x2; exact in every value range."""
LARGE = f'{TWICE} large = Resize <mode = "nearest"> (lr, , twice)'

SHUFFLE = "four = Conv(lr, w) sr = DepthToSpace <blocksize = 2> (four)"
"""The same as a convolution, whose weights are `ONES`."""
ONES = "<float[4,1,1,1] w = {1.0, 1.0, 1.0, 1.0}>"


def text(
    body: str,
    *,
    lr: str = "float[N,1,H,W]",
    sr: str = "float[N,1,sH,sW]",
    opset: int = 17,
    weights: str = "",
) -> str:
    """Return a network in ONNX's text form."""
    head = f'<ir_version: 7, opset_import: ["" : {opset}, "custom" : 1]> test'
    return f"{head} ({lr} lr) => ({sr} sr) {weights} {{ {body} }}"


def save(folder: Path, network: str | onnx.ModelProto) -> Path:
    path = folder / "network.onnx"
    model = onnx.parser.parse_model(network) if isinstance(network, str) else network
    path.write_bytes(model.SerializeToString())
    return path


def save_in_two_files(folder: Path) -> Path:
    """Save a network with its weights in a separate file, `weights.bin`; return its path."""
    network = onnx.parser.parse_model(text(SHUFFLE, weights=ONES))
    for weight in network.graph.initializer:  # only raw data can be stored externally
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight), weight.name))
    path = folder / "network.onnx"
    onnx.save(network, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def ramp(width: int, height: int) -> Plane:
    """Return luma that cycles through every nominal code, 16 to 235."""
    return (16 + np.arange(width * height) % 220).reshape(height, width).astype(np.uint8)


def enlarged_luma(backend: Backend, model: models.Model, luma: Plane) -> Plane:
    """Return the luma that the model's planes-to-planes graph computes for a grey picture."""
    height, width = luma.shape
    chroma = np.full((-(-height // 2), -(-width // 2)), 128, np.uint8)
    engine = backend.compile(model.graph(Colour()), (width, height))
    return engine.submit((luma, chroma, chroma)).result()[0]


def assert_repeats_pixels(backend: Backend, model: models.Model) -> None:
    luma = ramp(*(model.fixed_size or (22, 20)))
    expected = luma.repeat(2, axis=0).repeat(2, axis=1)
    actual = enlarged_luma(backend, model, luma)[: expected.shape[0], : expected.shape[1]]
    np.testing.assert_array_equal(actual, expected)


# ---- built-in models


def test_manifest_describes_every_model() -> None:
    for name, entries in models.manifest().items():
        for key, entry in entries.items():
            assert (models.ENGINES / entry["file"]).is_file(), (name, key)
            assert entry["colour"] in ("y", "rgb")


def test_every_built_in_model_is_found_at_every_scale(backend: Backend) -> None:
    for name in models.names():
        for scale in models.scales(name):
            model = models.find(name, scale, backend)
            assert (model.name, model.scale) == (name, scale)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_built_in_model_carries_what_the_manifest_says(backend: Backend, precision: str) -> None:
    entry = models.manifest()["c-dcscn"]["x2"]
    model = models.find("c-dcscn", 2, backend, precision)
    assert model.sha256 == (entry["int8"] if precision == "int8" else entry)["sha256"]
    assert (model.precision, model.built_in) == (precision, True)
    assert model.radius == entry["receptive_field_radius"]
    assert model.facts.colour == entry["colour"]
    assert model.fixed_size is None


def test_default_scale_is_2(backend: Backend) -> None:
    assert models.find("c-dcscn", None, backend).scale == 2


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_bicubic_has_every_scale(backend: Backend, scale: int) -> None:
    model = models.find("bicubic", scale, backend)
    luma = np.full((10, 12), 77, np.uint8)
    assert (enlarged_luma(backend, model, luma) == 77).all()
    assert enlarged_luma(backend, model, luma).shape == (10 * scale, 12 * scale)


def test_unknown_model_lists_the_known_ones(backend: Backend) -> None:
    with pytest.raises(ModelError, match="cannot read the model"):  # .ONNX also means a file
        models.find("no/SUCH.ONNX", None, backend)
    with pytest.raises(UsageError, match="unknown model 'carnm'") as caught:
        models.find("carnm", 2, backend)
    assert all(name in str(caught.value) for name in models.names())


@pytest.mark.parametrize("name", ["c-dcscn", "bicubic"])
def test_missing_scale_lists_those_there_are(backend: Backend, name: str) -> None:
    have = ", ".join(str(s) for s in models.scales(name))
    with pytest.raises(UsageError, match=re.escape(f"'{name}' has no scale 7; it has: {have}")):
        models.find(name, 7, backend)


@pytest.fixture
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of `engines/` that tests may damage."""
    folder = tmp_path / "engines"
    shutil.copytree(models.ENGINES, folder)
    monkeypatch.setattr(models, "ENGINES", folder)
    return folder


@pytest.mark.parametrize("int8", [True, False])
def test_auto_takes_int8_where_the_processor_is_made_for_it(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, int8: bool
) -> None:
    monkeypatch.setattr("vsr.inference.openvino.has_int8_instructions", lambda: int8)
    assert models.find("c-dcscn", 2, backend).precision == ("int8" if int8 else "fp32")
    assert models.find("bicubic", 2, backend).precision == "fp32"


@pytest.mark.parametrize(
    ("flags", "known"),
    [
        ("flags\t\t: fpu sse2 avx512_vnni", True),
        ("Features\t: fp asimd asimddp", True),
        ("flags\t\t: fpu avx2", False),
        ("model name\t: avx512_vnni", False),
    ],
)
def test_int8_instructions_are_read_from_the_systems_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, known: bool
) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor\t: 0\n{flags}\n")
    monkeypatch.setattr(cpu, "_CPUINFO", path)
    cpu.has_int8_instructions.cache_clear()
    try:
        assert cpu.has_int8_instructions() is known
        monkeypatch.setattr(cpu, "_CPUINFO", tmp_path / "none")  # as on Windows and macOS
        for features, there in (({"AVX512VNNI", "AVX2"}, True), ({"AVX2"}, False)):
            monkeypatch.setattr(cpu, "_numpy_features", lambda features=features: features)
            cpu.has_int8_instructions.cache_clear()
            assert cpu.has_int8_instructions() is there
    finally:
        cpu.has_int8_instructions.cache_clear()


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="Linux has the other list")
def test_numpy_names_the_features_that_linux_lists() -> None:
    flags = set(Path("/proc/cpuinfo").read_text("ascii", "replace").split())
    found = cpu._numpy_features()
    assert ("AVX512VNNI" in found) == ("avx512_vnni" in flags)
    assert ("ASIMDDP" in found) == ("asimddp" in flags)


def test_precisions_that_cannot_be_are_refused(backend: Backend) -> None:
    with pytest.raises(UsageError, match="unknown precision 'fp8'"):
        models.find("c-dcscn", 2, backend, "fp8")
    with pytest.raises(UsageError, match="'bicubic' has no int8 form"):
        models.find("bicubic", 2, backend, "int8")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("position", [0, 20_000, -1])
def test_engine_with_one_flipped_bit_is_refused(
    backend: Backend, engines: Path, position: int, precision: str
) -> None:
    entry = models.manifest()["c-dcscn"]["x2"]
    path = engines / (entry["int8"] if precision == "int8" else entry)["file"]
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match=f"{re.escape(str(path))} is damaged"):
        models.find("c-dcscn", 2, backend, precision)


def test_missing_engine_file_is_named(backend: Backend, engines: Path) -> None:
    path = engines / models.manifest()["c-dcscn"]["x2"]["file"]
    path.unlink()
    with pytest.raises(ModelError, match=f"cannot read the model {re.escape(str(path))}"):
        models.find("c-dcscn", 2, backend, "fp32")


# ---- third-party files


def test_file_is_named_after_its_stem(backend: Backend, tmp_path: Path) -> None:
    path = save(tmp_path, text(REPEAT)).rename(tmp_path / "my.best-net.onnx")
    model = models.find(str(path), None, backend)
    assert (model.name, model.scale, model.fixed_size) == ("my.best-net", 2, None)
    assert len(model.sha256) == 64


@pytest.mark.parametrize(("channels", "colour"), [(1, "y"), (3, "rgb")])
def test_channels_decide_between_luma_and_rgb(
    backend: Backend, tmp_path: Path, channels: int, colour: str
) -> None:
    shape = f"float[N,{channels},H,W]"
    model = models.find(str(save(tmp_path, text(REPEAT, lr=shape, sr=shape))), None, backend)
    assert model.facts.colour == colour
    assert_repeats_pixels(backend, model)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_scale_is_measured(backend: Backend, tmp_path: Path, scale: int) -> None:
    path = save(tmp_path, text(REPEAT.replace("2.0, 2.0", f"{scale}.0, {scale}.0")))
    assert models.find(str(path), None, backend).scale == scale
    assert models.find(str(path), scale, backend).scale == scale


def test_other_scale_than_the_file_has_is_refused(backend: Backend, tmp_path: Path) -> None:
    path = save(tmp_path, text(REPEAT))
    with pytest.raises(UsageError, match=f"'{re.escape(str(path))}' has no scale 3; it has: 2"):
        models.find(str(path), 3, backend)


BETWEEN = """low = Constant <value = float {%s}> ()
             high = Constant <value = float {%s}> ()
             sr = Clip(large, low, high)"""


@pytest.mark.parametrize(
    ("value_max", "tail"),
    [
        (1.0, BETWEEN % (0.0, 1.0)),
        (1.0, BETWEEN % (0.01, 0.99)),
        (255.0, BETWEEN % (1.0, 254.0)),
        (255.0, "sr = Round(large)"),
    ],
    ids=["clip-1", "clip-0.99", "clip-254", "round"],
)
def test_range_of_values_is_measured(
    backend: Backend, tmp_path: Path, value_max: float, tail: str
) -> None:
    model = models.find(str(save(tmp_path, text(f"{LARGE} {tail}"))), None, backend)
    assert model.facts.value_max == value_max


@pytest.mark.parametrize(
    "tail", [BETWEEN % (0.0, 1.0), BETWEEN % (0.0, 255.0), "sr = Round(large)"]
)
def test_network_receives_its_own_range(backend: Backend, tmp_path: Path, tail: str) -> None:
    model = models.find(str(save(tmp_path, text(f"{LARGE} {tail}"))), None, backend)
    luma = ramp(22, 20)
    difference = enlarged_luma(backend, model, luma)[::2, ::2].astype(int) - luma
    assert np.abs(difference).max() <= 1


def test_range_that_makes_no_difference_is_0_to_1(backend: Backend, tmp_path: Path) -> None:
    model = models.find(str(save(tmp_path, text(REPEAT))), None, backend)
    assert model.facts.value_max == 1.0


@pytest.mark.parametrize("size", [(40, 32), (45, 33)], ids=str)
def test_fixed_size_is_kept(backend: Backend, tmp_path: Path, size: tuple[int, int]) -> None:
    width, height = size
    path = save(tmp_path, text(REPEAT, lr=f"float[1,1,{height},{width}]"))
    model = models.find(str(path), None, backend)
    assert model.fixed_size == size
    assert_repeats_pixels(backend, model)


@pytest.mark.parametrize(
    "shape",
    ["float[1,1,H,W]", "float[batch,1,height,width]", "float[-1,1,-1,-1]", "float[?,1,?,?]"],
)
def test_free_size_is_recognised(backend: Backend, tmp_path: Path, shape: str) -> None:
    model = models.find(str(save(tmp_path, text(REPEAT, lr=shape))), None, backend)
    assert model.fixed_size is None
    assert_repeats_pixels(backend, model)


@pytest.mark.parametrize("lr", ["float16", "float"])
@pytest.mark.parametrize("sr", ["float16", "float"])
def test_either_end_may_be_half_precision(
    backend: Backend, tmp_path: Path, lr: str, sr: str
) -> None:
    code = {"float": onnx.TensorProto.FLOAT, "float16": onnx.TensorProto.FLOAT16}
    # Mul requires factors of one type, so this fails if the input does not have its declared type
    body = f"""{LARGE} single = Constant <value = float {{1.0}}> ()
               one = Cast <to = {code[lr]}> (single) same = Mul(large, one)
               sr = Cast <to = {code[sr]}> (same)"""
    path = save(tmp_path, text(body, lr=f"{lr}[N,1,H,W]", sr=f"{sr}[N,1,sH,sW]"))
    assert_repeats_pixels(backend, models.find(str(path), None, backend))


OLD = {
    "9-upsample": (9, f'{TWICE} sr = Upsample <mode = "nearest"> (lr, twice)', ""),
    "9-clip": (
        9,
        f"""{TWICE} large = Upsample <mode = "nearest"> (lr, twice)
            sr = Clip <min = 0.0, max = 1.0> (large)""",
        "",
    ),
    "9-pad": (
        9,
        f"""{TWICE} wide = Pad <mode = "reflect", pads = [0, 0, 1, 1, 0, 0, 1, 1]> (lr)
            large = Upsample <mode = "nearest"> (wide, twice)
            sr = Slice <axes = [2, 3], starts = [2, 2], ends = [-2, -2]> (large)""",
        "",
    ),
    "10-resize": (10, f'{TWICE} sr = Resize <mode = "nearest"> (lr, twice)', ""),
    "11-resize": (
        11,
        f"""{TWICE} roi = Constant <value = float[0] {{}}> ()
            sr = Resize <mode = "nearest"> (lr, roi, twice)""",
        "",
    ),
    "11-shuffle": (
        11,
        'four = Conv(lr, w) sr = DepthToSpace <blocksize = 2, mode = "CRD"> (four)',
        ONES,
    ),
}


@pytest.mark.parametrize("name", OLD)
def test_old_opsets_are_raised(backend: Backend, tmp_path: Path, name: str) -> None:
    opset, body, weights = OLD[name]
    path = save(tmp_path, text(body, opset=opset, weights=weights))
    assert_repeats_pixels(backend, models.find(str(path), None, backend))


@pytest.mark.parametrize("weights_first", [False, True])
def test_weights_listed_as_inputs_are_weights(
    backend: Backend, tmp_path: Path, weights_first: bool
) -> None:
    network = onnx.parser.parse_model(text(SHUFFLE, opset=9, weights=ONES))
    network.ir_version = 3  # below 4, every initializer must also be an input
    inputs = [*network.graph.input]
    inputs.append(helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [4, 1, 1, 1]))
    del network.graph.input[:]
    network.graph.input.extend(reversed(inputs) if weights_first else inputs)
    assert_repeats_pixels(backend, models.find(str(save(tmp_path, network)), None, backend))


def test_nodes_may_be_unnamed_or_share_a_name(backend: Backend, tmp_path: Path) -> None:
    network = onnx.parser.parse_model(text(f"{LARGE} a = Neg(large) b = Abs(a) sr = Identity(b)"))
    for node, name in zip(network.graph.node, ["", "", "same", "same", ""], strict=True):
        node.name = name
    assert_repeats_pixels(backend, models.find(str(save(tmp_path, network)), None, backend))


OURS = ["y", "u", "v", "y_out", "u_out", "v_out", "const_0", "cast_0", "split_5_0", "lr", "sr"]


@pytest.mark.parametrize(
    ("given", "result", "inner"),
    [(OURS[k], OURS[k - 3], OURS[k - 6]) for k in range(len(OURS))],
)
def test_names_of_our_own_are_free_for_networks(
    backend: Backend, tmp_path: Path, given: str, result: str, inner: str
) -> None:
    head = '<ir_version: 8, opset_import: ["" : 17]> planes'
    path = save(
        tmp_path,
        f"""{head} (float[N,1,H,W] {given}) => (float[N,1,sH,sW] {result})
            <float[4] const_1 = {{1.0, 1.0, 2.0, 2.0}}>
            {{
                [y_out] {inner} = Identity({given})
                [cast_1] {result} = Resize <mode = "nearest"> ({inner}, , const_1)
            }}""",
    )
    assert_repeats_pixels(backend, models.find(str(path), None, backend))


@pytest.mark.parametrize("opset", [15, 17])
def test_functions_of_a_model_are_expanded(backend: Backend, tmp_path: Path, opset: int) -> None:
    function = f"""<domain: "custom", opset_import: ["" : {opset}]>
                   enlarged (x) => (result)
                   {{ {TWICE} result = Resize <mode = "nearest"> (x, , twice) }}"""
    path = save(tmp_path, text("sr = custom.enlarged(lr)", opset=opset) + function)
    assert_repeats_pixels(backend, models.find(str(path), None, backend))


def test_weights_may_lie_beside_the_file(backend: Backend, tmp_path: Path) -> None:
    path = save_in_two_files(tmp_path)
    assert_repeats_pixels(backend, models.find(str(path), None, backend))


# ---- files that are not a super-resolution network


def assert_refused(backend: Backend, path: Path, why: str) -> None:
    """Assert that the error is one line with the file's path and the reason `why`."""
    with pytest.raises(VsrError, match=why) as caught:
        models.find(str(path), None, backend)
    assert isinstance(caught.value, (ModelError, UsageError))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file(backend: Backend, tmp_path: Path) -> None:
    assert_refused(backend, tmp_path / "nowhere.onnx", "No such file")


def test_folder(backend: Backend, tmp_path: Path) -> None:
    path = tmp_path / "folder.onnx"
    path.mkdir()
    assert_refused(backend, path, "Is a directory")


@pytest.mark.parametrize("size", [0, 1, 16, 5000])
def test_bytes_that_are_no_onnx(backend: Backend, tmp_path: Path, size: int) -> None:
    path = tmp_path / "noise.onnx"
    path.write_bytes(np.random.default_rng(size).bytes(size))
    assert_refused(backend, path, "not a valid ONNX file")


@pytest.mark.parametrize("keep", [1, 100, 1000, 50_000, -200, *range(-12, 0)])
def test_truncated_network(backend: Backend, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "half.onnx"
    entry = models.manifest()["c-dcscn"]["x2"]
    path.write_bytes((models.ENGINES / entry["file"]).read_bytes()[:keep])
    assert_refused(backend, path, "not a valid ONNX file")


def test_weights_in_a_file_of_their_own_are_part_of_the_hash(
    backend: Backend, tmp_path: Path
) -> None:
    path = save_in_two_files(tmp_path)
    first = models.find(str(path), None, backend)
    weights = tmp_path / "weights.bin"
    weights.write_bytes(np.float32(0.9).tobytes() * (weights.stat().st_size // 4))
    assert models.find(str(path), None, backend).sha256 != first.sha256


def test_lost_weights(backend: Backend, tmp_path: Path) -> None:
    path = save_in_two_files(tmp_path)
    (tmp_path / "weights.bin").unlink()
    assert_refused(backend, path, "weights.bin")


IMAGE = "float[N,3,H,W]"
BAD: dict[str, tuple[str, str]] = {
    "classifier": (
        text(
            """mean = GlobalAveragePool(lr) flat = Flatten(mean)
               shape = Constant <value = int64[2] {3, 1000}> ()
               w = ConstantOfShape(shape) sr = MatMul(flat, w)""",
            lr="float[1,3,64,64]",
            sr="float[1,1000]",
        ),
        r"its output has shape \[1, 1000\]",
    ),
    "one-size-inside": (
        text(
            f"""size = Constant <value = int64[4] {{1, 1, 20, 20}}> () cut = Reshape(lr, size)
                {REPEAT.replace("(lr", "(cut")}"""
        ),
        # the number of processors decides which of the two errors occurs
        "OpenVINO failed while running: .*[Rr]eshape|48x48 to 40x40, not by a whole factor",
    ),
    "scale-1": (text("sr = Identity(lr)"), "enlarges 48x48 to 48x48, not by a whole factor"),
    "one-and-a-half": (
        text(REPEAT.replace("2.0, 2.0", "1.5, 1.5")),
        "enlarges 48x48 to 72x72, not by a whole factor",
    ),
    "wider-than-high": (
        text(REPEAT.replace("2.0, 2.0", "2.0, 3.0")),
        "enlarges 48x48 to 144x96, not by a whole factor",
    ),
    "4-channels": (text(REPEAT, lr="float[N,4,H,W]"), "has 4 input channels, expected 1"),
    "3-to-1-channel": (
        text(
            f"{TWICE} mean = ReduceMean <axes = [1]> (lr) "
            'sr = Resize <mode = "nearest"> (mean, , twice)',
            lr=IMAGE,
        ),
        r"its output has shape \[1, 1, 96, 96\] for 3 input channels",
    ),
    "batch-2": (text(REPEAT, lr="float[2,1,H,W]"), "batch size is fixed to 2"),
    "3-dimensions": (text("sr = Identity(lr)", lr="float[1,H,W]"), "has 3 dimensions, expected 4"),
    "integers": (text("sr = Identity(lr)", lr="uint8[N,1,H,W]"), "not float32 or float16"),
    "two-inputs": (
        text(REPEAT).replace(" lr) =>", " lr, float[N,1,H,W] noise) =>"),
        "one input and one output, not 2 and 1",
    ),
    "two-outputs": (
        text(f"{REPEAT} twin = Identity(sr)").replace(" sr) ", " sr, float[N,1,sH,sW] twin) "),
        "one input and one output, not 1 and 2",
    ),
    "nan": (
        text(f"{LARGE} none = Sub(large, large) sr = Div(none, none)"),
        "output contains NaN or infinity",
    ),
    "infinity": (
        text(f"{LARGE} none = Sub(large, large) one = Exp(none) sr = Div(one, none)"),
        "output contains NaN or infinity",
    ),
    "constant": (text(f"{LARGE} sr = Sub(large, large)"), "does not resemble its input"),
    "if": (
        text(
            f"""{LARGE} mean = ReduceMean <keepdims = 0> (lr)
                half = Constant <value = float {{0.5}}> () dark = Less(mean, half)
                sr = If (dark) <
                    then_branch = a () => (float[N,1,sH,sW] same) {{ same = Identity(large) }},
                    else_branch = b () => (float[N,1,sH,sW] also) {{ also = Identity(large) }}
                >"""
        ),
        r"control flow \(If\)",
    ),
    "unknown-operation": (
        text("sr = custom.Enlarge(lr)"),
        "OpenVINO cannot compile this network: No conversion rule .* custom.Enlarge",
    ),
    "shapes-that-do-not-fit": (
        text(
            SHUFFLE,
            weights=ONES.replace("[4,1,1,1]", "[2,2,1,1]"),
        ),
        "not match filter input channel",
    ),
    "tensor-from-nowhere": (text("sr = Add(lr, nowhere)"), "nowhere"),
}


def test_a_free_number_of_channels_is_read_as_rgb(backend: Backend, tmp_path: Path) -> None:
    path = save(tmp_path, text(REPEAT, lr="float[N,C,H,W]"))
    assert models.find(str(path), None, backend).facts.colour == "rgb"


@pytest.mark.parametrize("name", BAD)
def test_other_networks_are_refused(backend: Backend, tmp_path: Path, name: str) -> None:
    network, why = BAD[name]
    assert_refused(backend, save(tmp_path, network), why)


class BrokenBackend:
    """Backend that cannot compile or run anything."""

    name = "broken"
    device = "none"

    def choose_precision(self, precision: str, has_int8: bool) -> str:
        return "fp32"

    def compile(self, graph: PlaneGraph, size: tuple[int, int], batch: int = 1) -> Any:
        raise BackendError("no device left")

    def run(self, model: bytes, inputs: object) -> list[object]:
        raise BackendError("no device left")


def test_backend_that_fails_is_reported_with_the_file(tmp_path: Path) -> None:
    path = save(tmp_path, text(REPEAT))
    with pytest.raises(ModelError, match=f"{re.escape(str(path))}.*no device left"):
        models.find(str(path), None, BrokenBackend())


def test_a_users_file_never_falls_back_to_a_network_of_ours(
    backend: Backend, tmp_path: Path
) -> None:
    path = tmp_path / "carn-m.onnx"
    shutil.copy(models.ENGINES / "carn-m" / "x2.onnx", path)
    found = models.find(str(path), None, backend)
    assert models.in_fp32(replace(found, precision="int8")) is None
    half = models.in_fp32(replace(found, precision="fp16"))
    assert half is not None
    assert (half.precision, half.name) == ("fp32", found.name)


def test_networks_of_ours_have_a_float_form(backend: Backend) -> None:
    found = models.find("c-dcscn", 3, backend, "fp32")
    assert models.in_fp32(found) is None
    plain = models.in_fp32(replace(found, precision="int8", network=onnx.ModelProto()))
    assert plain is not None
    assert plain.network == found.network


# looks


WITH_LOOKS = {
    name: {"x2": {"multadds_720p": work}}
    for name, work in (
        ("c-dcscn", 1), ("c-dcscn-stream", 1), ("c-dcscn-sharp", 1), ("dcscn-sharp", 2),
        ("carn-m-stream", 3),
    )
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "faithful", "sharp"),
    [
        ("c-dcscn", "c-dcscn", "c-dcscn-sharp"),
        ("c-dcscn-stream", "c-dcscn-stream", "c-dcscn-sharp"),
        ("c-dcscn-sharp", "c-dcscn-stream", "c-dcscn-sharp"),
    ],
)
def test_a_model_with_another_look_is_replaced_by_weights_of_the_same_network(
    monkeypatch: pytest.MonkeyPatch, name: str, faithful: str, sharp: str
) -> None:
    monkeypatch.setattr(models, "manifest", lambda: WITH_LOOKS)
    assert model_name_for(name, "faithful") == faithful
    assert model_name_for(name, "sharp") == sharp
    assert model_name_for(name, None) == name


def test_a_model_that_has_the_look_already_is_used() -> None:
    """What `vsr models` says about a model decides, also for models for clean pictures."""
    for name in ("carn", "dcscn", "csrcnn", "bicubic"):
        assert model_name_for(name, "faithful") == name
    assert model_name_for("pcarn-m", "sharp") == "pcarn-m"
    assert model_name_for("rt-sharp", "faithful") == "rt"
    with pytest.raises(UsageError, match="'pcarn-m' has no weights with a faithful look: leave"):
        model_name_for("pcarn-m", "faithful")


def test_a_look_does_not_hide_that_a_model_is_unknown() -> None:
    assert model_name_for("nope", "sharp") == "nope"  # `find` refuses it


def test_a_look_alone_takes_the_network_of_the_least_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "manifest", lambda: WITH_LOOKS)
    assert model_name_for(None, "sharp") == "c-dcscn-sharp"
    assert model_name_for(None, "faithful") == "c-dcscn-stream"
    assert model_name_for(None, None) == models.DEFAULT


@pytest.mark.parametrize("name", ["carn-m", "bicubic"])
def test_a_look_that_a_model_lacks_is_refused_with_those_that_have_it(name: str) -> None:
    with pytest.raises(
        UsageError, match=r"with a sharp look: leave out --look, or use one of: rt-sharp, pcarn-m$"
    ):
        model_name_for(name, "sharp")
    with pytest.raises(UsageError, match="unknown look 'vivid'; known: faithful, sharp"):
        model_name_for(name, "vivid")


@pytest.mark.parametrize("wanted", ["faithful", "sharp"])
def test_the_look_of_a_users_file_is_unknown(wanted: str) -> None:
    with pytest.raises(UsageError, match=r"leave it out with mine\.onnx"):
        model_name_for("mine.onnx", wanted)
