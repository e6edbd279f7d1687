"""Names the channels of audio that has only their number, and finds what an encoder accepts."""

import ctypes
import re
from fractions import Fraction
from typing import Final

import av

_USUAL: Final = {
    1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1",
    10: "5.1.4", 12: "7.1.4", 16: "9.1.6", 24: "22.2",
}  # fmt: skip
"""Number of channels -> usual layout."""
_MIXES: Final = {8: "7.1", 6: "5.1", 2: "stereo", 1: "mono"}
"""Number of channels -> layout to which more channels are mixed down, largest first."""
_RATE: Final = 48_000
"""Sample rate that all encoders accept, in hertz."""
_UNNAMED: Final = re.compile(r"\d+ channels")
_LISTED: Final = re.compile(r"\d+ channels \((\S+)\)")
"""Name of a layout that lists its channels, such as `2 channels (FL+FL)`."""
_ORDER: Final = tuple(channel.name for channel in av.AudioLayout("22.2").channels)
"""Names of channels in FFmpeg's order."""


def layout_of(context: av.AudioCodecContext) -> av.AudioLayout:
    """Return a codec's layout; it is never freed.

    PyAV 18.1 copies FFmpeg's list of the channels in an unusual order, as of 7.1 in MOV, without
    duplicating it: it would be freed twice, which ends the process.
    """
    layout = context.layout
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(layout))
    return layout


def has_own_order(stream: av.AudioStream) -> bool:
    """Return whether a stream's channels are not in FFmpeg's order, or some occur twice."""
    if stream.codec_context is None:
        return False
    listed = _LISTED.fullmatch(layout_of(stream.codec_context).name)
    if listed is None:
        return False
    names = listed[1].split("+")
    return names != [name for name in _ORDER if name in names]


def can_decode(stream: av.AudioStream) -> bool:
    """Return whether an audio stream can be decoded: there is a decoder, and its channels are in
    FFmpeg's order. In another order, PyAV 18.1 would crash; see `layout_of`."""
    return stream.codec_context is not None and not has_own_order(stream)


def usual_layout(layout: av.AudioLayout) -> str | None:
    """Return a layout's name, or the usual one if its channels are unnamed; None: there is none."""
    if _UNNAMED.fullmatch(layout.name):
        return _USUAL.get(layout.nb_channels)
    return layout.name


def encoder_layout(encoder: str, layout: av.AudioLayout) -> str | None:
    """Return the layout that an encoder gets: as given, the usual one of as many channels, or the
    largest to which it is mixed down.

    Returns None if it cannot be mixed, because it is unknown what its channels are.
    """
    wanted = usual_layout(layout)
    if wanted is None:
        return None
    mixes = [name for number, name in _MIXES.items() if number <= layout.nb_channels]
    return next((name for name in (wanted, *mixes) if _accepts(encoder, name)), None)


def _accepts(encoder: str, layout: str) -> bool:
    context = av.CodecContext.create(encoder, "w")
    assert isinstance(context, av.AudioCodecContext)
    formats = context.codec.audio_formats
    assert formats
    context.sample_rate, context.time_base = _RATE, Fraction(1, _RATE)
    context.format, context.layout = formats[0].name, layout
    try:
        context.open()
    except (av.error.FFmpegError, ValueError):
        return False
    return True
