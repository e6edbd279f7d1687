"""Tests that soft telecine, film with 3:2 pulldown flags, is read as its 24 frames per second."""

import itertools
import re
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
import pytest

from tests.files.test_faithful import upscaled
from tests.media.test_deinterlace import AUTO, scene
from vsr.media.filters import NO_FILTERS, Filtering
from vsr.media.frame import Frame
from vsr.media.reading import Reading
from vsr.media.source import Source

COUNT: Final = 24
FIELD: Final = Fraction(1001, 60_000)
CLOCK: Final = 90_000
_SEQUENCE, _EXTENSION = b"\0\0\1\xb3", b"\0\0\1\xb5"


def _times() -> list[int]:
    """Return the pts of the film pictures, which last three and two fields in turn."""
    fields = [5 * k // 2 + k % 2 for k in range(COUNT)]
    return [round(n * FIELD * CLOCK) for n in fields]


def _flagged(data: bytes, number: int) -> bytes:
    """Return an MPEG-2 picture with 3:2 pulldown flags, in a sequence of 29.97 fps (H.262, 6.2)."""
    made = bytearray(data)
    for found in re.finditer(_SEQUENCE, data):
        made[found.end() + 3] = made[found.end() + 3] & 0xF0 | 4  # frame_rate_code
    for found in re.finditer(_EXTENSION, data):
        at = found.end()
        if data[at] >> 4 == 1:
            made[at + 1] &= ~0x08  # progressive_sequence
        elif data[at] >> 4 == 8:
            made[at + 3] = made[at + 3] & ~0x82 | (number % 4 < 2) << 7  # top_field_first
            made[at + 3] |= (number % 2 == 0) << 1  # repeat_first_field
            made[at + 4] |= 0x80  # progressive_frame
    return bytes(made)


def _film(path: Path) -> Path:
    context: Any = av.CodecContext.create("mpeg2video", "w")
    context.width, context.height, context.pix_fmt = 96, 64, "yuv420p"
    context.time_base, context.framerate = Fraction(1001, 24_000), Fraction(24_000, 1001)
    context.bit_rate, context.gop_size, context.max_b_frames = 2_000_000, 6, 0
    packets = []
    for k in range(COUNT):
        flat = np.full((32, 48), 128, np.uint8)
        frame = av.VideoFrame.from_dlpack((scene(k), flat, flat.copy()), format="yuv420p")
        frame.pts = k
        packets += context.encode(frame)
    packets += context.encode(None)
    raw = path.with_suffix(".m2v")
    raw.write_bytes(b"".join(_flagged(bytes(p), k) for k, p in enumerate(packets)))
    with av.open(str(raw)) as like, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(like.streams.video[0], opaque=True)
        stream.time_base = Fraction(1, CLOCK)
        for k, (packet, time) in enumerate(zip(packets, _times(), strict=True)):
            copy: Any = av.Packet(_flagged(bytes(packet), k))
            copy.stream, copy.time_base, copy.is_keyframe = stream, Fraction(1, CLOCK), k % 6 == 0
            copy.pts = copy.dts = time
            out.mux(copy)
    return path


@pytest.mark.parametrize("suffix", [".ts", ".mkv"])
@pytest.mark.parametrize("filtering", [NO_FILTERS, AUTO])
def test_film_pictures_are_read_once_and_untouched(
    tmp_path: Path, suffix: str, filtering: Filtering
) -> None:
    path = _film(tmp_path / f"in{suffix}")
    with av.open(str(path)) as source:
        plain = [np.array(np.from_dlpack(f.planes[0])) for f in source.decode(video=0)]
    found = _read(path, filtering)
    assert len(found) == len(plain) == COUNT
    assert all(np.array_equal(f.planes[0], p) for f, p in zip(found, plain, strict=True))
    times = [f.time - found[0].time for f in found]
    assert times == pytest.approx([t / CLOCK for t in _times()], abs=0.0011)


def _read(path: Path, filtering: Filtering) -> list[Frame]:
    source = Source(str(path), Reading(filtering=filtering))
    found = [item for item in source if isinstance(item, Frame)]
    source.close()
    return found


def test_film_stays_film_from_file_to_file(tmp_path: Path) -> None:
    result, report = upscaled(_film(tmp_path / "in.ts"), "out.mp4")
    assert (result.frames, report.lost, report.exit_code) == (COUNT, 0, 0)
    steps = [float(b - a) for a, b in itertools.pairwise(result.pts)]
    assert sorted({round(step / float(FIELD)) for step in steps}) == [2, 3]
    assert not result.interlaced
