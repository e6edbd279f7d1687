"""Times our fused residual-E kernel against cuDNN; the ratio decides whether it is used.

`python bench/kernels.py [--size 640x360 ...] [--rounds N]` needs an NVIDIA GPU and torch with CUDA.
Prints a markdown table: milliseconds of one block on one picture, of CUDA graphs timed with CUDA
events, rounds alternating between the forms. cuDNN runs the block as three fused calls (convolution
with bias and ReLU, the last one with the skip), in groups and as block-diagonal dense convolutions.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vsr.inference.kernels import Launch, compile_kernel, pack_residual_e, residual_e_launch

CALLS = 10
"""Number of calls of a form in one CUDA graph, so that launches take no CPU time."""
TOLERANCE = 0.02
"""Maximum difference of results of about 4: the forms round to half at different places."""


class DeviceKernel:
    """One of our kernels, compiled for the current GPU and launched on a torch stream."""

    def __init__(self, name: str, source: bytes | None = None) -> None:
        from cuda.core import Device, ObjectCode

        Device(torch.cuda.current_device()).set_current()  # the primary context, as in torch
        major, minor = torch.cuda.get_device_capability()
        code = compile_kernel(name, 10 * major + minor, "cubin", source)
        self._code = ObjectCode.from_cubin(code)
        self._kernel = self._code.get_kernel(name)

    def __call__(self, how: Launch, *arguments: Tensor | int) -> None:
        """Launch the kernel without waiting for it; pass tensors by address, numbers as int32."""
        from cuda.core import LaunchConfig, Stream, launch

        stream = Stream.from_handle(torch.cuda.current_stream().cuda_stream)
        passed = [a.data_ptr() if isinstance(a, Tensor) else np.int32(a) for a in arguments]
        launch(stream, LaunchConfig(grid=how.grid, block=how.threads), self._kernel, *passed)


class ResidualE:
    """The block in every form, on random weights; `x` and results are channels-last float16."""

    def __init__(self, width: int, height: int) -> None:
        torch.manual_seed(1)
        shapes = ((64, 16, 3, 3), (64, 16, 3, 3), (64, 64, 1, 1))
        self.weights = [torch.randn(s) / (s[1] * s[2] * s[3]) ** 0.5 for s in shapes]
        self.biases = [torch.randn(64) / 4 for _ in shapes]
        packed = pack_residual_e(*zip(self.weights, self.biases, strict=True))
        self.packed = [torch.from_numpy(array).cuda() for array in packed]
        self.x = _channels_last(torch.randn(1, 64, height, width))
        self.y = torch.empty_like(self.x)
        self.launch = residual_e_launch(1, height, width)
        self.kernel = DeviceKernel("residual_e")

    def fused(self) -> Tensor:
        """Run our kernel."""
        height, width = self.x.shape[2:]
        self.kernel(self.launch, self.x, *self.packed, height, width, self.y)
        return self.y

    def cudnn(self, groups: int) -> Callable[[], Tensor]:
        """Return the cuDNN form with 4 groups, or with 1 group and zeros in the weights."""
        grown = [dense(w) if groups == 1 else w for w in self.weights[:2]]
        first, second, point = (_channels_last(w) for w in (*grown, self.weights[2]))
        b1, b2, b3 = (b.cuda().half() for b in self.biases)
        one, border, none = (1, 1), (1, 1), (0, 0)

        def run() -> Tensor:
            a = torch.cudnn_convolution_relu(self.x, first, b1, one, border, one, groups)
            b = torch.cudnn_convolution_relu(a, second, b2, one, border, one, groups)
            return torch.cudnn_convolution_add_relu(b, point, self.x, 1.0, b3, one, none, one, 1)

        return run


def dense(weight: Tensor) -> Tensor:
    """Convert [64, 16, 3, 3] of 4 groups to [64, 64, 3, 3] with zeros between groups."""
    grown = torch.zeros(64, 64, 3, 3)
    for g in range(4):
        part = slice(16 * g, 16 * g + 16)
        grown[part, part] = weight[part]
    return grown


def _channels_last(value: Tensor) -> Tensor:
    return value.cuda().half().to(memory_format=torch.channels_last)


def graph_of(form: Callable[[], Tensor]) -> torch.cuda.CUDAGraph:
    """Capture `CALLS` calls of a form as a CUDA graph, after cuDNN has chosen its algorithms."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            form()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        for _ in range(CALLS):
            form()
    return graph


def milliseconds(graph: torch.cuda.CUDAGraph) -> float:
    """Return the GPU time of one call."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    graph.replay()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / CALLS


def compare(width: int, height: int, rounds: int) -> list[str]:
    """Return the table's rows for one picture size. Raise SystemExit if the results differ."""
    block = ResidualE(width, height)
    forms = {
        "fused (ours)": block.fused,
        "cuDNN, 4 groups": block.cudnn(4),
        "cuDNN, dense": block.cudnn(1),
    }
    expected = forms["cuDNN, 4 groups"]().float()
    for name, form in forms.items():
        worst = (form().float() - expected).abs().max().item()
        if not worst < TOLERANCE:
            raise SystemExit(f"{name} computes a different result: off by {worst:.3g}")
    graphs = {name: graph_of(form) for name, form in forms.items()}
    times: dict[str, list[float]] = {name: [] for name in graphs}
    for _ in range(rounds):
        for name, graph in graphs.items():
            times[name].append(milliseconds(graph))
    middle = {name: statistics.median(values) for name, values in times.items()}
    best = min(value for name, value in middle.items() if name.startswith("cuDNN"))
    return [
        f"| {width}x{height} | {name} | {middle[name]:.4f} | {min(times[name]):.4f} "
        f"| {best / middle[name]:.2f} |"
        for name in forms
    ]


def clocks() -> str:
    """Return the current clocks and power draw, from nvidia-smi."""
    if not shutil.which("nvidia-smi"):
        return "unknown (no nvidia-smi)"
    query = ["nvidia-smi", "--query-gpu=clocks.sm,clocks.mem,power.draw", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()


def print_line(line: str) -> None:
    """Print a line and flush."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: Any = None) -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", action="append", help="WxH; default 640x360 and 960x540")
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        raise SystemExit("bench/kernels.py needs an NVIDIA GPU and torch with CUDA: not found")
    torch.backends.cudnn.benchmark = True
    print_line(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, float16, batch 1\n")
    print_line("| size | form | ms (median) | ms (min) | times as fast as the better cuDNN |")
    print_line("|---|---|---|---|---|")
    for size in options.size or ("640x360", "960x540"):
        width, height = map(int, size.split("x"))
        for row in compare(width, height, options.rounds):
            print_line(row)
    print_line(f"\nclocks afterwards: {clocks()}")


if __name__ == "__main__":
    main()
