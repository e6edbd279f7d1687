"""Live source: opens with little delay, and raises an error if the connection breaks off."""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Final

import av

from vsr.errors import InputError, reason
from vsr.live.input.fit import Canvas, Carried, PictureFit
from vsr.live.input.unseen import unseen
from vsr.media.filters import Filtering
from vsr.media.frame import Frame, now
from vsr.media.info import VideoInfo
from vsr.media.interleave import interleaved
from vsr.media.location import Feed, is_url, open_live, url_for_messages
from vsr.media.missing_frames import Losses
from vsr.media.reading import Reading
from vsr.media.source import Source
from vsr.media.timestamps import Packet
from vsr.media.variants import BEST_FIT, VariantChoice

_SLOWEST: Final = 1
_FASTEST: Final = 240
_USUAL: Final = Fraction(25)
"""Frame rate that replaces implausible ones, which are outside `_SLOWEST` to `_FASTEST` (Hz)."""
_IN_PIECES: Final = frozenset(("hls", "dash"))
"""FFmpeg's formats that arrive as files of several seconds each."""
_GROWING: Final = frozenset(("flv", "live_flv", "mpegts", "hls"))
"""FFmpeg's formats in which streams may appear after opening."""
_LOOK_S: Final = 0.5
"""Interval between checks for new streams, in seconds."""
_PATIENCE: Final = 30.0
"""Longest wait for a key frame after joining a stream, in seconds."""


class LiveSource:
    """Reads a stream or file with little delay; a failure raises an error.

    Iterate once, from one thread. Yields frames on the canvas, and packets of other streams.
    """

    def __init__(
        self,
        url: str,
        silence: float,
        canvas: Canvas | None = None,
        feed: Feed | None = None,
        tls_verify: bool = True,
        variant: VariantChoice = BEST_FIT,
        deinterlace: str = "auto",
        carried: Carried | None = None,
    ) -> None:
        """`silence` is the time without data after which it counts as lost (s).

        Frames are fitted onto the `canvas`; without one, the first frame determines it, together
        with `carried` (None: 8 bits and no side data). A `feed` is read instead of `url`; the
        caller closes it. `variant` selects a variant of a playlist. `deinterlace` is one of
        `vsr.media.filters.DEINTERLACE`. Raises InputError.
        """
        self._carried = carried or Carried()
        self._fit = PictureFit(canvas, self._carried.bits)
        self.unseen = 0
        """Number of streams that appeared after opening, and are therefore left out."""
        reading = Reading(
            demux=self._in_order,
            opener=partial(open_live, read_timeout=silence, feed=feed, verify=tls_verify),
            threads="SLICE",
            planes=self._fit.planes,
            info_after_conversion=self._fit.seen_as,
            first_picture_timeout=max(_PATIENCE, silence),
            map_read_error=partial(_error_of, url_for_messages(url), silence),
            variant=variant,
            filtering=Filtering(deinterlace=deinterlace),
            count_missing_frames=not is_url(url),  # a stream does not announce its length
        )
        self._source = Source(url, reading)

    @property
    def canvas(self) -> Canvas:
        """Canvas that all frames are converted to."""
        return self._fit.canvas

    @property
    def info(self) -> VideoInfo:
        """Properties of the video as its frames are delivered."""
        info = self._source.info
        if not _SLOWEST <= info.rate <= _FASTEST:
            info = replace(info, rate=_USUAL)
        return self.canvas.presented(info)

    @property
    def notes(self) -> list[str]:
        """Messages about what is lost or changed in its frames."""
        return self.canvas.notes(self._source.info, self._carried)

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
    def in_pieces(self) -> bool:
        """Whether it arrives as files of several seconds each (HLS, DASH)."""
        return bool(_IN_PIECES & set(self._source.container_format.split(",")))

    @property
    def has_clock(self) -> bool:
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
        fitted = (own.width, own.height) != self.canvas.size
        for item in self._source:
            if isinstance(item, Frame):
                item.colour = self.canvas.colour
                item.event = item.event or ("resized" if fitted else "")
            yield item

    def close(self) -> None:
        """Close the input; safe to call twice."""
        self._source.close()

    def _in_order(
        self, container: "av.container.InputContainer", streams: tuple[av.stream.Stream, ...]
    ) -> Iterator[Packet]:
        """Yield packets sorted by time if the format arrives in pieces, else as they arrive."""
        packets = self._watched(container)
        if not _IN_PIECES & set(container.format.name.split(",")):
            return packets
        kinds = ("video", "audio")
        first = (next((s for s in streams if s.type == kind), None) for kind in kinds)
        return interleaved(packets, [stream for stream in first if stream])

    def _watched(self, container: "av.container.InputContainer") -> Iterator[Packet]:
        """Yield all packets, and check at intervals for new streams."""
        grows = bool(_GROWING & set(container.format.name.split(",")))
        packets, looked = container.demux(), now()
        while (packet := next(packets, None)) is not None:
            ends = not packet.size
            yield packet
            if grows and not ends and now() - looked > _LOOK_S:
                self.unseen = unseen(container)
                packets, looked = container.demux(), now()  # see `unseen`


def _error_of(name: str, silence: float, exc: Exception) -> InputError:
    """Return the error to raise when reading a live source fails."""
    if isinstance(exc, av.error.ExitError):
        return InputError(f"{name} sent nothing for {silence:g} s")
    return InputError(f"{name} broke off: {reason(exc)}")
