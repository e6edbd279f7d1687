"""Markings of 360-degree pictures (`sv3d`), in one view or two (`st3d`)."""

import io
import struct
from fractions import Fraction
from typing import Final

import av
from av.bitstream import BitStreamFilterContext

from vsr.media.boxes import MP4_AT_ONCE, box, described, extended

_KINDS: Final = (b"st3d", b"sv3d", b"vexu")
"""Google's Spherical Video V2, and Apple's video extended usage."""
_HOLD: Final = {
    "mp4": ("h264", "hevc", "av1", "vp9"), "mov": ("h264", "hevc"),
    "matroska": ("h264", "hevc", "av1", "vp9"), "webm": ("av1", "vp9"),
}  # fmt: skip
"""Containers into which FFmpeg writes them -> codecs that MP4 knows too, of those they hold."""
_PLAIN: Final = {"h264": "h264_mp4toannexb", "hevc": "hevc_mp4toannexb"}
"""Filters that undo how MP4 stores the headers of these codecs."""
_CUBE: Final = b"cbmp"
_PADDING: Final = 12
"""Bytes from the type of the box to the pixels of padding around each side of the cube."""


def markings_of(stream: av.VideoStream) -> bytes:
    """The boxes that mark a stream's pictures; empty without any."""
    known = described(stream)
    return b"".join(box(kind, known[kind]) for kind in _KINDS if kind in known)


def scaled(markings: bytes, scale: Fraction) -> bytes:
    """The markings for enlarged pictures: the padding of a cube's sides is in pixels."""
    at = markings.find(_CUBE)
    if at < 0 or len(markings) < at + _PADDING + 4:
        return markings
    made = bytearray(markings)
    (padding,) = struct.unpack_from(">I", made, at + _PADDING)
    struct.pack_into(">I", made, at + _PADDING, min(round(padding * scale), 2**32 - 1))
    return bytes(made)


def can_mark(markings: bytes, codec: str, container: str) -> bool:
    """Whether `MarkedStream` gets markings into that container, with video of that codec."""
    return bool(markings) and codec in _HOLD.get(container, ())


class MarkedStream:
    """An encoder whose packets get into a stream with markings. Use from one thread.

    PyAV cannot set them. The encoder belongs to an MP4 in memory; its header, with the boxes
    added, is read again, and what FFmpeg then knows about the stream is the output's template.
    """

    def __init__(self, encoder: str, rate: Fraction) -> None:
        """Make the encoder, which is the context of `stream`, to be opened."""
        self._content = io.BytesIO()
        self._scratch = av.open(
            self._content, "w", format="mp4", container_options=dict(MP4_AT_ONCE)
        )
        self.stream = self._scratch.add_stream(encoder, rate=rate)
        assert isinstance(self.stream, av.VideoStream)

    def added_to(self, output: "av.container.OutputContainer", markings: bytes) -> av.stream.Stream:
        """Add a stream with markings to the output, after the encoder has been opened."""
        assert isinstance(self.stream, av.VideoStream)
        self._scratch.start_encoding()
        header = io.BytesIO(extended(self._content.getvalue(), markings))
        with av.open(header) as read:
            template = read.streams.video[0]
            stream = output.add_stream_from_template(template, opaque=True)
            name = _PLAIN.get(self.stream.codec_context.codec.canonical_name)
            if name is not None:
                BitStreamFilterContext(name, template, stream)
        stream.metadata.update(self.stream.metadata)
        return stream
