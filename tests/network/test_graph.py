"""Tests of the planes-to-planes graph on OpenVINO against references in this file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
import pytest

from train.data.resize import bicubic_matrix
from vsr.errors import ModelError
from vsr.inference.backend import Backend
from vsr.inference.openvino import CORE
from vsr.media.colour import RGB, Colour
from vsr.media.frame import Plane, Planes
from vsr.media.plane_format import PlaneFormat
from vsr.network.graph import NetworkFacts, PlaneGraph, bicubic_network

Exact = npt.NDArray[np.float64]

PATCH = 16
"""Side of a flat patch, in pixels: more than the reach of resampling around its middle."""


@dataclass(frozen=True)
class Standard:
    """A colour standard as its document defines it, independent of `vsr.media.colour`."""

    name: str
    code: int
    kr: float
    kb: float
    full: bool

    @property
    def colour(self) -> Colour:
        return Colour(matrix=self.code, full_range=self.full)

    def rgb(self, yuv: Exact) -> Exact:
        """Convert code values to R'G'B' in 0..1, both [3, ...]."""
        y, u, v = yuv
        luma = y / 255 if self.full else (y - 16) / 219
        cb, cr = ((c - 128) / (255 if self.full else 224) for c in (u, v))
        r, b = luma + 2 * (1 - self.kr) * cr, luma + 2 * (1 - self.kb) * cb
        g = (luma - self.kr * r - self.kb * b) / (1 - self.kr - self.kb)
        return np.stack([r, g, b])

    def yuv(self, rgb: Exact) -> Exact:
        """Convert R'G'B' in 0..1 to unrounded code values, both [3, ...]."""
        r, g, b = rgb
        luma = self.kr * r + (1 - self.kr - self.kb) * g + self.kb * b
        cb, cr = (b - luma) / (2 * (1 - self.kb)), (r - luma) / (2 * (1 - self.kr))
        y = 255 * luma if self.full else 16 + 219 * luma
        u, v = (128 + (255 if self.full else 224) * c for c in (cb, cr))
        return np.stack([y, u, v])


STANDARDS = [
    Standard(f"{name}-{'full' if full else 'limited'}", code, kr, kb, full)
    for name, code, kr, kb in (
        ("bt601", 6, 0.299, 0.114),
        ("bt709", 1, 0.2126, 0.0722),
        ("bt2020", 9, 0.2627, 0.0593),
    )
    for full in (False, True)
]
every_standard = pytest.mark.parametrize("standard", STANDARDS, ids=lambda s: s.name)
FULL = Colour(full_range=True)
LIMITED = Colour(full_range=False)


def network(channels: int, body: str) -> onnx.ModelProto:
    """Return a network `lr` -> `sr`; `body` is ONNX text and may use `twice` (scales of Resize)."""
    sizes = f"(float[N,{channels},H,W] lr) => (float[N,{channels},sH,sW] sr)"
    twice = "twice = Constant <value = float[4] {1.0, 1.0, 2.0, 2.0}> ()"
    head = '<ir_version: 8, opset_import: ["" : 17]> test'
    return onnx.parser.parse_model(f"{head} {sizes} {{ {twice} {body} }}")


def repeating(channels: int, scale: int = 2) -> onnx.ModelProto:
    """Return a network that repeats every pixel."""
    if scale == 2:
        return network(channels, 'sr = Resize <mode = "nearest"> (lr, , twice)')
    factors = f"by = Constant <value = float[4] {{1.0, 1.0, {scale}.0, {scale}.0}}> ()"
    return network(channels, f'{factors} sr = Resize <mode = "nearest"> (lr, , by)')


def enlarge(
    backend: Backend, net: onnx.ModelProto, facts: NetworkFacts, colour: Colour, planes: Planes
) -> Planes:
    height, width = planes[0].shape
    graph = PlaneGraph(network=net, facts=facts, colour=colour)
    return backend.compile(graph, (width, height)).submit(planes).result()


def bicubic(backend: Backend, planes: Planes, scale: int, colour: Colour = FULL) -> Planes:
    facts = NetworkFacts(scale=scale, colour="y")
    return enlarge(backend, bicubic_network(scale), facts, colour, planes)


def noise(width: int, height: int) -> Planes:
    """Return planes of random codes, 0 to 255."""
    rng = np.random.default_rng(width * height)
    chroma = (-(-height // 2), -(-width // 2))
    y, u, v = (rng.integers(0, 256, size, np.uint8) for size in ((height, width), chroma, chroma))
    return y, u, v


def grey(width: int, height: int) -> Planes:
    y, u, v = (np.full_like(plane, 128) for plane in noise(width, height))
    return y, u, v


def patches(codes: npt.NDArray[Any]) -> Planes:
    """Return a row of flat patches with the given codes [n, 3]."""

    def plane(values: npt.NDArray[Any], side: int) -> Plane:
        return np.repeat(values[None], side, axis=0).repeat(side, axis=1).astype(np.uint8)

    y, u, v = (plane(codes[:, c], size) for c, size in enumerate((PATCH, PATCH // 2, PATCH // 2)))
    return y, u, v


def middles(planes: Planes, scale: int) -> npt.NDArray[Any]:
    """Return the codes [n, 3] in the middle of each of the enlarged `patches`."""
    values = []
    for plane, size in zip(planes, (PATCH, PATCH // 2, PATCH // 2), strict=True):
        side = size * scale
        values.append(plane[side // 2, side // 2 :: side])
    return np.stack(values, axis=1).astype(int)


def assert_rounded(actual: Plane, exact: Exact) -> None:
    """Assert that every code is nearest to the exact value, with tolerance for float32 at ties."""
    assert actual.shape == exact.shape
    assert np.abs(actual - np.clip(exact, 0, 255)).max() <= 0.5 + 2e-3


def code_grid() -> npt.NDArray[Any]:
    """Return code triples [n, 3]: nominal extremes, absolute extremes and values between."""
    lumas = [0, 1, 15, 16, 17, 100, 128, 200, 235, 236, 254, 255]
    chromas = [0, 16, 77, 128, 240, 255]
    return np.stack(np.meshgrid(lumas, chromas, chromas), axis=-1).reshape(-1, 3)


@every_standard
def test_bicubic_keeps_flat_colours_exactly(backend: Backend, standard: Standard) -> None:
    codes = code_grid()
    result = bicubic(backend, patches(codes), 2, standard.colour)
    np.testing.assert_array_equal(middles(result, 2), codes)


@pytest.mark.parametrize("scale", [3, 4, 8])
def test_bicubic_keeps_flat_colours_at_every_scale(backend: Backend, scale: int) -> None:
    codes = code_grid()[::7]
    result = bicubic(backend, patches(codes), scale, LIMITED)
    np.testing.assert_array_equal(middles(result, scale), codes)


@every_standard
@pytest.mark.parametrize("value_max", [1.0, 255.0])
def test_rgb_network_keeps_flat_colours(
    backend: Backend, standard: Standard, value_max: float
) -> None:
    levels = np.linspace(0, 1, 6)
    rgb = np.stack(np.meshgrid(levels, levels, levels)).reshape(3, -1)
    codes = np.rint(standard.yuv(rgb)).clip(0, 255).T
    facts = NetworkFacts(scale=2, colour="rgb", value_max=value_max)
    result = enlarge(backend, repeating(3), facts, standard.colour, patches(codes))
    assert np.abs(middles(result, 2) - codes).max() <= 1


# published 8-bit codes of the primaries: a wrong matrix and its inverse pass the other tests
@pytest.mark.parametrize(
    ("code", "full", "red", "blue"),
    [
        (6, False, (81, 90, 240), (41, 240, 110)),
        (1, False, (63, 102, 240), (32, 240, 118)),
        (6, True, (76, 85, 255), (29, 255, 107)),
    ],
    ids=["bt601", "bt709", "jpeg"],
)
def test_rgb_network_receives_red_as_red(
    backend: Backend,
    code: int,
    full: bool,
    red: tuple[int, int, int],
    blue: tuple[int, int, int],
) -> None:
    swap = """r, g, b = Split <axis = 1> (large)
              sr = Concat <axis = 1> (b, g, r)"""
    net = network(3, f'large = Resize <mode = "nearest"> (lr, , twice) {swap}')
    facts = NetworkFacts(scale=2, colour="rgb")
    colour = Colour(matrix=code, full_range=full)
    result = enlarge(backend, net, facts, colour, patches(np.array([red, blue])))
    assert np.abs(middles(result, 2) - [blue, red]).max() <= 1


def doubled(plane: Exact, *phases: tuple[int, list[float]]) -> Exact:
    """Return a row per phase for each row i: its weights applied to rows from i - 2 + first on."""
    padded = np.pad(plane, ((2, 2), (0, 0)), mode="edge")
    rows = [
        sum(w * padded[first + k : first + k + len(plane)] for k, w in enumerate(weights))
        for first, weights in phases
    ]
    return np.stack(rows, axis=1).reshape(2 * len(plane), -1)


def fine_chroma(plane: Plane) -> Exact:
    """Upsample chroma to luma size by Keys' cubic, a = -0.5: rows centred, columns on even ones."""
    above, below = [-3 / 128, 29 / 128, 111 / 128, -9 / 128], [-9 / 128, 111 / 128, 29 / 128]
    tall = doubled(plane.astype(np.float64), (0, above), (1, [*below, -3 / 128]))
    return doubled(tall.T, (2, [1.0]), (1, [-1 / 16, 9 / 16, 9 / 16, -1 / 16])).T


def coarse_chroma(plane: Exact) -> Exact:
    """Downsample chroma: average rows in pairs; weight columns 1 2 1 around even ones."""
    pairs = (plane[0::2] + plane[1::2]) / 2
    p = np.pad(pairs, ((0, 0), (1, 0)), mode="edge")
    return (p[:, 0:-2:2] + 2 * p[:, 1:-1:2] + p[:, 2::2]) / 4


@every_standard
def test_rgb_path_equals_reference(backend: Backend, standard: Standard) -> None:
    y, u, v = noise(26, 18)
    facts = NetworkFacts(scale=2, colour="rgb")
    darker = 'large = Resize <mode = "nearest"> (lr, , twice) sr = Mul(large, large)'
    result = enlarge(backend, network(3, darker), facts, standard.colour, (y, u, v))

    rgb = standard.rgb(np.stack([y.astype(np.float64), fine_chroma(u), fine_chroma(v)]))
    large = rgb.repeat(2, axis=1).repeat(2, axis=2) ** 2
    luma, cb, cr = standard.yuv(large)
    assert_rounded(result[0], luma)
    assert_rounded(result[1], coarse_chroma(cb))
    assert_rounded(result[2], coarse_chroma(cr))


@pytest.mark.parametrize("size", [(353, 237), (352, 237), (353, 236)], ids=str)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_odd_sizes_give_whole_chroma(backend: Backend, size: tuple[int, int], scale: int) -> None:
    y, u, v = bicubic(backend, noise(*size), scale)
    width, height = (n * scale + n * scale % 2 for n in size)
    assert y.shape == (height, width)
    assert u.shape == v.shape == (height // 2, width // 2)


@pytest.mark.parametrize("colour", ["y", "rgb"])
def test_odd_size_at_x3_repeats_its_last_column_and_row(backend: Backend, colour: str) -> None:
    net = repeating(1 if colour == "y" else 3, scale=3)
    planes = noise(15, 9)
    y, u, _ = enlarge(backend, net, NetworkFacts(scale=3, colour=colour), FULL, planes)
    assert y.shape == (28, 46)
    assert u.shape == (14, 23)
    expected = np.pad(planes[0].repeat(3, axis=0).repeat(3, axis=1), ((0, 1), (0, 1)), mode="edge")
    # rounding an RGB network's chroma does not affect luma
    assert_rounded(y, expected.astype(np.float64))


def test_odd_size_does_not_change_what_lies_inside(backend: Backend) -> None:
    y, u, v = noise(64, 48)
    whole = bicubic(backend, (y, u, v), 2)
    odd = bicubic(backend, (y[:47, :63], u, v), 2)
    for a, b in zip(whole, odd, strict=True):
        inner = (slice(0, a.shape[0] - 8), slice(0, a.shape[1] - 8))
        np.testing.assert_array_equal(a[inner], b[inner])


@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_bicubic_luma_equals_matlab_bicubic_up_to_the_borders(
    backend: Backend, scale: int, full: bool
) -> None:
    planes = noise(34, 22)
    y, _, _ = bicubic(backend, planes, scale, Colour(full_range=full))
    rows, columns = (bicubic_matrix(n, n * scale) for n in planes[0].shape)
    assert_rounded(y, rows @ planes[0] @ columns.T)


def ramp_planes(size: int, slope: float, axis: int) -> Planes:
    """Return planes in which luma, U and V are one linear function of position along `axis`.

    Luma pixel i is centred at i + 0.5. Chroma sample j is at 2 j + 0.5 along x (on luma column
    2 j) and at 2 j + 1 along y (between luma rows): the default siting of MPEG-2 and H.264.
    """
    luma = slope * (np.arange(size) + 0.5)
    chroma = slope * (2 * np.arange(size // 2) + (0.5 if axis == 1 else 1.0))

    def plane(values: npt.NDArray[Any], side: int) -> Plane:
        flat = np.broadcast_to(np.rint(values), (side, len(values)))
        return np.ascontiguousarray(flat if axis == 1 else flat.T).astype(np.uint8)

    return plane(luma, size), plane(chroma, size // 2), plane(chroma, size // 2)


def assert_aligned(result: Planes, scale: int, slope: float, axis: int) -> None:
    """Assert that the enlarged ramps are the same function of position, away from the borders."""
    y, u, v = (np.take(plane, plane.shape[1 - axis] // 2, 1 - axis) for plane in result)
    luma = slope * (np.arange(len(y)) + 0.5) / scale
    chroma = slope * (2 * np.arange(len(u)) + (0.5 if axis == 1 else 1.0)) / scale
    inner, inner_chroma = slice(6 * scale, -6 * scale), slice(3 * scale, -3 * scale)
    # the input codes are whole numbers, so only the output is rounded
    assert np.abs(y[inner] - luma[inner]).max() <= 0.51
    for plane in (u, v):
        assert np.abs(plane[inner_chroma] - chroma[inner_chroma]).max() <= 0.51


@pytest.mark.parametrize("axis", [1, 0], ids=["horizontal", "vertical"])
@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_chroma_stays_aligned_with_luma(backend: Backend, scale: int, axis: int) -> None:
    planes = ramp_planes(60, 4.0, axis)
    assert_aligned(bicubic(backend, planes, scale), scale, 4.0, axis)


@pytest.mark.parametrize("axis", [1, 0], ids=["horizontal", "vertical"])
def test_chroma_stays_aligned_with_luma_through_rgb(backend: Backend, axis: int) -> None:
    net = network(3, 'sr = Resize <mode = "linear"> (lr, , twice)')
    planes = ramp_planes(60, 4.0, axis)
    result = enlarge(backend, net, NetworkFacts(scale=2, colour="rgb"), FULL, planes)
    assert_aligned(result, 2, 4.0, axis)


def shifted(backend: Backend, planes: Planes, codes: float, colour: Colour) -> Planes:
    """Repeat pixels, and add `codes` full-range codes to luma inside the network."""
    body = f"""large = Resize <mode = "nearest"> (lr, , twice)
               step = Constant <value = float {{{codes}}}> ()
               sr = Add(large, step)"""
    facts = NetworkFacts(scale=2, colour="y", value_max=255.0)
    return enlarge(backend, network(1, body), facts, colour, planes)


def all_codes() -> Planes:
    _, u, v = grey(16, 16)
    return np.arange(256, dtype=np.uint8).reshape(16, 16), u, v


@pytest.mark.parametrize(("shift", "step"), [(0.4, 0), (0.6, 1), (-0.4, 0), (-0.6, -1)])
def test_luma_is_rounded_to_the_nearest_code(backend: Backend, shift: float, step: int) -> None:
    y, _, _ = shifted(backend, all_codes(), shift, FULL)
    expected = (np.arange(256) + step).clip(0, 255).reshape(16, 16)
    np.testing.assert_array_equal(y[::2, ::2], expected)


@pytest.mark.parametrize("shift", [300.0, -300.0, 1e9, -1e9])
def test_luma_saturates(backend: Backend, shift: float) -> None:
    y, _, _ = shifted(backend, all_codes(), shift, LIMITED)
    assert (y == (255 if shift > 0 else 0)).all()


def test_chroma_overshoot_saturates(backend: Backend) -> None:
    y, u, v = grey(64, 32)
    u[:, 16:], u[:, :16] = 255, 0
    v[:8], v[8:] = 255, 0
    _, large_u, large_v = bicubic(backend, (y, u, v), 4)
    # a cubic overshoots beside an edge; wrap-around would leave dark specks in bright areas
    assert (large_u[:, :56] == 0).all()
    assert (large_u[:, 72:] == 255).all()
    assert (large_v[:24] == 255).all()
    assert (large_v[40:] == 0).all()
    assert (np.diff(large_u.astype(int), axis=1) >= 0).all()
    assert (np.diff(large_v.astype(int), axis=0) <= 0).all()


@pytest.mark.parametrize("value_max", [1.0, 255.0])
def test_luma_network_passes_super_white_and_super_black(
    backend: Backend, value_max: float
) -> None:
    facts = NetworkFacts(scale=2, colour="y", value_max=value_max)
    y, _, _ = enlarge(backend, repeating(1), facts, LIMITED, all_codes())
    np.testing.assert_array_equal(y[::2, ::2].ravel(), np.arange(256))


@pytest.mark.parametrize(
    ("full", "code", "inverse"),
    [(False, 16, 235), (False, 235, 16), (True, 0, 255), (True, 255, 0)],
)
def test_luma_network_sees_black_as_0_and_white_as_1(
    backend: Backend, full: bool, code: int, inverse: int
) -> None:
    inverting = """large = Resize <mode = "nearest"> (lr, , twice)
                   one = Constant <value = float {1.0}> ()
                   sr = Sub(one, large)"""
    planes = grey(16, 16)
    planes[0][:] = code
    facts = NetworkFacts(scale=2, colour="y")
    y, _, _ = enlarge(backend, network(1, inverting), facts, Colour(full_range=full), planes)
    assert (y == inverse).all()


def test_planes_of_uneven_chroma_are_refused() -> None:
    facts = NetworkFacts(scale=2, colour="y")
    planes = PlaneFormat(chroma_x=1, chroma_y=2)
    with pytest.raises(ModelError, match="8 bits, chroma 1/1 x 1/2 are not supported"):
        PlaneGraph(network=repeating(1), facts=facts, planes=planes).onnx((16, 16))


def deep_noise(bits: int, width: int, height: int) -> Planes:
    """Return three full-size planes of random codes."""
    random = np.random.default_rng(bits)
    kind = np.uint8 if bits == 8 else np.uint16
    g, b, r = random.integers(0, 2**bits, (3, height, width), dtype=kind)
    return g, b, r


def of_rgb(
    backend: Backend, model: onnx.ModelProto, facts: NetworkFacts, planes: Planes, bits: int
) -> Planes:
    """Enlarge planes G, B, R of `bits` bits with a network."""
    form = PlaneFormat(bits=bits, chroma_x=1, chroma_y=1)
    colour = Colour(matrix=RGB, full_range=True)
    graph = PlaneGraph(network=model, facts=facts, colour=colour, planes=form)
    height, width = planes[0].shape
    return backend.compile(graph, (width, height)).submit(planes).result()


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_an_rgb_network_gets_red_green_and_blue_and_returns_them(
    backend: Backend, bits: int
) -> None:
    """H.273, matrix 0: the planes are G, B and R; codes 0..2^n - 1 stand for 0..1."""
    planes = deep_noise(bits, 22, 14)
    facts = NetworkFacts(scale=2, colour="rgb")
    body = (
        'large = Resize <mode = "nearest"> (lr, , twice) '
        "weights = Constant <value = float[1, 3, 1, 1] {1.0, 0.5, 0.25}> () "
        "sr = Mul(large, weights)"
    )
    g, b, r = of_rgb(backend, network(3, body), facts, planes, bits)
    for result, plane, weight in ((r, planes[2], 1), (g, planes[0], 0.5), (b, planes[1], 0.25)):
        assert result.dtype == plane.dtype
        exact = plane.repeat(2, 0).repeat(2, 1) * weight
        assert np.abs(result - exact).max() <= 0.5 + 2.0**bits * 2.0**-20


@pytest.mark.parametrize("bits", [8, 10, 16])
def test_a_luma_network_on_rgb_gets_full_range_luma_of_bt601(backend: Backend, bits: int) -> None:
    """BT.601: Y = 0.299 R + 0.587 G + 0.114 B; a network that halves luma halves grey."""
    facts = NetworkFacts(scale=2, colour="y")
    halving = (
        "half = Constant <value = float {0.5}> () "
        'large = Resize <mode = "nearest"> (lr, , twice) sr = Mul(large, half)'
    )
    top = 2**bits - 1
    for g, b, r in ((0.6, 0.6, 0.6), (0.9, 0.5, 0.7)):
        kind = np.uint8 if bits == 8 else np.uint16
        codes = [round(value * top) for value in (g, b, r)]
        flat = [np.full((12, 16), code, kind) for code in codes]
        result = of_rgb(backend, network(1, halving), facts, (flat[0], flat[1], flat[2]), bits)
        luma = 0.299 * codes[2] + 0.587 * codes[0] + 0.114 * codes[1]
        for plane, code in zip(result, codes, strict=True):
            # colour differences are unchanged, luma is halved
            assert np.abs(plane - (code - luma / 2)).max() <= 0.5 + top * 2.0**-18


Run = Callable[[Sequence[Planes]], list[Planes]]
"""Function that enlarges a batch of pictures of one size."""


def compiled(graph: bytes) -> Run:
    """Compile a graph on OpenVINO directly: `OpenVinoBackend` does not support batches."""
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    model = CORE.compile_model(CORE.read_model(graph), "CPU", config)

    def run(planes: Sequence[Planes]) -> list[Planes]:
        result = model([np.stack(plane)[:, None] for plane in zip(*planes, strict=True)])
        y, u, v = (np.array(result[k])[:, 0] for k in range(3))
        return list(zip(y, u, v, strict=True))

    return run


def assert_equal(ours: Sequence[Planes], theirs: Sequence[Planes]) -> None:
    for picture, other in zip(ours, theirs, strict=True):
        for a, b in zip(picture, other, strict=True):
            np.testing.assert_array_equal(a, b)


NETWORKS = {
    "luma-x2": (repeating(1), NetworkFacts(scale=2, colour="y")),
    "luma-x3": (bicubic_network(3), NetworkFacts(scale=3, colour="y")),
    "rgb-x2": (
        network(3, 'sr = Resize <mode = "linear"> (lr, , twice)'),
        NetworkFacts(scale=2, colour="rgb", value_max=255.0),
    ),
    "rgb-x3": (repeating(3, scale=3), NetworkFacts(scale=3, colour="rgb")),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_free_size_and_batch_give_what_fixed_ones_give(name: str) -> None:
    net, facts = NETWORKS[name]
    graph = PlaneGraph(network=net, facts=facts, colour=LIMITED)
    one, two, free = (compiled(graph.onnx(None, batch)) for batch in (1, 2, None))
    for size in ((18, 12), (34, 50)):
        y, u, v = noise(*size)
        pictures = [(y, u, v), (y[::-1], v, u)]
        fixed = compiled(graph.onnx(size))
        single = [fixed([picture])[0] for picture in pictures]
        assert single[0][0].shape == (size[1] * facts.scale, size[0] * facts.scale)
        assert (single[0][0] != single[1][0]).any()
        assert_equal(compiled(graph.onnx(size, 2))(pictures), single)
        assert_equal(one(pictures[:1]), single[:1])
        assert_equal(two(pictures), single)
        assert_equal(free(pictures), single)
        assert_equal(free(pictures[1:]), single[1:])


@pytest.mark.parametrize("name", NETWORKS)
def test_free_sizes_are_free_in_the_graph_and_nothing_else_is(name: str) -> None:
    net, facts = NETWORKS[name]
    graph = PlaneGraph(network=net, facts=facts)
    fixed, free = (onnx.load_model_from_string(graph.onnx(size)) for size in ((16, 12), None))
    onnx.checker.check_model(free, full_check=True)
    for tensor in (*free.graph.input, *free.graph.output):
        batch, channels, *size = tensor.type.tensor_type.shape.dim
        assert (batch.dim_value, channels.dim_value) == (1, 1)
        assert all(side.dim_param and not side.HasField("dim_value") for side in size)
    # both graphs have the same nodes and constants: no constant depends on the size
    assert [n.op_type for n in free.graph.node] == [n.op_type for n in fixed.graph.node]
    assert list(free.graph.initializer) == list(fixed.graph.initializer)
