"""Tests of the upscaler: tiles do not change the result, order is preserved, errors are raised."""

import subprocess
import sys
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from vsr.errors import BackendError, InputError
from vsr.inference import models, tiles
from vsr.inference.backend import Backend
from vsr.inference.models import Model
from vsr.inference.tiles import Span, plan_tiles, spans, tile_length
from vsr.inference.upscaler import Upscaler
from vsr.media.colour import Colour
from vsr.media.frame import Frame, Planes, now
from vsr.media.plane_format import PlaneFormat
from vsr.network.graph import NetworkFacts, PlaneGraph, bicubic_network

ROOT = Path(__file__).parents[2]
COLOUR = Colour(full_range=True)


def chroma_size(width: int, height: int) -> tuple[int, int]:
    return -(-height // 2), -(-width // 2)


def noise(width: int, height: int, seed: int = 0) -> Planes:
    rng = np.random.default_rng(seed)
    sizes = ((height, width), *(chroma_size(width, height),) * 2)
    y, u, v = (rng.integers(0, 256, size, np.uint8) for size in sizes)
    return y, u, v


def frame(planes: Planes, index: int = 0) -> Frame:
    return Frame(
        planes=planes, index=index, pts=1001 * index, time_base=Fraction(1, 30000), duration=1001
    )


def network(channels: int, body: str) -> onnx.ModelProto:
    """Return a network `lr` -> `sr`; `body` is in ONNX's text form."""
    sizes = f"(float[N,{channels},H,W] lr) => (float[N,{channels},sH,sW] sr)"
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> a {sizes} {{{body}}}')


def repeating(
    channels: int = 1, scale: int = 2, size: tuple[int, int] | None = None, radius: int = 32
) -> Model:
    """Return a model that repeats every pixel."""
    by = f"by = Constant <value = float[4] {{1.0, 1.0, {scale}.0, {scale}.0}}> ()"
    return Model(
        name="repeating",
        facts=NetworkFacts(scale=scale, colour="y" if channels == 1 else "rgb"),
        radius=radius,
        fixed_size=size,
        network=network(channels, f'{by} sr = Resize <mode = "nearest"> (lr, , by)'),
    )


def blurring(scale: int) -> Model:
    """Return an RGB model with a radius of one pixel that pads the picture with zeros."""
    weights = ", ".join(str(w / 16) for _ in range(3) for w in (1, 2, 1, 2, 4, 2, 1, 2, 1))
    body = f"""
        by = Constant <value = float[4] {{1.0, 1.0, {scale}.0, {scale}.0}}> ()
        w = Constant <value = float[3,1,3,3] {{{weights}}}> ()
        soft = Conv <pads = [1, 1, 1, 1], group = 3> (lr, w)
        sr = Resize <mode = "nearest"> (soft, , by)"""
    facts = NetworkFacts(scale=scale, colour="rgb")
    return Model(name="blurring", facts=facts, radius=1, network=network(3, body))


def cubic(scale: int) -> Model:
    """Return the bicubic network as a model that allows small tiles."""
    facts = NetworkFacts(scale=scale, colour="y")
    return Model(name="cubic", facts=facts, radius=2, network=bicubic_network(scale))


def run(model: Model, backend: Backend, planes: Planes) -> Planes:
    height, width = planes[0].shape
    (result,) = Upscaler(model, backend, COLOUR, (width, height)).process([frame(planes)])
    return result.planes


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set a small limit of pixels per tile."""
    monkeypatch.setattr(tiles, "MAX_TILE_PIXELS", 80 * 64)


# ---- cutting into tiles


LENGTHS = [n + k for n in (80, 160, 353, 720, 1080, 1921, 4096) for k in (0, 1, 2, 7)]


def tilings() -> Iterator[tuple[int, int, int, list[Span]]]:
    """Yield (length, tile, overlap, spans) for many lengths, including odd ones."""
    for length in LENGTHS:
        for limit in (78, 300, 1280):
            for overlap in (0, 4, 16, 36):
                tile = tile_length(length, limit, overlap)
                yield length, tile, overlap, spans(length, tile, overlap)


def test_kept_parts_cover_everything_once() -> None:
    for length, _, _, parts in tilings():
        edges = [part.keep for part in parts]
        assert edges[0][0] == 0
        assert edges[-1][1] == length
        assert all(a[1] == b[0] for a, b in pairwise(edges))
        assert all(a < b for a, b in edges)


def test_tiles_lie_inside_the_picture() -> None:
    for length, tile, _, parts in tilings():
        assert all(0 <= part.start <= length - tile for part in parts)


def test_tiles_and_cuts_begin_on_chroma_samples() -> None:
    for length, tile, _, parts in tilings():
        assert (length - tile) % 2 == 0
        assert all(part.start % 2 == part.keep[0] % 2 == 0 for part in parts)


def test_kept_parts_are_an_overlap_inside_their_tiles() -> None:
    for length, tile, overlap, parts in tilings():
        for part in parts:
            start, end = part.keep
            assert start == 0 or start >= part.start + overlap
            assert end == length or end <= part.start + tile - overlap


def test_tiles_keep_to_the_limit() -> None:
    for length in LENGTHS:
        for limit in (78, 300, 1280):
            assert tile_length(length, limit, 16) <= limit or length <= limit


def test_tiles_are_as_few_as_the_limit_allows() -> None:
    for length in LENGTHS:
        for limit in (78, 300):
            parts = spans(length, tile_length(length, limit, 16), 16)
            # one tile fewer, each of maximum size, would not reach the end
            largest = limit - (limit - length) % 2
            reach = largest + (len(parts) - 2) * (largest // 2 * 2 - 32)
            assert len(parts) == 1 or reach < length


def test_tiles_are_no_larger_than_needed() -> None:
    for length in LENGTHS:
        tile = tile_length(length, 78, 16)
        parts = spans(length, tile, 16)
        assert len(parts) == 1 or len(spans(length, tile - 2, 16)) > len(parts)


@pytest.mark.parametrize("size", [(1280, 720), (640, 480), (720, 1280), (321, 179)], ids=str)
def test_small_pictures_are_not_cut(size: tuple[int, int]) -> None:
    plan = plan_tiles(repeating(), *size)
    assert (plan.width, plan.height, plan.pad) == (*size, (0, 0))
    assert plan.columns == [Span(0, (0, size[0]))]
    assert plan.rows == [Span(0, (0, size[1]))]


@pytest.mark.parametrize("size", [(1920, 1080), (1281, 721), (3840, 2160), (100, 9999)], ids=str)
def test_large_pictures_are_cut_into_tiles_that_fit(size: tuple[int, int]) -> None:
    plan = plan_tiles(repeating(), *size)
    assert plan.width * plan.height <= tiles.MAX_TILE_PIXELS
    assert len(plan.columns) * len(plan.rows) > 1
    assert plan.pad == (0, 0)


@pytest.mark.parametrize(("scale", "share"), [(3, 4 / 9), (4, 1 / 4), (8, 1 / 16)])
def test_tiles_of_large_factors_are_smaller(scale: int, share: float) -> None:
    plan = plan_tiles(repeating(scale=scale, radius=64), 1280, 720)
    assert plan.width * plan.height <= tiles.MAX_TILE_PIXELS * share


@pytest.mark.parametrize("fixed", [(32, 32), (48, 20), (45, 33)], ids=str)
@pytest.mark.parametrize("size", [(16, 16), (31, 33), (45, 33), (100, 71), (48, 20)], ids=str)
def test_fixed_networks_get_padded_pictures(fixed: tuple[int, int], size: tuple[int, int]) -> None:
    plan = plan_tiles(repeating(size=fixed), *size)
    assert (plan.width, plan.height) == fixed
    axes = zip((plan.columns, plan.rows), size, plan.pad, fixed, strict=True)
    for parts, length, pad, tile in axes:
        assert parts[-1].keep[1] == length + pad
        assert 0 <= pad <= max(1, tile - length)
        assert all(part.start % 2 == 0 for part in parts)


# ---- tiles do not change the result


SIZES = [(200, 150), (201, 150), (200, 151), (333, 67), (67, 301)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_tiled_network_gives_the_same_bytes(
    backend: Backend, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models.find("c-dcscn", 2, backend)
    assert_no_trace(model, backend, size, monkeypatch)


@pytest.mark.parametrize("size", SIZES[:3], ids=str)
@pytest.mark.parametrize(
    "model", [blurring(2), blurring(3), cubic(3), cubic(4)], ids=lambda m: f"{m.name}-x{m.scale}"
)
def test_tiles_leave_no_trace_at_any_scale(
    backend: Backend, model: Model, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_no_trace(model, backend, size, monkeypatch)


def assert_no_trace(
    model: Model, backend: Backend, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    planes = noise(*size)
    whole = run(model, backend, planes)
    monkeypatch.setattr(tiles, "MAX_TILE_PIXELS", 80 * 64)
    plan = plan_tiles(model, *size)
    assert len(plan.columns) * len(plan.rows) > 1
    for a, b in zip(whole, run(model, backend, planes), strict=True):
        np.testing.assert_array_equal(a, b)


def test_views_with_padded_rows_are_read_right(backend: Backend) -> None:
    y, u, v = noise(64, 48)
    wide: Planes = (
        np.pad(y, ((0, 0), (0, 32)))[:, :64],
        np.pad(u, ((0, 0), (0, 32)))[:, :32],
        np.pad(v, ((0, 0), (0, 32)))[:, :32],
    )
    for plane in wide:
        plane.flags.writeable = False  # like FFmpeg's buffers
    for a, b in zip(run(cubic(2), backend, (y, u, v)), run(cubic(2), backend, wide), strict=True):
        np.testing.assert_array_equal(a, b)


def test_input_is_left_untouched(backend: Backend, small_tiles: None) -> None:
    planes = noise(101, 99)
    before = [plane.copy() for plane in planes]
    run(cubic(2), backend, planes)
    for a, b in zip(planes, before, strict=True):
        np.testing.assert_array_equal(a, b)


# ---- networks of fixed size


@pytest.mark.parametrize("fixed", [(48, 32), (45, 33)], ids=str)
@pytest.mark.parametrize(
    "size", [(48, 32), (45, 33), (20, 14), (17, 9), (130, 70), (131, 71), (48, 200)], ids=str
)
@pytest.mark.parametrize("scale", [2, 3])
def test_fixed_network_equals_a_free_one(
    backend: Backend, fixed: tuple[int, int], size: tuple[int, int], scale: int
) -> None:
    planes = noise(*size)
    free = run(repeating(scale=scale), backend, planes)
    result = run(repeating(scale=scale, size=fixed), backend, planes)
    for a, b in zip(result, free, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("size", [(48, 32), (20, 14), (131, 71)], ids=str)
def test_fixed_rgb_network_equals_a_free_one(backend: Backend, size: tuple[int, int]) -> None:
    planes = noise(*size)
    free = run(repeating(channels=3), backend, planes)
    result = run(repeating(channels=3, size=(64, 48)), backend, planes)
    for a, b in zip(result, free, strict=True):
        np.testing.assert_array_equal(a, b)


# ---- frames in, frames out


def flat(value: int, width: int = 96, height: int = 64) -> Planes:
    y, u, v = noise(width, height)
    return np.full_like(y, value), np.full_like(u, 128), np.full_like(v, 128)


@pytest.mark.parametrize("tiled", [False, True])
def test_frames_and_packets_keep_their_order(
    backend: Backend, tiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if tiled:
        monkeypatch.setattr(tiles, "MAX_TILE_PIXELS", 96 * 40)
    items: list[Frame | str] = ["first"]
    for index in range(12):
        items.append(frame(flat(20 * index), index))
        items.extend(f"packet {index}.{k}" for k in range(index % 3))
    engine = Upscaler(cubic(2), backend, COLOUR, (96, 64))
    assert (engine.tiles > 1) == tiled

    result = list(engine.process(items))
    assert len(result) == len(items)
    for before, after in zip(items, result, strict=True):
        if isinstance(before, Frame):
            assert isinstance(after, Frame)
            assert (after.index, after.pts, after.duration) == (
                before.index, before.pts, before.duration,
            )  # fmt: skip
            assert (after.planes[0] == 20 * before.index).all()
        else:
            assert after == before


def test_frames_say_which_model_made_them(backend: Backend) -> None:
    engine = Upscaler(cubic(2), backend, COLOUR, (96, 64))
    (result,) = engine.process([frame(flat(1))])
    assert result.rung == "cubic"
    assert engine.out_size == (192, 128)


def test_equal_frames_are_computed_once_and_bit_equal(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [noise(48, 40, seed) for seed in (1, 1, 1, 2, 1, 2, 2)]
    pictures[2] = tuple(plane.copy() for plane in pictures[2])  # type: ignore[assignment]
    other = pictures[1]
    pictures[6] = (pictures[6][0], pictures[6][1], pictures[6][2].copy())
    pictures[6][2][-1, -1] ^= 1  # one sample of the last row differs
    submitted: list[int] = []
    submit = Upscaler._submit
    monkeypatch.setattr(
        Upscaler,
        "_submit",
        lambda self, job: (submitted.append(job.frame.index), submit(self, job)),
    )
    made = []
    for reuse in (False, True):
        submitted.clear()
        upscaler = Upscaler(cubic(2), backend, COLOUR, (48, 40), reuse=reuse)
        made.append(list(upscaler.process(frame(p, k) for k, p in enumerate(pictures))))
    assert submitted == [0, 3, 4, 5, 6]
    assert [f.event for f in made[1]] == ["", "reused", "reused", "", "", "", ""]
    assert [f.pts for f in made[0]] == [f.pts for f in made[1]]
    for plain, reused in zip(*made, strict=True):
        assert all(map(np.array_equal, plain.planes, reused.planes))
        assert reused.stamps.infer_end >= reused.stamps.infer_start > 0
    assert other[0].sum() == noise(48, 40, 1)[0].sum()


def test_results_do_not_share_memory(backend: Backend) -> None:
    engine = Upscaler(cubic(2), backend, COLOUR, (96, 64))
    results = list(engine.process(frame(flat(value), value) for value in range(8)))
    for value, result in enumerate(results):
        assert (result.planes[0] == value).all()
        assert all(plane.flags.writeable and plane.flags.c_contiguous for plane in result.planes)
        result.planes[0][:] = 255


@pytest.mark.parametrize("tiled", [False, True])
def test_stamps_enclose_inference(
    backend: Backend, tiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if tiled:
        monkeypatch.setattr(tiles, "MAX_TILE_PIXELS", 96 * 40)
    engine = Upscaler(cubic(2), backend, COLOUR, (96, 64))
    begin = now()
    results = list(engine.process(frame(flat(9), index) for index in range(10)))
    stamps = [result.stamps for result in results]
    assert all(begin <= s.infer_start <= s.infer_end <= now() for s in stamps)
    starts = [s.infer_start for s in stamps]
    assert starts == sorted(starts)


def test_packets_before_the_first_frame_do_not_wait_for_it(backend: Backend) -> None:
    engine = Upscaler(cubic(2), backend, COLOUR, (96, 64))

    def items() -> Iterator[Frame | str]:
        yield "packet"
        raise InputError("asked for more than was needed")

    assert next(engine.process(items())) == "packet"


def test_nothing_in_gives_nothing_out(backend: Backend) -> None:
    assert list(Upscaler(cubic(2), backend, COLOUR, (96, 64)).process([])) == []


# ---- failures


def test_failure_of_the_source_arrives(backend: Backend) -> None:
    def source() -> Iterator[Frame]:
        yield frame(flat(1))
        raise InputError("the cable was pulled")

    engine = Upscaler(cubic(2), backend, COLOUR, (96, 64))
    with pytest.raises(InputError, match="cable"):
        list(engine.process(source()))


def test_frame_of_another_size_is_refused(backend: Backend) -> None:
    engine = Upscaler(cubic(2), backend, COLOUR, (96, 64))
    with pytest.raises(BackendError, match="luma plane is 64x96, expected 96x64"):
        list(engine.process([frame(noise(64, 96))]))


def test_a_frame_of_another_format_than_the_engines_is_refused(backend: Backend) -> None:
    upscaler = Upscaler(cubic(2), backend, COLOUR, (96, 64))
    deep = replace(frame(noise(96, 64)), format=PlaneFormat(bits=10))
    with pytest.raises(BackendError, match="10 bits, chroma 1/2 x 1/2"):
        list(upscaler.process([deep]))
    (big,) = upscaler.process([frame(noise(96, 64))])
    assert big.format == PlaneFormat()


@dataclass
class FakeTicket:
    """Ticket that repeats pixels; fails if the first luma code is the backend's `bad`."""

    engine: "FakeBackend"
    planes: Planes
    started: float = 1.0
    finished: float = 2.0

    def result(self) -> Planes:
        self.engine.uncollected -= 1
        if self.planes[0][0, 0] == self.engine.bad:
            raise BackendError("out of memory")
        y, u, v = (plane.repeat(2, axis=0).repeat(2, axis=1) for plane in self.planes)
        return y, u, v


class FakeBackend:
    """Backend and engine in one; counts the pictures in flight."""

    name = "fake"
    device = "none"
    slots = 3

    def __init__(self, bad: int = -1) -> None:
        self.bad = bad
        self.uncollected = 0
        self.most = 0

    def choose_precision(self, precision: str, has_int8: bool) -> str:
        return "fp32"

    def compile(self, graph: PlaneGraph, size: tuple[int, int], batch: int = 1) -> "FakeBackend":
        return self

    def run(self, model: bytes, inputs: Sequence[object]) -> list[object]:
        raise AssertionError("an upscaler compiles its graph and runs nothing else")

    def submit(self, planes: Planes) -> Any:
        self.uncollected += 1
        self.most = max(self.most, self.uncollected)
        return FakeTicket(self, planes)


def values(results: list[Frame]) -> list[int]:
    return [int(result.planes[0][0, 0]) for result in results]


def test_failure_of_a_picture_arrives() -> None:
    engine = Upscaler(repeating(), FakeBackend(bad=5), COLOUR, (96, 64))
    results: list[Frame] = []
    with pytest.raises(BackendError, match="out of memory"):
        results.extend(engine.process(frame(flat(value), value) for value in range(9)))
    assert values(results) == [0, 1, 2, 3, 4]


def test_upscaler_works_on_after_a_failure() -> None:
    engine = Upscaler(repeating(), FakeBackend(bad=5), COLOUR, (96, 64))
    with pytest.raises(BackendError):
        list(engine.process(frame(flat(value), value) for value in range(9)))
    results = list(engine.process(frame(flat(value), value) for value in range(10, 15)))
    assert values(results) == [10, 11, 12, 13, 14]


def test_upscaler_works_on_after_an_early_stop() -> None:
    engine = Upscaler(repeating(), FakeBackend(), COLOUR, (96, 64))
    first = engine.process(frame(flat(value), value) for value in range(9))
    assert values([next(first)]) == [0]
    assert isinstance(first, Generator)
    first.close()
    results = list(engine.process(frame(flat(value), value) for value in range(10, 15)))
    assert values(results) == [10, 11, 12, 13, 14]


GIVEN_UP = """
import numpy as np
from vsr.inference import models
from vsr.inference.backend import load_backend
from vsr.media.colour import Colour

backend = load_backend("openvino")
graph = models.find("c-dcscn", 2, backend).graph(Colour())
planes = [np.zeros(shape, np.uint8) for shape in ((48, 64), (24, 32), (24, 32))]
for _ in range(12):
    engine = backend.compile(graph, (64, 48))
    for _ in range(engine.slots):
        engine.submit(planes)
    del engine
"""


def test_an_engine_may_go_while_pictures_are_under_way() -> None:
    """Runs in a separate process, because a crash in OpenVINO's threads would end pytest."""
    done = subprocess.run([sys.executable, "-c", GIVEN_UP], cwd=ROOT, timeout=120, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("tiled", [False, True])
def test_pictures_under_way_fill_the_slots_and_no_more(
    tiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if tiled:
        monkeypatch.setattr(tiles, "MAX_TILE_PIXELS", 96 * 40)
    backend = FakeBackend()
    model = repeating(radius=2)
    results = list(
        Upscaler(model, backend, COLOUR, (96, 64)).process(
            frame(flat(value), value) for value in range(9)
        )
    )
    assert values(results) == list(range(9))
    assert (backend.most, backend.uncollected) == (3, 0)


def test_packets_behind_a_frame_do_not_pile_up(backend: Backend) -> None:
    """One frame in flight must not hold back all packets of a long audio tail."""
    scaler = Upscaler(models.find("bicubic", 2, backend), backend, COLOUR, (16, 16))
    taken = 0

    def items() -> Iterator[Frame | int]:
        nonlocal taken
        yield frame(noise(16, 16))
        for k in range(1000):
            taken = k
            yield k

    flow = scaler.process(items())
    assert isinstance(next(flow), Frame)
    assert taken < 100
    assert list(flow) == list(range(1000))
