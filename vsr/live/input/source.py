"""Live source: opens with little delay, and raises an error if the connection breaks off."""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Final

import av

from vsr.errors import InputError, reason
from vsr.live.input.fit import Canvas, FrameFitter, OutputCapabilities
from vsr.live.input.new_streams import count_new_streams
from vsr.media.filters import Filtering
from vsr.media.frame import Frame, now
from vsr.media.info import VideoInfo
from vsr.media.interleave import interleaved
from vsr.media.location import is_url, url_for_messages
from vsr.media.missing_frames import Losses
from vsr.media.opening import Feed, open_live
from vsr.media.reading import Reading
from vsr.media.source import Source
from vsr.media.timestamps import Packet
from vsr.media.variants import BEST_FIT, VariantChoice

_MIN_RATE: Final = 1
_MAX_RATE: Final = 240
_DEFAULT_RATE: Final = Fraction(25)
"""Frame rate that replaces implausible ones, which are outside `_MIN_RATE` to `_MAX_RATE` (Hz)."""
_SEGMENTED: Final = frozenset(("hls", "dash"))
"""FFmpeg's formats that arrive as files of several seconds each."""
_ADDING_STREAMS: Final = frozenset(("flv", "live_flv", "mpegts", "hls"))
"""FFmpeg's formats in which streams may appear after opening."""
_CHECK_STREAMS_S: Final = 0.5
"""Interval between checks for new streams, in seconds."""
_KEY_FRAME_WAIT_S: Final = 30.0
"""Longest wait for a key frame after joining a stream, in seconds."""


class LiveSource:
    """Reads a stream or file with little delay; a failure raises an error.

    Iterate once, from one thread. Yields frames on the canvas, and packets of other streams.
    """

    def __init__(
        self,
        url: str,
        timeout_s: float,
        canvas: Canvas | None = None,
        feed: Feed | None = None,
        tls_verify: bool = True,
        variant: VariantChoice = BEST_FIT,
        deinterlace: str = "auto",
        capabilities: OutputCapabilities | None = None,
    ) -> None:
        """`timeout_s` is the time without data after which it counts as lost (s).

        Frames are fitted onto the `canvas`; without one, the first frame determines it, together
        with `capabilities` (None: 8 bits and no side data). A `feed` is read instead of `url`; the
        caller closes it. `variant` selects a variant of a playlist. `deinterlace` is one of
        `vsr.media.filters.DEINTERLACE`. Raises InputError.
        """
        self._capabilities = capabilities or OutputCapabilities()
        self._fitter = FrameFitter(canvas, self._capabilities.bits)
        self.new_streams = 0
        """Number of streams that appeared after opening, and are therefore left out."""
        reading = Reading(
            demux=self._in_order,
            opener=partial(open_live, read_timeout=timeout_s, feed=feed, verify=tls_verify),
            threads="SLICE",
            planes=self._fitter.planes,
            keeps_aspect=True,
            info_after_conversion=self._fitter.with_canvas_format,
            first_picture_timeout=max(_KEY_FRAME_WAIT_S, timeout_s),
            map_read_error=partial(_read_error, url_for_messages(url), timeout_s),
            variant=variant,
            filtering=Filtering(deinterlace=deinterlace),
            count_missing_frames=not is_url(url),  # a stream does not announce its length
        )
        self._source = Source(url, reading)

    @property
    def canvas(self) -> Canvas:
        """Canvas that all frames are converted to."""
        return self._fitter.canvas

    @property
    def info(self) -> VideoInfo:
        """Properties of the video as its frames are delivered."""
        info = self._source.info
        if not _MIN_RATE <= info.rate <= _MAX_RATE:
            info = replace(info, rate=_DEFAULT_RATE)
        return self.canvas.converted_info(info)

    @property
    def notes(self) -> list[str]:
        """Messages about what is lost or changed in its frames."""
        return self.canvas.notes(self._source.info, self._capabilities)

    @property
    def codec(self) -> str:
        """FFmpeg's name of the video's decoder."""
        return self._source.info.codec

    @property
    def audio(self) -> av.AudioStream | None:
        """First audio stream that can be decoded; None if there is none."""
        return self._source.audio

    @property
    def codecs(self) -> tuple[str, str | None]:
        """Codecs of video and audio; None without audio."""
        sound = self.audio
        return self.codec, None if sound is None else sound.codec_context.name

    @property
    def is_segmented(self) -> bool:
        """Whether it arrives as files of several seconds each (HLS, DASH)."""
        return bool(_SEGMENTED & set(self._source.container_format.split(",")))

    @property
    def has_timestamps(self) -> bool:
        """Whether its format has timestamps; if not, FFmpeg counts frames at an assumed rate."""
        name = self._source.container_format.partition(",")[0]
        flags = av.format.Flags(av.ContainerFormat(name, "r").flags)
        return av.format.Flags.no_timestamps not in flags

    @property
    def losses(self) -> Losses:
        """Record of what could not be delivered; complete after the end."""
        return self._source.losses

    @property
    def jumps(self) -> int:
        """Number of jumps of its clock that were corrected."""
        return self._source.jumps

    def __iter__(self) -> Iterator[Frame | Packet]:
        own = self._source.info
        is_resized = (own.width, own.height) != self.canvas.size
        for item in self._source:
            if isinstance(item, Frame):
                item.colour = self.canvas.colour
                item.event = item.event or ("resized" if is_resized else "")
            yield item

    def close(self) -> None:
        """Close the input; safe to call twice."""
        self._source.close()

    def _in_order(
        self, container: "av.container.InputContainer", streams: tuple[av.stream.Stream, ...]
    ) -> Iterator[Packet]:
        """Yield packets sorted by time if the format arrives in pieces, else as they arrive."""
        packets = self._watch_streams(container)
        if not _SEGMENTED & set(container.format.name.split(",")):
            return packets
        kinds = ("video", "audio")
        first = (next((s for s in streams if s.type == kind), None) for kind in kinds)
        return interleaved(packets, [stream for stream in first if stream])

    def _watch_streams(self, container: "av.container.InputContainer") -> Iterator[Packet]:
        """Yield all packets, and check at intervals for new streams."""
        adds_streams = bool(_ADDING_STREAMS & set(container.format.name.split(",")))
        packets, checked = container.demux(), now()
        while (packet := next(packets, None)) is not None:
            ends = not packet.size
            yield packet
            if adds_streams and not ends and now() - checked > _CHECK_STREAMS_S:
                self.new_streams = count_new_streams(container)
                packets, checked = container.demux(), now()  # see `count_new_streams`


def _read_error(name: str, timeout_s: float, exc: Exception) -> InputError:
    """Return the error to raise when reading a live source fails."""
    if isinstance(exc, av.error.ExitError):
        return InputError(f"{name} sent no data for {timeout_s:g} s")
    return InputError(f"reading {name} failed: {reason(exc)}")
