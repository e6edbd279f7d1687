"""Process that sends packets to one URL; the parent can kill it when the server hangs.

FFmpeg may block for minutes while it connects or writes header and trailer, and PyAV holds the GIL
meanwhile. `vsr.media.child` runs this file as a script; it imports small modules to start quickly.
Its standard input carries a line of JSON (the plan; no other process can see the stream key in its
URL), then packets as `RECORD` and payload, until EOF. After a refusal it waits for the plan. It
writes JSON lines to standard output: `{"connecting": true}`, then `{"refused": "...", "for_good":
BOOL}` (true: no attempt can succeed) or `{"open": true}`, repeated `{"packets": N, "bytes": N,
"sent": [[BEGIN, END, PTS]]}`, `{"full": true}` while a disk is full, and `{"error": "..."}`. `sent`
lists, for every packet since the last line, when the muxer got it, when it was written (s,
`time.perf_counter`, which all processes share) and the pts that was written (s; null: the packet
was left out). Error messages may contain the stream key: the parent masks it.
"""

import json
import logging
import os
import socket
import stat
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from typing import Any, BinaryIO, Final, NoReturn

import av
from av.rational import AVRational

from vsr.live.output.enhanced_rtmp import CodecNotSupportedError, check_codec_support
from vsr.live.output.opening import add_stream, error_text, open_output
from vsr.live.output.recording import Recording, unused_path
from vsr.media.child import outlive_parent

RECORD: Final = struct.Struct("<BBqqqIII")
"""Header of each payload: stream, key frame flag, pts, dts, duration, time base, size in bytes."""
VIDEO: Final = 0
AUDIO: Final = 1
"""Indices of the streams in the plan and in `RECORD`."""

_REPORT_FD: Final = 1
_REPORT_S: Final = 0.2
_MAX_UNSENT: Final = 64 * 1024
"""Limit of unsent bytes in the socket: a backlog should stay in the queue, which is measured."""
_REPORT_LOCK: Final = threading.Lock()
"""Lock held while a report is written."""
_FINISH_WITHOUT_PARENT: Final = threading.Event()
"""Set if packets already received are still to be written after the parent has exited."""
_HIGHEST_FD: Final = 64
_ERRORS: Final = (av.error.FFmpegError, OSError, ValueError)
_FINAL_ERRORS: Final = (ValueError, CodecNotSupportedError)  # of the muxer and of the server


class Copier:
    """Writes a stream of records to an FFmpeg output; another thread may read the counts."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.packets = self.bytes = 0
        self._sent: deque[tuple[float, float, float | None]] = deque()
        self._first_dts_s: float | None = None
        self._early_packets = 0
        """Number of packets with a dts before the first one's that the muxer did not reject."""
        self.url = unused_path(plan["url"]) if plan["file"] else plan["url"]
        # an existing pipe or device is written to directly
        is_direct = not plan["file"] or os.path.exists(self.url)  # noqa: PTH110
        self.recording = None if is_direct else Recording(self.url, lambda: _report(full=True))
        self._output = open_output(self.recording or self.url, plan)
        self._streams = [add_stream(self._output, stream) for stream in plan["streams"]]
        self._last_dts: dict[int, int] = {}

    def open(self) -> None:
        """Connect and write the header; may block without a time limit."""
        self._output.start_encoding()

    def copy(self, records: BinaryIO) -> None:
        """Copy records until EOF or an incomplete record."""
        while len(head := records.read(RECORD.size)) == RECORD.size:
            index, key, pts, dts, duration, numerator, denominator, size = RECORD.unpack(head)
            payload = records.read(size)
            if len(payload) < size:
                return
            packet: av.Packet[Any] = av.Packet(payload)
            packet.pts, packet.dts, packet.duration = pts, dts, duration
            packet.time_base = Fraction(numerator, denominator)
            packet.is_keyframe = bool(key)
            self._mux(packet, self._streams[index])

    def close(self) -> None:
        """Write the trailer."""
        self._output.close()
        if self.recording is not None:
            self.recording.close()

    def discard(self) -> None:
        """Delete a recording to which no packet was written."""
        if self.recording is not None and not self.packets:
            self.recording.discard()

    def _mux(self, packet: "av.Packet[Any]", stream: av.stream.Stream) -> None:
        packet.stream = stream
        base = stream.time_base
        assert base is not None
        packet.rescale_ts(AVRational(base.numerator, base.denominator))
        dts, pts = packet.dts, packet.pts
        assert dts is not None
        assert pts is not None
        # the muxer's time base may be coarser than the packet's: FLV counts milliseconds
        packet.dts = max(dts, self._last_dts.get(stream.index, dts - 1) + 1)
        packet.pts = max(pts, packet.dts)
        self._last_dts[stream.index] = packet.dts
        size, begin, pts_s = packet.size, time.perf_counter(), float(packet.pts * base)
        dts_s = float(packet.dts * base)
        self._first_dts_s = dts_s if self._first_dts_s is None else self._first_dts_s
        self._early_packets += dts_s < self._first_dts_s
        written = self._mux_one(packet)
        end = round(time.perf_counter(), 6)
        self._sent.append((round(begin, 6), end, round(pts_s, 6) if written else None))
        self.packets += 1
        self.bytes += size

    def _mux_one(self, packet: "av.Packet[Any]") -> bool:
        """Write a packet; False for late audio from before the session if rejected, as by FLV."""
        try:
            self._output.mux_one(packet)
        except av.error.ArgumentError:
            if not self._early_packets:
                raise
            self._early_packets -= 1
            return False
        return True

    def facts(self) -> dict[str, Any]:
        """Return the counts so far, and the times of the packets since the last call."""
        packets, sent = self.packets, []
        with suppress(IndexError):
            while True:
                sent.append(self._sent.popleft())
        return {"packets": packets, "bytes": self.bytes, "sent": sent}


def main() -> NoReturn:
    """Send the packets from standard input until EOF; never return."""
    _capture_ffmpeg_log()
    for line in sys.stdin.buffer:
        plan = json.loads(line)
        _report(connecting=True)
        copier = _connect(plan)
        if copier is not None:
            _send_packets(copier, plan)
    os._exit(0)


def _connect(plan: dict[str, Any]) -> Copier | None:
    """Open the output; report a refusal and return None."""
    if plan["file"]:
        outlive_parent()
        _FINISH_WITHOUT_PARENT.set()
    copier = None
    with av.logging.Capture(local=False) as log_lines:
        try:
            if codec := plan["check_codec"]:
                check_codec_support(plan["url"], codec, plan["protocol"], plan["stall_s"])
            copier = Copier(plan)
            copier.open()
            return copier
        except _ERRORS as exc:
            if copier is not None:
                copier.discard()
            message = error_text(exc, log_lines)
            for_good = type(exc) in _FINAL_ERRORS
    if any(_connections()):  # PyAV leaves the connection open when the header fails
        _report(error=message)
        os._exit(1)
    _report(refused=message, for_good=for_good)
    return None


def _send_packets(copier: Copier, plan: dict[str, Any]) -> NoReturn:
    stall_s = plan["stall_s"]
    for connection in _connections():
        _limit_buffers(connection, stall_s)
    _report(open=True, file=copier.url if plan["file"] else "")
    threading.Thread(
        target=_report_loop, args=(copier, stall_s), name="report", daemon=True
    ).start()
    try:
        copier.copy(sys.stdin.buffer)
        copier.close()
    except _ERRORS as exc:
        copier.discard()
        _report_counts(copier)
        _exit_with_error(exc)
    _report_counts(copier)
    os._exit(0)


def _exit_with_error(exc: Exception) -> NoReturn:
    """Report an error and exit without cleanup, which would write to the dead connection."""
    _report(error=error_text(exc))
    os._exit(1)


def _capture_ffmpeg_log() -> None:
    """Make PyAV attach FFmpeg's log lines to exceptions; print nothing."""
    logger = logging.getLogger("libav")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    av.logging.set_level(av.logging.ERROR)


def _connections() -> Iterator[socket.socket]:
    """Yield FFmpeg's TCP sockets, the only ones in this process."""
    for fd in range(_HIGHEST_FD):
        try:
            if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                continue
        except OSError:
            continue
        with socket.socket(fileno=os.dup(fd)) as connection:
            inet = connection.family in (socket.AF_INET, socket.AF_INET6)
            if inet and connection.type == socket.SOCK_STREAM:
                yield connection


def _limit_buffers(connection: socket.socket, stall_s: float) -> None:
    """Set socket options: no delay, a small unsent queue, a timeout of `stall_s` seconds.

    Otherwise a server that stopped reading is noticed only after megabytes of buffers are full.
    """
    options = {
        "TCP_NODELAY": 1,
        "TCP_NOTSENT_LOWAT": _MAX_UNSENT,
        "TCP_USER_TIMEOUT": round(stall_s * 1000),
    }
    for name, value in options.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _report_loop(copier: Copier, stall_s: float) -> None:
    while True:
        _report_counts(copier)
        time.sleep(min(_REPORT_S, stall_s / 4))


def _report_counts(copier: Copier) -> None:
    """Report the counts under the lock: else the process could end before they are written."""
    with _REPORT_LOCK:
        _write(copier.facts())


def _report(**facts: object) -> None:
    with _REPORT_LOCK:
        _write(facts)


def _write(facts: dict[str, Any]) -> None:
    try:
        os.write(_REPORT_FD, json.dumps(facts).encode() + b"\n")
    except BrokenPipeError:  # the parent has exited; a recording is still completed
        if not _FINISH_WITHOUT_PARENT.is_set():
            os._exit(1)


if __name__ == "__main__":
    main()
