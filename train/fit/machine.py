"""Select device, precision and the number of patch worker processes for this machine.

bf16-mixed is the default if the hardware multiplies bfloat16 faster than float32: on CUDA devices
with bfloat16 and on CPUs with AMX (CARN-M, 16 patches of 32x32, one thread: 0.49 s per step instead
of 1.04). AVX-512-BF16 alone is not enough: on a Xeon without AMX, one step of CARN-M took 0.70 s
instead of 0.69 in float32, of DCSCN 0.43 instead of 0.35, of CARN 1.35 instead of 1.00.
"""

import os
from typing import Any, Final

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision.amp import MixedPrecision
from lightning_fabric.strategies.ddp import DDPStrategy

PRECISIONS: Final = ("32-true", "bf16-mixed")
_MAX_WORKERS: Final = 8


def fast_bfloat16() -> str:
    """Return the hardware that makes bf16-mixed faster than float32 here, or "" without any."""
    if torch.cuda.is_available():
        return "CUDA" if torch.cuda.is_bf16_supported(including_emulation=False) else ""
    return "AMX" if torch.cpu.get_capabilities().get("amx_bf16", False) else ""


def choose_precision(requested: str | None, previous: str | None) -> tuple[str, str]:
    """Return (precision, reason): as requested, else a resumed run's, else this machine's best."""
    if requested:
        return requested, "as requested"
    if previous:
        return previous, "as in the checkpoint"
    if hardware := fast_bfloat16():
        return "bf16-mixed", f"faster than float32 on {hardware}"
    return "32-true", "bfloat16 is no faster on this machine"


def default_workers() -> int:
    """Return the number of patch worker processes per training process, at most 8.

    It is a quarter of the cores if the CPU trains, else all but one; several training processes on
    this machine divide the cores.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    share = (cores or 1) // here
    return min(_MAX_WORKERS, max(1, share - 1) if torch.cuda.is_available() else share // 4)


class Float32InputPrecision(MixedPrecision):
    """Mixed precision with float32 network input: bfloat16 is too coarse (8 bits) for pictures."""

    def convert_input(self, data: Any) -> Any:
        """Return the input unchanged; autocast converts inside the network."""
        return data


def open_fabric(precision: str, scales: tuple[int, ...]) -> Fabric:
    """Set up Fabric for one process or those started by torchrun; on CUDA, enable TF32."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    # in a multi-scale network only one up-sampling unit per step has gradients
    several = DDPStrategy(find_unused_parameters=len(scales) > 1)
    strategy: Any = several if world > 1 else "auto"
    accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "cuda":
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        torch.backends.cudnn.conv.fp32_precision = "tf32"  # type: ignore[attr-defined]
    mixed = precision == "bf16-mixed"
    fabric = Fabric(
        accelerator=accelerator,
        strategy=strategy,
        devices=here,
        num_nodes=world // here,
        plugins=Float32InputPrecision("bf16-mixed", accelerator) if mixed else None,
        precision=None if mixed else "32-true",
    )
    fabric.launch()
    return fabric
