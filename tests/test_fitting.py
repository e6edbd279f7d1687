"""An upscaler takes the engine that fits the memory, and the one whose pictures are right."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pytest

from tests.test_checked import (
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
from tests.test_upscaler import COLOUR, frame, repeating
from vsr import models, upscaler
from vsr.backends import Backend
from vsr.errors import OutOfMemoryError
from vsr.frame import Frame, Planes
from vsr.graph import PlaneGraph
from vsr.upscaler import Upscaler, _ways


@dataclass
class FakeBackend:
    """Has memory for so many pixels in a batch."""

    memory: int = 1 << 40
    paint: Paint = right
    name: str = "fake"
    device: str = "none"
    tried: list[tuple[int, int, int]] = field(default_factory=list)
    """(width, height, batch)"""

    def choose_precision(self, wanted: str, int8: bool) -> str:
        return "fp32"

    def run(self, model: bytes, inputs: Sequence[object]) -> list[object]:
        raise AssertionError("an upscaler compiles its graph and runs nothing else")

    def compile(self, graph: PlaneGraph, size: tuple[int, int], batch: int = 1) -> FakeEngine:
        self.tried.append((*size, batch))
        if size[0] * size[1] * batch > self.memory:
            raise OutOfMemoryError("the GPU's memory is used up")
        return FakeEngine(self.paint, 3 * batch, size=size)


def names(precision: str, backend: Backend | FakeBackend) -> list[str]:
    model = replace(repeating(), precision=precision)
    return [way.name for way in _ways(model, backend, COLOUR, (WIDTH, HEIGHT), 1)]


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
    caplog.set_level(logging.DEBUG, "vsr.upscaler")
    backend = FakeBackend(memory=memory)
    scaler = Upscaler(repeating(radius=radius), backend, COLOUR, size, batch=2)
    assert backend.tried[:2] == [(*size, 2), (*size, 1)]
    areas = [width * height for width, height, batch in backend.tried[1:]]
    assert all(4 * after <= before for before, after in pairwise(areas))
    assert areas[-1] <= backend.memory
    said = f"{scaler.tiles} tiles of {scaler.plan.width}x{scaler.plan.height}"
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
    model = repeating(size=(640, 360)) if fixed else replace(repeating(), tiled=False)
    backend = FakeBackend(memory=0)
    with pytest.raises(OutOfMemoryError):
        Upscaler(model, backend, COLOUR, (640, 360), batch=2)
    assert backend.tried == [(640, 360, 2), (640, 360, 1)]


def test_a_fallback_gets_the_tiles_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Way by way on the same tiles, which the new engine is made for when it is needed."""
    first, last = FakeBackend(memory=24_000, paint=black), FakeBackend(name="openvino")
    monkeypatch.setattr(upscaler, "load_backend", lambda name: last)
    scaler = Upscaler(repeating(radius=2), first, COLOUR, (640, 360))
    planes = picture(0)
    large = (np.tile(planes[0], (8, 10))[:360], *(np.tile(p, (8, 10))[:180] for p in planes[1:]))
    result = upscaled(scaler, (large[0], large[1], large[2]))
    np.testing.assert_array_equal(result.planes[0], enlarged(large[0]))
    assert last.tried == [(scaler.plan.width, scaler.plan.height, 1)]
