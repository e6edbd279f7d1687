"""Describes two views in one picture (3D), and marks them in encoders and containers."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

import av

_INVERTED: Final = 1
_IN_H264: Final = {1: 3, 2: 4, 3: 5, 4: 0, 6: 2, 7: 1}
"""FFmpeg's AVStereo3DType -> frame_packing_arrangement_type of H.264, table D-8."""
_IN_MATROSKA: Final = {
    1: ("left_right", "right_left"),
    2: ("top_bottom", "bottom_top"),
    3: ("block_lr", "block_rl"),
    4: ("checkerboard_lr", "checkerboard_rl"),
    6: ("row_interleaved_lr", "row_interleaved_rl"),
    7: ("col_interleaved_lr", "col_interleaved_rl"),
}
"""AVStereo3DType -> Matroska's StereoMode by FFmpeg's names, with left or right view first."""


@dataclass(frozen=True)
class StereoPacking:
    """Packing of two views into one picture."""

    kind: int
    """FFmpeg's AVStereo3DType: 1 side by side, 2 top and bottom, ..."""
    inverted: bool
    """Whether the right view comes first."""

    @classmethod
    def of(cls, side_data: bytes) -> Self | None:
        """Parse FFmpeg's AVStereo3D; return None for one view or missing data."""
        if len(side_data) < struct.calcsize("=2i"):
            return None
        kind, flags = struct.unpack_from("=2i", side_data)
        return cls(kind, bool(flags & _INVERTED)) if kind in _IN_MATROSKA else None

    @property
    def matroska(self) -> str:
        """Value of the tag `stereo_mode`, from which FFmpeg writes Matroska's StereoMode."""
        return _IN_MATROSKA[self.kind][self.inverted]

    def can_be_written_by(self, encoder: str) -> bool:
        """Return whether an encoder can write it into its stream: x264 can, left view first."""
        return encoder == "libx264" and not self.inverted

    def x264_params(self, given: str | None) -> str:
        """Return the value of `x264-params` that makes x264 write it into every key frame."""
        parameter = f"frame-packing={_IN_H264[self.kind]}"
        return f"{given}:{parameter}" if given else parameter


def mark_stereo(
    stereo: StereoPacking, stream: av.VideoStream, options: Mapping[str, str], container: str
) -> tuple[Mapping[str, str], bool]:
    """Mark two views in a picture, in the container, in the encoded stream, or in both.

    Returns the encoder's options, and whether the marking is written anywhere.
    """
    matroska = container in ("matroska", "webm")
    if matroska:
        stream.metadata["stereo_mode"] = stereo.matroska
    if stereo.can_be_written_by(stream.codec_context.name):
        params = stereo.x264_params(options.get("x264-params"))
        return {**options, "x264-params": params}, True
    return options, matroska
