"""Reads a TensorRT-RTX plan without a GPU: which version and GPUs it is for, and its kernels.

TensorRT's own inspector needs the GPU, so a lost fusion would show only on the user's machine. The
format is undocumented. What is read here was found in plans of 1.7.1.116: a header, and Myelin
programs as text, each after a tag and its length. A program is what one profile runs; a kernel that
is compiled on the user's machine keeps the steps fused into it as a small program of its own.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from vsr.errors import BackendError

_HEADER: Final = struct.Struct("<4s12xQ4B4xI28x")
"""Magic, length of the whole plan, version, mask of GPUs; 64 bytes."""
_MAGIC: Final = b"vtrt"
_TARGETS: Final = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121", "newer")
"""By bit of the mask; the last is set where no target was asked for."""
_TAG: Final = struct.Struct("<4s4xQ")
"""Before a program: magic, checksum or kind, length of the text."""
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
    """What runs for one profile."""

    kernels: tuple[str, ...]
    """Names in the order they run: the layer's, or `__myl_...` from the operators in it."""
    kinds: tuple[str, ...]
    """Kind of each kernel: `corrltn` a library's convolution with its epilogue, `runtime_fusion`
    one fused with what follows, `function` and `runtime_function` everything pointwise or moved."""
    activation_bytes: int
    """Device memory for one execution context, for the largest picture of the profile."""

    @property
    def convolutions(self) -> int:
        """How many kernels hold a convolution; the others only move or combine."""
        named = zip(self.kinds, self.kernels, strict=True)
        return sum(kind == "corrltn" or _FUSED.match(name) is not None for kind, name in named)


@dataclass(frozen=True, kw_only=True)
class PlanFacts:
    """What a plan says about itself."""

    version: str
    """Of TensorRT-RTX; no other release runs the plan."""
    targets: tuple[str, ...]
    """Compute capabilities such as `sm86`; `newer` where GPUs to come are meant too."""
    programs: tuple[Program, ...]
    """One for each optimization profile."""

    @property
    def activation_bytes(self) -> int:
        """Of the program that needs most."""
        return max(program.activation_bytes for program in self.programs)


def read_plan(data: bytes) -> PlanFacts:
    """The facts of a serialized TensorRT-RTX engine. Thread-safe; reads 6 MB in milliseconds.

    Raises BackendError for anything else, for a plan that is cut short or damaged where this looks,
    and for one of a format it does not know. It is no checksum: weights are not looked at.
    """
    if len(data) < _HEADER.size or not data.startswith(_MAGIC):
        raise BackendError("this is no TensorRT-RTX engine")
    _, length, *version, mask = _HEADER.unpack_from(data)
    if len(data) != length:
        raise BackendError(
            f"the TensorRT-RTX engine is damaged ({len(data)} bytes of {length}): build it again"
        )
    name = ".".join(map(str, version))
    if not mask or mask >> len(_TARGETS):
        raise BackendError(f"the engine of TensorRT-RTX {name} is for GPUs unknown here")
    texts = [text for text in _texts(data) if not _is_piece(text)]
    if not texts:
        raise BackendError(f"the engine of TensorRT-RTX {name} holds no program readable here")
    return PlanFacts(
        version=name,
        targets=tuple(target for bit, target in enumerate(_TARGETS) if mask >> bit & 1),
        programs=tuple(_program(text) for text in texts),
    )


def _texts(data: bytes) -> Iterator[str]:
    """The text of every program, pieces of kernels among them."""
    at = data.find(_PROGRAM)
    while at >= 0:
        start = at + _TAG.size
        if data.startswith(_TEXT, start):  # else weights or code that look like the tag
            _, length = _TAG.unpack_from(data, at)
            if length > len(data) - start:
                raise BackendError("the TensorRT-RTX engine is damaged: build it again")
            # a layer may have any name
            yield data[start : start + length].decode("utf-8", errors="replace")
            start += length
        at = data.find(_PROGRAM, start)


def _is_piece(text: str) -> bool:
    """Whether it is the inside of one kernel, which is for any GPU."""
    found = _ACCELERATORS.search(text)
    return found is not None and found[1].strip() == "*"


def _program(text: str) -> Program:
    begin = text.find("\nmain {\n")
    end = text.find("\n}\n", begin)
    if begin < 0 or end < 0:
        raise BackendError("a program of the TensorRT-RTX engine cannot be read: build it again")
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
