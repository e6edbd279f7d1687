"""Tests that an engine with invalid output is replaced, without a lost or wrong frame."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from train.data.images import pairs, to_input
from train.measure.shipped import openvino_enlarge
from vsr.errors import BackendError, OutOfMemoryError
from vsr.inference.backend import Ticket
from vsr.inference.checked import CHECKED_PICTURES, Candidate, CheckedEngine, find_fault
from vsr.media.frame import Plane, Planes, now

WIDTH, HEIGHT, SCALE = 64, 48, 2
ENGINES = Path(__file__).parents[2] / "engines"
Paint = Callable[[Plane], Plane]
"""Function from the correct enlarged luma to the luma that an engine outputs."""


def picture(index: int, dark: bool = False) -> Planes:
    """Return a slope with some texture, or black; the value of the chroma planes is `index`."""
    rng = np.random.default_rng(index)
    slope = np.linspace(60, 190, WIDTH) + rng.normal(0, 3, (HEIGHT, WIDTH))
    y = np.full((HEIGHT, WIDTH), 16, np.uint8) if dark else slope.astype(np.uint8)
    u, v = (np.full((HEIGHT // 2, WIDTH // 2), index, np.uint8) for _ in range(2))
    return y, u, v


def enlarged(plane: Plane) -> Plane:
    return plane.repeat(SCALE, axis=0).repeat(SCALE, axis=1)


def right(y: Plane) -> Plane:
    return y


def black(y: Plane) -> Plane:
    return np.zeros_like(y)


def white(y: Plane) -> Plane:
    return np.full_like(y, 255)


def noise(y: Plane) -> Plane:
    return np.random.default_rng(1).integers(0, 256, y.shape, np.uint8)


def inverted(y: Plane) -> Plane:
    return 255 - y


def with_hole(y: Plane) -> Plane:
    """Return luma as a NaN in one pixel leaves it: black within the receptive field."""
    holed = y.copy()
    row, column = np.unravel_index(int(y[32:-32, 32:-32].argmax()), y[32:-32, 32:-32].shape)
    holed[row : row + 64, column : column + 64] = 0
    return holed


GARBAGE: list[Paint] = [black, white, noise, inverted]
every_garbage = pytest.mark.parametrize("paint", GARBAGE, ids=lambda p: p.__name__)


@dataclass
class FakeEngine:
    """Engine that repeats pixels and then applies `paint`; limits its slots as real ones do."""

    paint: Paint = right
    slots: int = 3
    failing: int = -1
    """Index of the picture that fails; -1 for none."""
    error: type[BackendError] = BackendError
    at_once: bool = False
    """Whether `submit` raises the error instead of `result`."""
    size: tuple[int, int] | None = None
    taken: list[int] = field(default_factory=list)
    under_way: int = 0
    most: int = 0

    def submit(self, planes: Planes) -> Ticket:
        if self.under_way == self.slots:
            raise BackendError("more pictures submitted than the engine has slots")
        assert self.size in (None, planes[0].shape[::-1])
        index = int(planes[1][0, 0])
        if self.at_once and index == self.failing:
            raise self.error("this picture is too much")
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        y, u, v = (enlarged(plane) for plane in planes)
        self.taken.append(index)
        return FakeTicket(self, (self.paint(y), u, v))


@dataclass
class FakeTicket:
    engine: FakeEngine
    planes: Planes
    started: float = 1.0
    finished: float = 2.0

    def result(self) -> Planes:
        self.engine.under_way -= 1
        if self.planes[1][0, 0] == self.engine.failing:
            raise self.engine.error("this picture is too much")
        return self.planes


def checked(*engines: FakeEngine) -> CheckedEngine:
    made = iter(engines)
    return CheckedEngine(
        [Candidate(f"way {k}", lambda: next(made)) for k in range(len(engines))], SCALE
    )


def through(engine: CheckedEngine, pictures: Iterable[Planes]) -> list[Planes]:
    """Return the results in order, with up to `engine.slots` pictures in flight."""
    tickets, results = deque[Ticket](), list[Planes]()
    for planes in pictures:
        while len(tickets) >= engine.slots:
            results.append(tickets.popleft().result())
        tickets.append(engine.submit(planes))
    return results + [ticket.result() for ticket in tickets]


def assert_right(results: Sequence[Planes], pictures: Sequence[Planes]) -> None:
    assert [int(r[1][0, 0]) for r in results] == [int(p[1][0, 0]) for p in pictures]
    for result, planes in zip(results, pictures, strict=True):
        for a, b in zip(result, planes, strict=True):
            np.testing.assert_array_equal(a, enlarged(b))


# ---- valid and invalid output


def codes(y: npt.NDArray[Any]) -> Plane:
    return np.floor(np.clip(y, 0, 1) * 255 + 0.5).astype(np.uint8)


@pytest.mark.parametrize("file", ["c-dcscn/x2", "c-dcscn/x2.stream", "c-dcscn/x3", "c-dcscn/x4"])
def test_shipped_networks_yield_pictures_and_garbage_is_none(data: Path, file: str) -> None:
    enlarge, scale = openvino_enlarge((ENGINES / f"{file}.onnx").read_bytes()), int(file[9])
    for name, rgb, _ in pairs(data / "images/test/set5", scale):
        lr = to_input(rgb, "y")[None, None, ..., 0]
        sr = codes(enlarge(lr)[0, 0])
        assert find_fault(codes(lr[0, 0]), sr, scale) is None, name
        for paint in [*GARBAGE, with_hole]:
            assert find_fault(codes(lr[0, 0]), paint(sr), scale), f"{name} {paint.__name__}"


def test_noise_around_the_mean_of_a_grey_picture_is_no_picture() -> None:
    y = np.random.default_rng(2).normal(127, 6, (HEIGHT, WIDTH)).astype(np.uint8)
    assert find_fault(y, enlarged(y), SCALE) is None
    assert "noise" in str(find_fault(y, noise(enlarged(y)), SCALE))


@pytest.mark.parametrize("size", [(2, 1), (1, 2), (7, 9), (17, 33)], ids=str)
def test_pictures_of_any_size_can_be_judged(size: tuple[int, int]) -> None:
    y = np.random.default_rng(3).integers(20, 90, size, np.uint8)
    large = np.pad(y.repeat(3, axis=0).repeat(3, axis=1), ((0, 1), (0, 1)), mode="edge")
    assert find_fault(y, large, 3) is None
    assert find_fault(y, white(large), 3)


# ---- the next candidate


def test_a_good_engine_is_left_alone_after_its_first_pictures() -> None:
    engine = FakeEngine()
    subject = checked(engine, FakeEngine(black))
    pictures = [picture(k) for k in range(9)]
    assert_right(through(subject, pictures), pictures)
    assert engine.taken == list(range(9))
    assert engine.most == 3
    assert isinstance(subject.submit(picture(9)), FakeTicket)


def test_every_picture_is_looked_at_until_enough_are_good() -> None:
    subject = checked(FakeEngine())
    for k in range(CHECKED_PICTURES):
        ticket = subject.submit(picture(k))
        assert not isinstance(ticket, FakeTicket)
        ticket.result()
    assert isinstance(subject.submit(picture(9)), FakeTicket)


@every_garbage
@pytest.mark.parametrize("good", range(CHECKED_PICTURES))
def test_garbage_makes_the_next_way_do_it(
    paint: Paint, good: int, caplog: pytest.LogCaptureFixture
) -> None:
    first = FakeEngine(slots=1)
    subject = checked(first, FakeEngine())
    pictures = [picture(k) for k in range(9)]
    results = through(subject, pictures[:good])
    first.paint = paint
    results += through(subject, pictures[good:])
    assert_right(results, pictures)
    assert len(caplog.records) == 1
    assert caplog.messages[0].startswith("output of way 0 is invalid (")
    assert caplog.messages[0].endswith("): using way 1")
    assert first.taken == list(range(good + 1))


def test_black_pictures_tell_nothing() -> None:
    dark, bright = [picture(k, dark=True) for k in range(5)], [picture(k) for k in range(5, 9)]
    bad, good = FakeEngine(black), FakeEngine()
    results = through(checked(bad, good), [*dark, *bright])
    assert bad.taken[:6] == list(range(6))
    assert_right(results[5:], bright)
    assert sorted(good.taken) == [5, 6, 7, 8]


def test_all_ways_are_tried_and_made_only_then() -> None:
    made: list[str] = []

    def way(name: str, paint: Paint) -> Candidate:
        def make() -> FakeEngine:
            made.append(name)
            return FakeEngine(paint)

        return Candidate(name, make)

    ways = [way("a", black), way("b", noise), way("c", inverted), way("d", right), way("e", right)]
    subject = CheckedEngine(ways, SCALE)
    assert made == ["a"]
    pictures = [picture(k) for k in range(7)]
    assert_right(through(subject, pictures), pictures)
    assert made == ["a", "b", "c", "d"]


def test_no_way_left_is_an_error_that_says_what_was_seen() -> None:
    subject = checked(FakeEngine(black), FakeEngine(white))
    line = r"output of way 1 is invalid \(every pixel is 255"
    with pytest.raises(BackendError, match=line) as caught:
        through(subject, [picture(0)])
    assert "\n" not in str(caught.value)
    assert "--backend" in str(caught.value)


# ---- pictures in flight when the engine is replaced


@pytest.mark.parametrize("before", [1, 2, 3, 4, 12])
@pytest.mark.parametrize("after", [1, 2, 3, 5])
def test_pictures_under_way_are_done_again_in_order(before: int, after: int) -> None:
    bad, good = FakeEngine(black, before), FakeEngine(right, after)
    subject = checked(bad, good)
    pictures = [picture(k) for k in range(before + 9)]
    assert_right(through(subject, pictures), pictures)
    assert bad.taken == list(range(before))
    assert sorted(good.taken) == list(range(before + 9))
    assert good.most == after
    assert (bad.under_way, good.under_way, subject.slots) == (0, 0, after)


def test_the_next_way_may_be_wrong_as_well() -> None:
    engines = [FakeEngine(black), FakeEngine(noise), FakeEngine(slots=2)]
    pictures = [picture(k) for k in range(12)]
    subject = checked(*engines)
    assert_right(through(subject, pictures), pictures)
    assert engines[2].taken == list(range(12))
    assert subject.slots == 2


def test_the_next_way_is_looked_at_as_long_as_the_first() -> None:
    bad, worse, good = (FakeEngine(slots=1) for _ in range(3))
    subject = checked(bad, worse, good)
    pictures = [picture(k) for k in range(9)]
    results = through(subject, pictures[: CHECKED_PICTURES - 1])
    bad.paint = black
    results += through(subject, [pictures[CHECKED_PICTURES - 1]])
    worse.paint = black
    results += through(subject, pictures[CHECKED_PICTURES:])
    assert_right(results, pictures)
    assert good.taken == list(range(CHECKED_PICTURES, 9))


def test_dark_pictures_under_way_are_done_again_too() -> None:
    bad, good = FakeEngine(noise), FakeEngine()
    pictures = [picture(k, dark=k in (1, 2)) for k in range(8)]
    assert_right(through(checked(bad, good), pictures), pictures)
    assert bad.taken == [0, 1, 2]


def test_the_input_may_be_overwritten_after_submit() -> None:
    planes = [plane.copy() for plane in picture(3)]
    ticket = checked(FakeEngine(black), FakeEngine()).submit((planes[0], planes[1], planes[2]))
    for plane in planes:
        plane[:] = 77  # the decoder reuses its buffer
    assert_right([ticket.result()], [picture(3)])


def test_times_are_those_of_the_result_that_counts() -> None:
    fine, redone = (
        checked(e, FakeEngine()).submit(picture(0)) for e in (FakeEngine(), FakeEngine(black))
    )
    before = now()
    fine.result(), redone.result()
    assert (fine.started, fine.finished) == (1.0, 2.0)
    assert before <= redone.finished <= now()


def test_pictures_that_fail_do_not_take_slots_away() -> None:
    subject = checked(FakeEngine(black, failing=1), FakeEngine(slots=4))
    tickets = [subject.submit(picture(k)) for k in range(3)]
    assert_right([tickets[0].result()], [picture(0)])
    with pytest.raises(BackendError, match="too much"):
        tickets[1].result()
    assert_right([tickets[2].result()], [picture(2)])
    assert subject.slots == 4


def failing(kind: type[BackendError]) -> Candidate:
    def make() -> FakeEngine:
        raise kind("out of memory")

    return Candidate("failing", make)


def test_ways_that_cannot_be_made_are_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    ways = [
        Candidate("bad", lambda: FakeEngine(black)),
        failing(OutOfMemoryError),
        failing(BackendError),
    ]
    pictures = [picture(k) for k in range(9)]
    with pytest.raises(BackendError, match=r"failing failed \(out of memory"):
        through(CheckedEngine(ways, SCALE), pictures)
    caplog.clear()
    subject = CheckedEngine([*ways, Candidate("good", FakeEngine)], SCALE)
    assert_right(through(subject, pictures), pictures)
    assert [message.split(": using ")[1] for message in caplog.messages] == [
        "failing", "failing", "good",
    ]  # fmt: skip


def test_the_first_way_s_own_failure_is_for_the_caller() -> None:
    with pytest.raises(OutOfMemoryError):
        CheckedEngine([failing(OutOfMemoryError), Candidate("good", FakeEngine)], SCALE)
