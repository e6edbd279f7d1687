"""Python API that reads, upscales and writes video frame by frame."""

import os
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from vsr.errors import UsageError
from vsr.inference import models
from vsr.inference.any_size import AnySizeUpscaler
from vsr.inference.backend import check_batch, load_backend
from vsr.inference.default import DEFAULT
from vsr.inference.flicker import FlickerFilter, filters_flicker
from vsr.media.encoder import EncoderSettings
from vsr.media.frame import Frame
from vsr.media.info import VideoInfo
from vsr.media.sink import Sink
from vsr.media.source import Source
from vsr.media.target import check_target
from vsr.media.timestamps import Packet


class Reader:
    """Reads the frames of a video in presentation order; created by `frames`.

    Iterate once, from one thread. The file is closed at the end of the iteration, or earlier by
    `close` or the context manager. `info` is available immediately.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._source = Source(path)

    @property
    def info(self) -> VideoInfo:
        """Size, rate, colour and other facts of the video stream."""
        return self._source.info

    @property
    def lost(self) -> int:
        """Number of frames that are missing or cannot be decoded; final after the iteration."""
        return self._source.losses.lost

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._source.close()

    def __iter__(self) -> Iterator[Frame]:
        with closing(self._source):
            for item in self._source:
                if isinstance(item, Frame):
                    yield item

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def frames(path: str | os.PathLike[str]) -> Reader:
    """Open a video to read its frames: `for frame in vsr.frames("in.mp4")`.

    `path`: a path or a URL. The planes of a frame are views of the decoder's memory and remain
    valid while the frame exists. Raises InputError if there is no video that can be decoded.
    """
    return Reader(os.fspath(path))


def upscale_frames(
    frames: Iterable[Frame],
    *,
    model: str = DEFAULT,
    scale: int | None = None,
    precision: str = "auto",
    backend: str = "auto",
    device: str | None = None,
    batch: int = 1,
    flicker_filter: bool | None = None,
) -> Iterator[Frame]:
    """Upscale frames lazily and in order; their times and colours do not change.

    A few frames are in progress at once, independent of the video's length. An engine is compiled
    for the first frame, and another one if size, format or colour change. The options are those of
    `vsr run`. Raises UsageError, ModelError or BackendError; during the iteration UsageError for an
    item that is not a frame, and BackendError.
    """
    runner = load_backend(backend, device)
    check_batch(batch, runner)
    network = models.find(model, scale, runner, precision)
    enlarge = AnySizeUpscaler(network, runner, batch).process
    if filters_flicker(model, flicker_filter):
        return FlickerFilter().process(_checked(frames), enlarge)
    return enlarge(_checked(frames))


class Writer:
    """Writes frames to a video file, with the audio and all other streams of another file.

    `with vsr.Writer("out.mp4", like="in.mp4") as out: out.write(frame)`. The first frame opens the
    file and sets its size. The file has a temporary name until `close` renames it; after an error
    in the `with` block it is deleted. Use from one thread.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        like: str | os.PathLike[str] | Reader,
        encoder: EncoderSettings | None = None,
        copy: bool = True,
        overwrite: bool = False,
    ) -> None:
        """`like`: a file or a `Reader`, whose rate, time base, pixel aspect and rotation are used.

        `copy`: also copy its audio, subtitles, chapters and tags. Raises UsageError or OutputError
        if the file cannot be written, InputError if `like` cannot be read.
        """
        self.path = Path(path)
        origin = like.path if isinstance(like, Reader) else os.fspath(like)
        check_target(self.path, origin, overwrite)
        self._encoder, self._copy = encoder or EncoderSettings(), copy
        self._source = Source(origin)
        self._packets = self._source.other_packets() if copy else iter(())
        self._waiting: Packet | None = None
        self._sink: Sink | None = None
        self._last: float | None = None
        """Time of the last written frame, in seconds."""
        self._closed = False

    def write(self, frame: Frame) -> None:
        """Encode a frame, after the packets that play before it.

        Raises UsageError if `frame` is not a Frame or not later than the previous one, and after
        `close`; OutputError if the file cannot be written.
        """
        _check_frame(frame)
        if self._closed:
            raise UsageError(f"the writer of {self.path} is closed: open a new one")
        if self._last is not None and frame.time <= self._last:
            raise UsageError(
                f"a frame at {frame.time:g} s is not later than the one before, at "
                f"{self._last:g} s: write frames in the order of their times"
            )
        self._last = frame.time
        if self._sink is None:
            self._sink = self._opened(frame)
        self._write_packets(frame.time)
        self._sink.write(frame)

    def close(self) -> None:
        """Finish the file and rename it into place; without frames, no file is created.

        Safe to call twice.
        """
        if self._sink is not None and not self._closed:
            self._write_packets(float("inf"))
            self._sink.drain()
            self._sink.close()
        self._closed = True
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            if self._sink is not None:
                self._sink.__exit__(kind, error, trace)
            self._source.close()

    def _opened(self, frame: Frame) -> Sink:
        height, width = frame.planes[0].shape
        own = self._source.info.output_for((width, height))
        like = replace(own, colour=frame.colour, planes=frame.format)
        passthrough = self._source.passthrough() if self._copy else None
        return Sink(self.path, like, self._encoder, passthrough, self._source.offset())

    def _write_packets(self, until: float) -> None:
        """Copy the packets that begin at or before the time `until`, in seconds."""
        assert self._sink is not None
        while True:
            packet = self._waiting or next(self._packets, None)
            self._waiting = packet
            if packet is None or _begins(packet) > until:
                return
            self._sink.write(packet)
            self._waiting = None


def _checked(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Yield the frames. Raises UsageError at the first item that is not a frame."""
    if isinstance(frames, str | os.PathLike):
        raise UsageError(f"{frames} is a path: pass frames, such as vsr.frames({str(frames)!r})")
    for frame in frames:
        _check_frame(frame)
        yield frame


def _check_frame(frame: object) -> None:
    if not isinstance(frame, Frame):
        raise UsageError(
            f"{type(frame).__name__} is not a frame: pass a vsr.Frame, such as vsr.frames yields "
            "(for arrays, use vsr.load_engine)"
        )


def _begins(packet: Packet) -> float:
    if packet.pts is None or packet.time_base is None:
        return float("-inf")
    return float(packet.pts * packet.time_base)
