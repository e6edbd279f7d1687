"""Tests of an engine's ring of slots, on a simulated GPU that runs work in various orders."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.host_gpu import (
    SIZE,
    HostGraph,
    HostStream,
    Machine,
    cubic,
    equal,
    machine,
    noise,
    right,
    stream,
)
from vsr.errors import BackendError, OutOfMemoryError
from vsr.inference.tensorrt.engine import (
    MAX_IN_ENCODER,
    MAX_IN_QUEUES,
    RING_SLOTS,
    BatchLayout,
    TensorRtTicket,
)
from vsr.inference.tensorrt.library import BuildOptions, Sizes
from vsr.live.output import encode
from vsr.media import prefetch as queues
from vsr.media.frame import Planes, now


@pytest.fixture
def host(tmp_path: Path) -> Machine:
    return machine(tmp_path)


# ---- the ring


@pytest.mark.parametrize("batch", [1, 2, 4])
@pytest.mark.parametrize("order", ["mixed", "first", "last"])
def test_every_picture_comes_out_right_and_in_order(order: str, batch: int, tmp_path: Path) -> None:
    host = machine(tmp_path, order=order, seed=batch)
    engine = host.engine(cubic(), SIZE, batch)
    assert engine.slots == RING_SLOTS * batch
    count = 0
    for k, planes in stream(engine, 5 * engine.slots + 3):
        assert equal(planes, right(cubic(), noise(k))), k
        count += 1
    assert count == 5 * engine.slots + 3


@pytest.mark.parametrize("size", [(33, 17), (47, 32), (48, 31)])
@pytest.mark.parametrize("scale", [2, 3])
def test_odd_sizes_come_out_right(size: tuple[int, int], scale: int, host: Machine) -> None:
    engine = host.engine(cubic(scale), size, batch=2)
    for k, planes in stream(engine, 9, size):
        assert equal(planes, right(cubic(scale), noise(k, size)))


def test_a_batch_that_nobody_fills_up_goes_off_when_it_is_waited_for(host: Machine) -> None:
    engine = host.engine(cubic(), SIZE, batch=4)
    for count in (1, 3, 4, 2, 5):
        tickets = [engine.submit(noise(k)) for k in range(count)]
        for k, ticket in enumerate(tickets):
            assert equal(ticket.result(), right(cubic(), noise(k)))


def test_pictures_may_be_collected_in_any_order_and_late(host: Machine) -> None:
    """The check of the first pictures recomputes some while others wait."""
    engine = host.engine(cubic(), SIZE, batch=4)
    rng = random.Random(1)
    waiting: dict[int, TensorRtTicket] = {}
    for k in range(60):
        while len(waiting) == engine.slots or (waiting and rng.random() < 0.4):
            which = rng.choice(list(waiting))
            assert equal(waiting.pop(which).result(), right(cubic(), noise(which)))
        waiting[k] = engine.submit(noise(k))
    for which, ticket in waiting.items():
        assert equal(ticket.result(), right(cubic(), noise(which)))


@pytest.mark.parametrize("batch", [1, 4])
def test_more_pictures_than_slots_are_refused_and_do_no_harm(batch: int, host: Machine) -> None:
    engine = host.engine(cubic(), SIZE, batch)
    tickets = [engine.submit(noise(k)) for k in range(engine.slots)]
    for _ in range(2):
        with pytest.raises(BackendError, match="more pictures submitted than the engine's slots"):
            engine.submit(noise(99))
    for k, ticket in enumerate(tickets):
        assert equal(ticket.result(), right(cubic(), noise(k)))
    assert equal(engine.submit(noise(99)).result(), right(cubic(), noise(99)))


def test_results_stay_right_after_their_slot_and_engine_were_used_again(host: Machine) -> None:
    """Results are views of pinned memory, which the encoder may hold for some time."""
    engine = host.engine(cubic(), SIZE)
    kept = dict(stream(engine, 20))
    del engine
    assert all(equal(planes, right(cubic(), noise(k))) for k, planes in kept.items())


@pytest.mark.parametrize("batch", [1, 16])
def test_as_many_results_may_be_kept_as_queues_and_encoders_hold(batch: int, host: Machine) -> None:
    """Otherwise a run with -c utvideo on 16 cores would wait for memory until the timeout."""
    engine = host.engine(cubic(), SIZE, batch)
    most = MAX_IN_QUEUES + MAX_IN_ENCODER - 1  # the loop holds one more
    kept: dict[int, Planes] = {}
    for k, planes in stream(engine, most + 3 * engine.slots):
        if k < most:
            kept[k] = planes
    assert all(equal(planes, right(cubic(), noise(k))) for k, planes in kept.items())


def test_what_queues_hold_is_counted() -> None:
    assert MAX_IN_QUEUES >= queues.QUEUE_DEPTH + 2  # one being queued, one being encoded
    assert MAX_IN_QUEUES >= encode._QUEUE_SIZE + 4  # and the last one, and that of the status page


def test_results_are_views_of_pinned_memory_that_may_be_written(host: Machine) -> None:
    before = host.cuda.allocated
    ((_, planes),) = stream(host.engine(cubic(), SIZE), 1)
    assert host.cuda.allocated > before
    for plane, shape in zip(planes, ((64, 96), (32, 48), (32, 48)), strict=True):
        assert plane.shape == shape
        assert plane.dtype == np.uint8
        assert plane.flags.c_contiguous
        assert plane.flags.writeable
        host.cuda.check(plane.ctypes.data, plane.nbytes)
    start = planes[0].ctypes.data
    assert planes[1].ctypes.data == start + planes[0].nbytes


def test_memory_does_not_grow_with_the_number_of_pictures(host: Machine) -> None:
    engine = host.engine(cubic(), SIZE, batch=2)
    for _ in stream(engine, 3 * engine.slots):
        pass
    before = host.cuda.allocated
    for _ in stream(engine, 100):
        pass
    assert host.cuda.allocated == before


def test_an_engine_that_is_gone_leaves_no_memory(host: Machine) -> None:
    engine = host.engine(cubic(), SIZE, batch=2)
    (*_, kept) = stream(engine, 20)
    assert kept[0] == 19
    del engine, _
    assert host.cuda.left() > 0  # the memory of `kept`
    del kept
    assert host.cuda.left() == 0


def test_upload_computing_and_fetching_are_three_streams_in_order(tmp_path: Path) -> None:
    host = machine(tmp_path, order="last")
    engine = host.engine(cubic(), SIZE)
    host.cuda.done.clear()
    tickets = [engine.submit(noise(k)) for k in range(3)]
    assert host.cuda.done == []  # `submit` does not wait
    for ticket in tickets:
        ticket.result()
    work = [(handle, name) for handle, name in host.cuda.done if name not in {"record", "wait"}]
    assert sorted(work) == sorted(
        [(1000, "in"), (1001, "replayed compute"), *[(1002, "out")] * 3] * 3
    )
    names = [name for _, name in work]
    assert names.index("in") < names.index("replayed compute") < names.index("out")


def test_the_next_picture_is_uploaded_before_the_last_is_collected(host: Machine) -> None:
    engine = host.engine(cubic(), SIZE)
    first, second = engine.submit(noise(0)), engine.submit(noise(1))
    host.cuda.order = "first"  # uploads first
    host.cuda.done.clear()
    first.result()
    assert [name for _, name in host.cuda.done].count("in") == 2
    second.result()


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("shapes", [((32, 48), (16, 24), (16, 24)), ((17, 33), (9, 17), (9, 17))])
def test_planes_of_a_block_begin_where_tensors_may(
    shapes: tuple[tuple[int, int], ...], batch: int
) -> None:
    block = BatchLayout(shapes, batch)
    taken = np.zeros(block.nbytes, np.int8)
    for k, (height, width) in enumerate(shapes):
        assert block.offset(k) % 256 == 0
        for index in range(batch):
            assert block.offset(k, index) == block.offset(k) + index * height * width
            taken[block.offset(k, index) :][: height * width] += 1
    assert taken.max() == 1
    assert taken.sum() == batch * sum(h * w for h, w in shapes)


def test_a_plane_of_another_size_is_refused_and_does_no_harm(host: Machine) -> None:
    engine = host.engine(cubic(), SIZE, batch=2)
    for wrong in ((64, 48), (46, 32), (48, 30)):
        with pytest.raises(BackendError, match=r"plane is \(\d+, \d+\), expected \("):
            engine.submit(noise(0, wrong))
    for k, planes in stream(engine, 8):
        assert equal(planes, right(cubic(), noise(k)))


def test_pictures_with_padded_rows_come_out_right(host: Machine) -> None:
    """Like the decoder's planes, these are read-only views."""
    y, u, v = noise(0, (64, 40))
    views = y[:32, 8:56], u[:16, 4:28], v[2:18, :24]
    for view in views:
        view.flags.writeable = False
    result = host.engine(cubic(), SIZE).submit(views).result()
    assert equal(result, right(cubic(), views))


def test_times_lie_between_submission_and_collection(host: Machine) -> None:
    engine = host.engine(cubic(), SIZE, batch=2)
    for _ in range(3):
        before = now()
        tickets = [engine.submit(noise(k)) for k in range(2)]
        for ticket in tickets:
            ticket.result()
        after = now()
        for ticket in tickets:
            assert before <= ticket.started <= ticket.finished <= after


# ---- CUDA graphs, captured by the engine or by TensorRT-RTX


def test_tensorrts_launches_are_captured_and_replayed(host: Machine) -> None:
    engine = host.engine(cubic(), SIZE, batch=2)
    launched, host.trt.executions = host.trt.executions, 0
    assert launched >= RING_SLOTS
    for k, planes in stream(engine, 20):
        assert equal(planes, right(cubic(), noise(k)))
    assert host.trt.executions == 0
    assert [name for _, name in host.cuda.done].count("replayed compute") == 10


@pytest.mark.parametrize("fault", ["end", "execute", "cannot"])
def test_an_engine_that_cannot_be_captured_runs_all_the_same(fault: str, host: Machine) -> None:
    host.cuda.breaks_captures = fault == "end"
    host.cuda.can_capture = fault != "cannot"
    if fault == "execute":
        _fail_when_capturing(host)
    engine = host.engine(cubic(), SIZE)
    for k, planes in stream(engine, 12):
        assert equal(planes, right(cubic(), noise(k)))
    assert not any("replayed" in name for _, name in host.cuda.done)


def _fail_when_capturing(host: Machine) -> None:
    begin, end = HostStream.begin_capture, HostStream.end_capture

    class Stream(HostStream):
        def begin_capture(self) -> None:
            begin(self)
            host.trt.fails = "a kernel that cannot be captured"

        def end_capture(self) -> HostGraph:
            host.trt.fails = ""
            return end(self)

    def new_stream() -> HostStream:
        host.cuda.streams.append(Stream(host.cuda, 1000 + len(host.cuda.streams)))
        return host.cuda.streams[-1]

    host.cuda.new_stream = new_stream  # type: ignore[method-assign]


def test_rtx_captures_by_itself_and_its_kernels_are_kept(tmp_path: Path) -> None:
    for given in (None, b"kernels", b"kernels"):
        host = machine(tmp_path, rtx=True)
        for k, planes in stream(host.engine(cubic(), SIZE), 6):
            assert equal(planes, right(cubic(), noise(k)))
        (config,) = host.trt.configs
        assert config.dynamic_shapes_kernel_specialization_strategy == "eager"
        assert config.cuda_graph_strategy == "whole"
        assert config.cache.given == given
        assert not any("replayed" in name for _, name in host.cuda.done)
    assert [p.name for p in tmp_path.iterdir()] == ["runtime.cache"]


def test_kernels_kept_by_another_driver_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "runtime.cache").write_bytes(b"old")
    machine(tmp_path, rtx=True).engine(cubic(), SIZE)
    assert (tmp_path / "runtime.cache").read_bytes() == b"kernels"


@pytest.mark.parametrize("spoil", ["folder", "file"])
def test_kernels_that_cannot_be_kept_do_no_harm(spoil: str, tmp_path: Path) -> None:
    place = tmp_path / "place"
    if spoil == "file":
        place.write_bytes(b"")
    else:
        (place / "runtime.cache").mkdir(parents=True)
    engine = machine(place, rtx=True).engine(cubic(), SIZE)
    assert equal(engine.submit(noise(0)).result(), right(cubic(), noise(0)))


# ---- failures


def test_a_failed_launch_is_told_in_tensorrts_words(host: Machine) -> None:
    host.cuda.can_capture = False
    engine = host.engine(cubic(), SIZE)
    host.trt.fails = "IExecutionContext::enqueueV3: Error Code 1: Cask (no kernel)"
    for _ in range(engine.slots):
        with pytest.raises(BackendError, match=r"^TensorRT 11.4.0.106 failed while running: IExec"):
            engine.submit(noise(0)).result()


def test_a_plan_that_does_not_load_is_told_in_tensorrts_words(host: Machine) -> None:
    with pytest.raises(BackendError, match="cannot load this engine: Serialization assertion"):
        host.start(b"rubbish", SIZE)


def test_a_context_without_memory_is_out_of_memory(host: Machine) -> None:
    host.trt.no_memory = 1
    with pytest.raises(OutOfMemoryError, match="cannot start this engine: Error Code 2"):
        host.engine(cubic(), SIZE)


def test_a_size_outside_of_the_range_is_refused(host: Machine) -> None:
    sizes = Sizes(min_size=(32, 32), opt_size=SIZE, max_size=(64, 64))
    plan = host.library.build(cubic().onnx(None), BuildOptions(sizes=sizes)).plan
    engine = host.start(plan, (64, 40))
    assert equal(engine.submit(noise(0, (64, 40))).result(), right(cubic(), noise(0, (64, 40))))
    with pytest.raises(BackendError, match="does not support pictures of 66x40: IExecutionContext"):
        host.start(plan, (66, 40))


def test_a_builder_that_does_not_start_is_told_in_tensorrts_words(host: Machine) -> None:
    """pybind11 raises TypeError if C++ returns a null pointer."""

    def null(_: Any) -> None:
        host.trt.say("ERROR", "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    host.trt.Builder = null  # type: ignore[method-assign, assignment]
    with pytest.raises(BackendError, match="cannot start: CUDA initialization failure"):
        host.engine(cubic(), SIZE)
