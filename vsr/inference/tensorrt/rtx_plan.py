"""Reads a TensorRT-RTX plan without a GPU: which version and GPUs it is for, and its kernels.

TensorRT's inspector needs the GPU, so a lost fusion would show only on the user's machine. The
format is undocumented. The parts read here were found in plans of 1.7.1.116: a header, and Myelin
programs as text, each after a tag with its length. Each profile runs one program. A kernel that is
compiled on the user's machine has the steps fused into it as a separate small program.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from vsr.errors import BackendError

_HEADER: Final = struct.Struct("<4s12xQ4B4xI28x")
"""Header of a plan: magic, length of the whole plan, version, mask of GPUs; 64 bytes."""
_MAGIC: Final = b"vtrt"
_TARGETS: Final = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121", "newer")
"""Targets by bit of the mask; the last bit is set if no target was requested."""
_TAG: Final = struct.Struct("<4s4xQ")
"""Tag before a program: magic, checksum or kind, length of the text."""
_PROGRAM: Final = b"NLYM"
_TEXT: Final = b"header {\n"
_ACCELERATORS: Final = re.compile(r"^  accelerators=\{([^}\n]*)\}", re.MULTILINE)
_REGION: Final = re.compile(r"^  region = \{ name=devmem\S* size=(\d{1,18}) ", re.MULTILINE)
_STEP: Final = re.compile(r"^  (\w+)=\{ name=(?:\"([^\"\n]*)\"|(\S+))", re.MULTILINE)
_FUSED: Final = re.compile(r"__myl_\w*Corr")
_NO_KERNEL: Final = frozenset({"shape_call"})
"""Steps of a program that run on the host."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """The program of one optimization profile."""

    kernels: tuple[str, ...]
    """Kernel names in order of execution: the layer's, or `__myl_...` with its operators."""
    kinds: tuple[str, ...]
    """Kind of each kernel. `corrltn`: library convolution with its epilogue; `runtime_fusion`: one
    fused with later operators; `function`, `runtime_function`: pointwise operators and copies."""
    activation_bytes: int
    """Device memory of one execution context for the profile's largest picture, in bytes."""

    @property
    def convolutions(self) -> int:
        """Number of kernels with a convolution; the others are copies and pointwise operators."""
        named = zip(self.kinds, self.kernels, strict=True)
        return sum(kind == "corrltn" or _FUSED.match(name) is not None for kind, name in named)


@dataclass(frozen=True, kw_only=True)
class PlanFacts:
    """Facts read from a plan."""

    version: str
    """Version of TensorRT-RTX; no other release runs the plan."""
    targets: tuple[str, ...]
    """Compute capabilities such as `sm86`; `newer` if future GPUs are included."""
    programs: tuple[Program, ...]
    """Programs, one for each optimization profile."""

    @property
    def activation_bytes(self) -> int:
        """Largest activation memory of any program, in bytes."""
        return max(program.activation_bytes for program in self.programs)


def read_plan(data: bytes) -> PlanFacts:
    """Read a serialized TensorRT-RTX engine's facts. Thread-safe; reads 6 MB in milliseconds.

    Raises BackendError for any other data, for a plan that is truncated or damaged in the parts
    that are read, and for an unknown format. Weights are not checked.
    """
    if len(data) < _HEADER.size or not data.startswith(_MAGIC):
        raise BackendError("not a TensorRT-RTX engine")
    _, length, *version, mask = _HEADER.unpack_from(data)
    if len(data) != length:
        raise BackendError(
            f"the TensorRT-RTX engine is damaged ({len(data)} of {length} bytes): rebuild it"
        )
    name = ".".join(map(str, version))
    if not mask or mask >> len(_TARGETS):
        raise BackendError(f"the engine of TensorRT-RTX {name} is for unknown GPUs")
    texts = [text for text in _texts(data) if not _is_kernel_program(text)]
    if not texts:
        raise BackendError(f"the engine of TensorRT-RTX {name} has no readable program")
    return PlanFacts(
        version=name,
        targets=tuple(target for bit, target in enumerate(_TARGETS) if mask >> bit & 1),
        programs=tuple(_program(text) for text in texts),
    )


def _texts(data: bytes) -> Iterator[str]:
    """Yield the text of every program, including the small programs inside kernels."""
    at = data.find(_PROGRAM)
    while at >= 0:
        start = at + _TAG.size
        if data.startswith(_TEXT, start):  # else weights or code that look like the tag
            _, length = _TAG.unpack_from(data, at)
            if length > len(data) - start:
                raise BackendError("the TensorRT-RTX engine is damaged: rebuild it")
            # layer names may hold any bytes
            yield data[start : start + length].decode("utf-8", errors="replace")
            start += length
        at = data.find(_PROGRAM, start)


def _is_kernel_program(text: str) -> bool:
    """Return whether a program is the inside of one kernel, which is marked as for any GPU."""
    found = _ACCELERATORS.search(text)
    return found is not None and found[1].strip() == "*"


def _program(text: str) -> Program:
    begin = text.find("\nmain {\n")
    end = text.find("\n}\n", begin)
    if begin < 0 or end < 0:
        raise BackendError("a program of the TensorRT-RTX engine cannot be read: rebuild it")
    steps = [
        (kind, quoted or bare)
        for kind, quoted, bare in _STEP.findall(text, begin, end)
        if kind not in _NO_KERNEL
    ]
    return Program(
        kernels=tuple(name for _, name in steps),
        kinds=tuple(kind for kind, _ in steps),
        activation_bytes=sum(int(size) for size in _REGION.findall(text, 0, begin)),
    )
