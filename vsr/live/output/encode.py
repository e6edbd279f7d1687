"""Encodes a relay's frames and queues every packet for every output.

Frames are encoded once for all outputs, and again at each lower bitrate that outputs with a slow
connection need (`vsr.live.output.adapt`).
"""

import logging
import math
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Any, Final

import av

from vsr.errors import OutputError, UsageError, reason
from vsr.live.output.closing import close_outputs
from vsr.live.output.delivery import Delivery
from vsr.live.output.encoding import (
    TIME_BASE,
    Encoded,
    Encoding,
    VideoItem,
    bitrate_of,
    open_live_encoder,
    with_reduced_bitrate,
)
from vsr.live.output.output import Output
from vsr.live.output.plan import OutputStreams
from vsr.live.output.spares import Spares
from vsr.live.settings import OutputSettings
from vsr.media.bitrate import live_bitrate
from vsr.media.encoder import EncoderSettings, VideoFormat
from vsr.media.frame import PIXEL_FORMAT, Frame, encoder_picture, now
from vsr.media.info import VideoInfo
from vsr.media.timestamps import Packet

log = logging.getLogger(__name__)

_QUEUE_SIZE: Final = 8
_TIMED_FRAMES: Final = 50
"""Number of frames over which the encoder's time per frame is averaged: some encoders work on
several frames at once."""
_MIN_TIMED_FRAMES: Final = 8
_DRAIN_S: Final = 0.5
"""Time limit for the encoder to process its queue when a relay ends, in seconds."""
_CLOSE_S: Final = 0.8
"""Time limit for the outputs to send their queues when a relay ends, in seconds."""
_TRIAL_SIZE: Final = (320, 180)
_REOPEN_S: Final = 60.0
"""Delay before an encoder that could not be opened is tried again, in seconds."""


@dataclass(frozen=True)
class AudioItem:
    """An audio packet for the outputs."""

    packet: Packet
    """Packet with timestamps of the output."""
    origin: float | None
    """Source time of its audio (s); None: silence generated here."""


def check_encoder(settings: EncoderSettings) -> None:
    """Raise UsageError or OutputError for an encoder that live outputs cannot use."""
    if settings.passes > 1:
        raise UsageError("--passes 2 applies only to files: a live stream is encoded in one pass")
    trial = VideoFormat(size=_TRIAL_SIZE, rate=Fraction(25), time_base=TIME_BASE)
    encoder = open_live_encoder(settings, trial)
    if not encoder.extradata:
        raise UsageError(
            f"encoder {encoder.name} provides no stream header, which live outputs need: "
            "use h264 or hevc"
        )


class LiveEncoder:
    """Runs the encoders on a thread and feeds the outputs. Call the methods from one thread."""

    def __init__(
        self,
        urls: Sequence[str],
        settings: EncoderSettings,
        info: VideoInfo,
        size: tuple[int, int],
        sound: av.AudioCodecContext | None,
        on_frame: Callable[[Frame], None],
        is_stopped: Callable[[], bool] = lambda: False,
        output_settings: OutputSettings | None = None,
        spares: Spares | None = None,
    ) -> None:
        """`info` describes the source, `sound` the packets passed to `send_audio()`.

        Raises UsageError or OutputError if the encoder cannot be opened.
        """
        video = replace(info.output_for(size), time_base=TIME_BASE)
        self._settings, self._video, self._frame_interval_s = settings, video, float(1 / info.rate)
        full_bps = bitrate_of(settings) or live_bitrate(size, info.rate)
        self._full_bps = full_bps
        """Full video bitrate in bit/s (share 1): as configured, or the default for the format."""
        first = Encoding(self._open, self._frame_interval_s)
        self._first = first.context
        self._pixels = self._first.pix_fmt or PIXEL_FORMAT
        self._encodings = {1.0: first}
        """Share of the full bitrate -> encoder."""
        self._reopen_at: dict[float, float] = {}
        """Share whose encoder could not be opened -> time of the next attempt (s, `now`)."""
        self._on_frame, self._is_stopped = on_frame, is_stopped
        self._items: queue.Queue[VideoItem | Frame | AudioItem | None] = queue.Queue(_QUEUE_SIZE)
        self._completed: deque[Frame] = deque()
        """Frames whose packets all outputs have sent or dropped."""
        self._taken = 0
        """Number of source frames passed to the encoder."""
        self.sent = 0
        """Number of source frames that at least one output has sent."""
        self.encode_s: float | None = None
        """Time from the end of the newest frame's upscaling to its packet (s)."""
        self._times: deque[float] = deque(maxlen=_TIMED_FRAMES)
        """How long the newest frames kept the encoder's thread busy (s)."""
        self.failed: Exception | None = None
        self._was_raised = False
        streams = OutputStreams(video=self._first, audio=sound)
        self._outputs = [
            Output(
                url, streams, output_settings, number=number if len(urls) > 1 else None,
                bitrate=full_bps, spares=spares,
            )
            for number, url in enumerate(urls, 1)
        ]  # fmt: skip
        self._thread = threading.Thread(target=self._run, name="encode", daemon=True)
        for output in self._outputs:
            output.start()
        self._thread.start()

    def send_frame(self, frame: Frame, time: float, origin: float | None = None) -> None:
        """Encode and send a frame at an output time (s); block while the encoder's queue is full.

        `origin` is its source time (s); None for a repeated frame.
        """
        self._taken += frame.event != "repeated"
        self._enqueue(VideoItem(frame, time, origin))

    def send_audio(self, item: AudioItem) -> None:
        """Send an audio packet."""
        self._enqueue(item)

    def report_not_shown(self, frame: Frame) -> None:
        """Report a frame that is not shown to `on_frame`, in order with the others."""
        self._enqueue(frame.without_planes())

    @property
    def waiting(self) -> int:
        """Number of frames and audio packets in the encoder's queue."""
        return self._items.qsize()

    @property
    def frame_s(self) -> float:
        """Mean time that the newest frames but the slowest, as the first may be, took to encode
        (s); 0 before `_MIN_TIMED_FRAMES`."""
        times = sorted(self._times)[:-1]
        return sum(times) / len(times) if len(times) >= _MIN_TIMED_FRAMES - 1 else 0.0

    @property
    def was_open(self) -> bool:
        """Whether any output was ever open."""
        return any(output.was_open for output in self._outputs)

    @property
    def is_over(self) -> bool:
        """Whether all outputs are closed for good, e.g. because the reader of stdout exited."""
        return all(output.state.state == "closed" for output in self._outputs)

    @property
    def is_ready(self) -> bool:
        """Whether an output is open, and none is still in its first attempt to connect."""
        states = [output.state.state for output in self._outputs]
        return "connecting" not in states and "open" in states

    def states(self) -> list[dict[str, Any]]:
        """Return the state and figures of every output."""
        return [output.facts() for output in self._outputs]

    def close(self) -> None:
        """Send the queued packets and end every output's session, within about 2 s."""
        try:
            if self._thread.is_alive():
                self._items.put(None, timeout=_DRAIN_S)
        except queue.Full:
            log.warning("the encoder does not respond: the frames in its queue are dropped")
        self._thread.join(_DRAIN_S)
        close_outputs(self._outputs, _CLOSE_S)
        self._report_completed()
        for output in self._outputs:
            output.tally.settle(self._taken)
        if self.failed is not None and not self._was_raised:
            log.error("the encoder failed and the last frames are lost: %s", reason(self.failed))

    def _enqueue(self, item: VideoItem | Frame | AudioItem) -> None:
        while self._thread.is_alive():
            try:
                self._items.put(item, timeout=0.1)
                return
            except queue.Full:
                if self._is_stopped():
                    return
        if self.failed is not None:
            self._was_raised = True
            raise self.failed

    def _run(self) -> None:
        try:
            while (item := self._items.get()) is not None:
                self._report_completed()
                if isinstance(item, VideoItem):
                    began = now()
                    self._encode(item)
                    self._times.append(now() - began)
                elif isinstance(item, Frame):
                    self._on_frame(item)
                else:
                    for output in self._outputs:
                        output.offer(item.packet, "audio", origin=item.origin)
            for encoding in self._encodings.values():
                self._send_packets(encoding.drain())
        except Exception as exc:  # raised again by the next call of the relay's thread
            self.failed = exc

    def _encode(self, item: VideoItem) -> None:
        frame = item.frame
        picture = encoder_picture(frame, self._pixels)
        picture.pts, picture.time_base = round(item.time * TIME_BASE.denominator), TIME_BASE
        picture.duration = 0
        groups: dict[float, list[Output]] = {}
        for output in self._outputs:
            groups.setdefault(self._available_share(output.share), []).append(output)
        for share in self._encodings.keys() - groups.keys():
            self._send_packets(self._encodings.pop(share).drain())
        frame.stamps.encode_start = now()
        delivery = Delivery(frame.without_planes(), len(self._outputs), self._completed.append)
        for share, outputs in groups.items():
            try:
                self._send_packets(self._encodings[share].encode(picture, item, delivery, outputs))
            except OutputError as exc:
                if len(self._encodings) == 1:
                    raise
                del self._encodings[share]
                self._postpone(share, exc)

    def _available_share(self, share: float) -> float:
        """Return the share if it has an encoder or one can be opened, else the highest with one."""
        if share not in self._encodings and now() >= self._reopen_at.get(share, 0.0):
            try:
                self._encodings[share] = Encoding(
                    partial(self._open, share), self._frame_interval_s
                )
            except (OutputError, UsageError) as exc:
                self._postpone(share, exc)
        return share if share in self._encodings else max(self._encodings)

    def _postpone(self, share: float, exc: Exception) -> None:
        self._reopen_at[share] = now() + _REOPEN_S
        log.error(
            "cannot open an encoder at %d %% of the bitrate, using another bitrate: %s",
            100 * share,
            exc,
        )

    def _open(self, share: float = 1.0) -> av.VideoCodecContext:
        settings = self._settings
        if share < 1.0:
            settings = with_reduced_bitrate(settings, round(share * self._full_bps), self._first)
        return open_live_encoder(settings, self._video)

    def _send_packets(self, packets: Iterable[Encoded]) -> None:
        """Queue video packets for their outputs and track their delivery."""
        for one in packets:
            if one.item is not None:
                frame = one.item.frame
                frame.stamps.encoded = frame.stamps.encoded or now()
                frame.stamps.muxed = frame.stamps.encoded
                if frame.event != "repeated":
                    self.encode_s = now() - frame.stamps.infer_end
            origin = one.item.origin if one.item else None
            for output in one.outputs:
                output.offer(one.packet, "video", one.delivery, origin)

    def _report_completed(self) -> None:
        """Report to `on_frame` the frames whose packets all outputs have sent or dropped."""
        while True:
            try:
                frame = self._completed.popleft()
            except IndexError:  # at the end, a slow encoder thread may also take frames
                return
            self.sent += frame.event != "repeated" and not math.isnan(frame.stamps.sent)
            self._on_frame(frame)
