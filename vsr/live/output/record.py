"""A packet on its way to the process that sends it."""

from dataclasses import dataclass
from typing import Final, Literal

from vsr.live.output.delivery import Delivery
from vsr.live.output.process import AUDIO, RECORD, VIDEO
from vsr.media.frame import now
from vsr.media.timestamps import Packet

Kind = Literal["video", "audio"]

_INDEX: Final[dict[Kind, int]] = {"video": VIDEO, "audio": AUDIO}


@dataclass(frozen=True, eq=False)
class Record:
    """A packet serialised for the pipe to the process."""

    data: bytes
    begins: bool
    """A key frame of the video, which a session can begin with."""
    time: float
    """Decoding time in s."""
    offered: float = 0.0
    """When it was queued (s, `now`)."""
    delivery: Delivery | None = None
    """Of a packet of video: who is told what becomes of it."""
    origin: float | None = None
    """Time in the source (s) of what it shows or lets hear, each session's apart from the others'
    (`OutputClock.origin`); None: it was made here."""
    kind: Kind = "video"

    @classmethod
    def of(
        cls, packet: Packet, kind: Kind, delivery: Delivery | None, origin: float | None
    ) -> "Record | None":
        """Serialise a packet; None for the end that an encoder or demuxer marks."""
        if packet.pts is None or packet.dts is None:
            return None
        base = packet.time_base
        head = RECORD.pack(
            _INDEX[kind], packet.is_keyframe, packet.pts, packet.dts, packet.duration or 0,
            base.numerator, base.denominator, packet.size,
        )  # fmt: skip
        begins = kind == "video" and packet.is_keyframe
        data = b"".join((head, memoryview(packet)))
        return cls(data, begins, float(packet.dts * base), now(), delivery, origin, kind)
