"""Tests of the reader of TensorRT-RTX plans, on plans that the library builds without a GPU."""

import random
import time
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import helper, numpy_helper

from vsr.errors import BackendError
from vsr.inference.tensorrt.rtx_plan import PlanFacts, read_plan

trt: Any = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")

SIDE, INPUT, INNER = 64, 8, 16
Range = tuple[int, int, int]
"""Minimum, optimum and maximum of a profile, each used as height and width."""
FIXED: Range = (SIDE, SIDE, SIDE)


class _Network:
    """Builds an ONNX network node by node, with random weights for convolutions."""

    def __init__(self, dtype: npt.DTypeLike, free: bool) -> None:
        self.dtype = np.dtype(dtype)
        self.size: list[str | int] = ["H", "W"] if free else [SIDE, SIDE]
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def conv(self, x: str, y: str, source: int, target: int, groups: int = 1) -> None:
        name = f"conv{sum(node.op_type == 'Conv' for node in self.nodes)}"
        rng = np.random.default_rng(len(self.nodes))
        for part, shape in (("w", (target, source // groups, 3, 3)), ("b", (target,))):
            values = rng.standard_normal(shape).astype(self.dtype)
            self.constants.append(numpy_helper.from_array(values, f"{name}.{part}"))
        inputs = [x, f"{name}.w", f"{name}.b"]
        node = helper.make_node("Conv", inputs, [y], name=name, pads=[1] * 4, group=groups)
        self.nodes.append(node)

    def node(self, op: str, inputs: list[str], y: str) -> None:
        self.nodes.append(helper.make_node(op, inputs, [y], name=y))

    def serialized(self) -> bytes:
        kind = helper.np_dtype_to_tensor_dtype(self.dtype)
        shape = [1, INPUT, *self.size]
        x, y = (helper.make_tensor_value_info(name, kind, shape) for name in ("x", "y"))
        graph = helper.make_graph(self.nodes, "test", [x], [y], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 8
        data: bytes = model.SerializeToString()
        return data


def plain(dtype: npt.DTypeLike, free: bool = False) -> bytes:
    """Return three convolutions with a ReLU after the first and the second."""
    network = _Network(dtype, free)
    network.conv("x", "c0", INPUT, INNER)
    network.node("Relu", ["c0"], "r0")
    network.conv("r0", "c1", INNER, INNER)
    network.node("Relu", ["c1"], "r1")
    network.conv("r1", "y", INNER, INPUT)
    return network.serialized()


def with_prelu(dtype: npt.DTypeLike) -> bytes:
    """Return the network of `plain` with PReLUs, which do not fuse."""
    network = _Network(dtype, free=False)
    slope = np.full((INNER, 1, 1), 0.1, dtype)
    network.constants.append(numpy_helper.from_array(slope, "slope"))
    network.conv("x", "c0", INPUT, INNER)
    network.node("PRelu", ["c0", "slope"], "r0")
    network.conv("r0", "c1", INNER, INNER)
    network.node("PRelu", ["c1", "slope"], "r1")
    network.conv("r1", "y", INNER, INPUT)
    return network.serialized()


def with_skip(dtype: npt.DTypeLike, groups: int = 1) -> bytes:
    """Return three convolutions; the sum of a skip and a ReLU fuse into the second."""
    network = _Network(dtype, free=False)
    network.conv("x", "c0", INPUT, INNER)
    network.conv("c0", "c1", INNER, INNER, groups)
    network.node("Add", ["c1", "c0"], "s")
    network.node("Relu", ["s"], "r")
    network.conv("r", "y", INNER, INPUT)
    return network.serialized()


@cache
def _logger() -> Any:
    """Return the only logger: the library allows one per process."""
    return trt.Logger(trt.Logger.ERROR)


@cache
def build(model: bytes, targets: Sequence[str], profiles: Sequence[Range] = ()) -> bytes:
    builder = trt.Builder(_logger())
    strongly = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network, config = builder.create_network(strongly), builder.create_builder_config()
    parser = trt.OnnxParser(network, _logger())
    assert parser.parse(model)
    if targets:
        config.num_compute_capabilities = len(targets)
    for k, target in enumerate(targets):
        config.set_compute_capability(getattr(trt.ComputeCapability, target.upper()), k)
    for sides in profiles:
        profile = builder.create_optimization_profile()
        profile.set_shape("x", *((1, INPUT, side, side) for side in sides))
        config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    assert plan is not None
    return bytes(plan)


def facts(
    model: bytes, targets: Sequence[str] = ("sm86",), profiles: Sequence[Range] = ()
) -> PlanFacts:
    return read_plan(build(model, tuple(targets), tuple(profiles)))


def a_plan() -> bytes:
    return build(plain(np.float16), ("sm86",))


precisions = pytest.mark.parametrize("dtype", [np.float32, np.float16])


@precisions
@pytest.mark.parametrize("free", [False, True], ids=["static", "dynamic"])
def test_a_convolution_and_its_relu_are_one_kernel(dtype: npt.DTypeLike, free: bool) -> None:
    [program] = facts(plain(dtype, free), profiles=[(16, SIDE, 128)] if free else []).programs
    # transposed to channels-last at the input and back at the output
    assert program.kernels == ("__myl_Tran", "conv0", "conv1", "conv2", "__myl_Tran")
    assert program.kinds == ("function", "corrltn", "corrltn", "corrltn", "function")
    assert program.convolutions == 3


def test_activations_that_do_not_fuse_show_as_kernels() -> None:
    [program] = facts(with_prelu(np.float16)).programs
    assert program.convolutions == 3
    assert len(program.kernels) == 3 + 2 + 2


@precisions
@pytest.mark.parametrize("groups", [1, 4])
def test_a_convolution_fused_with_a_sum_counts_as_one(dtype: npt.DTypeLike, groups: int) -> None:
    [program] = facts(with_skip(dtype, groups)).programs
    assert program.convolutions == 3
    assert len(program.kernels) == 3 + 2


def test_what_is_inside_a_kernel_is_no_program() -> None:
    plan = build(with_skip(np.float16, groups=4), ("sm86",))
    assert plan.count(b"header {\n") > 1  # fused on the GPU's machine: the plan contains the steps
    [program] = read_plan(plan).programs
    assert "runtime_fusion" in program.kinds


def test_memory_grows_with_the_activations() -> None:
    single, half = (facts(plain(dtype)).activation_bytes for dtype in (np.float32, np.float16))
    # memory for two tensors of 16 channels, used in turn
    assert single - half == 2 * INNER * SIDE**2 * (4 - 2)
    small, large = ((SIDE, SIDE, side) for side in (SIDE, 2 * SIDE))
    least, most = (
        facts(plain(np.float16, free=True), profiles=[p]).activation_bytes for p in (small, large)
    )
    assert most - least == 2 * INNER * (4 - 1) * SIDE**2 * 2


def test_every_profile_has_its_program() -> None:
    found = facts(plain(np.float16, free=True), profiles=[(16, 128, 256), FIXED])
    assert [program.convolutions for program in found.programs] == [3, 3]
    large, small = (program.activation_bytes for program in found.programs)
    assert found.activation_bytes == large > small


@pytest.mark.parametrize(
    "targets",
    [("sm75",), ("sm80",), ("sm86", "sm89"), ("sm75", "sm120"), ("sm80", "sm121")],
    ids="+".join,
)
def test_the_targets_are_those_asked_for(targets: tuple[str, ...]) -> None:
    assert facts(plain(np.float16), targets).targets == targets


def test_all_targets_are_read_in_order() -> None:
    every = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")
    assert facts(plain(np.float16), every[::-1]).targets == every


def test_without_a_target_newer_gpus_are_meant_too() -> None:
    found = facts(plain(np.float16), ()).targets
    assert found == ("sm80", "sm86", "sm89", "sm120", "sm121", "newer")


def test_the_version_is_the_library_s() -> None:
    assert facts(plain(np.float16)).version == trt.__version__


# invalid plans


def _refused(data: bytes, complaint: str) -> None:
    with pytest.raises(BackendError, match=complaint) as caught:
        read_plan(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [b"", b"vtrt", b"header {\n", bytes(64), bytes(range(256)) * 40, plain(np.float32)],
    ids=["nothing", "magic", "text", "zeros", "bytes", "onnx"],
)
def test_something_else_is_refused(data: bytes) -> None:
    _refused(data, "not a TensorRT-RTX engine")


def test_a_plan_cut_short_is_refused_wherever_it_ends() -> None:
    plan = a_plan()
    for length in (*range(64, 4096, 61), *range(4096, len(plan), 4099), len(plan) - 1):
        _refused(plan[:length], f"damaged .{length} of {len(plan)} bytes")
    _refused(plan + b"\0", "damaged")


def _changed(at: int, new: bytes) -> bytes:
    plan = bytearray(a_plan())
    plan[at : at + len(new)] = new
    return bytes(plan)


@pytest.mark.parametrize("mask", [0, 1 << 7, 0xFFFF_FFFF])
def test_a_plan_for_unknown_gpus_is_refused(mask: int) -> None:
    _refused(_changed(32, mask.to_bytes(4, "little")), "unknown GPUs")


def test_a_plan_without_a_program_is_refused() -> None:
    _refused(_changed(a_plan().index(b"NLYM"), b"XXXX"), r"1\.7.* has no readable program")


def test_a_program_longer_than_its_plan_is_refused() -> None:
    at = a_plan().index(b"NLYM")
    _refused(_changed(at + 8, (1 << 63).to_bytes(8, "little")), "damaged")


def test_a_program_without_its_steps_is_refused() -> None:
    plan = a_plan()
    _refused(_changed(plan.index(b"\nmain {\n"), b"\nmxin {\n"), "cannot be read")
    at = plan.index(b"NLYM")
    _refused(_changed(at + 8, (100).to_bytes(8, "little")), "cannot be read")


def test_damage_anywhere_gives_facts_or_an_error_of_ours() -> None:
    plan, rng = a_plan(), random.Random(5)
    begin = plan.index(b"NLYM")
    for _ in range(400):
        at = rng.choice((rng.randrange(64), rng.randrange(begin, begin + 8192)))
        damaged = plan[:at] + rng.randbytes(rng.randrange(1, 40)) + plan[at:]
        damaged = damaged[: len(plan)]
        try:
            assert isinstance(read_plan(damaged), PlanFacts)
        except BackendError as exc:
            assert "\n" not in str(exc)


@pytest.mark.parametrize("filler", [b"NLYM", b"header {\n", b"{ name=", b"\0\x80"])
def test_six_megabytes_are_read_at_once(filler: bytes) -> None:
    plan = a_plan() + filler * (6_000_000 // len(filler))
    plan = plan[:16] + len(plan).to_bytes(8, "little") + plan[24:]
    began = time.perf_counter()
    found = read_plan(plan)
    assert time.perf_counter() - began < 10  # 0.01 on an idle machine, minutes if quadratic
    assert len(found.programs) == 1
