"""Closed captions (A/53) come through, text by text and picture by picture."""

import re
import sys
from pathlib import Path

import av
import pytest

import vsr
from tests.clips import Clip, make_clip
from vsr.media.captions import captions_of, side_data_in

WORDS = b"HELLO WORLD "


def _odd_parity(code: int) -> int:
    return code | (0x80 if bin(code).count("1") % 2 == 0 else 0)


def _captioned(path: Path) -> Path:
    """H.264 with a pair of CEA-608 characters in a SEI message before every picture."""
    raw = make_clip(
        path.with_suffix(".h264"), Clip(frames=12, audio=(), options={"x264-params": "aud=1"})
    )
    made, number, fresh = b"", 0, False
    for unit in re.split(b"(?=\0\0\1)", raw.read_bytes()):
        kind = unit[3] & 31 if unit.startswith(b"\0\0\1") else 0
        fresh = fresh or kind == 9
        if kind in (1, 5) and fresh:
            pair = [_odd_parity(WORDS[(2 * number + k) % len(WORDS)]) for k in (0, 1)]
            body = b"\xb5\0\x31GA94\x03\xc1\xff\xfc" + bytes(pair) + b"\xff"
            made += b"\0\0\1\x06\x04" + bytes([len(body)]) + body + b"\x80"
            number, fresh = number + 1, False
        made += unit
    raw.write_bytes(made)
    with av.open(str(raw)) as source, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for count, packet in enumerate(p for p in source.demux() if p.size):
            packet.pts = packet.dts = None
            packet.time_base, packet.stream = stream.time_base or packet.time_base, stream
            packet.dts = packet.pts = round(count / 25 / packet.time_base)
            out.mux(packet)
    return path


def _captions(path: Path) -> list[bytes]:
    with av.open(str(path)) as file:
        return [
            b"".join(bytes(d) for d in frame.side_data if d.type.name == "A53_CC")
            for frame in file.decode(video=0)
        ]


@pytest.mark.parametrize(
    ("codec", "ending", "kept"),
    [("h264", "mp4", True), ("hevc", "mkv", True), ("h264", "ts", True), ("ffv1", "mkv", False)],
)
def test_captions_are_kept_or_named(tmp_path: Path, codec: str, ending: str, kept: bool) -> None:
    source = _captioned(tmp_path / "in.ts")
    output = tmp_path / f"out.{ending}"
    before = _captions(source)
    assert all(before) and len(before) == 12
    report = vsr.upscale(source, output, model="bicubic", codec=codec)
    assert (_captions(output) == before) is kept
    assert ("captions" in " ".join(report.notes)) is not kept
    assert report.frames_out == 12


def test_a_picture_that_was_looked_at_is_free_at_once() -> None:
    """`picture.side_data` would make a circle, and keep it until Python's collector comes."""
    picture = av.VideoFrame(64, 64, "yuv420p")
    held = sys.getrefcount(picture)
    assert captions_of(picture) is None
    assert list(side_data_in(picture)) == []
    assert sys.getrefcount(picture) == held
