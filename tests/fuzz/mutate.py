"""Mutates files as disks, networks and attackers do, reproducibly for a given seed."""

import random
import struct
from collections.abc import Callable
from typing import Final

_EDGES: Final = (
    0,
    1,
    2,
    7,
    8,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
)
"""Values at which parsers of lengths and counts often fail."""
_LARGEST_CHUNK: Final = 512
_HEAD: Final = 256
"""Number of bytes at a file's start that contain most headers."""

Mutation = Callable[[random.Random, bytearray], None]


def _place(dice: random.Random, data: bytearray) -> int:
    """Return a random position, in half of the cases within the first `_HEAD` bytes."""
    limit = min(len(data), _HEAD) if dice.random() < 0.5 else len(data)
    return dice.randrange(limit)


def flip_bits(dice: random.Random, data: bytearray) -> None:
    """Flip one to eight bits."""
    for _ in range(dice.randint(1, 8)):
        data[_place(dice, data)] ^= 1 << dice.randrange(8)


def replace_bytes(dice: random.Random, data: bytearray) -> None:
    """Replace up to 32 bytes with random ones."""
    start = _place(dice, data)
    for at in range(start, min(len(data), start + dice.randint(1, 32))):
        data[at] = dice.randrange(256)


def truncate(dice: random.Random, data: bytearray) -> None:
    """Remove the end."""
    del data[max(1, _place(dice, data)) :]


def swap_chunks(dice: random.Random, data: bytearray) -> None:
    """Exchange two pieces of the same length."""
    size = dice.randint(1, max(1, min(_LARGEST_CHUNK, len(data) // 2)))
    a, b = (dice.randrange(max(1, len(data) - size)) for _ in range(2))
    data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]


def repeat_chunk(dice: random.Random, data: bytearray) -> None:
    """Insert a copy of a piece somewhere else."""
    start = _place(dice, data)
    piece = data[start : start + dice.randint(1, _LARGEST_CHUNK)]
    at = _place(dice, data)
    data[at:at] = piece


def remove_chunk(dice: random.Random, data: bytearray) -> None:
    """Remove a piece."""
    if len(data) > 1:
        start = max(1, _place(dice, data))
        del data[start : start + dice.randint(1, _LARGEST_CHUNK)]


def change_length(dice: random.Random, data: bytearray) -> None:
    """Change a number that may be a length: 16, 32 or 64 bits, 1 to the file's size.

    Boxes of MP4, chunks of RIFF, PNG and ASF, and packets of most containers have such fields.
    """
    form = dice.choice((">I", "<I", ">H", "<H", ">Q", "<Q"))
    size = struct.calcsize(form)
    candidates = [
        at
        for at in range(0, len(data) - size)
        if 0 < struct.unpack_from(form, data, at)[0] <= len(data)
    ]
    if not candidates:
        return
    at = dice.choice(candidates)
    value = struct.unpack_from(form, data, at)[0]
    near = (value - 1, value + 1, value * 2, value ^ 0xFFFF, len(data))
    data[at : at + size] = struct.pack(form, dice.choice((*_EDGES, *near)) % (1 << 8 * size))


def write_edge(dice: random.Random, data: bytearray) -> None:
    """Write one of `_EDGES` at a random position."""
    form = dice.choice((">I", "<I", ">H", "B"))
    size = struct.calcsize(form)
    if len(data) > size:
        at = min(_place(dice, data), len(data) - size)
        data[at : at + size] = struct.pack(form, dice.choice(_EDGES) % (1 << 8 * size))


MUTATIONS: Final[tuple[Mutation, ...]] = (
    flip_bits, replace_bytes, truncate, swap_chunks, repeat_chunk, remove_chunk, change_length,
    write_edge,
)  # fmt: skip


def mutated(data: bytes, seed: int, index: int) -> bytes:
    """Return a damaged copy: one to four mutations, the same for the same seed and index."""
    dice = random.Random(f"{seed}/{index}")
    result = bytearray(data)
    for _ in range(dice.choice((1, 1, 1, 2, 2, 3, 4))):
        if result:
            dice.choice(MUTATIONS)(dice, result)
    return bytes(result)
