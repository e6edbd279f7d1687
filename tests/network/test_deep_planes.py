"""Tests of more than 8 bits, 4:2:2, 4:4:4 and chroma sitings against float references."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from tests.network.test_graph import network
from tests.networks import ALL_NETWORKS
from vsr.inference import models
from vsr.inference.backend import Backend
from vsr.inference.depth import for_bit_depth
from vsr.inference.models import Model, in_fp32
from vsr.inference.upscaler import Upscaler
from vsr.media.colour import RGB, Colour
from vsr.media.frame import Plane, Planes
from vsr.media.plane_format import SITINGS, PlaneFormat
from vsr.network.graph import NetworkFacts, PlaneGraph, bicubic_network

Exact = npt.NDArray[np.float64]
BITS = (8, 10, 12)
LEVELS = 1024
SUBSAMPLED = {"420": (2, 2), "422": (2, 1), "444": (1, 1)}


class IntegerRunner:
    """Runner for a machine with 8-bit instructions; it does not run networks."""

    def choose_precision(self, precision: str, has_int8: bool) -> str:
        return ("int8" if has_int8 else "fp32") if precision == "auto" else precision

    def run(self, model: bytes, inputs: Sequence[object]) -> list[object]:
        raise NotImplementedError


def planes_of_kind(bits: int, kind: str, siting: str = "left") -> PlaneFormat:
    across, down = SUBSAMPLED[kind]
    return PlaneFormat(bits=bits, chroma_x=across, chroma_y=down, siting=siting)


def enlarged(backend: Backend, graph: PlaneGraph, planes: Planes) -> Planes:
    height, width = planes[0].shape
    return backend.compile(graph, (width, height)).submit(planes).result()


def ramp(bits: int, chroma: PlaneFormat) -> Planes:
    """Return 1,024 levels of grey over the whole range, in rows of alternating direction."""
    levels = np.rint(np.arange(LEVELS) * (2**bits - 1) / (LEVELS - 1)).reshape(16, 64)
    levels[1::2] = levels[1::2, ::-1]
    width, height = chroma.chroma(64, 16)
    grey = np.full((height, width), 2 ** (bits - 1), chroma.dtype)
    return levels.astype(chroma.dtype), grey, grey


def networks() -> list[tuple[str, str, int]]:
    """Return (name, precision, bits) of shipped networks in all their forms, and of bicubic."""
    found = [(models.BICUBIC, "fp32", bits) for bits in BITS]
    named = models.manifest() if ALL_NETWORKS else ["c-dcscn-stream"]
    for name in named:
        scale = models.scales(name)[0]
        found += [(name, "fp32", 8)] * ALL_NETWORKS
        found += [(name, "auto", bits) for bits in ((10, 12) if ALL_NETWORKS else (10,))]
        found += [(name, "int8", 10)] * ("int8" in models.manifest()[name][f"x{scale}"])
    return found


def run_in_float(backend: Backend, model: Model, luma: Exact) -> Exact:
    """Run the network alone, without a planes-to-planes graph, on grey of 0..1; return luma."""
    channels = 1 if model.facts.colour == "y" else 3
    x = np.broadcast_to(luma * model.facts.value_max, (1, channels, *luma.shape))
    (sr,) = backend.run(model.network.SerializeToString(), [x.astype(np.float32)])
    rgb = np.asarray(sr, np.float64)[0] / model.facts.value_max
    # BT.709 luma of R, G and B; a single channel already is luma
    return rgb[0] if channels == 1 else np.tensordot([0.2126, 0.7152, 0.0722], rgb, 1)


@pytest.mark.parametrize(("name", "precision", "bits"), networks())
def test_a_grey_ramp_has_all_its_levels(
    backend: Backend, name: str, precision: str, bits: int
) -> None:
    """The result is within one code of the network alone, with more levels than 8 bits can hold.

    Above 8 bits, auto does not use int8, so int8 is requested explicitly.
    """
    form, top = planes_of_kind(bits, "420"), 2**bits - 1
    model = for_bit_depth(models.find(name, models.scales(name)[0], backend, precision), form)
    assert precision in (model.precision, "auto")
    planes = ramp(bits, form)
    y, u, v = enlarged(backend, model.graph(Colour(full_range=True), form), planes)
    plain = (in_fp32(model) or model) if precision == "auto" else model
    exact = np.clip(run_in_float(backend, plain, planes[0] / top) * top, 0, top)
    off = np.abs(y - exact)
    if precision == "int8":  # a value between two steps may round to either
        # the input of an RGB network is converted first, which moves more values to the other step
        assert np.quantile(off, 0.95) <= (1 if model.facts.colour == "y" else 2)
    else:
        assert off.max() <= 1
    assert len(np.unique(y)) > (200 if bits == 8 else 800)
    if model.facts.colour == "y":
        assert np.all(u == 2 ** (bits - 1)) and np.all(v == 2 ** (bits - 1))


INT8 = [
    (name, scale)
    for name in (models.manifest() if ALL_NETWORKS else ["c-dcscn-stream"])
    for scale in models.scales(name)
    if "int8" in models.manifest()[name][f"x{scale}"]
]


@pytest.mark.parametrize(("name", "scale"), INT8)
def test_a_smooth_ramp_stays_smooth_in_int8(backend: Backend, name: str, scale: int) -> None:
    """In 8 bits, nearly all pixels are within one code of the float network: a sky has no bands.

    Here four columns share each code; the final rounding alone costs half a code.
    """
    form, top = planes_of_kind(8, "420"), 255
    luma = np.rint(np.arange(LEVELS) * top / (LEVELS - 1)).astype(np.uint8)[None].repeat(32, 0)
    grey = np.full((16, LEVELS // 2), 128, np.uint8)
    whole, rounded = (models.find(name, scale, backend, p) for p in ("fp32", "int8"))
    graph = rounded.graph(Colour(full_range=True), form)
    y, _, _ = enlarged(backend, graph, (luma, grey, grey))
    exact = np.clip(run_in_float(backend, whole, luma / top) * top, 0, top)
    off = np.abs(y - exact)
    assert (off <= 1).mean() >= 0.93
    assert np.quantile(off, 0.99) <= 1.3


@pytest.mark.parametrize("asked", ["auto", "int8"])
def test_int8_that_nobody_asked_for_is_for_8_bits(asked: str) -> None:
    """int8 has 8-bit activations: 10-bit pictures would be several codes off."""
    name = "c-dcscn-stream"
    found = models.find(name, 2, IntegerRunner(), asked)
    assert found.precision == "int8"
    assert for_bit_depth(found, planes_of_kind(8, "444")) is found
    deep = for_bit_depth(found, planes_of_kind(10, "420"))
    assert deep.precision == ("fp32" if asked == "auto" else "int8")
    assert (deep.sha256 == models.manifest()[name]["x2"]["sha256"]) == (asked == "auto")


def test_bf16_that_nobody_asked_for_is_for_8_bits(backend: Backend) -> None:
    found = replace(
        models.find("bicubic", 2, IntegerRunner()), precision="bf16", auto_precision=True
    )
    for bits, precision in ((8, "bf16"), (10, "fp32"), (12, "fp32")):
        form = planes_of_kind(bits, "420")
        assert for_bit_depth(found, form).precision == precision
        scaler = Upscaler(found, backend, Colour(), (32, 16), planes=form)
        assert scaler.outline.precision == precision
    half = replace(found, precision="fp16")
    assert for_bit_depth(half, planes_of_kind(10, "420")) is half


def keys(x: Exact) -> Exact:
    """Evaluate Keys' cubic convolution kernel, a = -0.5 (Keys 1981)."""
    x = np.abs(x)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def sampled(length: int, places: Exact) -> Exact:
    """Return cubic weights [places, length] for samples at 0 .. length - 1, edges repeated."""
    matrix = np.zeros((len(places), length))
    for row, place in enumerate(places):
        for tap in range(int(np.floor(place)) - 2, int(np.floor(place)) + 4):
            matrix[row, min(max(tap, 0), length - 1)] += keys(np.float64(place - tap))
    return matrix


def place_of(form: PlaneFormat, axis: int) -> tuple[float, int]:
    """Return (position of the first chroma sample, samples per chroma sample), in luma samples."""
    step = (form.chroma_x, form.chroma_y)[axis]
    return (SITINGS[form.siting][axis] if step > 1 else 0.0), step


def finer(form: PlaneFormat, axis: int, length: int, factor: int) -> Exact:
    """Return weights [factor * length, length] that enlarge chroma; both grids have its siting.

    Luma sample i is at i + 0.5 in the input and at (i + 0.5) / factor in the output.
    """
    place, step = place_of(form, axis)
    luma = (step * np.arange(length * factor) + place + 0.5) / factor - 0.5
    return sampled(length, (luma - place) / step)


def psnr(plane: Plane, exact: Exact, top: int) -> float:
    return float(10 * np.log10(top**2 / np.mean((plane - exact) ** 2)))


@pytest.mark.parametrize("kind", SUBSAMPLED)
@pytest.mark.parametrize("scale", [2, 3])
def test_single_pixel_chroma_lines_survive(backend: Backend, kind: str, scale: int) -> None:
    """Vertical and horizontal lines, one chroma sample wide, match a cubic reference."""
    form = planes_of_kind(10, kind)
    width, height = form.chroma(48, 32)
    u = np.full((height, width), 512, np.uint16)
    v = u.copy()
    u[:, ::4], v[::4] = 900, 100
    luma = np.full((32, 48), 500, np.uint16)
    facts = NetworkFacts(scale=scale, colour="y")
    graph = PlaneGraph(network=bicubic_network(scale), facts=facts, planes=form)
    for plane, source in zip(enlarged(backend, graph, (luma, u, v))[1:], (u, v), strict=True):
        rows, columns = finer(form, 1, height, scale), finer(form, 0, width, scale)
        exact = np.clip(rows @ source @ columns.T, 0, 1023)
        assert plane.shape == exact.shape
        assert np.ptp(plane) > 300
        assert psnr(plane, exact, 1023) > 60


def to_rgb(yuv: Exact, top: int) -> Exact:
    """Convert full-range BT.709 codes to R'G'B' in 0..1 (H.273 8.3)."""
    y, u, v = yuv[0] / top, *(yuv[1:] - (top + 1) / 2) / top
    r, b = y + 1.5748 * v, y + 1.8556 * u
    return np.stack([r, (y - 0.2126 * r - 0.0722 * b) / 0.7152, b])


def to_yuv(rgb: Exact, top: int) -> Exact:
    """Convert R'G'B' in 0..1 to codes: the inverse of `to_rgb`."""
    y = np.tensordot([0.2126, 0.7152, 0.0722], rgb, 1)
    middle = (top + 1) / 2
    u, v = (rgb[2] - y) / 1.8556, (rgb[0] - y) / 1.5748
    return np.stack([top * y, middle + top * u, middle + top * v])


def coarser(form: PlaneFormat, axis: int, length: int) -> Exact:
    """Return weights [length / step, length] that average luma around each chroma sample."""
    place, step = place_of(form, axis)
    if step == 1:
        return np.eye(length)
    matrix = np.zeros((length // step, length))
    reach = {0.0: ((-1, 0.25), (0, 0.5), (1, 0.25)), 0.5: ((0, 0.5), (1, 0.5)),
             1.0: ((0, 0.25), (1, 0.5), (2, 0.25))}[place]  # fmt: skip
    for row in range(len(matrix)):
        for tap, weight in reach:
            matrix[row, min(max(step * row + tap, 0), length - 1)] += weight
    return matrix


EVERY_FORM = [("420", siting) for siting in SITINGS] + [
    ("422", "left"), ("422", "center"), ("444", "left"),
]  # fmt: skip
every_form = pytest.mark.parametrize(("kind", "siting"), EVERY_FORM)


def repeating() -> onnx.ModelProto:
    return network(3, 'sr = Resize <mode = "nearest"> (lr, , twice)')


@every_form
def test_an_rgb_network_sees_the_chroma_where_it_is(
    backend: Backend, kind: str, siting: str
) -> None:
    form, top = planes_of_kind(10, kind, siting), 1023
    random = np.random.default_rng(1)
    width, height = form.chroma(32, 24)
    shapes = ((24, 32), (height, width), (height, width))
    # colours near grey, so that nothing is clipped
    y, u, v = (random.integers(400, 624, shape).astype(np.uint16) for shape in shapes)
    facts = NetworkFacts(scale=2, colour="rgb")
    colour = Colour(full_range=True)
    graph = PlaneGraph(network=repeating(), facts=facts, colour=colour, planes=form)
    up = [
        sampled(length, (np.arange(luma) - place) / step)
        for length, luma, (place, step) in (
            (height, 24, place_of(form, 1)), (width, 32, place_of(form, 0)),
        )
    ]  # fmt: skip
    full = np.stack([y, *(up[0] @ plane @ up[1].T for plane in (u, v))])
    large = to_yuv(to_rgb(full, top).repeat(2, 1).repeat(2, 2), top)
    down = coarser(form, 1, 48), coarser(form, 0, 64)
    exact = [large[0], *(down[0] @ plane @ down[1].T for plane in large[1:])]
    for ours, theirs in zip(enlarged(backend, graph, (y, u, v)), exact, strict=True):
        assert np.abs(ours - theirs).max() <= 0.51


@every_form
@pytest.mark.parametrize("colour", ["y", "rgb"])
def test_no_chroma_edge_moves(backend: Backend, kind: str, siting: str, colour: str) -> None:
    """If luma and chroma are one function of position, the output is too, within 0.02 pixels."""
    form, size, slope = planes_of_kind(12, kind, siting), 48, 64
    linear = network(3, 'sr = Resize <mode = "linear"> (lr, , twice)')
    net = bicubic_network(2) if colour == "y" else linear
    facts = NetworkFacts(scale=2, colour=colour)
    graph = PlaneGraph(network=net, facts=facts, colour=Colour(full_range=True), planes=form)
    engine = backend.compile(graph, (size, size))
    for axis in (0, 1):
        place, step = place_of(form, axis)
        luma = slope * (np.arange(size) + 0.5) + 400
        chroma = slope * (step * np.arange(size // step) + place + 0.5) + 400
        width, height = form.chroma(size, size)
        lines = [(luma, (size, size)), (chroma, (height, width)), (chroma, (height, width))]
        y, u, v = (
            np.array(np.broadcast_to(line if axis == 0 else line[:, None], shape), np.uint16)
            for line, shape in lines
        )
        for plane in engine.submit((y, u, v)).result()[1:]:
            found = plane[len(plane) // 2] if axis == 0 else plane[:, plane.shape[1] // 2]
            expected = slope * (step * np.arange(len(found)) + place + 0.5) / 2 + 400
            off = (found - expected)[8:-8] / (slope / 2)  # in output pixels
            assert np.abs(off).max() < 0.02


@pytest.mark.parametrize("matrix", [6, 1, 9])
@pytest.mark.parametrize("full", [False, True])
def test_colour_patches_stay_what_they_are(backend: Backend, matrix: int, full: bool) -> None:
    """Flat colours keep their codes through R'G'B' and back, whatever the transfer (PQ, HLG)."""
    form = planes_of_kind(10, "422")
    patches = [(235, 128, 128), (81, 90, 240), (145, 54, 34), (41, 240, 110), (16, 128, 128)]
    codes = 4 * np.array(patches)
    facts = NetworkFacts(scale=2, colour="rgb")
    colour = Colour(matrix=matrix, full_range=full)
    graph = PlaneGraph(network=repeating(), facts=facts, colour=colour, planes=form)
    y, u, v = (
        np.repeat(codes[:, c], side)[None].repeat(8, 0).astype(np.uint16)
        for c, side in enumerate((8, 4, 4))
    )
    found = enlarged(backend, graph, (y, u, v))
    for plane, wanted, side in zip(found, codes.T, (16, 8, 8), strict=True):
        np.testing.assert_array_equal(plane[8, side // 2 :: side], wanted)


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("colour", ["y", "rgb"])
def test_rgb_planes_are_enlarged_as_they_are(backend: Backend, bits: int, colour: str) -> None:
    """A grey ramp in G, B and R stays grey, and red stays red."""
    form = planes_of_kind(bits, "444")
    g = np.rint(np.linspace(0, 2**bits - 1, 64))[None].repeat(16, 0).astype(form.dtype)
    r = np.full_like(g, 2**bits - 1)
    facts = NetworkFacts(scale=2, colour=colour)
    net = bicubic_network(2) if colour == "y" else repeating()
    graph = PlaneGraph(
        network=net, facts=facts, colour=Colour(matrix=RGB, full_range=True), planes=form
    )
    green, blue, red = enlarged(backend, graph, (g, g, r))
    np.testing.assert_allclose(green, blue, atol=1)
    assert np.abs(red.astype(int) - r[0, 0]).max() <= 1
    assert np.abs(green[16, ::2] - g[8].astype(int)).max() <= (2**bits - 1) / 64
