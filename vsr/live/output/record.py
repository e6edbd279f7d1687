"""Serialises packets for the process that sends them."""

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
    is_video_key: bool
    """Whether this is a video key frame, at which a session can begin."""
    dts_s: float
    """Decoding time (dts), in seconds."""
    queued_at: float = 0.0
    """Time at which it was queued (s, `now`)."""
    delivery: Delivery | None = None
    """Receives the result of a video packet; None for audio."""
    origin: float | None = None
    """Source time of the content (s), distinct for each session of the source
    (`OutputClock.origin`); None: generated here."""
    kind: Kind = "video"

    @classmethod
    def of(
        cls, packet: Packet, kind: Kind, delivery: Delivery | None, origin: float | None
    ) -> "Record | None":
        """Serialise a packet; return None for one without times, which marks the stream's end."""
        if packet.pts is None or packet.dts is None:
            return None
        base = packet.time_base
        head = RECORD.pack(
            _INDEX[kind], packet.is_keyframe, packet.pts, packet.dts, packet.duration or 0,
            base.numerator, base.denominator, packet.size,
        )  # fmt: skip
        is_video_key = kind == "video" and packet.is_keyframe
        data = b"".join((head, memoryview(packet)))
        return cls(data, is_video_key, float(packet.dts * base), now(), delivery, origin, kind)
