"""Runs the fused CUDA kernels on the CPU, through tests/cuda_on_host.h, from torch tensors."""

import ctypes
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor

from vsr.inference.kernels import (
    Launch,
    pack_residual_e,
    pack_shuffle,
    residual_e_launch,
    shuffle_launch,
)

ROOT = Path(__file__).parents[1]
CARN_M = ROOT / "engines" / "carn-m" / "x2.onnx"
GUARD = 4096
"""Halves before and after every array: NaNs, so that a read outside shows in the result."""
Array = npt.NDArray[Any]
Convolutions = Sequence[tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Host:
    """The kernels as a shared library."""

    library: ctypes.CDLL

    def run(self, name: str, how: Launch, *arguments: Array | int, backwards: bool = False) -> None:
        run = self.library[f"run_{name}"]
        run.restype = ctypes.c_bool
        passed = [
            ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else ctypes.c_int(a)
            for a in arguments
        ]
        finished = run(*how.grid, how.threads, ctypes.c_bool(backwards), *passed)
        assert finished, "the kernel's threads wait for each other for ever"

    def residual_e(self, x: Tensor, blocks: Convolutions, backwards: bool = False) -> Tensor:
        n, _, height, width = x.shape
        weights, bias = pack_residual_e(*blocks)
        nhwc = x.permute(0, 2, 3, 1).half().numpy()
        whole, source = guarded(nhwc.shape)
        source[:] = nhwc
        border, y = guarded(nhwc.shape)
        how = residual_e_launch(n, height, width)
        self.run("residual_e", how, source, weights, bias, height, width, y, backwards=backwards)
        assert_guards(whole, border)
        return torch.from_numpy(y.astype(np.float32)).permute(0, 3, 1, 2)

    def shuffle(
        self,
        x: Tensor,
        conv: tuple[Tensor, Tensor],
        factor: int,
        relu: bool,
        backwards: bool = False,
    ) -> Tensor:
        n, channels, height, width = x.shape
        outputs = len(conv[0])
        weights, bias = pack_shuffle(*conv)
        nhwc = x.permute(0, 2, 3, 1).half().numpy()
        whole, source = guarded(nhwc.shape)
        source[:] = nhwc
        shape = (n, outputs // factor**2, height * factor, width * factor)
        border, y = guarded(shape)
        how = shuffle_launch(n, height, width, outputs)
        sizes = (height, width, channels, outputs, factor, int(relu))
        self.run("shuffle", how, source, weights, bias, *sizes, y, backwards=backwards)
        assert_guards(whole, border)
        return torch.from_numpy(y.astype(np.float32))


def guarded(shape: tuple[int, ...]) -> tuple[Array, Array]:
    """NaNs, and a view of that shape in their middle."""
    size = int(np.prod(shape))
    whole = np.full(size + 2 * GUARD, np.nan, np.float16)
    return whole, whole[GUARD : GUARD + size].reshape(shape)


def assert_guards(*arrays: Array) -> None:
    """Nothing was written around them."""
    for whole in arrays:
        assert np.isnan(whole[:GUARD]).all()
        assert np.isnan(whole[-GUARD:]).all()


def build(folder: Path) -> Host:
    """The kernels compiled by g++ into a folder; the test skips aloud without it."""
    if not shutil.which("g++"):
        pytest.skip("no g++: the kernels cannot be run on the CPU")
    target = folder / "kernels.so"
    options = "-std=c++17 -O2 -fno-strict-aliasing -Wall -Wno-unknown-pragmas -Werror -shared -fPIC"
    source = ROOT / "tests" / "kernels_on_host.cpp"
    command = ["g++", *options.split(), "-o", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Host(library=ctypes.CDLL(str(target)))


def rounded(x: Tensor) -> Tensor:
    """To halves and back."""
    return x.half().float()


def carn_m_block() -> list[tuple[Tensor, Tensor]]:
    """The first residual-E block of the shipped network, rounded to halves."""
    constants = {c.name: c for c in onnx.load(CARN_M).graph.initializer}

    def tensor(name: str) -> Tensor:
        return torch.from_numpy(numpy_helper.to_array(constants[name]).copy())

    names = [f"blocks.0.b1.body.{k}" for k in (0, 2, 4)]
    return [(rounded(tensor(f"{n}.weight")), tensor(f"{n}.bias")) for n in names]
