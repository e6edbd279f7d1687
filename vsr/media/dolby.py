"""Detects Dolby Vision videos without a base layer that can be shown without its metadata."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

import av
from av.sidedata.sidedata import Type as SideType

from vsr.errors import InputError
from vsr.media.boxes import sample_entry_boxes

_CODECS: Final = ("hevc", "av1", "h264")
_BOXES: Final = (b"dvcC", b"dvvC", b"dvwC")
_RECORD: Final = struct.Struct(">2xHB")
"""Fields after the version: profile (7 bits), level (6) and three flags; then compatibility (4)."""
_OFFSET: Final = struct.Struct("N")
_HEADER: Final = struct.Struct("=BxHBB4xB")
"""Layout of FFmpeg's AVDOVIRpuDataHeader: type, format, profile, level, ..., full range."""


@dataclass(frozen=True)
class DolbyVision:
    """Dolby Vision type of a video, from its configuration record or else its first RPU."""

    profile: int
    compatible: int
    """Format of the decoded pictures without metadata: 0 none, 1 HDR10, 2 SDR, 4 HLG, 6 HDR10."""

    @classmethod
    def of_record(cls, data: bytes) -> Self:
        """Parse the content of a box `dvcC`, `dvvC` or `dvwC`."""
        bits, last = _RECORD.unpack_from(data)
        return cls(bits >> 9, last >> 4)

    @classmethod
    def of_picture(cls, side_data: bytes) -> Self | None:
        """Derive it from a picture's AVDOVIMetadata (FFmpeg); return None if there is none.

        In HEVC, only profile 5 has an RPU of profile 0 in full range.
        """
        if len(side_data) < _OFFSET.size:
            return None
        (offset,) = _OFFSET.unpack_from(side_data)
        if len(side_data) < offset + _HEADER.size:
            return None
        *_, profile, _, full = _HEADER.unpack_from(side_data, offset)
        return cls(5, 0) if profile == 0 and full else cls(8, 1)


def check_base_layer(video: av.VideoStream, side_data: Mapping[str, bytes], name: str) -> None:
    """Raise InputError for Dolby Vision that cannot be shown without its metadata.

    `side_data` is that of the first picture: PyAV's name of the kind -> content.
    """
    found = DolbyVision.of_picture(side_data.get(SideType.DOVI_METADATA.name, b""))
    found = _recorded(video) or found
    if found is not None and not found.compatible:
        raise InputError(
            f"{name} is Dolby Vision profile {found.profile}, which has no base layer: without its "
            "metadata it would be green and purple; convert it to HDR10 first: ffmpeg -i IN -vf "
            "libplacebo=colorspace=bt2020nc:color_primaries=bt2020:color_trc=smpte2084:"
            "format=yuv420p10 -c:v libx265 OUT"
        )


def _recorded(video: av.VideoStream) -> DolbyVision | None:
    """Read the container's configuration record; return None if there is none."""
    if video.codec_context.codec.canonical_name not in _CODECS:
        return None
    known = sample_entry_boxes(video)
    found = next((known[kind] for kind in _BOXES if kind in known), b"")
    return DolbyVision.of_record(found) if len(found) >= _RECORD.size else None
