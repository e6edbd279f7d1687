"""Times copies to a GPU and back, from page-locked and from ordinary memory.

`python -m bench.copies [--size 1280x720] [--rounds N]` needs an NVIDIA GPU and torch with CUDA. The
bytes are those of the 8-bit 4:2:0 planes of a picture; rounds alternate between the two kinds.
"""

import argparse
import statistics
import sys
from typing import Any, Final

import torch

SIZES: Final = ("640x360", "1280x720", "1920x1080")
_NO_GPU_MESSAGE: Final = "bench.copies needs an NVIDIA GPU and torch with CUDA: not found"


def milliseconds(source: torch.Tensor, target: torch.Tensor) -> float:
    """Return the time of one copy, by CUDA events."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    target.copy_(source, non_blocking=True)
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end))


def compare(size: str, rounds: int) -> list[str]:
    """Return the rows of the table for the planes of one picture size."""
    width, height = map(int, size.split("x"))
    nbytes = width * height * 3 // 2
    device = torch.empty(nbytes, dtype=torch.uint8, device="cuda")
    memory = {
        "page-locked": torch.empty(nbytes, dtype=torch.uint8, pin_memory=True),
        "ordinary": torch.empty(nbytes, dtype=torch.uint8),
    }
    rows = []
    for way in ("to the GPU", "back"):
        times: dict[str, list[float]] = {name: [] for name in memory}
        for k in range(rounds + 3):
            for name, host in memory.items():
                ends = (host, device) if way == "to the GPU" else (device, host)
                taken = milliseconds(*ends)
                if k >= 3:  # the first ones warm up
                    times[name].append(taken)
        middle = {name: statistics.median(values) for name, values in times.items()}
        rows += [
            f"| {size} | {way} | {name} | {ms:.4f} | {nbytes / ms / 1e6:.1f} "
            f"| {middle['ordinary'] / ms:.2f} |"
            for name, ms in middle.items()
        ]
    return rows


def main(arguments: Any = None) -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", action="append", help=f"WxH; default {' '.join(SIZES)}")
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        raise SystemExit(_NO_GPU_MESSAGE)
    lines = [
        "| size | way | memory | ms (median) | GB/s | times as fast |",
        "|---|---|---|---|---|---|",
    ]
    for size in options.size or SIZES:
        lines += compare(size, options.rounds)
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
