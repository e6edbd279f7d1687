"""Tests of the fused CUDA kernels: run as C++ against torch, and compiled for every GPU.

Without a GPU, `cuda_on_host.h` runs the .cu files: every index, border, weight and sum is tested.
Only the tests marked `gpu` execute the PTX instructions of warp.cuh.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from bench.shuffle import SOURCE, pack_shuffle, shuffle_launch
from tests.host_kernels import Convolutions, Host, built, carn_m_block, rounded
from vsr.errors import BackendError
from vsr.inference.kernels import (
    ARCHITECTURES,
    KERNELS,
    compile_kernel,
    pack_residual_e,
    residual_e_launch,
)
from vsr.inference.kernels.compile import _for_older_drivers

pytestmark = pytest.mark.usefixtures("one_thread")

SOURCES = [*((name, None) for name in KERNELS), ("shuffle", SOURCE)]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Yield the kernels as a library for the CPU."""
    with built(tmp_path_factory.mktemp("kernels")) as host:
        yield host


@pytest.fixture(scope="module")
def nvrtc() -> None:
    """Skip the test, with a reason, if NVRTC is missing."""
    try:
        from cuda.bindings import nvrtc as library

        library.nvrtcVersion()
    except (ImportError, RuntimeError):
        pytest.skip("no NVRTC (pip install nvidia-cuda-nvrtc): the kernels cannot be compiled")


def random_block(seed: int = 5) -> list[tuple[Tensor, Tensor]]:
    """Return weights exact in half precision; biases large enough to show a wrong padding."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((64, 16, 3, 3), (64, 16, 3, 3), (64, 64, 1, 1))
    return [
        (
            rounded(torch.randn(s, generator=generator) / (s[1] * s[2] * s[3]) ** 0.5),
            torch.randn(64, generator=generator) / 2,
        )
        for s in shapes
    ]


def random_picture(*shape: int, seed: int = 6) -> Tensor:
    return rounded(torch.randn(shape, generator=torch.Generator().manual_seed(seed)))


def residual_e(x: Tensor, blocks: Convolutions) -> Tensor:
    """Compute the block of train/nets/carn.py in float32."""
    (w1, b1), (w2, b2), (w3, b3) = blocks
    first = F.relu(F.conv2d(x, w1, b1, padding=1, groups=4))
    second = F.relu(F.conv2d(first, w2, b2, padding=1, groups=4))
    return F.relu(F.conv2d(second, w3, b3) + x)


def assert_equal_but_for_rounding(result: Tensor, expected: Tensor) -> None:
    """Assert that the error is at most 2 * 2^-11 of the largest value, and that no value is NaN.

    Rounding the result costs half a unit in its last place, 2^-11. The errors of the two rounded
    intermediates average out over many channels and add less than that.
    """
    assert result.shape == expected.shape
    scale = expected.abs().max().item()
    assert scale > 0.5
    assert (result - expected).abs().max().item() <= 2 * 2**-11 * scale  # false for NaNs


# one pixel, less than a block, exactly one block, several with various remainders, thin pictures
SIZES = [(1, 1, 1), (2, 5, 9), (1, 10, 14), (2, 11, 29), (1, 23, 15), (1, 1, 43), (1, 31, 2)]


@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_residual_e_equals_torch(host: Host, shape: tuple[int, int, int]) -> None:
    n, height, width = shape
    x, block = random_picture(n, 64, height, width), random_block()
    result, expected = host.residual_e(x, block), residual_e(x, block)
    assert_equal_but_for_rounding(result, expected)


def test_residual_e_pads_both_convolutions_with_zeros(host: Host) -> None:
    x, block = random_picture(1, 64, 21, 30), random_block()
    result, expected = host.residual_e(x, block), residual_e(x, block)
    # the wrong result if the first convolution continued outside the picture: its border differs
    (w1, b1), (w2, b2), (w3, b3) = block
    first = F.relu(F.conv2d(F.pad(x, [2] * 4), w1, b1, groups=4))
    wrong = F.relu(F.conv2d(F.relu(F.conv2d(first, w2, b2, groups=4)), w3, b3) + x)
    for edge in (
        (..., 0, slice(None)),
        (..., -1, slice(None)),
        (..., slice(None), 0),
        (..., slice(None), -1),
    ):
        assert_equal_but_for_rounding(result[edge], expected[edge])
        assert (wrong[edge] - expected[edge]).abs().max() > 0.3
    assert torch.equal(wrong[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])


def test_kernels_need_no_luck_with_the_order_of_threads_and_blocks(host: Host) -> None:
    x, block = random_picture(1, 64, 13, 17), random_block()
    result = host.residual_e(x, block)
    assert torch.equal(host.residual_e(x, block, backwards=True), result)

    x = random_picture(1, 80, 9, 17)
    conv = rounded(random_picture(27, 80, 3, 3, seed=7) / 27), torch.zeros(27)
    result = host.shuffle(x, conv, 3, relu=False)
    assert torch.equal(host.shuffle(x, conv, 3, relu=False, backwards=True), result)


def test_residual_e_rounds_between_convolutions_and_nowhere_else(host: Host) -> None:
    x, ((w1, b1), (w2, b2), (w3, b3)) = random_picture(1, 64, 11, 18), random_block()
    first = rounded(F.relu(F.conv2d(x, w1, b1, padding=1, groups=4)))
    second = rounded(F.relu(F.conv2d(first, w2, b2, padding=1, groups=4)))
    expected = rounded(F.relu(F.conv2d(second, w3, b3) + x))
    result = host.residual_e(x, [(w1, b1), (w2, b2), (w3, b3)])
    # only sums midway between two half-precision values may round either way
    assert (result != expected).float().mean() < 0.02


def test_a_nan_reaches_what_depends_on_it_and_no_more(host: Host) -> None:
    x, block = random_picture(1, 64, 21, 30), random_block()
    x[0, 20, 9, 13] = torch.nan  # where four blocks meet
    wrong = host.residual_e(x, block).isnan()
    assert torch.equal(wrong, residual_e(x, block).isnan())
    assert 25 <= wrong.any(1).sum() < 30


def test_residual_e_on_the_weights_of_carn_m(host: Host) -> None:
    x = 4 * random_picture(1, 64, 12, 20)
    block = carn_m_block()
    assert_equal_but_for_rounding(host.residual_e(x, block), residual_e(x, block))


@pytest.mark.parametrize(
    ("channels", "outputs", "factor", "relu", "shape"),
    [
        (64, 12, 2, False, (2, 9, 19)),
        (64, 27, 3, True, (1, 17, 5)),
        (64, 48, 4, False, (1, 3, 16)),
        (16, 4, 2, False, (1, 1, 2)),
        (80, 12, 2, False, (1, 8, 17)),  # two slabs of input channels, the second one partial
        (128, 18, 3, True, (2, 4, 7)),
        (32, 3, 1, False, (1, 9, 17)),
    ],
)
def test_shuffle_equals_torch(
    host: Host, channels: int, outputs: int, factor: int, relu: bool, shape: tuple[int, int, int]
) -> None:
    x = random_picture(shape[0], channels, *shape[1:])
    generator = torch.Generator().manual_seed(7)
    weight = torch.randn(outputs, channels, 3, 3, generator=generator)
    conv = rounded(weight / (9 * channels) ** 0.5), torch.randn(outputs, generator=generator)
    flat = F.conv2d(x, *conv, padding=1)
    expected = F.pixel_shuffle(F.relu(flat) if relu else flat, factor)
    result = host.shuffle(x, conv, factor, relu)
    assert_equal_but_for_rounding(result, expected)


def test_a_write_outside_an_array_shows(host: Host) -> None:
    weights, bias = pack_residual_e(*random_block())
    x, how = np.zeros((1, 10, 14, 64), np.float16), residual_e_launch(1, 10, 14)
    for shape in ((1, 10, 13, 64), (1, 9, 14, 64)):
        with pytest.raises(AssertionError, match="written after an array"):
            host.run("residual_e", how, x, weights, bias, 10, 14, shape=shape)


def test_weights_of_other_shapes_are_refused() -> None:
    first, second, point = random_block()
    with pytest.raises(ValueError, match=r"\(64, 64, 1, 1\), expected \(64, 16, 3, 3\)"):
        pack_residual_e(first, point, second)
    with pytest.raises(ValueError, match="16, 32"):
        pack_shuffle(np.zeros((12, 24, 3, 3)), np.zeros(12))


@pytest.mark.usefixtures("nvrtc")
@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize(("name", "source"), SOURCES)
def test_every_kernel_compiles_for_every_gpu(name: str, source: bytes | None, arch: int) -> None:
    cubin = compile_kernel(name, arch, "cubin", source)
    assert cubin.startswith(b"\x7fELF")
    assert f".text.{name}".encode() in cubin
    flags = int.from_bytes(cubin[48:52], "little")  # e_flags of a 64-bit ELF file
    assert flags >> 8 & 0xFF == arch


@pytest.mark.usefixtures("nvrtc")
@pytest.mark.parametrize(("arch", "product"), [(75, b"m16n8k8."), (86, b"m16n8k16.")])
def test_ptx_uses_the_tensor_cores_of_its_gpu(arch: int, product: bytes) -> None:
    ptx = compile_kernel("residual_e", arch, "ptx")
    assert f".target sm_{arch}".encode() in ptx
    assert b".entry residual_e(" in ptx
    assert product in ptx


OLD_PTXAS = "/usr/local/cuda/bin/ptxas"


@pytest.mark.usefixtures("nvrtc")
@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize(("name", "source"), SOURCES)
def test_ptx_is_for_the_oldest_drivers_that_know_the_gpu(
    name: str, source: bytes | None, arch: int, tmp_path: Path
) -> None:
    """NVRTC 13.5 writes PTX 9.5, which a CUDA 13.0 driver rejects; `ptxas` checks the rest."""
    ptx = compile_kernel(name, arch, "ptx", source)
    found = re.search(rb"^\.version (\d+)\.(\d+)$", ptx, re.MULTILINE)
    assert found is not None
    assert (int(found[1]), int(found[2])) <= (9, 0)
    ptxas = shutil.which("ptxas") or OLD_PTXAS
    if not Path(ptxas).exists():
        pytest.skip("no ptxas (CUDA toolkit): the PTX cannot be assembled")
    path = tmp_path / "kernel.ptx"
    path.write_bytes(ptx.rstrip(b"\0"))
    command = [ptxas, f"-arch=sm_{arch}", str(path), "-o", str(tmp_path / "kernel.cubin")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_ptx_of_an_older_nvrtc_keeps_its_version() -> None:
    old = b"// made by .version 1.0\n.version 7.8\n.target sm_86\n"
    assert _for_older_drivers(old, 86) == old
    new = old.replace(b"7.8", b"9.5")
    assert _for_older_drivers(new, 86) == old.replace(b"7.8", b"8.0")
    assert _for_older_drivers(new, 130) == new  # unknown GPU: unchanged


@pytest.mark.usefixtures("nvrtc")
def test_a_refused_compilation_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match="'residual_e' does not compile for sm_52: nvrtc: error"):
        compile_kernel("residual_e", 52, "cubin")
    monkeypatch.setattr(
        "vsr.inference.kernels.compile._source", lambda _: b"int x;\n#error broken\n"
    )
    compile_kernel.cache_clear()
    with pytest.raises(BackendError, match="sm_86") as caught:
        compile_kernel("residual_e", 86, "cubin")
    assert "\n" not in str(caught.value)


def test_missing_nvrtc_and_unknown_kernels_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match="unknown kernel 'sharpen'; known: residual_e"):
        compile_kernel("sharpen", 86, "cubin")
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    compile_kernel.cache_clear()
    with pytest.raises(BackendError, match="is not installed: pip install cuda-bindings"):
        compile_kernel("residual_e", 86, "cubin")


def test_the_bench_refuses_without_a_gpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has an NVIDIA GPU")
    from bench.kernels import main

    with pytest.raises(SystemExit, match="needs an NVIDIA GPU"):
        main([])


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [*SIZES, (2, 360, 640)], ids=str)
def test_residual_e_on_the_gpu_equals_torch(shape: tuple[int, int, int]) -> None:
    from bench.kernels import DeviceKernel

    n, height, width = shape
    x, block = random_picture(n, 64, height, width), random_block()
    source = x.cuda().half().to(memory_format=torch.channels_last)
    weights = [torch.from_numpy(a).cuda() for a in pack_residual_e(*block)]
    y = torch.full_like(source, torch.nan)
    how = residual_e_launch(n, height, width)
    DeviceKernel("residual_e")(how, source, *weights, height, width, y)
    torch.cuda.synchronize()
    assert_equal_but_for_rounding(y.cpu().float(), residual_e(x, block))


@pytest.mark.gpu
@pytest.mark.parametrize(("channels", "outputs", "factor"), [(64, 12, 2), (80, 27, 3), (64, 48, 4)])
def test_shuffle_on_the_gpu_equals_torch(channels: int, outputs: int, factor: int) -> None:
    from bench.kernels import DeviceKernel

    n, height, width = 2, 33, 45
    x = random_picture(n, channels, height, width)
    weight = rounded(random_picture(outputs, channels, 3, 3, seed=7) / (9 * channels) ** 0.5)
    bias = random_picture(outputs, seed=8)
    source = x.cuda().half().to(memory_format=torch.channels_last)
    packed = [torch.from_numpy(a).cuda() for a in pack_shuffle(weight, bias)]
    expected = F.pixel_shuffle(F.conv2d(x, weight, bias, padding=1), factor)
    y = torch.full(expected.shape, torch.nan, dtype=torch.float16, device="cuda")
    how = shuffle_launch(n, height, width, outputs)
    sizes = (height, width, channels, outputs, factor, 0)
    DeviceKernel("shuffle", SOURCE)(how, source, *packed, *sizes, y)
    torch.cuda.synchronize()
    assert_equal_but_for_rounding(y.cpu().float(), expected)
