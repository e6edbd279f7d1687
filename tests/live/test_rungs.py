"""The engines of a ladder: failures, sharing, and building while a relay runs."""

import math
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from vsr.errors import BackendError, InterruptedRunError
from vsr.inference import models
from vsr.inference.backend import Backend, load_backend
from vsr.inference.flicker import FlickerFilter
from vsr.live.ladder import prepare
from vsr.live.ladder.controller import Ladder, LadderSettings
from vsr.live.ladder.engine_queue import EngineQueue
from vsr.live.ladder.pool import Pool
from vsr.live.ladder.rung import Rung, disable_slower
from vsr.live.ladder.rung_models import find_models
from vsr.live.ladder.rungs import FALLBACK, Rungs
from vsr.live.ladder.warm_up import grey_planes
from vsr.live.settings import RelaySettings
from vsr.media.colour import Colour
from vsr.media.frame import Frame
from vsr.media.plane_format import YUV420

SIZE, WIDER, COLOUR = (64, 48), (96, 48), Colour()
WANTED = RelaySettings(model="c-dcscn", ladder=("bicubic",), precision="fp32", backend="openvino")


@pytest.fixture(scope="module")
def backend() -> Backend:
    return load_backend("openvino", live=True)


def frame(number: int) -> Frame:
    return Frame(
        planes=grey_planes(64, 48), index=number, pts=number, time_base=Fraction(1, 25), duration=1
    )


class _Faulty:
    """Wraps a real engine and fails on request."""

    def __init__(self, real: Any, network: str) -> None:
        self._real, self.slots, self.network = real, real.slots, network
        self.fails = False

    def submit(self, planes: Any) -> Any:
        if self.fails:
            raise BackendError("the device is gone")
        return self._real.submit(planes)


class _Device:
    """A backend whose engines fail on request, because driver failures cannot be provoked."""

    device = "none"

    def __init__(self, backend: Backend, name: str = "openvino") -> None:
        self._backend, self.name = backend, name
        self.engines: list[_Faulty] = []
        self.broken, self.built = False, True

    def choose_precision(self, precision: str, has_int8: bool) -> str:
        return self._backend.choose_precision(precision, has_int8)

    def run(self, model: bytes, inputs: Any) -> Any:
        return self._backend.run(model, inputs)

    def is_built(self, *_: Any) -> bool:
        return self.built

    def of(self, network: str) -> list[_Faulty]:
        """Return a network's engines, oldest first; several networks compile in parallel."""
        return [engine for engine in self.engines if engine.network == network]

    def compile(self, graph: Any, *args: Any) -> Any:
        if self.broken:
            raise BackendError("no memory is left")
        engine = _Faulty(self._backend.compile(graph, *args), graph.label.removesuffix("-x2"))
        self.engines.append(engine)
        return engine


def _rungs(device: _Device) -> Rungs:
    return Rungs(find_models(WANTED, device), device, SIZE, COLOUR)


def _until(what: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_failing_engine_is_stood_in_for_and_loaded_again(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    device = _Device(backend)
    rungs = _rungs(device)
    assert rungs.names == ["c-dcscn", "bicubic"]
    assert rungs.out_size == (128, 96)
    assert rungs.upscale(frame(0), 0).rung == "c-dcscn"
    device.of("c-dcscn")[0].fails = True
    done = rungs.upscale(frame(1), 0)
    assert (done.rung, done.event, done.index) == ("bicubic", FALLBACK, 1)
    assert done.planes[0].shape == (96, 128)
    assert done.stamps.infer_end >= done.stamps.infer_start > 0
    _until(lambda: rungs.upscale(frame(2), 0).rung == "c-dcscn")
    assert len(device.engines) == 3
    assert not rungs.is_disabled(0)
    assert caplog.text.count("failed; reloading it") == 1


def test_frames_of_a_sharp_rung_are_filtered_and_a_change_of_rung_begins_again(
    backend: Backend,
) -> None:
    wanted = replace(WANTED, model="rt-sharp", ladder=("c-dcscn-stream", "bicubic"))
    rungs = Rungs(find_models(wanted, backend), backend, SIZE, COLOUR)
    steady, rng = FlickerFilter(wanted.flicker_filter), np.random.default_rng(1)
    still = rng.integers(32, 224, (48, 64))

    def is_filtered(rung: int) -> bool:
        noisy = (still + rng.integers(-2, 3, still.shape)).astype(np.uint8)
        before = replace(frame(0), planes=(noisy, *frame(0).planes[1:]))
        after = rungs.upscale(before, rung)
        return not np.array_equal(steady.filtered(before, after).planes[0], after.planes[0])

    chosen = [0, 0, 0, 1, 1, 2, 2, 0, 0]
    assert [is_filtered(rung) for rung in chosen] == [
        *(False, True, True), *(False,) * 4, False, True
    ]  # fmt: skip


def test_an_engine_that_fails_again_and_again_is_given_up(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    device = _Device(backend)
    rungs = _rungs(device)
    for count in range(1, 4):
        device.of("c-dcscn")[-1].fails = True
        assert rungs.upscale(frame(0), 0).event == FALLBACK
        assert rungs.is_disabled(0) == (count == 3)
        if count < 3:
            _until(lambda: not rungs.upscale(frame(1), 0).event)
    for _ in range(3):
        assert rungs.upscale(frame(2), 0).rung == "bicubic"
    assert caplog.text.count("failed 3 times and is disabled") == 1
    assert len(device.engines) == 4


def test_an_engine_that_cannot_be_loaded_again_is_given_up(backend: Backend) -> None:
    device = _Device(backend)
    rungs = _rungs(device)
    device.of("c-dcscn")[0].fails = device.broken = True
    assert rungs.upscale(frame(0), 0).event == FALLBACK
    _until(lambda: rungs.is_disabled(0))
    assert rungs.upscale(frame(0), 0).rung == "bicubic"
    device.of("bicubic")[0].fails = True
    with pytest.raises(BackendError, match="bicubic failed too: the device is gone"):
        rungs.upscale(frame(0), 0)


def test_a_gpu_that_is_gone_leaves_bicubic_on_the_cpu(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    device = _Device(backend, "tensorrt")
    rungs = _rungs(device)
    device.broken = True
    for engine in device.engines:
        engine.fails = True
    for k in range(3):
        done = rungs.upscale(frame(k), 0)
        assert (done.rung, done.event) == ("bicubic", FALLBACK)
    assert rungs.upscale(frame(3), 1).event == ""
    assert caplog.text.count("using OpenVINO for it from now on") == 1


def test_loading_stops_when_asked(backend: Backend) -> None:
    found = find_models(WANTED, backend)
    assert [m.name for m in found] == ["c-dcscn", models.BICUBIC]
    with pytest.raises(InterruptedRunError):
        Rungs(found, backend, SIZE, COLOUR, lambda: True)


class _Slow(_Device):
    """A backend that compiles anything but bicubic only after `go` is set."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.go = threading.Event()

    def compile(self, graph: Any, *args: Any) -> Any:
        assert graph.label.startswith("bicubic") or self.go.wait(20)
        return super().compile(graph, *args)


@pytest.mark.usefixtures("slower_rungs_are_lost")
def test_rungs_that_are_slower_than_a_better_one_are_not_kept(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    measured_ms = {"dcscn": 198, "dcscn-stream": 77, "rt": 489, "c-dcscn": 85, "bicubic": 900}

    def cost(upscaler: Any, *_: Any) -> float:
        return measured_ms[upscaler.outline.name] / 1000

    monkeypatch.setattr("vsr.live.ladder.rungs.time_per_frame", cost)
    wanted = replace(WANTED, model="dcscn", ladder=("dcscn-stream", "rt", "c-dcscn"))
    found = find_models(wanted, backend)
    at_once = Rungs(found, backend, SIZE, COLOUR)
    later = Rungs(found, backend, SIZE, COLOUR, bicubic_first=True)
    _until(lambda: later.version == 4)
    for rungs in (at_once, later):
        assert [rungs.is_disabled(k) for k in range(5)] == [False, False, True, False, False]
        assert rungs.costs == [0.198, 0.077, math.inf, 0.085, 0.9]
    assert caplog.text.count("rt is not used: it takes 489.0 ms per frame here, and dcscn-s") == 2


@pytest.mark.usefixtures("slower_rungs_are_lost")
def test_a_rung_that_is_only_not_built_yet_is_kept(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """An engine of the GPU is much faster than those of OpenVINO below it."""
    caplog.set_level("INFO")
    device = _Device(backend, "tensorrt")
    wanted = replace(WANTED, model="dcscn", ladder=("c-dcscn",))
    own, cpu = find_models(wanted, device), find_models(wanted, backend)
    first = Rung(own[0], device, cost=0.001)
    waiting, built = Rung(cpu[1], backend, cost=0.01), Rung(own[1], device, cost=0.002)
    disable_slower([first, waiting])
    assert not waiting.disabled
    assert not caplog.records
    disable_slower([first, built])
    assert built.disabled


def test_rungs_that_can_be_lost_are_timed_for_longer_beside_a_stream(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = list[tuple[str, bool]]()

    def cost(upscaler: Any, _picture: Any, _stopped: Any, beside_stream: bool) -> float:
        timed.append((upscaler.outline.name, beside_stream))
        return 0.01

    monkeypatch.setattr("vsr.live.ladder.rungs.time_per_frame", cost)
    wanted = replace(WANTED, model="dcscn", ladder=("c-dcscn",))
    rungs = Rungs(find_models(wanted, backend), backend, SIZE, COLOUR, bicubic_first=True)
    _until(lambda: rungs.version == 2)
    assert timed == [("bicubic", False), ("dcscn", False), ("c-dcscn", True)]


def test_bicubic_goes_first_and_the_others_follow(backend: Backend) -> None:
    device = _Slow(backend)
    rungs = Rungs(find_models(WANTED, device), device, SIZE, COLOUR, bicubic_first=True)
    assert [math.isfinite(cost) for cost in rungs.costs] == [False, True]
    assert Ladder(rungs.costs, LadderSettings(interval=0.04, max_latency=0.5), 0.0).rung == 1
    assert rungs.upscale(frame(0), 1).rung == "bicubic"
    device.go.set()
    _until(lambda: rungs.version == 1)
    assert all(map(math.isfinite, rungs.costs))
    assert (rungs.upscale(frame(1), 0).rung, rungs.failure) == ("c-dcscn", None)


def test_what_cannot_be_loaded_later_is_told_and_an_end_is_heard(backend: Backend) -> None:
    device = _Slow(backend)
    rungs = Rungs(find_models(WANTED, device), device, SIZE, COLOUR, bicubic_first=True)
    device.broken = True
    device.go.set()
    _until(lambda: rungs.version == 1)
    assert "no memory is left" in str(rungs.failure)
    device = _Slow(backend)
    rungs = Rungs(find_models(WANTED, device), device, SIZE, COLOUR, bicubic_first=True)
    rungs.close()
    device.go.set()
    _until(lambda: "load" not in [thread.name for thread in threading.enumerate()])
    assert (rungs.version, rungs.failure) == (0, None)


def test_engines_that_are_missing_are_built_in_a_process_while_openvino_goes_on(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    device = _Device(backend, "tensorrt")
    device.built = False
    rungs = Rungs(find_models(WANTED, device), device, SIZE, COLOUR, settings=WANTED)
    assert not device.engines  # only OpenVINO engines run now
    assert rungs.upscale(frame(0), 0).rung == "c-dcscn"
    assert rungs.version == 0
    device.built = True  # as when the process reports it
    _until(lambda: rungs.version == 2)
    assert len(device.engines) == 2
    device.of("c-dcscn")[0].fails = True  # shows that it is used
    assert rungs.upscale(frame(1), 0).event == FALLBACK
    assert caplog.text.count("using OpenVINO until they are ready") == 1
    assert caplog.text.count("c-dcscn now runs on none") == 1


def test_engines_that_cannot_be_built_leave_openvino(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    device = _Device(backend, "tensorrt")
    device.built = False
    nobody_has = {"backend": "tensorrt-rtx", "device": "99"}
    wanted = replace(WANTED, precision="auto", **nobody_has)
    rungs = Rungs(find_models(WANTED, device), device, SIZE, COLOUR, settings=wanted)
    _until(lambda: "the process that builds engines failed" in caplog.text)
    assert "Error" not in caplog.text  # a message, not a traceback
    assert (rungs.version, rungs.upscale(frame(0), 0).event) == (0, "")


def test_a_relay_that_ends_stops_the_building(backend: Backend) -> None:
    device = _Device(backend, "tensorrt")
    device.built = False
    rungs = Rungs(find_models(WANTED, device), device, SIZE, COLOUR, settings=WANTED)
    preparation = rungs._preparation
    assert preparation is not None
    _until(lambda: preparation._process is not None)
    process = preparation._process
    assert process is not None
    rungs.close()
    assert process.wait(20) == -signal.SIGKILL
    _until(lambda: not preparation._thread.is_alive())


def test_a_process_that_begins_after_the_end_is_ended_too(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, go_on = subprocess.Popen, threading.Event()
    begun: list[Any] = []

    def late(*args: Any, **kwargs: Any) -> Any:
        assert go_on.wait(20)
        begun.append(begin(*args, **kwargs))
        return begun[0]

    monkeypatch.setattr("vsr.live.ladder.prepare.subprocess.Popen", late)
    device = _Device(backend, "tensorrt")
    device.built = False
    rungs = Rungs(find_models(WANTED, device), device, SIZE, COLOUR, settings=WANTED)
    rungs.close()
    go_on.set()
    _until(lambda: begun)
    assert begun[0].wait(20) == -signal.SIGKILL


def test_a_process_that_dies_before_it_has_its_order_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    start = prepare.start_child

    def dead(*args: Any, **kwargs: Any) -> Any:
        process = start(*args, **kwargs)
        process.kill()
        process.wait()
        return process

    monkeypatch.setattr(prepare, "start_child", dead)
    preparation = prepare.Preparation(WANTED, SIZE, COLOUR, YUV420, lambda _: None)
    preparation.start()
    preparation._thread.join(20)
    assert "the process that builds engines failed (exit code -9)" in caplog.text


def test_an_engine_built_in_another_form_is_left_for_the_next_start(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    device = _Device(backend, "tensorrt")
    device.built = False
    rungs = Rungs(find_models(WANTED, device), device, SIZE, COLOUR, settings=WANTED)
    _until(lambda: caplog.text.count("does not match this stream") == 2)
    assert (rungs.version, device.engines) == (0, [])


def test_a_better_engine_is_taken_at_once_and_a_worse_one_not() -> None:
    settings = LadderSettings(interval=0.04, max_latency=0.5)
    ladder = Ladder([0.3, 0.2, 0.002], settings, 0.0)
    assert ladder.rung == 2
    ladder.set_cost(1, 0.1, 1.0)
    assert ladder.rung == 2
    ladder.set_cost(1, 0.01, 1.0)
    assert ladder.rung == 1
    ladder.set_cost(0, 0.02, 1.1)
    assert (ladder.rung, ladder.choose(1.2, 1.2, 0)) == (0, 0)


def test_relays_of_one_size_and_ladder_share_engines() -> None:
    pool = Pool()
    one = pool.rungs(WANTED, SIZE, COLOUR, lambda: False)
    assert pool.rungs(WANTED, SIZE, COLOUR, lambda: False) is one
    assert pool.rungs(WANTED, WIDER, COLOUR, lambda: False) is not one


def test_engines_that_broke_are_made_anew_and_those_in_use_are_kept(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = _Device(backend)
    monkeypatch.setattr("vsr.inference.backend.load_backend", lambda *_, **__: device)
    pool = Pool()
    used, idle = (pool.rungs(WANTED, size, COLOUR, lambda: False) for size in (SIZE, WIDER))
    pool.release(idle)
    assert (
        pool.rungs(WANTED, WIDER, COLOUR, lambda: False) is idle
    )  # a restarted relay gets the same ones
    pool.release(idle)
    for engine in device.engines:
        engine.fails = True
    with pytest.raises(BackendError, match="bicubic failed too"):
        used.upscale(frame(0), 1)
    anew = pool.rungs(WANTED, SIZE, COLOUR, lambda: False)
    assert anew is not used
    assert anew.upscale(frame(0), 0).rung == "c-dcscn"
    pool.release(used)
    assert pool.rungs(WANTED, SIZE, COLOUR, lambda: False) is anew
    assert pool.rungs(WANTED, WIDER, COLOUR, lambda: False) is not idle  # unused, so freed


def test_a_relay_that_begins_again_does_not_get_engines_of_which_one_failed_to_load(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would stay at bicubic silently: only the earlier relay got the failure."""
    device = _Slow(backend)
    monkeypatch.setattr("vsr.inference.backend.load_backend", lambda *_, **__: device)
    pool = Pool()
    first = pool.rungs(WANTED, SIZE, COLOUR, lambda: False, bicubic_first=True)
    device.broken = True
    device.go.set()
    _until(lambda: first.failure)
    pool.release(first)
    device.broken = False
    again = pool.rungs(WANTED, SIZE, COLOUR, lambda: False, bicubic_first=True)
    _until(lambda: again.version)
    assert again.upscale(frame(0), 0).rung == "c-dcscn"


def _groups(pause: float) -> list[list[int]]:
    """Return the frames of each batch if four threads queue while the first is served."""
    free, begun = threading.Event(), threading.Event()
    groups: list[list[int]] = []

    def work(frames: Any, rung: int) -> list[Frame]:
        groups.append([f.index for f in frames])
        begun.set()
        assert free.wait(20)
        return [f.with_planes(f.planes, str(rung)) for f in frames]

    turns = EngineQueue(work)
    got: dict[int, Frame] = {}

    def ask(number: int, rung: int) -> None:
        got[number] = turns.upscale(frame(number), rung)

    first = threading.Thread(target=ask, args=(0, 0))
    first.start()
    assert begun.wait(20)
    rest = [threading.Thread(target=ask, args=(k, k % 2)) for k in range(1, 5)]
    for thread in rest:
        thread.start()
    time.sleep(pause)
    free.set()
    for thread in [first, *rest]:
        thread.join(20)
    assert {k: (f.index, f.rung) for k, f in got.items()} == {k: (k, str(k % 2)) for k in range(5)}
    return groups


def test_pictures_of_all_who_wait_go_together_and_come_back_to_their_owners() -> None:
    together = False
    for pause in (0.05, 0.2, 1, 3):  # until all arrive while the first is served
        groups = _groups(pause)
        assert groups[0] == [0]
        assert sorted(k for group in groups for k in group) == [0, 1, 2, 3, 4]
        assert all(len({k % 2 for k in group}) == 1 for group in groups)
        together = sorted(sorted(group) for group in groups[1:]) == [[1, 3], [2, 4]]
        if together:
            break
    assert together


def test_shared_engines_give_each_relay_its_own_picture(backend: Backend) -> None:
    rungs = Rungs(find_models(WANTED, backend), backend, SIZE, COLOUR)
    alone = {}
    for level in range(0, 200, 20):
        one = frame(level)
        one.planes[0][:] = level
        alone[level] = rungs.upscale(one, 0).planes[0].copy()
    wrong = []

    def relay(level: int) -> None:
        for _ in range(10):
            mine = frame(level)
            mine.planes[0][:] = level
            if not np.array_equal(rungs.upscale(mine, 0).planes[0], alone[level]):
                wrong.append(level)

    threads = [threading.Thread(target=relay, args=(level,)) for level in alone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert not any(thread.is_alive() for thread in threads)


def test_what_fails_for_several_is_told_to_each() -> None:
    groups: list[list[int]] = []

    def work(frames: Any, rung: int) -> list[Frame]:
        groups.append([f.index for f in frames])
        raise BackendError("gone")

    turns = EngineQueue(work)
    for number in range(2):
        with pytest.raises(BackendError, match="gone"):
            turns.upscale(frame(number), 0)
    assert groups == [[0], [1]]  # no wait for a failed batch, and no retry
