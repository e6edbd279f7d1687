"""Simulates a GPU in host memory, so that the TensorRT engine can be tested without a GPU.

The fake CUDA queues all work and executes the streams in any order that streams and events allow.
The fake TensorRT runs the same graph on OpenVINO. A missing wait, a wrong address or a buffer that
is reused too early then shows as wrong pixels.
"""

import ast
import ctypes
import random
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx

from vsr.errors import BackendError
from vsr.inference.cuda import Cuda, PinnedBuffer
from vsr.inference.openvino import CORE, OpenVinoBackend
from vsr.inference.tensorrt.engine import TensorRtEngine
from vsr.inference.tensorrt.library import BuildOptions, Library, Sizes
from vsr.media.colour import Colour
from vsr.media.frame import Planes, now
from vsr.network.graph import NetworkFacts, PlaneGraph, bicubic_network

SIZE = (48, 32)
COLOUR = Colour(full_range=True)
CPU = OpenVinoBackend("CPU")


# ---- CUDA on host memory


class Memory:
    """Host memory at an address that is a multiple of 256, filled with 0xA5."""

    def __init__(self, cuda: "HostCuda", nbytes: int) -> None:
        self._bytes = np.full(nbytes + 256, 0xA5, np.uint8)
        self.address = -(-self._bytes.ctypes.data // 256) * 256
        self.nbytes = nbytes
        cuda.alive[id(self)] = weakref.ref(self)

    array = PinnedBuffer.array

    def close(self) -> None:
        raise AssertionError("nobody closes these")


class HostEvent:
    """A fake CUDA event, reached when its stream has executed the work queued before it."""

    def __init__(self, cuda: "HostCuda", timing: bool) -> None:
        self.raw, self._cuda, self.timing = self, cuda, timing
        self.asked = self.reached = 0
        self.time = 0.0

    def record(self, stream: "HostStream") -> None:
        self.asked += 1
        number = self.asked

        def reach() -> None:
            self.reached, self.time = max(self.reached, number), self._cuda.clock()

        stream.put("record", reach)

    def synchronize(self) -> None:
        number = self.asked
        self._cuda.work_until(lambda: self.reached >= number)

    def is_done(self) -> bool:
        return self.reached >= self.asked

    def elapsed_ms(self, since: "HostEvent") -> float:
        assert self.timing
        assert since.timing
        assert self.is_done()
        assert since.is_done()
        return 1000 * (self.time - since.time)


@dataclass
class Work:
    """A queued operation: its name, function and the condition for its start."""

    name: str
    do: Callable[[], None]
    ready: Callable[[], bool] = lambda: True


class HostGraph:
    """A fake CUDA graph: the captured operations."""

    def __init__(self, work: list[Work]) -> None:
        self._work = work

    def launch(self, stream: "HostStream") -> None:
        for work in self._work:
            stream.put(f"replayed {work.name}", work.do, work.ready)


class HostStream:
    """A fake CUDA stream: a queue of operations."""

    def __init__(self, cuda: "HostCuda", handle: int) -> None:
        self.raw, self._cuda, self.handle = self, cuda, handle
        self.queue: deque[Work] = deque()
        self.captured: list[Work] | None = None

    def put(
        self, name: str, do: Callable[[], None], ready: Callable[[], bool] = lambda: True
    ) -> None:
        assert self._cuda.active
        where = self.queue if self.captured is None else self.captured
        where.append(Work(name, do, ready))

    def wait(self, event: HostEvent) -> None:
        number = event.asked
        self.put("wait", lambda: None, lambda: event.reached >= number)

    def synchronize(self) -> None:
        self._cuda.work_until(lambda: not self.queue)

    def begin_capture(self) -> None:
        assert self.captured is None, "captures already"
        self.captured = []

    def end_capture(self) -> HostGraph:
        work, self.captured = self.captured, None
        assert work is not None, "does not capture"
        if self._cuda.breaks_captures:
            raise BackendError("CUDA failed in cuGraphInstantiate: out of patience")
        return HostGraph(work)


class HostCuda:
    """A fake `vsr.inference.cuda.interface.Cuda`.

    `order` selects the stream that executes next: `mixed` (random), `first` or `last`.
    """

    library, driver, index = "host memory 1.0", "13.0", 0
    total_memory = 8 << 30

    def __init__(self, order: str = "mixed", seed: int = 0) -> None:
        self.name, self.compute_capability = "NVIDIA GeForce RTX 3080", (8, 6)
        self.order, self._random = order, random.Random(seed)
        self.can_capture, self.breaks_captures = True, False
        self.active, self.later = False, 0.0
        self.streams: list[HostStream] = []
        self.alive: dict[int, weakref.ref[Memory]] = {}
        self.allocated = 0
        self.done: list[tuple[int, str]] = []
        """(stream handle, operation name) in the order of execution."""

    @property
    def target(self) -> str:
        """Return the GPU's target as `vsr.inference.cuda.interface.Cuda` names it."""
        return "sm{}{}".format(*self.compute_capability)

    def clock(self) -> float:
        """Return the time in seconds, with the simulated run times of kernels added."""
        return now() + self.later

    def work_until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            able = [s for s in self.streams if s.queue and s.queue[0].ready()]
            assert able, "every stream waits for another: a deadlock"
            at = {"mixed": self._random.randrange(len(able)), "first": 0, "last": -1}[self.order]
            work = able[at].queue.popleft()
            work.do()
            self.done.append((able[at].handle, work.name))

    def activate(self) -> None:
        self.active = True

    def synchronize(self) -> None:
        self.work_until(lambda: not any(s.queue for s in self.streams))

    def alloc_pinned(self, nbytes: int) -> Memory:
        self.allocated += 1
        return Memory(self, nbytes)

    alloc_device = alloc_pinned

    def new_stream(self) -> HostStream:
        self.streams.append(HostStream(self, 1000 + len(self.streams)))
        return self.streams[-1]

    def new_event(self, timing: bool = False) -> HostEvent:
        return HostEvent(self, timing)

    def left(self) -> int:
        """Return the number of allocated bytes."""
        return sum(found.nbytes for ref in self.alive.values() if (found := ref()))

    def check(self, address: int, nbytes: int) -> None:
        """Fail, as a GPU faults, if the range is not within an allocated buffer."""
        memories = (found for ref in self.alive.values() if (found := ref()))
        inside = (
            m.address <= address and address + nbytes <= m.address + m.nbytes for m in memories
        )
        assert any(inside), "outside of every buffer"

    def _copy(self, name: str, to: int, source: int, nbytes: int, stream: HostStream) -> None:
        def do() -> None:
            self.check(to, nbytes)
            self.check(source, nbytes)
            ctypes.memmove(to, source, nbytes)

        stream.put(name, do)

    def copy_in(self, to: int, source: int, nbytes: int, stream: HostStream) -> None:
        self._copy("in", to, source, nbytes, stream)

    def copy_out(self, to: int, source: int, nbytes: int, stream: HostStream) -> None:
        self._copy("out", to, source, nbytes, stream)


# ---- TensorRT on OpenVINO


Shape = tuple[int, ...]
Range = tuple[Shape, Shape, Shape]


@cache
def compiled(model: bytes, shapes: tuple[Shape, Shape, Shape]) -> Any:
    """Return a graph compiled by OpenVINO for one picture with planes of these shapes."""
    read = CORE.read_model(model)
    read.reshape({name: [1, *shape[1:]] for name, shape in zip("yuv", shapes, strict=True)})
    return CORE.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


class HostContext:
    """A fake execution context: writes OpenVINO's results to the addresses of the outputs."""

    def __init__(self, trt: "HostTrt", model: bytes, profile: dict[str, Range]) -> None:
        self.trt, self._model, self._profile = trt, model, profile
        self._shapes: dict[str, Shape] = {}
        self._addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: Shape) -> bool:
        least, _, most = self._profile[name]
        fits = all(a <= n <= b for a, n, b in zip(least, shape, most, strict=True))
        if not fits:
            self.trt.say("ERROR", f"IExecutionContext::setInputShape: {shape} is outside")
        self._shapes[name] = shape
        return fits

    def infer_shapes(self) -> list[str]:
        return [name for name in "yuv" if name not in self._shapes]

    @property
    def _net(self) -> Any:
        return compiled(self._model, (self._shapes["y"], self._shapes["u"], self._shapes["v"]))

    def get_tensor_shape(self, name: str) -> Shape:
        index = ("y_out", "u_out", "v_out").index(name)
        return (self._shapes["y"][0], *self._net.output(index).shape[1:])

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert address % 256 == 0, "TensorRT wants tensors on multiples of 256"
        self._addresses[name] = address
        return True

    def execute_async_v3(self, handle: int) -> bool:
        self.trt.executions += 1
        if self.trt.fails:
            self.trt.say("ERROR", self.trt.fails)
            return False
        stream = next(s for s in self.trt.cuda.streams if s.handle == handle)
        shapes, addresses, net = dict(self._shapes), dict(self._addresses), self._net
        flips = self.trt.flips(self._model)

        def at(name: str, shape: Shape) -> npt.NDArray[np.uint8]:
            nbytes = int(np.prod(shape))
            self.trt.cuda.check(addresses[name], nbytes)
            raw = (ctypes.c_uint8 * nbytes).from_address(addresses[name])
            return np.ctypeslib.as_array(raw).reshape(shape)

        def do() -> None:
            self.trt.cuda.later += self.trt.slow(self._model)
            planes = [at(name, shapes[name]) for name in "yuv"]
            for k in range(shapes["y"][0]):
                results = net([plane[k : k + 1] for plane in planes])
                for index, name in enumerate(("y_out", "u_out", "v_out")):
                    at(name, self.get_tensor_shape(name))[k] = results[index][0] ^ np.uint8(flips)

        stream.put("compute", do)
        return True


class HostEngine:
    """A fake engine: the ONNX graph and the range of each input's shape."""

    def __init__(self, trt: "HostTrt", model: bytes, profile: dict[str, Range]) -> None:
        self._trt, self._model, self._profile = trt, model, profile

    def get_tensor_profile_shape(self, name: str, _: int) -> Range:
        return self._profile[name]

    def create_execution_context(self, config: Any = None) -> HostContext | None:
        self._trt.configs.append(config)
        if self._trt.no_memory > 0:
            self._trt.no_memory -= 1
            self._trt.say("ERROR", "Error Code 1: Cuda Runtime (out of memory)")
            self._trt.say("ERROR", "Error Code 2: OutOfMemory (Requested size was 9 bytes.)")
            return None
        return HostContext(self._trt, self._model, self._profile)

    def create_runtime_config(self) -> SimpleNamespace:
        config = SimpleNamespace(create_runtime_cache=self._trt.new_cache)
        config.set_runtime_cache = lambda cache: setattr(config, "cache", cache)
        return config


class HostTrt:
    """The part of `tensorrt` that `vsr.inference.tensorrt` uses.

    A plan is the ONNX model and the range of its shapes.
    """

    __version__ = "11.4.0.106"

    def __init__(self, cuda: HostCuda, rtx: bool = False) -> None:
        self.cuda = cuda
        self.executions = self.no_memory = self.builds = 0
        self.fails = ""
        self.flips: Callable[[bytes], int] = lambda _: 0
        self.broken_plans: set[bytes] = set()
        self.configs: list[Any] = []
        self.loggers: list[Any] = []
        self.slow: Callable[[bytes], float] = lambda _: 0.0

        class Severity(Enum):
            INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

        class ILogger:
            def __init__(logger) -> None:  # noqa: N805
                self.loggers.append(logger)

        ILogger.Severity = Severity  # type: ignore[attr-defined]
        self.ILogger = ILogger
        self.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=0)
        self.BuilderFlag = SimpleNamespace(TF32="tf32")
        if rtx:
            self.ComputeCapability = SimpleNamespace(SM86=86)
            self.DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager")
            self.CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")

    def say(self, severity: str, words: str) -> None:
        for logger in self.loggers:
            logger.log(self.ILogger.Severity[severity], words)  # type: ignore[attr-defined]

    def new_cache(self) -> SimpleNamespace:
        cache = SimpleNamespace(given=None)

        def deserialize(data: bytes) -> bool:
            cache.given = data
            return data == b"kernels"

        cache.deserialize, cache.serialize = deserialize, lambda: b"kernels"
        return cache

    def Runtime(self, logger: Any) -> SimpleNamespace:  # noqa: N802
        def deserialize(plan: bytes) -> HostEngine | None:
            if plan in self.broken_plans or not plan.startswith(b"plan"):
                self.say("ERROR", "Serialization assertion failed")
                return None
            head, _, model = plan.partition(b"\n")
            profile: dict[str, Range] = ast.literal_eval(head[4:].decode().strip())
            return HostEngine(self, model, profile)

        return SimpleNamespace(deserialize_cuda_engine=deserialize)

    def Builder(self, logger: Any) -> SimpleNamespace:  # noqa: N802
        config = SimpleNamespace(profile={}, num_compute_capabilities=0)
        config.clear_flag = lambda _: None
        config.set_compute_capability = lambda *_: True
        config.create_timing_cache = lambda data: SimpleNamespace(serialize=lambda: b"timings")
        config.set_timing_cache = lambda *_, **__: True

        def add_profile(profile: Any) -> int:
            config.profile = profile.shapes
            return 0

        config.add_optimization_profile = add_profile

        def new_profile() -> SimpleNamespace:
            profile = SimpleNamespace(shapes={})
            profile.set_shape = lambda name, *shapes: profile.shapes.update({name: shapes})
            return profile

        def build(network: Any, _: Any) -> bytes:
            self.builds += 1
            given = {
                tensor.name: (tuple(d.dim_value for d in tensor.type.tensor_type.shape.dim),) * 3
                for tensor in onnx.load_model_from_string(network.model).graph.input
            }
            return b"plan%r\n" % (config.profile or given) + network.model

        def inputs(k: int) -> SimpleNamespace:
            return SimpleNamespace(name="yuv"[k])

        return SimpleNamespace(
            create_network=lambda _: SimpleNamespace(num_inputs=3, get_input=inputs),
            create_builder_config=lambda: config,
            create_optimization_profile=new_profile,
            build_serialized_network=build,
        )

    def OnnxParser(self, network: Any, logger: Any) -> SimpleNamespace:  # noqa: N802
        def parse(model: bytes) -> bool:
            network.model = model
            return True

        return SimpleNamespace(parse=parse)


# ---- CUDA and TensorRT together


@dataclass(frozen=True)
class Machine:
    """The fake CUDA and TensorRT, and the real `Library` on top of the latter."""

    cuda: HostCuda
    trt: HostTrt
    library: Library
    folder: Path

    def engine(self, graph: PlaneGraph, size: tuple[int, int], batch: int = 1) -> TensorRtEngine:
        options = BuildOptions(sizes=Sizes.fixed(size), batch=batch)
        plan = self.library.build(graph.onnx(size, batch), options).plan
        return self.start(plan, size)

    def start(self, plan: bytes, size: tuple[int, int]) -> TensorRtEngine:
        cuda = cast(Cuda, self.cuda)  # its streams and events work only with each other
        return TensorRtEngine(self.library, cuda, plan, size, self.folder / "runtime.cache")


def machine(folder: Path, rtx: bool = False, order: str = "mixed", seed: int = 0) -> Machine:
    cuda = HostCuda(order, seed)
    trt = HostTrt(cuda, rtx)
    return Machine(cuda, trt, Library("tensorrt-rtx" if rtx else "tensorrt", trt), folder)


# ---- test pictures and expected results


def cubic(scale: int = 2) -> PlaneGraph:
    """Return a bicubic graph: it reads neighbouring pixels, and treats chroma unlike luma."""
    facts = NetworkFacts(scale=scale, colour="y")
    return PlaneGraph(network=bicubic_network(scale), facts=facts, colour=COLOUR, label="cubic-x2")


def noise(seed: int, size: tuple[int, int] = SIZE) -> Planes:
    width, height = size
    rng = np.random.default_rng(seed)
    chroma = (-(-height // 2), -(-width // 2))
    y, u, v = (rng.integers(0, 256, s, np.uint8) for s in ((height, width), chroma, chroma))
    return y, u, v


def right(graph: PlaneGraph, planes: Planes) -> Planes:
    """Return the OpenVINO backend's result for a picture."""
    height, width = planes[0].shape
    return _cpu_engine(graph, (width, height)).submit(planes).result()


def _cpu_engine(graph: PlaneGraph, size: tuple[int, int], known: dict[Any, Any] = {}) -> Any:  # noqa: B006
    key = (graph.onnx(size), size)
    if key not in known:
        known[key] = CPU.compile(graph, size)
    return known[key]


def equal(a: Planes, b: Planes) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def stream(
    engine: TensorRtEngine, count: int, size: tuple[int, int] = SIZE
) -> Iterator[tuple[int, Planes]]:
    """Yield (number, result) of `count` pictures in order, using all slots of the engine as the
    upscaler does."""
    tickets: deque[Any] = deque()
    done = 0
    for k in range(count):
        if len(tickets) == engine.slots:
            yield done, tickets.popleft().result()
            done += 1
        tickets.append(engine.submit(noise(k, size)))
    while tickets:
        yield done, tickets.popleft().result()
        done += 1
