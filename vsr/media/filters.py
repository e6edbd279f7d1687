"""Applies FFmpeg filters to decoded pictures: deinterlacing, cropping, and the user's filters."""

import logging
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import av

from vsr.errors import UsageError, reason
from vsr.media.crop import Crop
from vsr.media.fields import DETECTOR, UNKNOWN_FIELDS, Fields

log = logging.getLogger(__name__)

DEINTERLACE: Final = ("auto", "off", "frame", "bob")
_MAX_REMEMBERED: Final = 64
"""Number of pictures whose `opaque` is remembered, as filters lose it."""
_MAX_ASPECT: Final = 65535
"""Maximum numerator and denominator of a pixel aspect."""
_NOTHING_READY: Final = (av.error.BlockingIOError, av.error.EOFError)


@dataclass(frozen=True, kw_only=True)
class Filtering:
    """Filter settings for pictures between decoder and network.

    Raises UsageError for filters that FFmpeg lacks or that do not have one video input and output.
    """

    deinterlace: str = "off"
    """`off`; `auto`: only combed pictures; `frame`, `bob`: all, into one or two frames each."""
    detelecine: bool = False
    """Whether hard telecine is removed (24 fps film from 30 fps video)."""
    filters: str | None = None
    """Chain of FFmpeg filters as in `ffmpeg -vf`; None: no filters."""

    crop: Crop | None = None
    """Crop that the container declares; None: no crop."""
    quiet: bool = False
    """Whether the log does not say that the video is deinterlaced."""

    def __post_init__(self) -> None:
        if self.deinterlace not in DEINTERLACE:
            known = ", ".join(DEINTERLACE)
            raise UsageError(f"deinterlace is '{self.deinterlace}': it must be one of {known}")
        if self.detelecine and self.deinterlace in ("frame", "bob"):
            raise UsageError(
                f"--detelecine and --deinterlace {self.deinterlace} exclude each other: use one "
                "(--detelecine also deinterlaces what remains combed)"
            )
        for name, _ in split_chain(self.filters or ""):
            if not takes_one_video(name):
                raise UsageError(
                    f"no filter '{name}' for one video; vsr doctor --filters lists all"
                )

    @property
    def needs_field_analysis(self) -> bool:
        """Whether the filters depend on the interlacing analysis of the video's beginning."""
        return self.deinterlace != "off" and not self.detelecine

    @property
    def can_begin_anywhere(self) -> bool:
        """Whether the frames, soon after a key frame, do not depend on where reading begins."""
        return not self.detelecine and self.filters is None

    @property
    def rate_factor(self) -> Fraction:
        """Ratio of frames to decoded pictures, before `filters`."""
        return Fraction(4, 5) if self.detelecine else Fraction(1 + (self.deinterlace == "bob"))

    def chain(self, fields: Fields, flagged: bool) -> list[tuple[str, str]]:
        """Return (name, options) of the filters; `flagged`: any picture has the interlaced flag."""
        own = [*self._crop(), *split_chain(self.filters or "")]
        if self.detelecine:
            film = [("fieldmatch", ""), ("bwdif", "mode=send_frame:deint=interlaced")]
            return [*film, ("decimate", ""), *own]
        if self.deinterlace == "off":
            return own
        order = [("setfield", fields.order)] if fields.order else []
        if self.deinterlace != "auto":
            mode = "send_field" if self.deinterlace == "bob" else "send_frame"
            return [*order, ("bwdif", f"mode={mode}:deint=all"), *own]
        if not fields.order and not flagged:
            return own
        # idet sets or clears each picture's interlaced flag from its content
        return [*order, DETECTOR, ("bwdif", "mode=send_frame:deint=interlaced"), *own]

    def _crop(self) -> list[tuple[str, str]]:
        if self.crop is None:
            return []
        left, right, top, bottom = self.crop
        return [("crop", f"iw-{left + right}:ih-{top + bottom}:{left}:{top}")]

    def time_base(self, stream: Fraction, filtered: Fraction) -> Fraction:
        """Return the frames' time base: the stream's, unless filters change the times."""
        if self.detelecine or self.filters:
            return Fraction(1, math.lcm(stream.denominator, filtered.denominator))
        return stream / 2 if self.deinterlace == "bob" else stream


class PictureFilters:
    """Filters the pictures of one stream, in order. Use from one thread.

    The filter graph is rebuilt if the size, the format, the colour, the pixel aspect or the
    required filters change.
    """

    def __init__(self, filtering: Filtering, fields: Fields = UNKNOWN_FIELDS) -> None:
        self.rate: Fraction | None = None
        """Output frame rate in fps; None if nothing is filtered."""
        self._filtering, self._fields = filtering, fields
        self._graph: av.filter.Graph | None = None
        self._kind: tuple[object, ...] = ()
        self._combed, self._announced = False, filtering.quiet
        self._shift: Fraction | None = None
        self._stream_rate = Fraction(25)
        self._first = Fraction(0)
        self._opaque: deque[tuple[Fraction, Any]] = deque(maxlen=_MAX_REMEMBERED)

    @property
    def active(self) -> bool:
        """Whether the picture that was yielded last has been filtered."""
        return self._graph is not None

    def feed(
        self, picture: av.VideoFrame, rate: Fraction, aspect: Fraction | None = None
    ) -> Iterator[av.VideoFrame]:
        """Filter a picture with its time set; yield the resulting pictures. Raises UsageError.

        `aspect`: its pixel aspect; the container may declare another one than the picture.
        """
        self._combed = self._combed or picture.interlaced_frame
        chain = self._filtering.chain(self._fields, self._combed)
        form = (picture.format.name, picture.colorspace, picture.color_range)
        kind = (picture.width, picture.height, *form, aspect, tuple(chain))
        if kind != self._kind:
            yield from self.flush()
            self._kind = kind
            self._start(picture, chain, rate, aspect)
        if self._graph is None:
            yield picture
            return
        assert picture.pts is not None and picture.time_base is not None
        self._opaque.append((picture.pts * picture.time_base, picture.opaque))
        self._graph.vpush(picture)
        yield from self._ready()

    def flush(self) -> Iterator[av.VideoFrame]:
        """Flush and close the filters; yield the pictures they held back."""
        if self._graph is not None:
            self._graph.vpush(None)
            yield from self._ready()
        self._graph, self._kind = None, ()

    def _start(
        self, picture: av.VideoFrame, chain: list[tuple[str, str]], rate: Fraction,
        aspect: Fraction | None,
    ) -> None:  # fmt: skip
        self._graph, self._shift, self._stream_rate = None, None, rate
        if not chain:
            return
        if "bwdif" in dict(chain) and not self._announced:
            self._announced = True
            log.info("deinterlacing (%s)", self._filtering.deinterlace)
        assert picture.pts is not None and picture.time_base is not None
        self._first = picture.pts * picture.time_base
        words = ",".join(f"{name}={options}" if options else name for name, options in chain)
        try:
            self._graph = _graph(picture, chain, rate, aspect)
        except (av.error.FFmpegError, ValueError) as exc:
            raise UsageError(f"FFmpeg's filters {words} cannot be used: {reason(exc)}") from exc

    def _ready(self) -> Iterator[av.VideoFrame]:
        assert self._graph is not None
        while True:
            try:
                picture = self._graph.vpull()
            except _NOTHING_READY:
                return
            assert picture.pts is not None and picture.time_base is not None
            if self.rate is None:
                self.rate = self._rate_of(picture)
            if self._shift is None:  # decimate counts its frames and rounds the first
                moved = self._first - picture.pts * picture.time_base
                self._shift = moved if self._filtering.detelecine else Fraction(0)
            time = picture.pts * picture.time_base + self._shift
            base = Fraction(1, math.lcm(picture.time_base.denominator, time.denominator))
            picture.duration = round((picture.duration or 0) * picture.time_base / base)
            picture.time_base, picture.pts = base, int(time / base)
            while len(self._opaque) > 1 and self._opaque[1][0] <= time:
                self._opaque.popleft()
            picture.opaque = self._opaque[0][1] if self._opaque else None
            yield picture

    def _rate_of(self, picture: av.VideoFrame) -> Fraction:
        if self._filtering.filters and picture.duration and picture.time_base:
            return 1 / (picture.duration * picture.time_base)
        return self._stream_rate * self._filtering.rate_factor


def _graph(
    picture: av.VideoFrame, chain: list[tuple[str, str]], rate: Fraction, aspect: Fraction | None
) -> av.filter.Graph:
    """Build the filter graph for pictures like this one. Raises FFmpegError and ValueError."""
    graph = av.filter.Graph()
    assert picture.time_base is not None
    facts = {
        "video_size": f"{picture.width}x{picture.height}", "pix_fmt": picture.format.name,
        "time_base": f"{picture.time_base.numerator}/{picture.time_base.denominator}",
        "frame_rate": f"{rate.numerator}/{rate.denominator}",
        "colorspace": picture.colorspace, "range": picture.color_range,
    }  # fmt: skip
    if aspect:  # filters take it from here or from each picture
        facts["pixel_aspect"] = f"{aspect.numerator}/{aspect.denominator}"
        chain = [("setsar", f"{facts['pixel_aspect']}:max={_MAX_ASPECT}"), *chain]
    last = graph.add("buffer", ":".join(f"{key}={value}" for key, value in facts.items()))
    for name, options in chain:
        each = graph.add(name, options or None)
        last.link_to(each)
        last = each
    last.link_to(graph.add("buffersink"))
    graph.configure()
    return graph


def split_chain(text: str) -> list[tuple[str, str]]:
    """Split `crop=8:8,negate` into names and options, as FFmpeg does. Raises UsageError.

    A backslash escapes the next character, single quotes the text between them.
    """
    parts, at, quoted = [""], 0, False
    while at < len(text):
        char = text[at]
        if char == "\\" and not quoted:
            parts[-1] += text[at : at + 2]
            at += 2
            continue
        quoted ^= char == "'"
        if not quoted and char in ";[]":
            raise UsageError(f"'{text}' is not a simple filter chain: it may not contain ; [ or ]")
        if char == "," and not quoted:
            parts.append("")
        else:
            parts[-1] += char
        at += 1
    found = [part.strip().partition("=") for part in parts]
    if text.strip() and not all(name for name, _, _ in found):
        raise UsageError(f"'{text}' contains an empty filter")
    return [(name, options) for name, _, options in found if name]


def takes_one_video(name: str) -> bool:
    """Return whether FFmpeg has a filter of that name with one video input and one output."""
    try:
        graph = av.filter.Graph()
        buffer = graph.add("buffer", "video_size=16x16:pix_fmt=yuv420p:time_base=1/25")
        found: Any = av.filter.Filter(name)  # its stub lacks the pads
        if len(found.inputs) != 1 or len(found.outputs) != 1:
            return False
        each = graph.add(found.name)
        buffer.link_to(each)
        each.link_to(graph.add("buffersink"))
    except av.error.FFmpegError:  # it needs options, or takes audio
        return name in _WITH_OPTIONS
    except ValueError:
        return False
    return True


_WITH_OPTIONS: Final = frozenset(
    "lut3d lut1d haldclut ass subtitles drawtext frei0r libvmaf zscale".split()  # noqa: SIM905
)
"""Filters with one video input that cannot be created without options."""


def table() -> str:
    """Return a line for each filter that `--vf` accepts: its name and description."""
    names = sorted(n for n in av.filter.filters_available if takes_one_video(n))
    widest = max(map(len, names))
    lines = ((n, av.filter.Filter(n).description or "") for n in names)
    return "\n".join(f"{name:<{widest}}  {words}".rstrip() for name, words in lines)


NO_FILTERS: Final = Filtering()
