"""Reads and writes the markings of 360-degree pictures (`sv3d`), in one view or two (`st3d`)."""

import io
import struct
from fractions import Fraction
from typing import Final

import av
from av.bitstream import BitStreamFilterContext

from vsr.media.boxes import MP4_HEADER_FIRST, add_entry_boxes, box, sample_entry_boxes

_KINDS: Final = (b"st3d", b"sv3d", b"vexu")
"""Types of the boxes: Google's Spherical Video V2, and Apple's video extended usage."""
_CODECS_IN: Final = {
    "mp4": ("h264", "hevc", "av1", "vp9"), "mov": ("h264", "hevc"),
    "matroska": ("h264", "hevc", "av1", "vp9"), "webm": ("av1", "vp9"),
}  # fmt: skip
"""Container into which FFmpeg writes markings -> codecs that it and MP4 can hold."""
_TO_ANNEX_B: Final = {"h264": "h264_mp4toannexb", "hevc": "hevc_mp4toannexb"}
"""Codec -> bitstream filter that reverts MP4's way of storing its headers."""
_CUBE: Final = b"cbmp"
_PADDING: Final = 12
"""Offset, from the box type, of the padding around each cube face (in pixels), in bytes."""


def markings_of(stream: av.VideoStream) -> bytes:
    """Return the boxes that mark a stream's pictures; empty if there are none."""
    known = sample_entry_boxes(stream)
    return b"".join(box(kind, known[kind]) for kind in _KINDS if kind in known)


def scale_markings(markings: bytes, scale: Fraction) -> bytes:
    """Adapt markings to enlarged pictures: the padding of a cube's faces is in pixels."""
    at = markings.find(_CUBE)
    if at < 0 or len(markings) < at + _PADDING + 4:
        return markings
    made = bytearray(markings)
    (padding,) = struct.unpack_from(">I", made, at + _PADDING)
    struct.pack_into(">I", made, at + _PADDING, min(round(padding * scale), 2**32 - 1))
    return bytes(made)


def can_mark(markings: bytes, codec: str, container: str) -> bool:
    """Return whether `MarkedStream` can write markings into this container, with this codec."""
    return bool(markings) and codec in _CODECS_IN.get(container, ())


class MarkedStream:
    """Encoder whose packets go into a stream with markings. Use from one thread.

    PyAV cannot set markings. The encoder belongs to an MP4 in memory; its header, with the boxes
    added, is read back, and the resulting stream is the template of the output's stream.
    """

    def __init__(self, encoder: str, rate: Fraction) -> None:
        """Create the encoder, the codec context of `stream`; the caller opens it."""
        self._content = io.BytesIO()
        self._scratch = av.open(
            self._content, "w", format="mp4", container_options=dict(MP4_HEADER_FIRST)
        )
        self.stream = self._scratch.add_stream(encoder, rate=rate)
        assert isinstance(self.stream, av.VideoStream)

    def add_to(self, output: "av.container.OutputContainer", markings: bytes) -> av.stream.Stream:
        """Add a stream with markings to the output; call it after the encoder has been opened."""
        assert isinstance(self.stream, av.VideoStream)
        self._scratch.start_encoding()
        header = io.BytesIO(add_entry_boxes(self._content.getvalue(), markings))
        with av.open(header) as read:
            template = read.streams.video[0]
            stream = output.add_stream_from_template(template, opaque=True)
            name = _TO_ANNEX_B.get(self.stream.codec_context.codec.canonical_name)
            if name is not None:
                BitStreamFilterContext(name, template, stream)
        stream.metadata.update(self.stream.metadata)
        return stream
