"""Prepares a decoder: how many pictures it works on at once, and how large they may be."""

from typing import Final

import av

from vsr.errors import InputError
from vsr.media.limits import cpu_limit, free_memory, in_words, processors

_MOST_THREADS: Final = 16
"""Of FFmpeg's own choice; each holds a picture where several are decoded at once."""
_REFERENCES: Final = 4
"""Pictures that decoders usually keep to decode others from."""
_SHARE: Final = 8
"""Part of the memory that pictures being decoded at once may take, as a divisor."""
_LEAST: Final = 3
"""Pictures without which nothing is decoded: one, one to decode from, one to convert."""
_MOST_PIXELS: Final = 2**31 - 1
"""FFmpeg takes no larger number."""
_BYTES: Final = 1.5
"""Of a pixel in 8-bit 4:2:0."""


def prepare_decoder(video: av.VideoStream, name: str, threads: str, allowed: int | None) -> int:
    """Set a decoder's threads, before it decodes; return how many pictures it may hold.

    `threads` is FFmpeg's `thread_type`. `allowed` is bytes of memory, None: all that is free.
    Raises InputError for pictures that do not fit.
    """
    context = video.codec_context
    context.thread_type = threads
    working = min(_MOST_THREADS, (cpu_limit() or processors()) + 1) if threads == "AUTO" else 1
    if cpu_limit():  # FFmpeg counts the processors of the whole machine
        context.thread_count = working
    limit = free_memory() if allowed is None else allowed
    pixels = context.width * context.height
    if limit is None or not pixels:
        return working + _REFERENCES
    size = picture_bytes(context)
    if _LEAST * size > limit:
        raise InputError(
            f"{name}: pictures of {context.width}x{context.height} take more memory than the "
            f"{in_words(limit)} that may be used"
        )
    # pictures may grow on the way; damaged headers make them grow beyond all bounds
    most = min(_MOST_PIXELS, int(limit * pixels / size / _LEAST))
    context.options = {**context.options, "max_pixels": str(most)}
    fitting = max(1, int(limit / _SHARE / size))
    if fitting < working:
        working = context.thread_count = fitting
    return working + _REFERENCES


def settle(decoder: av.VideoCodecContext | None) -> None:
    """Wait until a decoder's threads have done what they were given, before it is freed.

    PyAV 18.1 frees a decoder, and waits for its threads, without letting go of Python's lock; a
    thread that drops a packet with an `opaque` waits for that lock, and both would for ever.
    """
    if decoder is not None:
        decoder.flush_buffers()


def picture_bytes(context: av.VideoCodecContext) -> int:
    """Bytes of a decoded picture, as far as the stream says how it is stored."""
    pixels = context.width * context.height
    pixel_format = context.pix_fmt
    if pixel_format is None:
        return int(pixels * _BYTES)
    parts = av.VideoFormat(pixel_format, context.width, context.height).components
    return max(1, sum(part.width * part.height * (part.bits + 7) // 8 for part in parts))
