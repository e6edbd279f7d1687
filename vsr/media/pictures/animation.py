"""Writes frames as GIF or APNG, with a delay per frame."""

from collections.abc import Iterator, MutableMapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, cast

import av
import numpy as np

from vsr.errors import OutputError, UsageError, reason
from vsr.media.encoder import EncoderSettings, VideoFormat
from vsr.media.frame import Frame, now
from vsr.media.location import absolute_path
from vsr.media.matcher import PacketMatcher
from vsr.media.passthrough import close_quietly
from vsr.media.pictures.extras import Extras
from vsr.media.pictures.names import ANIMATIONS
from vsr.media.pictures.stills import apply_display_matrix, make_image, rgb_of
from vsr.media.target import delete_abandoned_parts, part_path
from vsr.media.timestamps import Packet
from vsr.media.whole_file import real_path

_UNIT: Final = {"gif": Fraction(1, 100), "apng": Fraction(1, 90000)}
"""Format -> unit of its delays, in seconds."""
_LOOP: Final = {"gif": "loop", "apng": "plays"}
_ONCE: Final = {"gif": -1, "apng": 1}


class AnimationSink:
    """Writes a GIF or APNG file. Use as `Sink`: leaving without `close` deletes the partial file.

    Every picture of a GIF has a separate palette of 255 colours and a transparent one.
    """

    def __init__(
        self,
        path: Path,
        video: VideoFormat,
        settings: EncoderSettings,
        extras: MutableMapping[int, Extras],
        last_delay: Fraction | None = None,
        loop: int | None = 0,
    ) -> None:
        """`last_delay`: delay of the last picture (s); None: same as the previous one. `loop`: how
        often the animation is played; 0: forever, None: once."""
        if settings != EncoderSettings():
            raise UsageError(f"{path.suffix} output takes no encoder options")
        self.path = path
        self.frames_in = self.frames_out = self.packets_refused = 0
        self.left_out: list[str] = []
        self.converted: list[str] = []
        self._kind = ANIMATIONS.get(path.suffix.lower(), "apng")
        self._matrix, self._extras = video.display_matrix, extras
        self._base, self._last = _UNIT[self._kind], -1
        self._encoding = PacketMatcher[Frame]()
        self._part = part_path(path)
        delete_abandoned_parts(path)
        self._graph: av.filter.Graph | None = None
        self._rate = video.rate
        self._options = {_LOOP[self._kind]: str(_ONCE[self._kind] if loop is None else loop)}
        if last_delay:
            ticks = round(last_delay / _UNIT["gif"])
            self._options["final_delay"] = str(ticks) if self._kind == "gif" else str(last_delay)
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> "AnimationSink":
        return self

    def __exit__(self, *_: object) -> None:
        if self._container is not None:
            close_quietly(self._container)
        self._part.unlink(missing_ok=True)

    @property
    def encoder(self) -> str:
        """FFmpeg's name of the encoder in use."""
        return self._kind

    def write(self, item: Frame | Packet) -> list[Frame]:
        """Encode a frame; return the frames written by this call. Raises OutputError."""
        if not isinstance(item, Frame):
            return []
        item.stamps.encode_start = now()
        try:
            frame = self._picture(item)
            self._encoding.add(self._last, item.without_planes())
            self.frames_in += 1
            return self._encoded(frame)
        except (av.error.FFmpegError, OSError) as exc:
            raise self._error(exc) from exc

    def drain(self) -> list[Frame]:
        """Flush the encoder; return its last frames. Raises OutputError."""
        if self._container is None:
            return []
        try:
            return self._encoded(None) + self._muxed(self._stream.encode(None))
        except (av.error.FFmpegError, OSError) as exc:
            raise self._error(exc) from exc

    def close(self) -> None:
        """Write the trailer and rename the file into place. Raises OutputError."""
        try:
            self._container.close()
            self._container = None
            self._part.replace(real_path(self.path))
        except (av.error.FFmpegError, OSError) as exc:
            raise self._error(exc) from exc

    def _picture(self, frame: Frame) -> av.VideoFrame:
        """Convert a frame to R'G'B'A, with its time in the container's time base."""
        extras = self._extras.pop(frame.index, Extras())
        rgb = apply_display_matrix(rgb_of(frame), self._matrix)
        image = make_image(rgb, extras, True).convert("RGBA")
        if self._container is None:
            self._open(image.size)
        made = av.VideoFrame.from_ndarray(np.asarray(image), format="rgba")
        pts = round(frame.pts * frame.time_base / self._base)
        made.pts = self._last = max(pts, self._last + 1)  # GIF holds at most 100 frames/s
        made.time_base = self._base
        return made

    def _open(self, size: tuple[int, int]) -> None:
        self._container = av.open(
            absolute_path(str(self._part)), "w", format=self._kind, container_options=self._options
        )
        stream = cast(av.VideoStream, self._container.add_stream(self._kind, rate=self._rate))
        stream.width, stream.height = size
        stream.pix_fmt = "pal8" if self._kind == "gif" else "rgba"
        stream.codec_context.time_base = self._base
        self._stream = stream
        if self._kind == "gif":
            self._graph = _palettes(size, self._base)

    def _encoded(self, frame: av.VideoFrame | None) -> list[Frame]:
        done = []
        for ready in self._with_palette(frame):
            ready.time_base = self._base
            done += self._muxed(self._stream.encode(ready))
        return done

    def _with_palette(self, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
        if self._graph is None:
            yield from [] if frame is None else [frame]
            return
        self._graph.push(frame)
        while True:
            try:
                yield cast(av.VideoFrame, self._graph.pull())
            except (av.error.BlockingIOError, av.error.EOFError):
                return

    def _muxed(self, packets: list[Packet]) -> list[Frame]:
        done = []
        for packet in packets:
            frame = self._encoding.take(packet)
            packet.stream = self._stream
            self._container.mux_one(packet)
            self.frames_out += 1
            if frame is not None:
                frame.stamps.encoded = frame.stamps.muxed = now()
                done.append(frame)
        return done

    def _error(self, exc: Exception) -> OutputError:
        return OutputError(f"cannot write {self.path}: {reason(exc)}")


def _palettes(size: tuple[int, int], base: Fraction) -> av.filter.Graph:
    """Build a filter graph that converts each R'G'B'A picture to its best 256-colour palette."""
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=size[0], height=size[1], format=av.VideoFormat("rgba"), time_base=base, name="in"
    )
    split, sink = graph.add("split"), graph.add("buffersink")
    colours = graph.add("palettegen", "stats_mode=single")
    use = graph.add("paletteuse", "new=1")
    source.link_to(split)
    split.link_to(colours, 0, 0)
    split.link_to(use, 1, 0)
    colours.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    return graph
