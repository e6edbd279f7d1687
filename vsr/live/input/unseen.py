"""Counts streams that appear in an input after it was opened, which PyAV does not list.

FFmpeg adds streams to FLV, RTMP and MPEG-TS when their first packet arrives. PyAV lists the streams
that existed at opening, and drops packets of later ones silently.
"""

import io
from functools import cache
from typing import Final

import av

_MOST: Final = 64
"""Limit of stream indices that are checked."""


def unseen(container: "av.container.InputContainer") -> int:
    """Return how many streams have appeared since an input was opened.

    `demux` rejects a stream whose index FFmpeg does not have, before it reads anything. So passing
    streams of another container with such indices shows how many exist. It resets the read timeout,
    so a packet generator that is in use must be recreated afterwards.
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
    """Return a file that is never written, and its streams with every index up to `_MOST`."""
    container = av.open(io.BytesIO(), "w", format="nut")
    return container, [container.add_mux_stream("aac", 48_000) for _ in range(_MOST + 1)]
