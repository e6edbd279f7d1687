"""Encodes a relay's pictures once and queues every packet for every output."""

import logging
import math
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Any, Final, cast

import av
from av.video.frame import PictureType

from vsr.errors import OutputError, UsageError, reason
from vsr.live.output.delivery import Delivery
from vsr.live.output.output import Output, close_outputs
from vsr.live.output.plan import OutputStreams
from vsr.media.encoder import (
    EncoderSettings,
    PacketMatcher,
    VideoFormat,
    encoder_name,
    open_encoder,
)
from vsr.media.frame import Frame, now, picture_of
from vsr.media.info import VideoInfo
from vsr.media.timestamps import Packet

log = logging.getLogger(__name__)

TIME_BASE: Final = Fraction(1, 90_000)
KEY_EVERY: Final = 2.0
"""Seconds between key frames: what streaming services ask for."""
_QUEUE: Final = 8
_DRAIN_S: Final = 0.5
"""For the encoder to do what waits, when a relay ends."""
_CLOSE_S: Final = 0.8
"""For the outputs to send what waits, when a relay ends."""
_FAILURES: Final = 3
_FAILURES_S: Final = 60.0
"""So many failures of the encoder in so many seconds end a relay."""
_TRIAL_SIZE: Final = (320, 180)


@dataclass(frozen=True)
class _Shown:
    frame: Frame
    time: float
    origin: float | None


@dataclass(frozen=True)
class Heard:
    """A packet of sound for the outputs."""

    packet: Packet
    """Its times are the output's."""
    origin: float | None
    """Time in the source (s) of what it lets hear; None: it is silence made here."""


def check_encoder(settings: EncoderSettings) -> None:
    """Raise UsageError or OutputError for an encoder that live outputs cannot use."""
    if settings.passes > 1:
        raise UsageError("two passes are for files: a live stream is encoded once")
    trial = VideoFormat(size=_TRIAL_SIZE, rate=Fraction(25), time_base=TIME_BASE)
    encoder = _live_encoder(settings, trial)
    if not encoder.extradata:
        raise UsageError(
            f"encoder {encoder.name} makes no header that live outputs can begin with: "
            "use h264 or hevc"
        )


class LiveEncoder:
    """Runs the encoder on a thread and feeds the outputs. Methods are for one thread."""

    def __init__(
        self,
        urls: Sequence[str],
        settings: EncoderSettings,
        info: VideoInfo,
        size: tuple[int, int],
        sound: av.AudioCodecContext | None,
        on_frame: Callable[[Frame], None],
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """`info` is the source's; `sound` describes what `sound()` will be given.

        Raises UsageError or OutputError for an encoder that cannot be.
        """
        video = replace(info.enlarged(size), time_base=TIME_BASE)
        self._new_encoder = partial(_live_encoder, settings, video)
        self._encoder = self._new_encoder()
        self._failures: deque[float] = deque(maxlen=_FAILURES)
        self._step = float(1 / info.rate)
        self._on_frame, self._stopped = on_frame, stopped
        self._items: queue.Queue[_Shown | Frame | Heard | None] = queue.Queue(_QUEUE)
        self._encoding = PacketMatcher[_Shown]()
        self._settled: deque[Frame] = deque()
        """Frames whose packets every output has sent or dropped."""
        self.sent = 0
        """Pictures of the source that at least one output has sent."""
        self.tail: float | None = None
        """What lay between the newest picture's enlargement and its packet (s)."""
        self.failed: Exception | None = None
        self._last_key = -KEY_EVERY
        streams = OutputStreams(video=self._encoder, audio=sound)
        self._outputs = [Output(url, streams) for url in urls]
        self._thread = threading.Thread(target=self._run, name="encode", daemon=True)
        for output in self._outputs:
            output.start()
        self._thread.start()

    def show(self, frame: Frame, time: float, origin: float | None = None) -> None:
        """Encode and send a picture at an output time (s); waits if the encoder is behind.

        `origin` is its time in the source (s); None for a picture that is shown again.
        """
        self._put(_Shown(frame, time, origin))

    def sound(self, heard: Heard) -> None:
        """Send a packet of sound."""
        self._put(heard)

    def note(self, frame: Frame) -> None:
        """Report a picture that is not shown to `on_frame`, in its turn."""
        self._put(frame.bare())

    @property
    def waiting(self) -> int:
        """Number of pictures and packets of sound that wait for the encoder."""
        return self._items.qsize()

    @property
    def was_open(self) -> bool:
        """Whether any output was ever open."""
        return any(output.was_open for output in self._outputs)

    @property
    def is_ready(self) -> bool:
        """Whether no output is still in its first attempt to connect."""
        return all(output.state.state != "connecting" for output in self._outputs)

    def states(self) -> list[dict[str, Any]]:
        """State and figures of every output."""
        return [output.facts() for output in self._outputs]

    def close(self) -> None:
        """Send what waits and end every output's session, within about 1.4 s."""
        try:
            self._items.put(None, timeout=_DRAIN_S)
        except queue.Full:
            log.warning("the encoder hangs: what waits for it is left out")
        self._thread.join(_DRAIN_S)
        close_outputs(self._outputs, _CLOSE_S)
        self._report_settled()

    def _put(self, item: _Shown | Frame | Heard) -> None:
        while self._thread.is_alive():
            try:
                self._items.put(item, timeout=0.1)
                return
            except queue.Full:
                if self._stopped():
                    return
        if self.failed is not None:
            raise self.failed

    def _run(self) -> None:
        try:
            while (item := self._items.get()) is not None:
                self._report_settled()
                if isinstance(item, _Shown):
                    self._encode(item)
                elif isinstance(item, Frame):
                    self._on_frame(item)
                else:
                    for output in self._outputs:
                        output.offer(item.packet, "audio", origin=item.origin)
            for packet in self._encoder.encode(None):
                self._send(packet)
        except Exception as exc:  # raised again by the next call of the relay's thread
            self.failed = exc

    def _encode(self, item: _Shown) -> None:
        frame = item.frame
        picture = picture_of(frame)
        picture.pts, picture.time_base = round(item.time * TIME_BASE.denominator), TIME_BASE
        picture.duration = 0
        # by time, not by number: pictures may come at another rate than the source declared
        due = item.time - self._last_key >= KEY_EVERY - self._step / 2
        if due or any(output.wants_key for output in self._outputs):
            picture.pict_type = PictureType.I
            self._last_key = item.time
        frame.stamps.encode_start = now()
        self._encoding.add(picture.pts, item)
        try:
            packets = self._encoder.encode(picture)
        except (av.error.FFmpegError, ValueError) as exc:
            self._reopen(exc)
            return
        for packet in packets:
            self._send(packet)

    def _reopen(self, exc: Exception) -> None:
        """Replace a failed encoder; raise OutputError if too many failed lately."""
        failed = OutputError(f"the encoder {self._encoder.name} failed: {reason(exc)}")
        self._failures.append(now())
        if len(self._failures) == _FAILURES and now() - self._failures[0] < _FAILURES_S:
            raise failed from exc
        log.error("%s; it is opened again, %d pictures are lost", failed, len(self._encoding))
        self._encoding.clear()
        self._encoder = self._new_encoder()

    def _send(self, packet: Packet) -> None:
        """Queue a video packet for every output and track its delivery."""
        item, encoded = self._encoding.take(packet), now()
        if item is None:
            for output in self._outputs:
                output.offer(packet, "video")
            return
        self._last_key = item.time if packet.is_keyframe else self._last_key
        frame = item.frame
        frame.stamps.encoded = frame.stamps.muxed = encoded
        delivery = Delivery(frame.bare(), len(self._outputs), self._settled.append)
        for output in self._outputs:
            output.offer(packet, "video", delivery, item.origin)
        if frame.event != "repeated":
            self.tail = now() - frame.stamps.infer_end

    def _report_settled(self) -> None:
        """Report frames to `on_frame` whose packets every output has sent or dropped."""
        while self._settled:
            frame = self._settled.popleft()
            self.sent += frame.event != "repeated" and not math.isnan(frame.stamps.sent)
            self._on_frame(frame)


def _live_encoder(settings: EncoderSettings, video: VideoFormat) -> av.VideoCodecContext:
    name = encoder_name(settings, "flv")
    context = cast(av.VideoCodecContext, av.CodecContext.create(name, "w"))
    open_encoder(context, settings, video, KEY_EVERY)
    return context
