"""Bitmap subtitles (PGS of Blu-ray discs): copied unchanged, or named in the warning."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
import numpy.typing as npt
import pytest

from tests.clips import Clip, make_clip
from tests.files.test_faithful import upscaled

SIZE: Final = (48, 20)
"""Width and height of the subtitle's bitmap, in pixels."""
PLACE: Final = (8, 24)
TIMES: Final = (0.08, 0.32)
"""Times at which the subtitle appears and disappears, in seconds."""
_PALETTE, _OBJECT, _COMPOSITION, _WINDOW, _END = 0x14, 0x15, 0x16, 0x17, 0x80


def letters() -> npt.NDArray[np.uint8]:
    """Return a bitmap of palette indices 0 (transparent), 1 and 2: a rectangle with a bar in it."""
    made = np.zeros(SIZE[::-1], np.uint8)
    made[2:-2, 2:-2] = 1
    made[8:12, 6:-6] = 2
    return made


def _run_lengths(rows: npt.NDArray[np.uint8]) -> bytes:
    """Encode rows as in PGS objects: runs of one colour, and two zero bytes after each row."""
    made = b""
    for row in rows:
        starts = [0, *(np.flatnonzero(np.diff(row)) + 1)]
        for begin, end in zip(starts, [*starts[1:], len(row)], strict=True):
            colour, length = int(row[begin]), int(end - begin)
            if not colour:
                made += bytes([0, length])
            elif length < 3:
                made += bytes([colour]) * length
            else:
                made += bytes([0, 0x80 | length, colour])
        made += b"\0\0"
    return made


def _segments(shown: bool, number: int) -> Iterator[tuple[int, bytes]]:
    """Yield (type, content) of a display set that shows the bitmap, or clears the screen."""
    composition = struct.pack(">HHBHBBBB", 128, 96, 0x10, number, 0x80, 0, 0, int(shown))
    if shown:
        composition += struct.pack(">HBBHH", 0, 0, 0, *PLACE)
    yield _COMPOSITION, composition
    yield _WINDOW, struct.pack(">BBHHHH", 1, 0, *PLACE, *SIZE)
    if shown:
        yield _PALETTE, bytes([0, 0]) + bytes([1, 235, 128, 128, 255, 2, 40, 90, 200, 255])
        coded = struct.pack(">HH", *SIZE) + _run_lengths(letters())
        yield _OBJECT, struct.pack(">HBB", 0, 0, 0xC0) + len(coded).to_bytes(3, "big") + coded
    yield _END, b""


def _file(path: Path) -> Path:
    """Write the subtitle as a separate file (.sup)."""
    data = b""
    for number, time in enumerate(TIMES):
        for kind, content in _segments(number == 0, number):
            data += b"PG" + struct.pack(">IIBH", round(time * 90_000), 0, kind, len(content))
            data += content
    path.write_bytes(data)
    return path


def _film(path: Path) -> Path:
    """Write a clip with the subtitle."""
    plain = make_clip(path.with_name("plain.mkv"), Clip(audio=()))
    with (
        av.open(str(plain)) as film,
        av.open(str(_file(path.with_name("in.sup")))) as text,
        av.open(str(path), "w") as out,
    ):
        streams: list[Any] = []
        for source in (film.streams[0], text.streams[0]):
            streams.append(out.add_stream_from_template(source, opaque=True))
        packets = [p for read in (film, text) for p in read.demux() if p.size]
        for packet in sorted(packets, key=lambda p: float((p.dts or 0) * p.time_base)):
            packet.stream = streams[packet.stream.type == "subtitle"]
            out.mux(packet)
    return path


def _shown(path: Path) -> list[tuple[float, bytes]]:
    """Return (seconds after the first frame, palette indices; empty if it clears the screen)."""
    found = []
    with av.open(str(path)) as container:
        video, text = container.streams.video[0], container.streams.subtitles[0]
        assert video.time_base is not None and text.time_base is not None
        first = (video.start_time or 0) * video.time_base
        for packet in container.demux(text):
            if packet.size and packet.pts is not None:
                decoder: Any = text.codec_context
                subtitle = decoder.decode2(packet)
                if subtitle is not None:
                    rects = list(subtitle)
                    shown = bytes(rects[0].planes[0]) if rects else b""
                    found.append((float(packet.pts * text.time_base - first), shown))
    return found


@pytest.mark.parametrize("suffix", [".mkv", ".m2ts"])
@pytest.mark.parametrize("name", ["out.mkv", "out.m2ts"])
def test_pgs_is_carried(tmp_path: Path, suffix: str, name: str) -> None:
    source = _film(tmp_path / f"in{suffix}")
    before = _shown(source)
    assert [shown for _, shown in before] == [letters().tobytes(), b""]
    assert [time for time, _ in before] == pytest.approx(TIMES, abs=0.002)
    result, report = upscaled(source, name)
    after = _shown(tmp_path / name)
    assert [shown for _, shown in after] == [shown for _, shown in before]
    assert [time for time, _ in after] == pytest.approx(TIMES, abs=0.002)
    assert (report.notes, result.frames) == ([], 12)


@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.webm", "out.ts"])
def test_pgs_is_named_where_it_cannot_be(tmp_path: Path, name: str) -> None:
    preset = None if name.endswith("webm") else "ultrafast"
    result, report = upscaled(_film(tmp_path / "in.mkv"), name, preset=preset)
    assert report.notes == [f"{name} cannot contain subtitle #1 (pgssub): left out"]
    assert (report.exit_code, result.kinds) == (0, ["video"])
