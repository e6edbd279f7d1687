"""Writes an output into a pipe, for another program to read during the run."""

import errno
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av

from vsr.errors import OutputError
from vsr.media.encoder import EncoderSettings, VideoFormat
from vsr.media.passthrough import Passthrough, close_quietly
from vsr.media.sink import Sink
from vsr.media.track import muxer_options
from vsr.media.y4m import open_output


class PipeSink(Sink):
    """Writes to an open file descriptor. Written data stays, even if an error follows."""

    def __init__(
        self,
        descriptor: int,
        container: str,
        video: VideoFormat,
        settings: EncoderSettings,
        passthrough: Passthrough | None = None,
        offset: Fraction | None = Fraction(0),
        end: Fraction | None = None,
        audio: str = "copy",
    ) -> None:
        """`container`: FFmpeg's name of a container that needs no seeking. Others as in `Sink`."""
        self._descriptor = descriptor
        self._closed = False
        path = Path("stdout")
        super().__init__(path, video, settings, passthrough, offset, end, audio, container)

    def __exit__(self, *_: object) -> None:
        if not self._closed:
            self._abort()

    def close(self) -> None:
        """Write the container's trailer; leave the descriptor open."""
        try:
            self._finish()
            self._closed = True
        except (av.error.FFmpegError, OSError) as exc:
            raise self._error("finish", exc) from exc

    def _abort(self) -> None:
        self._closed = True
        close_quietly(self._container, self._file)

    def _open(
        self, copied: Sequence[av.stream.Stream], video: VideoFormat
    ) -> "av.container.OutputContainer":
        options, aspect = muxer_options(self._format, video), video.sample_aspect
        made, self._file = open_output(self._descriptor, self._format, options, aspect)
        return made

    def _error(self, action: str, exc: "av.error.FFmpegError | OSError") -> OutputError:
        if exc.errno == errno.EPIPE:
            return OutputError(
                f"stdout was closed by the reader ({self.frames_out} frames were written)"
            )
        return super()._error(action, exc)
