"""Tests that captions (A/53) are kept exactly, and that lost side data is reported."""

import re
import sys
from pathlib import Path

import av
import pytest

import vsr
from tests.clips import Clip, make_clip
from tests.dolby import hevc, muxed
from vsr.media.side_data import carrier_of, kinds_written_by, side_data_in

WORDS = b"HELLO WORLD "
MESSAGE = b"0123456789abcdef" + b"a mark"
"""An unregistered SEI message: a 16-byte UUID and the content."""
PQ, BT709 = 16, 1


def _odd_parity(code: int) -> int:
    return code | (0x80 if bin(code).count("1") % 2 == 0 else 0)


def captioned(path: Path) -> Path:
    """Write H.264 with a pair of CEA-608 characters in an SEI message before every picture."""
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


def captions(path: Path) -> list[bytes]:
    with av.open(str(path)) as file:
        return [
            b"".join(bytes(d) for d in side_data_in(frame) if d.type.name == "A53_CC")
            for frame in file.decode(video=0)
        ]


@pytest.mark.parametrize(
    ("codec", "ending", "kept"),
    [("h264", "mp4", True), ("hevc", "mkv", True), ("h264", "ts", True), ("ffv1", "mkv", False)],
)
def test_captions_are_kept_or_named(tmp_path: Path, codec: str, ending: str, kept: bool) -> None:
    source = captioned(tmp_path / "in.ts")
    output = tmp_path / f"out.{ending}"
    before = captions(source)
    assert all(before) and len(before) == 12
    report = vsr.upscale(source, output, model="bicubic", codec=codec)
    assert (captions(output) == before) is kept
    assert ("captions" in " ".join(report.notes)) is not kept
    assert report.frames_out == 12


def _kinds(path: Path) -> list[set[str]]:
    with av.open(str(path)) as file:
        return [{d.type.name for d in side_data_in(frame)} for frame in file.decode(video=0)]


def _messages(path: Path) -> list[bytes]:
    """Return the unregistered messages, without those that encoders add about themselves."""
    with av.open(str(path)) as file:
        found = [d for frame in file.decode(video=0) for d in side_data_in(frame)]
        texts = [bytes(d) for d in found if d.type.name == "SEI_UNREGISTERED"]
        # x265 prefixes every message with its UUID
        return [text[-len(MESSAGE) :] for text in texts if text.endswith(MESSAGE)]


@pytest.mark.parametrize(
    ("codec", "asked", "transfer"),
    [("h264", True, PQ), ("h264", False, BT709), ("hevc", True, BT709), ("hevc", False, BT709)],
)
def test_unregistered_messages_come_through_when_asked(
    tmp_path: Path, codec: str, asked: bool, transfer: int
) -> None:
    """Any application can define such messages: sync marks, encoder settings, GPS positions."""
    unit = b"\x4e\x01\x05" + bytes([len(MESSAGE)]) + MESSAGE + b"\x80"
    source = muxed(hevc(unit=unit, before=True, transfer=transfer), tmp_path / "in.mkv")
    assert _messages(source) == [MESSAGE] * 6
    options = {"udu_sei": "1"} if asked else {}
    report = vsr.upscale(
        source, tmp_path / "out.mkv", model="bicubic", codec=codec, preset="ultrafast",
        sdr=True, encoder_options=options,
    )  # fmt: skip
    assert _messages(tmp_path / "out.mkv") == ([MESSAGE] * 6 if asked else [])
    assert report.frames_out == 6


def test_a_timecode_in_every_picture_is_named(tmp_path: Path) -> None:
    """FFmpeg's software encoders do not write HEVC's time code message (H.265 D.2.27)."""
    bits = "01" + "1" + "0" + "00000" + "1" + "0" + "0" + format(7, "09b")
    bits += format(12, "06b") + format(34, "06b") + format(10, "05b") + "00000"
    bits += "0" * (-len(bits) % 8)
    body = int(bits, 2).to_bytes(len(bits) // 8, "big")
    unit = b"\x4e\x01" + bytes([136, len(body)]) + body + b"\x80"
    source = muxed(hevc(unit=unit, before=True), tmp_path / "in.mkv")
    assert all("S12M_TIMECODE" in kinds for kinds in _kinds(source))
    report = vsr.upscale(source, tmp_path / "out.mkv", model="bicubic", preset="ultrafast")
    assert report.notes == ["its timecode of each picture is left out"]
    assert "S12M_TIMECODE" in kinds_written_by("hevc_nvenc")


def test_the_active_format_is_named(tmp_path: Path) -> None:
    """No encoder of FFmpeg writes AFD (ETSI TS 101 154 B.3)."""
    body = b"\xb5\x00\x31DTG1\x41\xfa"
    unit = b"\x4e\x01\x04" + bytes([len(body)]) + body + b"\x80"
    source = muxed(hevc(unit=unit, before=True), tmp_path / "in.mkv")
    assert all("AFD" in kinds for kinds in _kinds(source))
    report = vsr.upscale(source, tmp_path / "out.mkv", model="bicubic", preset="ultrafast")
    assert report.notes == ["its active format description is left out"]


def test_a_picture_that_was_looked_at_is_free_at_once() -> None:
    """`picture.side_data` would create a reference cycle, freed only by the garbage collector."""
    picture = av.VideoFrame(64, 64, "yuv420p")
    held = sys.getrefcount(picture)
    assert carrier_of(picture) is None
    assert list(side_data_in(picture)) == []
    assert sys.getrefcount(picture) == held
