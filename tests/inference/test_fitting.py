"""Tests that an upscaler uses an engine that fits in memory and whose output is valid."""

import itertools
import logging
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pytest

from tests.inference.test_checked import (
    HEIGHT,
    WIDTH,
    FakeEngine,
    Paint,
    black,
    enlarged,
    every_garbage,
    picture,
    right,
)
from tests.inference.test_upscaler import COLOUR, frame, repeating
from vsr.errors import BackendError, OutOfMemoryError
from vsr.inference import models, tiles, upscaler
from vsr.inference.backend import Backend
from vsr.inference.upscaler import Upscaler, _candidates, _engine_name
from vsr.media.frame import Frame, Plane, Planes
from vsr.network.graph import PlaneGraph


@dataclass
class FakeBackend:
    """Backend with memory for a batch of `memory` pixels."""

    memory: int = 1 << 40
    paint: Paint = right
    failing: int = -1
    """Index of the picture on which its engines fail; -1 for none."""
    error: type[BackendError] = BackendError
    enough: int = 0
    """Maximum number of pixels in a batch with which engines do not fail."""
    at_once: bool = False
    name: str = "fake"
    device: str = "none"
    tried: list[tuple[int, int, int]] = field(default_factory=list)
    """(width, height, batch) of every call of `compile`."""
    engines: list[FakeEngine] = field(default_factory=list)

    def choose_precision(self, precision: str, has_int8: bool) -> str:
        return "fp32"

    def run(self, model: bytes, inputs: Sequence[object]) -> list[object]:
        raise AssertionError("an upscaler compiles its graph and runs nothing else")

    def compile(self, graph: PlaneGraph, size: tuple[int, int], batch: int = 1) -> FakeEngine:
        self.tried.append((*size, batch))
        if size[0] * size[1] * batch > self.memory:
            raise OutOfMemoryError("the GPU's memory is used up")
        failing = self.failing if size[0] * size[1] * batch > self.enough else -1
        self.engines.append(
            FakeEngine(self.paint, 3 * batch, failing, self.error, self.at_once, size)
        )
        return self.engines[-1]


def names(precision: str, backend: Backend | FakeBackend) -> list[str]:
    model = replace(repeating(), precision=precision)
    return [_engine_name(*form) for form in _candidates(model, backend)]


def test_ways_go_from_what_was_asked_for_to_the_surest(backend: Backend) -> None:
    plain = "repeating on openvino in fp32"
    assert names("fp32", backend) == [plain]
    assert names("fp16", backend) == ["repeating on openvino in fp16", plain]
    assert names("fp32", FakeBackend()) == ["repeating on fake in fp32", plain]
    assert names("fp16", FakeBackend()) == [
        "repeating on fake in fp16", "repeating on fake in fp32", plain,
    ]  # fmt: skip


@every_garbage
def test_openvino_does_what_another_backend_cannot(
    backend: Backend, paint: Paint, caplog: pytest.LogCaptureFixture
) -> None:
    model = models.find("c-dcscn", 2, backend, "fp32")
    pictures = [picture(k) for k in range(7)]
    results = {}
    for on in (backend, FakeBackend(paint=paint)):
        scaler = Upscaler(model, on, COLOUR, (WIDTH, HEIGHT))
        results[on.name] = list(scaler.process(frame(p, k) for k, p in enumerate(pictures)))
    assert len(results["fake"]) == 7
    for a, b in zip(results["fake"], results["openvino"], strict=True):
        assert a.index == b.index
        for x, y in zip(a.planes, b.planes, strict=True):
            np.testing.assert_array_equal(x, y)
    assert [m.split(": using ")[1] for m in caplog.messages] == ["c-dcscn on openvino in fp32"]


def upscaled(scaler: Upscaler, planes: Planes) -> Frame:
    (result,) = scaler.process([frame(planes)])
    return result


def test_memory_that_is_short_costs_the_batch_first() -> None:
    backend = FakeBackend(memory=WIDTH * HEIGHT * 3)
    scaler = Upscaler(repeating(), backend, COLOUR, (WIDTH, HEIGHT), batch=4)
    assert backend.tried == [(WIDTH, HEIGHT, 4), (WIDTH, HEIGHT, 1)]
    assert scaler.tiles == 1


@pytest.mark.parametrize(("radius", "memory"), [(2, 24_000), (8, 24_000), (21, 60_000)])
@pytest.mark.parametrize("size", [(640, 360), (641, 361), (359, 640), (1900, 90)], ids=str)
def test_then_tiles_get_smaller_and_leave_no_trace(
    size: tuple[int, int], radius: int, memory: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "vsr.inference.upscaler")
    backend = FakeBackend(memory=memory)
    scaler = Upscaler(repeating(radius=radius), backend, COLOUR, size, batch=2)
    assert backend.tried[:2] == [(*size, 2), (*size, 1)]
    areas = [width * height for width, height, batch in backend.tried[1:]]
    assert all(4 * after <= before for before, after in pairwise(areas))
    assert areas[-1] <= backend.memory
    said = f"{scaler.tiles} tiles of {scaler.plan.width}x{scaler.plan.height}, batch 1"
    assert caplog.messages.count(said) == 1
    assert caplog.messages[-1] == said

    rng = np.random.default_rng(4)
    width, height = size
    chroma = (-(-height // 2), -(-width // 2))
    y, u, v = (rng.integers(0, 256, s, np.uint8) for s in ((height, width), chroma, chroma))
    result = upscaled(scaler, (y, u, v))
    for a, b in zip(result.planes, (y, u, v), strict=True):
        np.testing.assert_array_equal(a, enlarged(b)[: a.shape[0], : a.shape[1]])


@pytest.mark.parametrize("radius", [2, 21, 32, 64])
@pytest.mark.parametrize("size", [(1280, 720), (200, 190), (1300, 30), (96, 96)], ids=str)
def test_tiles_end_where_they_would_be_mostly_overlap(size: tuple[int, int], radius: int) -> None:
    backend = FakeBackend(memory=0)
    with pytest.raises(OutOfMemoryError, match="memory is used up"):
        Upscaler(repeating(radius=radius), backend, COLOUR, size)
    assert backend.tried[0] == (*size, 1)
    for width, height, _ in backend.tried[1:]:
        assert width == size[0] or width > 2 * (radius + 8)
        assert height == size[1] or height > 2 * (radius + 8)


@pytest.mark.parametrize("fixed", [True, False])
def test_networks_that_cannot_be_cut_end_in_the_error(fixed: bool) -> None:
    model = repeating(size=(640, 360)) if fixed else replace(repeating(), small_tiles=False)
    backend = FakeBackend(memory=0)
    with pytest.raises(OutOfMemoryError):
        Upscaler(model, backend, COLOUR, (640, 360), batch=2)
    assert backend.tried == [(640, 360, 2), (640, 360, 1)]


def test_a_fallback_gets_the_tiles_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fallback engine uses the same tiles; it is compiled only when it is needed."""
    first, last = FakeBackend(memory=24_000, paint=black), FakeBackend(name="openvino")
    monkeypatch.setattr(upscaler, "load_backend", lambda name: last)
    scaler = Upscaler(repeating(radius=2), first, COLOUR, (640, 360))
    planes = picture(0)
    large = (np.tile(planes[0], (8, 10))[:360], *(np.tile(p, (8, 10))[:180] for p in planes[1:]))
    result = upscaled(scaler, (large[0], large[1], large[2]))
    np.testing.assert_array_equal(result.planes[0], enlarged(large[0]))
    assert last.tried == [(scaler.plan.width, scaler.plan.height, 1)]


# ---- engines that fail at run time


def stream(count: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Iterator[Frame | str]:
    """Yield pictures, identified by their chroma, with a packet after every second one."""
    for k in range(count):
        y, u, v = picture(k)
        rows, columns = -(-size[1] // HEIGHT), -(-size[0] // WIDTH)
        y, u, v = (np.tile(plane, (rows, columns)) for plane in (y, u, v))
        half = (slice(-(-size[1] // 2)), slice(-(-size[0] // 2)))
        yield frame((y[: size[1], : size[0]], u[half], v[half]), k)
        if k % 2:
            yield f"packet {k}"


def assert_all_there(scaler: Upscaler, count: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    """Assert that all pictures and packets come out in order, and that the pictures are correct."""
    for before, after in zip(stream(count, size), scaler.process(stream(count, size)), strict=True):
        if isinstance(before, str):
            assert after == before
            continue
        assert isinstance(after, Frame)
        assert after.index == before.index
        for a, b in zip(after.planes, before.planes, strict=True):
            np.testing.assert_array_equal(a, enlarged(b)[: a.shape[0], : a.shape[1]])


@pytest.fixture
def last(monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    """Return the fake backend that replaces OpenVINO."""
    cpu = FakeBackend(name="openvino")
    monkeypatch.setattr(upscaler, "load_backend", lambda name: cpu)
    return cpu


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("failing", [0, 1, 2, 4, 8])
@pytest.mark.parametrize("slots", [1, 2, 5])
def test_pictures_under_way_are_done_by_the_next_way(
    last: FakeBackend, at_once: bool, failing: int, slots: int, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    first = FakeBackend(failing=failing, at_once=at_once)
    scaler = Upscaler(repeating(), first, COLOUR, (WIDTH, HEIGHT), fall_back=True)
    compile_, pace = last.compile, iter([slots])
    first.engines[0].slots = 3

    def slower(graph: PlaneGraph, size: tuple[int, int], batch: int = 1) -> FakeEngine:
        engine = compile_(graph, size, batch)
        engine.slots = next(pace)  # raises if it is compiled twice
        return engine

    monkeypatch.setattr(last, "compile", slower)
    assert_all_there(scaler, 9)
    done = last.engines[0].taken
    assert done == list(range(done[0], 9))  # in order, without results already returned
    assert failing - 3 <= done[0] <= failing
    assert caplog.messages == [
        "repeating on fake in fp32 failed (this picture is too much): "
        "using repeating on openvino in fp32"
    ]


@pytest.mark.parametrize("failing", [1, 2, 5, 6, 7, 11])
def test_pictures_of_which_some_tiles_are_done_are_done_again(
    failing: int, last: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "MAX_TILE_PIXELS", 80 * 64)
    size, calls = (150, 64), itertools.count()

    def dying(y: Plane) -> Plane:
        if next(calls) == failing:
            raise BackendError("enough")
        return y

    scaler = Upscaler(repeating(radius=2), FakeBackend(paint=dying), COLOUR, size, fall_back=True)
    assert scaler.tiles == 4
    assert_all_there(scaler, 5, size)
    assert len(last.tried) == 1


def test_memory_that_runs_out_later_costs_the_batch_and_then_tiles(
    last: FakeBackend, caplog: pytest.LogCaptureFixture
) -> None:
    size = (640, 360)
    short = FakeBackend(failing=4, error=OutOfMemoryError, enough=24_000)
    scaler = Upscaler(repeating(radius=2), short, COLOUR, size, batch=2, fall_back=True)
    assert_all_there(scaler, 9, size)
    assert short.tried[:2] == [(*size, 2), (*size, 1)]
    areas = [width * height for width, height, _ in short.tried]
    assert areas[-1] <= short.enough < areas[-2]
    assert last.tried == []
    assert caplog.messages[0] == (
        "repeating on fake in fp32 failed (this picture is too much): "
        "retrying with 1 tile of 640x360, batch 1"
    )
    assert caplog.messages[-1].endswith(f"): retrying with {scaler._layout}")


def test_memory_that_never_suffices_leads_to_openvino(last: FakeBackend) -> None:
    size = (640, 360)
    short = FakeBackend(failing=1, error=OutOfMemoryError)
    scaler = Upscaler(repeating(radius=2), short, COLOUR, size, fall_back=True)
    assert_all_there(scaler, 5, size)
    assert len(short.tried) > 1
    assert last.tried == [(scaler.plan.width, scaler.plan.height, 1)]


def test_every_way_is_tried_and_the_last_failure_is_told(
    last: FakeBackend, caplog: pytest.LogCaptureFixture
) -> None:
    last.failing = 5
    first = FakeBackend(failing=2)
    model = replace(repeating(), precision="fp16")
    scaler = Upscaler(model, first, COLOUR, (WIDTH, HEIGHT), fall_back=True)
    results: list[int] = []
    with pytest.raises(BackendError, match="this picture is too much"):
        results.extend(f.index for f in scaler.process(stream(9)) if isinstance(f, Frame))
    assert results == [0, 1, 2, 3, 4]
    assert [m.split(": using ")[1] for m in caplog.messages] == [
        "repeating on fake in fp32", "repeating on openvino in fp32",
    ]  # fmt: skip
    assert len(first.tried) == 2


def test_an_engine_that_cannot_be_made_is_passed_over(last: FakeBackend) -> None:
    """Simulates a failed GPU, on which nothing works until the process ends."""
    first = FakeBackend(failing=2)
    model = replace(repeating(), precision="fp16")
    scaler = Upscaler(model, first, COLOUR, (WIDTH, HEIGHT), fall_back=True)
    first.memory = 0
    assert_all_there(scaler, 9)
    assert len(last.tried) == 1


def test_ways_that_made_no_pictures_are_not_tried_again(
    last: FakeBackend, caplog: pytest.LogCaptureFixture
) -> None:
    first = FakeBackend(failing=6)
    model = replace(repeating(), precision="fp16")
    scaler = Upscaler(model, first, COLOUR, (WIDTH, HEIGHT), fall_back=True)
    first.engines[0].paint = black
    assert_all_there(scaler, 12)
    assert len(first.tried) == 2
    assert [m.split(": using ")[1] for m in caplog.messages] == [
        "repeating on fake in fp32", "repeating on openvino in fp32",
    ]  # fmt: skip


def test_a_failed_engine_is_gone_before_the_next_one_is_made(
    last: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise there would be no memory for the next engine."""
    first = FakeBackend(failing=4)
    scaler = Upscaler(repeating(), first, COLOUR, (WIDTH, HEIGHT), fall_back=True)
    gone = weakref.ref(first.engines.pop())
    compile_ = last.compile

    def making(graph: PlaneGraph, size: tuple[int, int], batch: int = 1) -> FakeEngine:
        assert gone() is None
        return compile_(graph, size, batch)

    monkeypatch.setattr(last, "compile", making)
    assert_all_there(scaler, 9)
    assert len(last.tried) == 1


def test_pictures_of_another_size_are_no_fault_of_the_engine(last: FakeBackend) -> None:
    scaler = Upscaler(repeating(), FakeBackend(), COLOUR, (WIDTH, HEIGHT), fall_back=True)
    with pytest.raises(BackendError, match="luma plane is 32x24, expected 64x48"):
        list(scaler.process(stream(1, (32, 24))))
    assert last.tried == []
