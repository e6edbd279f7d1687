"""Queues the packets for an output's process."""

from collections import deque
from collections.abc import Callable

from vsr.live.output.record import Kind, Record


class PacketQueue:
    """Queue of packets to be sent. Not thread-safe: the output's lock guards it.

    While no session is open, it keeps the newest packets from a key frame on, to begin the next
    one. During a session, its duration and size are limited: beyond, video is dropped until the
    next key frame, and audio continues.
    """

    def __init__(
        self,
        seconds: float,
        size: int,
        idle_seconds: float,
        on_drop: Callable[[Record], None] = lambda _: None,
    ) -> None:
        """Limit the queue to `seconds` of stream time and `size` bytes, and to `idle_seconds`
        while no session is open, since a new session is delayed by that. `on_drop` is called with
        every dropped packet."""
        self._on_drop = on_drop
        self._max_seconds, self._max_bytes, self._idle_seconds = seconds, size, idle_seconds
        self._records: deque[Record] = deque()
        self._in_session = self.has_key_frame = self._is_skipping = False
        """`has_key_frame`: whether a key frame has arrived at which a session can begin."""
        self.skips = 0
        """Number of times video was dropped up to a key frame because the queue was full."""
        self.dropped = self.bytes = 0

    def __len__(self) -> int:
        return len(self._records)

    @property
    def seconds(self) -> float:
        """Duration of the queued packets (s): that of video or of audio, whichever is longer.

        Not the span of both, because audio may arrive seconds after the video of its time.
        """
        return max(self._duration("video"), self._duration("audio"))

    @property
    def needs_key_frame(self) -> bool:
        """Whether a session is open but packets are dropped until the next key frame."""
        return self._in_session and (self._is_skipping or not self.has_key_frame)

    @property
    def oldest(self) -> Record | None:
        """Next packet to be taken; None if the queue is empty."""
        return self._records[0] if self._records else None

    def put(self, record: Record) -> None:
        """Queue a packet, or drop it."""
        self.has_key_frame = self.has_key_frame or record.is_video_key
        self._is_skipping = self._is_skipping and not record.is_video_key
        if not self.has_key_frame or (self._is_skipping and record.kind == "video"):
            self.refuse(record)
            return
        self._records.append(record)
        self.bytes += len(record.data)
        if not self._in_session:
            self._trim()
        elif self._is_full():
            self._skip_to_key_frame()

    def refuse(self, record: Record) -> None:
        """Drop a packet instead of queueing it."""
        self.dropped += 1
        self._on_drop(record)

    def take(self) -> Record | None:
        """Remove and return the oldest packet; None if there is none."""
        if not self._records:
            return None
        record = self._records.popleft()
        self.bytes -= len(record.data)
        return record

    def begin_session(self) -> None:
        """Begin a session, which takes packets."""
        self._in_session = True

    def end_session(self) -> None:
        """End a session; keep the packets that can begin the next one."""
        self._in_session = self._is_skipping = False
        while self._records and not self._records[0].is_video_key:
            self._drop(1)
        self.has_key_frame = bool(self._records)
        self._trim()

    def clear(self) -> None:
        """Drop all packets."""
        self._drop(len(self._records))

    def _duration(self, kind: Kind) -> float:
        first = next((r.dts_s for r in self._records if r.kind == kind), 0.0)
        last = next((r.dts_s for r in reversed(self._records) if r.kind == kind), 0.0)
        return max(0.0, last - first)

    def _trim(self) -> None:
        """Drop the oldest packets, up to a key frame, while the limits for a start are exceeded."""
        while self._records and (self.seconds > self._idle_seconds or self.bytes > self._max_bytes):
            later = (k for k, record in enumerate(self._records) if k and record.is_video_key)
            self._drop(next(later, len(self._records)))
            self.has_key_frame = bool(self._records)

    def _is_full(self) -> bool:
        return self.seconds > self._max_seconds or self.bytes > self._max_bytes

    def _skip_to_key_frame(self) -> None:
        """Drop all video, and the oldest audio beyond half of the limits."""
        records = list(self._records)
        self._records = deque(record for record in records if record.kind == "audio")
        self.bytes = sum(len(record.data) for record in self._records)
        for record in records:
            if record.kind == "video":
                self.refuse(record)
        while self.seconds > self._max_seconds / 2 or self.bytes > self._max_bytes / 2:
            self._drop(1)
        self._is_skipping = True
        self.skips += 1

    def _drop(self, count: int) -> None:
        for _ in range(count):
            record = self.take()
            assert record is not None
            self._on_drop(record)
        self.dropped += count
