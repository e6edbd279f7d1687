"""Controls the process that sends an output's packets, from the output's thread."""

import json
import os
import select
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import IO, Final

from vsr.live.output import process
from vsr.live.output.record import Record
from vsr.live.output.spares import Spares
from vsr.media.child import start_child

_READ_SIZE: Final = 65536
_START_S: Final = 10.0
"""Time limit for a process to start on a busy machine, in seconds."""
OnSent = Callable[[Record, float, float, float | None], None]
"""Callback that receives a packet, the times when the muxer got it and had written it (s, `now`),
and its pts in the output (s; None: it was left out)."""
_NOTHING: Final = memoryview(b"")


class Session:
    """Runs an output's process and tracks its reports. Not thread-safe; its pipes do not block.

    After a refusal the process is kept for the next attempt; if it was open or hangs, it is killed
    and replaced.
    """

    def __init__(
        self,
        plan: bytes,
        stall_s: float,
        descriptor: int | None = None,
        spares: Spares | None = None,
    ) -> None:
        """`plan` is sent to the process; `stall_s` is its timeout for a reply or for progress (s).

        `descriptor` is the file descriptor to write to, if it is already open. The first process
        may be taken from `spares`.
        """
        self._spares = spares
        self._plan, self._stall_s, self._descriptor = plan, stall_s, descriptor
        self._process: subprocess.Popen[bytes] | None = None
        self.is_hopeless = False
        """Whether no attempt can succeed, because of the codec."""
        self.reset()

    def reset(self) -> None:
        """Reset the state for another attempt."""
        self._unwritten = _NOTHING
        self._partial_line = b""
        self._error = ""
        self.file = ""
        """Path of the file that is written, which differs from the plan's if that exists."""
        self._last_progress_at = time.monotonic()
        self._refused = self.is_open = self.ended = self.is_full = False
        self.packets_passed = self.packets = self.bytes = self._bytes_passed = 0
        self._records: deque[Record] = deque()

    def begin(self) -> None:
        """Begin an attempt to connect. Raises OSError if no process can be started."""
        if self._process is None:
            self._has_started = False
            self._process = self._start_process()
            for pipe in (self.stdin, self.stdout):
                os.set_blocking(pipe.fileno(), False)
        self._last_progress_at = time.monotonic()
        self._unwritten = memoryview(self._plan)

    def _start_process(self) -> "subprocess.Popen[bytes]":
        if self._descriptor is None:
            spare = self._spares.take() if self._spares else None
            self._spares = None
            return spare or start_child(process.__file__, bufsize=0)
        inherited = os.dup(self._descriptor)  # the process's stdout carries its reports
        try:
            plan = json.loads(self._plan) | {"url": f"pipe:{inherited}"}
            self._plan = json.dumps(plan).encode() + b"\n"
            return start_child(process.__file__, bufsize=0, pass_fds=(inherited,))
        finally:
            os.close(inherited)

    def end_attempt(self) -> None:
        """End the attempt; kill the process unless it was refused and can be reused."""
        if not self._refused:
            self.kill()

    def kill(self) -> None:
        """Kill the process, if any."""
        if self._process is None:
            return
        self._process.kill()
        self.stdin.close()
        self.stdout.close()
        self._process.wait()
        self._process = None

    @property
    def stdin(self) -> IO[bytes]:
        """Pipe for the plan and the packets."""
        assert self._process is not None
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def stdout(self) -> IO[bytes]:
        """Pipe that carries the process's reports."""
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout

    @property
    def pid(self) -> int | None:
        """PID of the process."""
        return self._process.pid if self._process else None

    @property
    def in_flight(self) -> int:
        """Number of packets taken from the queue and not reported as written."""
        return self.packets_passed - self.packets

    @property
    def bytes_in_flight(self) -> int:
        """Bytes of packets taken from the queue and not reported as written."""
        return self._bytes_passed - self.bytes

    def poll(
        self, timeout_ms: int, waiting: int, take: Callable[[], Record | None], on_sent: OnSent
    ) -> None:
        """Poll the process's pipes for at most `timeout_ms`; read reports and write packets.

        `waiting` is the number of queued packets, which `take` returns one by one.
        """
        poll = select.poll()
        poll.register(self.stdout, select.POLLIN)
        if self.has_data(waiting):
            poll.register(self.stdin, select.POLLOUT)
        poll.poll(timeout_ms)
        self.read_reports(on_sent)
        self.write_packets(take)

    def has_data(self, waiting: int) -> bool:
        """Return whether there are bytes to write, given the number of queued packets."""
        return bool(self._unwritten) or (waiting > 0 and self.is_open and not self.stdin.closed)

    def write_packets(self, take: Callable[[], Record | None]) -> None:
        """Write until the pipe is full or nothing is left; packets only after the output opened."""
        while self._unwritten or self._take_next(take):
            try:
                written = self.stdin.write(self._unwritten)
            except BrokenPipeError:  # a report with the reason follows
                self._unwritten = _NOTHING
                self.stdin.close()
                return
            if written is None:
                return
            self._unwritten = self._unwritten[written:]

    def _take_next(self, take: Callable[[], Record | None]) -> bool:
        record = take() if self.is_open and not self.stdin.closed else None
        if record is not None:
            self._unwritten = memoryview(record.data)
            self._records.append(replace(record, data=b""))
            self.packets_passed += 1
            self._bytes_passed += len(record.data) - process.RECORD.size
        return record is not None

    def finish(self) -> None:
        """Close the pipe; the process then writes the trailer and ends."""
        self.stdin.close()

    @property
    def oldest(self) -> Record | None:
        """First packet passed to the process and not yet reported as written."""
        return self._records[0] if self._records else None

    def records_in_flight(self) -> Iterable[Record]:
        """Return the packets passed to the process and not reported as written."""
        return self._records

    def read_reports(self, on_sent: OnSent) -> None:
        """Read the process's reports; call `on_sent` for every written packet."""
        data = self.stdout.read(_READ_SIZE)
        if data is None:
            return
        self.ended = not data
        *lines, self._partial_line = (self._partial_line + data).split(b"\n")
        for line in lines:
            self._handle_report(line.decode(errors="replace"), on_sent)

    def _handle_report(self, line: str, on_sent: OnSent) -> None:
        try:
            facts = dict(json.loads(line))
        except (TypeError, ValueError):  # output of a Python crash
            self._error = line.strip() or self._error
            return
        moved = facts.get("packets") != self.packets
        self.is_full = "full" in facts or (self.is_full and not moved)
        if moved or self.is_full:  # waiting for a full disk is no stall
            self._last_progress_at = time.monotonic()
        for begin, end, shown in facts.get("sent", ()):
            on_sent(self._records.popleft(), begin, end, shown)
        self._has_started = True
        self._refused = "refused" in facts
        self.is_hopeless = bool(facts.get("for_good", False))
        self.is_open = self.is_open or "open" in facts
        self.packets = facts.get("packets", self.packets)
        self.bytes = facts.get("bytes", self.bytes)
        self.file = str(facts.get("file", self.file))
        self._error = str(facts.get("error", facts.get("refused", self._error)))

    def fault(self) -> str:
        """Return why the session must end, possibly with secrets; empty if it need not end."""
        if self.ended or self._refused:
            return self._error or "the output process exited unexpectedly"
        now, limit = time.monotonic(), self._stall_s if self._has_started else _START_S
        if self.is_open and not self.in_flight:
            self._last_progress_at = now
        if now - self._last_progress_at <= limit:
            return ""
        if not self._has_started:
            return f"the output process did not start within {limit:g} s"
        return f"{'no data accepted' if self.is_open else 'no response'} for {limit:g} s"
