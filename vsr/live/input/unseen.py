"""Streams that come up in an input after it was opened, which PyAV does not show.

FFmpeg adds streams to FLV, RTMP and MPEG-TS when their first packet comes. PyAV's list of streams
is that of the opening, and packets of later ones are left out without a word.
"""

import io
from functools import cache
from typing import Final

import av

_MOST: Final = 64
"""Streams of an input that are looked at."""


def unseen(container: "av.container.InputContainer") -> int:
    """Return how many streams came up since an input was opened.

    `demux` refuses a stream whose index FFmpeg does not have, before it reads anything: streams of
    another container with such indices tell how many there are. It resets the timeout of reads, so
    a generator of packets that is in use has to be made anew afterwards.
    """
    known, (_, strangers) = len(container.streams), _strangers()
    for index in range(known, _MOST):
        try:
            next(container.demux([strangers[index], strangers[_MOST]]))
        except ValueError as exc:
            if str(exc) == f"stream index {index} out of range":
                return index - known
    return 0


@cache
def _strangers() -> tuple["av.container.OutputContainer", list["av.stream.Stream"]]:
    """A file that is never written, and its streams with every index up to `_MOST`."""
    container = av.open(io.BytesIO(), "w", format="nut")
    return container, [container.add_mux_stream("aac", 48_000) for _ in range(_MOST + 1)]
