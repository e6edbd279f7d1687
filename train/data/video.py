"""Reads the colour tags of decoded video frames, and opens clips."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import av
from av.video.reformatter import ColorRange, Colorspace

from train.errors import TrainError

UNSPECIFIED: Final = 2
"""FFmpeg's tag of an unknown matrix."""
_HD_HEIGHT: Final = 720
"""Height from which untagged video is taken as BT.709, as players do."""


@contextmanager
def open_clip(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Open a video file and its first video stream.

    Raises TrainError, also for errors of FFmpeg while the file is open.
    """
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise TrainError(f"{path} has no video stream: give a video file")
            yield container, container.streams.video[0]
    except av.FFmpegError as exc:
        raise TrainError(f"cannot read clip {path}: {exc.strerror}: give a video file") from exc


def is_full_range(frame: av.VideoFrame) -> bool:
    """Return whether the frame's codes use the full range, by its tag or its format's name."""
    return frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")


def matrix_of(frame: av.VideoFrame) -> int:
    """Return the tag of the frame's matrix (H.273); 1, BT.709, for untagged HD."""
    if frame.colorspace == UNSPECIFIED and frame.height >= _HD_HEIGHT:
        return int(Colorspace.ITU709)
    return int(frame.colorspace)
