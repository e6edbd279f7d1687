"""Prepares a decoder: sets its number of threads and the maximum picture size."""

from typing import Final

import av

from vsr.errors import InputError
from vsr.media.limits import cpu_limit, format_bytes, free_memory, processor_count

_MAX_THREADS: Final = 16
"""Maximum that FFmpeg chooses; with frame threading, each thread holds a picture."""
_REFERENCES: Final = 4
"""Number of reference pictures that decoders usually keep."""
_MEMORY_DIVISOR: Final = 8
"""Divisor for the share of memory that the pictures being decoded at once may take."""
_MIN_PICTURES: Final = 3
"""Minimum number of pictures in memory: one being decoded, one reference, one being converted."""
_MAX_PIXELS: Final = 2**31 - 1
"""Largest value that FFmpeg accepts."""
_BYTES_PER_PIXEL: Final = 1.5
"""Bytes per pixel in 8-bit 4:2:0."""


def prepare_decoder(
    video: av.VideoStream, name: str, threads: str, memory_limit: int | None
) -> int:
    """Set a decoder's threads before it decodes; return the number of pictures it may hold.

    `threads` is FFmpeg's `thread_type`. `memory_limit` is in bytes; None: all free memory.
    Raises InputError for pictures that do not fit.
    """
    context = video.codec_context
    context.thread_type = threads
    working = min(_MAX_THREADS, (cpu_limit() or processor_count()) + 1) if threads == "AUTO" else 1
    if cpu_limit():  # FFmpeg would count the processors of the whole machine
        context.thread_count = working
    limit = free_memory() if memory_limit is None else memory_limit
    pixels = context.width * context.height
    if limit is None or not pixels:
        return working + _REFERENCES
    size = picture_bytes(context)
    if _MIN_PICTURES * size > limit:
        raise InputError(
            f"{name}: pictures of {context.width}x{context.height} need more memory than the "
            f"{format_bytes(limit)} available"
        )
    # pictures may become larger mid-stream; damaged headers may declare any size
    most = min(_MAX_PIXELS, int(limit * pixels / size / _MIN_PICTURES))
    context.options = {**context.options, "max_pixels": str(most)}
    fitting = max(1, int(limit / _MEMORY_DIVISOR / size))
    if fitting < working:
        working = context.thread_count = fitting
    return working + _REFERENCES


def flush_decoder(decoder: av.VideoCodecContext | None) -> None:
    """Wait until a decoder's threads have finished their work, before it is freed.

    PyAV 18.1 frees a decoder, and waits for its threads, while it holds the GIL; a thread that
    drops a packet with an `opaque`, or logs, waits for the GIL: a deadlock.
    """
    if decoder is not None and decoder.is_open:
        decoder.flush_buffers()


def picture_bytes(context: av.VideoCodecContext) -> int:
    """Return the size of a decoded picture in bytes; of 8-bit 4:2:0 if its format is unknown."""
    pixels = context.width * context.height
    pixel_format = context.pix_fmt
    if pixel_format is None:
        return int(pixels * _BYTES_PER_PIXEL)
    parts = av.VideoFormat(pixel_format, context.width, context.height).components
    return max(1, sum(part.width * part.height * (part.bits + 7) // 8 for part in parts))
