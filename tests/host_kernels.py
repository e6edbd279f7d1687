"""Runs the fused CUDA kernels on the CPU, through tests/cuda_on_host.h, from torch tensors."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor

from bench.shuffle import pack_shuffle, shuffle_launch
from tests.kernels_process import Array, run_kernel
from vsr.inference.kernels import Launch, pack_residual_e, residual_e_launch

ROOT = Path(__file__).parents[1]
CARN_M = ROOT / "engines" / "carn-m" / "x2.onnx"
Convolutions = Sequence[tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Host:
    """The kernels as a shared library, called in a separate process."""

    library: Path
    process: ProcessPoolExecutor

    def run(
        self,
        name: str,
        how: Launch,
        *arguments: Array | int,
        shape: tuple[int, ...],
        backwards: bool = False,
    ) -> Array:
        """Return the fp16 array of the given shape that the kernel writes."""
        call = (str(self.library), name, how.grid, how.threads, backwards, arguments, shape)
        return self.process.submit(run_kernel, *call).result(timeout=120)

    def residual_e(self, x: Tensor, blocks: Convolutions, backwards: bool = False) -> Tensor:
        n, _, height, width = x.shape
        weights, bias = pack_residual_e(*blocks)
        nhwc = x.permute(0, 2, 3, 1).half().numpy()
        how, sizes = residual_e_launch(n, height, width), (height, width)
        y = self.run(
            "residual_e", how, nhwc, weights, bias, *sizes, shape=nhwc.shape, backwards=backwards
        )
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
        shape = (n, outputs // factor**2, height * factor, width * factor)
        how = shuffle_launch(n, height, width, outputs)
        sizes = (height, width, channels, outputs, factor, int(relu))
        y = self.run("shuffle", how, nhwc, weights, bias, *sizes, shape=shape, backwards=backwards)
        return torch.from_numpy(y.astype(np.float32))


@contextmanager
def built(folder: Path) -> Iterator[Host]:
    """Yield the kernels compiled by g++ into a folder. Skips the test if there is no g++."""
    if not shutil.which("g++"):
        pytest.skip("no g++: the kernels cannot be run on the CPU")
    target = folder / "kernels.so"
    options = "-std=c++17 -O2 -fno-strict-aliasing -Wall -Wno-unknown-pragmas -Werror -shared -fPIC"
    source = ROOT / "tests" / "kernels_on_host.cpp"
    include = f"-I{ROOT / 'vsr' / 'inference' / 'kernels'}"
    command = ["g++", *options.split(), include, "-o", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        yield Host(library=target, process=process)


def rounded(x: Tensor) -> Tensor:
    """Return the tensor rounded to fp16, as fp32."""
    return x.half().float()


def carn_m_block() -> list[tuple[Tensor, Tensor]]:
    """Return the first residual-E block of the shipped network, its weights rounded to fp16."""
    constants = {c.name: c for c in onnx.load(CARN_M).graph.initializer}

    def tensor(name: str) -> Tensor:
        return torch.from_numpy(numpy_helper.to_array(constants[name]).copy())

    names = [f"blocks.0.b1.body.{k}" for k in (0, 2, 4)]
    return [(rounded(tensor(f"{n}.weight")), tensor(f"{n}.bias")) for n in names]
