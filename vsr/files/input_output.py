"""Opens the input and the output of a run: files, URLs, pipes and pictures."""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Final

from vsr.errors import InputError, OutputError, UsageError, reason
from vsr.files.interruptible import open_interruptibly
from vsr.files.settings import RunSettings
from vsr.media.encoder import VideoFormat, encoder_name
from vsr.media.location import absolute_path, is_stdin, is_url
from vsr.media.pictures.animation import AnimationSink
from vsr.media.pictures.names import (
    ANIMATIONS,
    find_pictures,
    insert_number,
    is_animation,
    is_folder,
    is_pattern,
    is_picture,
)
from vsr.media.pictures.source import PictureSource
from vsr.media.pictures.stills import PILLOW, StillSink, folder_file, picture_options
from vsr.media.pipe import PipeSink
from vsr.media.reading import Reading
from vsr.media.side_data import kinds_to_carry
from vsr.media.sink import Sink
from vsr.media.source import Source
from vsr.media.target import (
    check_target,
    container_format,
    output_exists_error,
    pipe_format,
    pipe_of,
)
from vsr.media.tone import SdrPictures
from vsr.media.variants import VariantChoice

_DIGITS: Final = re.compile(r"\d+")
AnySource = Source | PictureSource
AnySink = Sink | StillSink | AnimationSink


def check_output(path: Path, input_: str, settings: RunSettings) -> None:
    """Raise an error if an output cannot or must not be written; see `check_target`."""
    if pipe_of(path) is not None:
        pipe_format(settings.container)
        return
    if settings.container is not None:
        raise UsageError(
            "--format requires OUTPUT -: the container of a file is chosen by the name's extension"
        )
    pictures = find_pictures(input_, path)
    if is_folder(path) and pictures is not None:
        picture_options(path, settings.encoder)
        _check_folder(path, pictures.files, settings.overwrite)
        return
    check_target(path, input_, settings.overwrite)
    if pictures is not None:
        _check_not_input(path, pictures.files)
    if is_picture(path) and not is_animation(path):
        picture_options(path, settings.encoder)


def names_folder(output: str | os.PathLike[str]) -> bool:
    """Return whether an output's name ends with a separator, which `Path` drops."""
    return os.fspath(output).endswith(("/", os.sep))


@contextmanager
def output_folder(path: Path, input_: str) -> Iterator[None]:
    """Create the folder for a run's pictures; remove it again if it remains empty.

    Raises UsageError if the input is not a picture, InputError if it is a folder without pictures,
    and OutputError if the folder cannot be created.
    """
    if is_folder(path):
        yield
        return
    if find_pictures(input_) is None:
        if not (is_url(input_) or is_stdin(input_)) and is_folder(Path(absolute_path(input_))):
            raise InputError(
                f"no picture in the folder {input_}, or pictures among videos: name a file in it"
            )
        raise UsageError(
            f"the output {path} is a folder, but the input is not a picture: name a file in it"
        )
    try:
        path.mkdir()
    except OSError as exc:
        raise OutputError(f"cannot create the folder {path}: {reason(exc)}") from exc
    try:
        yield
    finally:
        with suppress(OSError):  # not empty
            path.rmdir()


def _check_folder(folder: Path, sources: tuple[Path, ...], overwrite: bool) -> None:
    made_of: dict[Path, Path] = {}
    for source in sources:
        target = folder_file(folder, source)
        if (other := made_of.setdefault(target, source)) != source:
            raise UsageError(
                f"{other.name} and {source.name} would both become {target}: rename one of them"
            )
        if target.exists() and any(target.samefile(one) for one in sources):
            raise UsageError(f"input and output are the same file: {target}")
        if target.exists() and not overwrite:
            raise output_exists_error(target)


def _check_not_input(path: Path, sources: tuple[Path, ...]) -> None:
    """Raise UsageError if the output, or a file of its pattern, is one of the input pictures."""
    for source in sources:
        targets = [path]
        if is_pattern(path):
            targets = [insert_number(path, int(number)) for number in _DIGITS.findall(source.name)]
        for target in targets:
            if target.exists() and target.samefile(source):
                raise UsageError(f"input and output are the same file: {target}")


def open_source(
    input_: str, output: Path, settings: RunSettings, stop: threading.Event
) -> AnySource:
    """Open an input. Pictures are read as RGB for picture outputs, and as 4:2:0 for videos.

    Raises UsageError for options that do not fit the input, InputError, and InterruptedRunError as
    soon as `stop` is set.
    """
    pictures = find_pictures(input_, output)
    to_pictures = is_picture(output) or is_folder(output)
    if pictures is None or (pictures.single and not to_pictures):
        if settings.fps is not None:
            raise UsageError(
                "--fps requires numbered pictures or a folder of pictures: a video has its own rate"
            )
        reading = Reading(
            memory=settings.memory, filtering=settings.filtering,
            variant=VariantChoice.parse(settings.variant),
            side_data=kinds_to_carry(settings.encoder.options),
        )  # fmt: skip
        if settings.sdr:
            sdr = SdrPictures()
            reading = replace(
                reading, planes=sdr.planes, info_after_conversion=sdr.info_after_conversion
            )
        return open_interruptibly(input_, stop, reading)
    if settings.filters or settings.detelecine or settings.deinterlace in ("frame", "bob"):
        raise UsageError("--vf, --detelecine and --deinterlace cannot be used with pictures")
    fits = not to_pictures or is_animation(output)
    return PictureSource(
        pictures, rgb=to_pictures, any_size=not fits, rate=settings.fps, memory=settings.memory
    )


def open_source_for_copying(input_: str, output: Path, settings: RunSettings) -> AnySource:
    """Open an input to copy its other streams, also after a stop. Raises InputError."""
    return open_source(input_, output, replace(settings, deinterlace="off"), threading.Event())


def encoder_name_for(path: Path, settings: RunSettings, video: VideoFormat) -> str:
    """Return FFmpeg's name of the encoder that `open_sink` uses, or `Pillow` for still pictures.

    Raises UsageError.
    """
    if is_animation(path):
        return ANIMATIONS[path.suffix.lower()]
    if is_picture(path) or is_folder(path):
        return PILLOW
    pipe = pipe_of(path)
    container = container_format(path) if pipe is None else pipe_format(settings.container)
    return encoder_name(settings.encoder, container, video)


def open_sink(
    path: Path,
    video: VideoFormat,
    settings: RunSettings,
    source: AnySource,
    scale: int,
    window: tuple[Fraction | None, Fraction | None] = (Fraction(0), None),
) -> AnySink:
    """Open the output for a source's upscaled frames; `window`: `Sink`'s (`offset`, `end`).

    Raises UsageError and OutputError.
    """
    if is_picture(path) or is_folder(path):
        return _picture_sink(path, video, settings, source, scale)
    others, encoder = source.passthrough(), settings.encoder
    pipe = pipe_of(path)
    if pipe is None:
        return Sink(path, video, encoder, others, *window, settings.audio)
    container = pipe_format(settings.container)
    return PipeSink(pipe, container, video, encoder, others, *window, settings.audio)


def _picture_sink(
    path: Path, video: VideoFormat, settings: RunSettings, source: AnySource, scale: int
) -> StillSink | AnimationSink:
    pictures = source if isinstance(source, PictureSource) else None
    extras = {} if pictures is None else pictures.extras
    is_animated = pictures is not None and pictures.animated
    if is_animation(path) or (
        is_animated and path.suffix.lower() == ".png" and not is_pattern(path)
    ):
        delay = pictures.last_delay if pictures and settings.max_frames is None else None
        loop = pictures.loop if pictures and is_animated else 0
        return AnimationSink(path, video, settings.encoder, extras, delay, loop)
    single = not is_pattern(path) and not is_folder(path)
    if single and source.info.frames > 1 and settings.max_frames != 1:
        raise UsageError(
            f"{path.name} can contain only one picture: use a pattern such as "
            f"{path.stem}_%05d{path.suffix}, or --max-frames 1"
        )
    transparent = pictures is not None and pictures.info.transparent
    return StillSink(path, video, settings.encoder, extras, scale, settings.overwrite, transparent)
