"""Counts streams that appear in an input after it was opened, which PyAV does not list.

FFmpeg adds streams to FLV, RTMP and MPEG-TS when their first packet arrives. PyAV lists the streams
that existed at opening, and drops packets of later ones silently.
"""

import io
from functools import cache
from typing import Final

import av

_MAX_STREAMS: Final = 64
"""Limit of stream indices that are checked."""


def count_new_streams(container: "av.container.InputContainer") -> int:
    """Return how many streams have appeared since an input was opened.

    `demux` rejects a stream whose index FFmpeg does not have, before it reads anything. So passing
    streams of another container with such indices shows how many exist. It resets the read timeout,
    so a packet generator that is in use must be recreated afterwards.
    """
    known, (_, probes) = len(container.streams), _probe_streams()
    for index in range(known, _MAX_STREAMS):
        try:
            next(container.demux([probes[index], probes[_MAX_STREAMS]]))
        except ValueError as exc:
            if str(exc) == f"stream index {index} out of range":
                return index - known
    return 0


@cache
def _probe_streams() -> tuple["av.container.OutputContainer", list["av.stream.Stream"]]:
    """Return a file that is never written, and its streams, indices 0 to `_MAX_STREAMS`."""
    container = av.open(io.BytesIO(), "w", format="nut")
    return container, [container.add_mux_stream("aac", 48_000) for _ in range(_MAX_STREAMS + 1)]
