"""Generates Dolby Vision test files: configuration records in MP4, and RPUs in HEVC.

The record follows "Dolby Vision Streams Within the ISO Base Media File Format", 3.1. The RPU is the
minimum that ETSI GS CCM 001 (5.2) and FFmpeg's parser allow: an identity mapping.
"""

import io
import re
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av

from tests.clips import picture

_ENTRIES: Final = (b"hvc1", b"hev1", b"avc1", b"av01")
_FOURTH: Final = 78
"""Bytes in a video's sample entry before its child boxes."""


def record(profile: int, compatible: int) -> bytes:
    """Return a box `dvcC` (up to profile 7) or `dvvC` with version 1.0 and level 1."""
    enhanced = profile == 7
    bits = profile << 9 | 1 << 3 | 1 << 2 | enhanced << 1 | 1
    body = struct.pack(">BBHB", 1, 0, bits, compatible << 4) + bytes(19)
    return struct.pack(">I4s", 8 + len(body), b"dvvC" if profile > 7 else b"dvcC") + body


def with_record(source: Path, target: Path, profile: int, compatible: int) -> Path:
    """Copy an MP4 whose `moov` comes last, with a record added to its video's sample entry."""
    data, box = bytearray(source.read_bytes()), record(profile, compatible)
    movie = data.rindex(b"moov") - 4
    assert movie > data.rindex(b"mdat"), "the movie has to be last"
    entry = next(data.index(kind, movie) for kind in _ENTRIES if kind in data[movie:]) - 4
    end = entry + struct.unpack_from(">I", data, entry)[0]
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd"):
        at = data.index(kind, movie) - 4
        _grow(data, at, len(box))
    _grow(data, entry, len(box))
    data[end:end] = box
    target.write_bytes(data)
    return target


def _grow(data: bytearray, at: int, more: int) -> None:
    struct.pack_into(">I", data, at, struct.unpack_from(">I", data, at)[0] + more)


class _Bits:
    def __init__(self) -> None:
        self.text = ""

    def put(self, value: int, length: int) -> None:
        self.text += format(value, f"0{length}b")

    def golomb(self, value: int) -> None:
        word = format(value + 1, "b")
        self.text += "0" * (len(word) - 1) + word

    def bytes(self) -> bytes:
        text = self.text + "0" * (-len(self.text) % 8)
        return int(text, 2).to_bytes(len(text) // 8, "big")


def rpu(profile: int) -> bytes:
    """Return the payload of an RPU's NAL unit, for profile 5, 7 or 8."""
    bits = _Bits()
    bits.put(25, 8)
    bits.put(2, 6)  # rpu_type
    bits.put(18, 11)  # rpu_format
    bits.put(0 if profile == 5 else 1, 4)  # vdr_rpu_profile
    bits.put(0, 4)  # vdr_rpu_level
    bits.put(1, 1)  # vdr_seq_info_present_flag
    bits.put(0, 1)  # chroma_resampling_explicit_filter_flag
    bits.put(0, 2)  # coefficient_data_type: fixed point
    bits.golomb(23)  # coefficient_log2_denom
    bits.put(1, 2)  # vdr_rpu_normalized_idc
    bits.put(profile == 5, 1)  # BL_video_full_range_flag
    for depth in (10, 10, 12):  # of base layer, enhancement layer and result
        bits.golomb(depth - 8)
    bits.put(0, 1 + 3)
    bits.put(profile == 7, 1)  # el_spatial_resampling_filter_flag
    bits.put(profile != 7, 1)  # disable_residual_flag
    bits.put(0, 1)  # vdr_dm_metadata_present_flag
    bits.put(0, 1)  # use_prev_vdr_rpu_flag
    for _ in range(3):  # vdr_rpu_id, mapping_color_space, mapping_chroma_format_idc
        bits.golomb(0)
    for _ in range(3):
        bits.golomb(0)  # num_pivots_minus_2
        bits.put(0, 10)
        bits.put(1023, 10)
    if profile == 7:
        bits.put(0, 3)  # nlq_method_idc: linear dead zone
        bits.put(0, 10)  # nlq_num_pivots
        bits.put(1023, 10)
    bits.golomb(0)  # num_x_partitions_minus1
    bits.golomb(0)  # num_y_partitions_minus1
    for _ in range(3):
        bits.golomb(0)  # mapping_idc: polynomial
        bits.golomb(0)  # poly_order_minus1
        bits.put(0, 1)  # linear_interp_flag
        for whole in (0, 1):
            bits.golomb(2 * whole - 1 if whole else 0)  # signed
            bits.put(0, 23)
    if profile == 7:
        for _ in range(3):
            bits.put(0, 10)  # nlq_offset
            for _ in range(3):  # vdr_in_max, linear_deadzone_slope, linear_deadzone_threshold
                bits.golomb(1)
                bits.put(0, 23)
    body = bits.bytes()
    return body + _crc(body[1:]) + b"\x80"


def _crc(data: bytes) -> bytes:
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value >> 31 else 0)) & 0xFFFFFFFF
    return value.to_bytes(4, "big")


def hevc(
    frames: int = 6, unit: bytes | None = None, before: bool = False, transfer: int = 16
) -> bytes:
    """Return 10-bit HEVC, PQ by default. A given NAL unit is added after or before each picture."""
    out = io.BytesIO()
    with av.open(out, "w", format="hevc") as film:
        params = "log-level=none:aud=1:bframes=0:repeat-headers=1"
        options = {"preset": "ultrafast", "x265-params": params}
        video: Any = film.add_stream("libx265", rate=25, options=options)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p10le"
        context = video.codec_context
        context.colorspace, context.color_primaries, context.color_trc = 9, 9, transfer
        context.color_range = 1
        for k in range(frames):
            frame = av.VideoFrame.from_ndarray(picture((64, 48), k), format="rgb24")
            frame = frame.reformat(format="yuv420p10le")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            film.mux(video.encode(frame))
        film.mux(video.encode(None))
    if unit is None:
        return out.getvalue()
    made = b""
    for picture_ in re.split(b"(?=\0\0\0\x01\x46\x01)", out.getvalue()):
        if not picture_:
            continue
        if before:  # after the access unit delimiter
            end = re.search(b"\0\0\1", picture_[6:])
            at = 6 + (end.start() if end else 0)
            at -= picture_[at - 1] == 0
            made += picture_[:at] + b"\0\0\0\1" + unit + picture_[at:]
        else:
            made += picture_ + b"\0\0\0\1" + unit
    return made


def escaped(payload: bytes) -> bytes:
    """Return a NAL unit's payload with emulation prevention bytes (H.265, 7.4.2)."""
    return re.sub(b"\0\0(?=[\0\1\2\3])", b"\0\0\3", payload)


def muxed(raw: bytes, path: Path, rate: int = 25) -> Path:
    """Write raw HEVC into a container, with evenly spaced timestamps."""
    with av.open(io.BytesIO(raw), format="hevc") as source, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        stream.time_base = Fraction(1, 90_000)
        for count, packet in enumerate(p for p in source.demux() if p.size):
            packet.time_base, packet.stream = Fraction(1, 90_000), stream
            packet.pts = packet.dts = count * 90_000 // rate
            packet.duration = 90_000 // rate
            out.mux(packet)
    return path


def film(path: Path, profile: int, unit: bool = True) -> Path:
    """Write an HEVC film of six pictures, with an RPU in each if `unit`, but without a record."""
    nal = b"\x7c\x01" + escaped(rpu(profile)) if unit else None
    return muxed(hevc(unit=nal), path)
