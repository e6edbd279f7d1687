"""An output's packet queue and the process that sends the packets."""

import json
import os
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import IO, Final

from vsr.live.child import start_child
from vsr.live.output import process
from vsr.live.output.record import Record

_READ: Final = 65536
_START_S: Final = 10.0
"""For a process to start on a machine that has much else to do."""
_NOTHING: Final = memoryview(b"")


class Queue:
    """Packets that wait to be sent. Not thread-safe: the output's lock guards it.

    Without a session it holds the newest packets that one may begin with. A session may lag behind
    by a limited time and number of bytes; beyond, pictures are dropped until the next key frame,
    and sound goes on.
    """

    def __init__(
        self,
        seconds: float,
        size: int,
        fresh: float,
        on_drop: Callable[[Record], None] = lambda _: None,
    ) -> None:
        """At most that much stream time and that many bytes wait, and at most `fresh` seconds for
        a session to begin with, since its viewers see all later by that. `on_drop` is called with
        every packet that is dropped."""
        self._on_drop = on_drop
        self._most_seconds, self._most_bytes, self._fresh = seconds, size, fresh
        self._records: deque[Record] = deque()
        self._flows = self._begun = self._skips = False
        self.skips = 0
        """How often pictures were dropped up to a key frame because too much waited."""
        self.dropped = self.bytes = 0

    def __len__(self) -> int:
        return len(self._records)

    @property
    def seconds(self) -> float:
        """Stream time from the oldest packet to the newest."""
        return self._records[-1].time - self._records[0].time if self._records else 0.0

    @property
    def wants_key(self) -> bool:
        """Whether a session is open but packets are dropped until the next key frame."""
        return self._flows and (self._skips or not self._begun)

    @property
    def oldest(self) -> Record | None:
        """The packet that is taken next."""
        return self._records[0] if self._records else None

    def put(self, record: Record) -> None:
        """Queue a packet, or drop it."""
        self._begun = self._begun or record.begins
        self._skips = self._skips and not record.begins
        if not self._begun or (self._skips and record.kind == "video"):
            self.dropped += 1
            self._on_drop(record)
            return
        self._records.append(record)
        self.bytes += len(record.data)
        if not self._flows:
            self._trim()
        elif self._overflows():
            self._skip()

    def take(self) -> Record | None:
        """Remove and return the oldest packet; None if there is none."""
        if not self._records:
            return None
        record = self._records.popleft()
        self.bytes -= len(record.data)
        return record

    def flow(self) -> None:
        """Begin a session that takes packets."""
        self._flows = True

    def hold(self) -> None:
        """End a session: keep the packets that the next one may begin with."""
        self._flows = self._skips = False
        while self._records and not self._records[0].begins:
            self._drop(1)
        self._begun = bool(self._records)
        self._trim()

    def clear(self) -> None:
        """Drop all packets."""
        self._drop(len(self._records))

    def _trim(self) -> None:
        """Drop from one key frame to the next while more waits than a session may begin with."""
        while self._records and (self.seconds > self._fresh or self.bytes > self._most_bytes):
            later = (k for k, record in enumerate(self._records) if k and record.begins)
            self._drop(next(later, len(self._records)))
            self._begun = bool(self._records)

    def _overflows(self) -> bool:
        return self.seconds > self._most_seconds or self.bytes > self._most_bytes

    def _skip(self) -> None:
        """Drop all pictures, and sound beyond half of what may wait."""
        records = list(self._records)
        self._records = deque(record for record in records if record.kind == "audio")
        self.bytes = sum(len(record.data) for record in self._records)
        for record in records:
            if record.kind == "video":
                self.dropped += 1
                self._on_drop(record)
        while self.seconds > self._most_seconds / 2 or self.bytes > self._most_bytes / 2:
            self._drop(1)
        self._skips = True
        self.skips += 1

    def _drop(self, count: int) -> None:
        for _ in range(count):
            record = self.take()
            assert record is not None
            self._on_drop(record)
        self.dropped += count


class Session:
    """Runs an output's process and tracks its reports. For one thread; no call waits.

    One that was refused waits for another try; one that was open, or hangs, is killed and replaced.
    """

    def __init__(self, plan: bytes, stall: float) -> None:
        """`plan` is for the process; `stall` seconds without an answer or progress are a fault."""
        self._plan, self._stall = plan, stall
        self._process: subprocess.Popen[bytes] | None = None
        self.forget()

    def forget(self) -> None:
        """Reset the state for another attempt."""
        self._rest = _NOTHING
        self._text = b""
        self._error = ""
        self.file = ""
        """What is written where that is a file, whose name may be taken."""
        self._moved = time.monotonic()
        self._refused = self.is_open = self.ended = False
        self.taken = self.packets = self.bytes = self._given = 0
        self._records: deque[Record] = deque()

    def begin(self) -> None:
        """Begin an attempt to connect. Raises OSError if no process can be started."""
        if self._process is None:
            self._is_up = False
            self._process = start_child(process.__file__, bufsize=0)
            for pipe in (self.stdin, self.stdout):
                os.set_blocking(pipe.fileno(), False)
        self._moved = time.monotonic()
        self._rest = memoryview(self._plan)

    def stop(self) -> None:
        """End the attempt; kill the process unless it waits for another."""
        if not self._refused:
            self.end()

    def end(self) -> None:
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
        """Pipe with the process's reports."""
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout

    @property
    def pid(self) -> int | None:
        """PID of the process."""
        return self._process.pid if self._process else None

    @property
    def under_way(self) -> int:
        """Number of packets taken from the queue and not reported as written."""
        return self.taken - self.packets

    @property
    def bytes_under_way(self) -> int:
        """Bytes of packets taken from the queue and not reported as written."""
        return self._given - self.bytes

    def wants(self, waiting: int) -> bool:
        """Whether there are bytes to write, given the number of queued packets."""
        return bool(self._rest) or (waiting > 0 and self.is_open and not self.stdin.closed)

    def feed(self, take: Callable[[], Record | None]) -> None:
        """Write until the pipe is full or nothing is left; packets only once it is open."""
        while self._rest or self._fetch(take):
            try:
                written = self.stdin.write(self._rest)
            except BrokenPipeError:  # its reason is on its way
                self._rest = _NOTHING
                self.stdin.close()
                return
            if written is None:
                return
            self._rest = self._rest[written:]

    def _fetch(self, take: Callable[[], Record | None]) -> bool:
        record = take() if self.is_open and not self.stdin.closed else None
        if record is not None:
            self._rest = memoryview(record.data)
            self._records.append(replace(record, data=b""))
            self.taken += 1
            self._given += len(record.data) - process.RECORD.size
        return record is not None

    def finish(self) -> None:
        """Close the pipe; the process then writes the trailer and ends."""
        self.stdin.close()

    @property
    def oldest(self) -> Record | None:
        """The packet that was given to the process and is the next to be written."""
        return self._records[0] if self._records else None

    def lost(self) -> Iterable[Record]:
        """Packets given to the process and not reported as written."""
        return self._records

    def listen(self, on_sent: Callable[[Record, float, float, float], None]) -> None:
        """Read what the process tells; `on_sent` is called with every packet that was written, when
        the muxer got it and had written it (s, `now`), and its time in the output (s)."""
        data = self.stdout.read(_READ)
        if data is None:
            return
        self.ended = not data
        *lines, self._text = (self._text + data).split(b"\n")
        for line in lines:
            self._hear(line.decode(errors="replace"), on_sent)

    def _hear(self, line: str, on_sent: Callable[[Record, float, float, float], None]) -> None:
        try:
            facts = dict(json.loads(line))
        except (TypeError, ValueError):  # Python's own words on a crash
            self._error = line.strip() or self._error
            return
        if facts.get("packets") != self.packets:
            self._moved = time.monotonic()
        for begin, end, shown in facts.get("sent", ()):
            on_sent(self._records.popleft(), begin, end, shown)
        self._is_up = True
        self._refused = "refused" in facts
        self.is_open = self.is_open or "open" in facts
        self.packets = facts.get("packets", self.packets)
        self.bytes = facts.get("bytes", self.bytes)
        self.file = str(facts.get("file", self.file))
        self._error = str(facts.get("error", facts.get("refused", self._error)))

    def fault(self) -> str:
        """Return why the session must end, perhaps with secrets; empty if it need not."""
        if self.ended or self._refused:
            return self._error or "the process that publishes died"
        now, limit = time.monotonic(), self._stall if self._is_up else _START_S
        if self.is_open and not self.under_way:
            self._moved = now
        if now - self._moved <= limit:
            return ""
        if not self._is_up:
            return f"the process that publishes did not start within {limit:g} s"
        return f"{'nothing taken' if self.is_open else 'no answer'} for {limit:g} s"
