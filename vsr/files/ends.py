"""Opens what a run reads and writes: files, URLs and pipes."""

from fractions import Fraction
from pathlib import Path

from vsr.errors import UsageError
from vsr.files.settings import RunSettings
from vsr.media.encoder import VideoFormat
from vsr.media.passthrough import Passthrough
from vsr.media.pipe import PipeSink
from vsr.media.sink import Sink
from vsr.media.target import pipe_format, pipe_of


def check_container(path: Path, settings: RunSettings) -> None:
    """Raise UsageError for a container that is wrong, or named where the output's name says it."""
    if pipe_of(path) is not None:
        pipe_format(settings.container)
    elif settings.container is not None:
        raise UsageError("--format is for OUTPUT -: elsewhere the output's name says what it is")


def sink_for(
    path: Path,
    video: VideoFormat,
    settings: RunSettings,
    passthrough: Passthrough | None,
    offset: Fraction | None = Fraction(0),
    end: Fraction | None = None,
) -> Sink:
    """Open an output: a file, or a pipe. Raises UsageError and OutputError; see `Sink`."""
    pipe = pipe_of(path)
    if pipe is None:
        return Sink(path, video, settings.encoder, passthrough, offset, end, settings.audio)
    return PipeSink(
        pipe,
        pipe_format(settings.container),
        video,
        settings.encoder,
        passthrough,
        offset,
        end,
        settings.audio,
    )
