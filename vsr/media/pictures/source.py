"""Reads images as frames: one file, an animation, or the files of a sequence."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Final

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

from vsr.errors import InputError, reason
from vsr.media.colour import RGB, UNSPECIFIED, Colour
from vsr.media.frame import Frame, Planes, Stamps, now, planes_of
from vsr.media.info import VideoInfo
from vsr.media.limits import format_bytes, free_memory
from vsr.media.location import absolute_path
from vsr.media.missing_frames import Losses
from vsr.media.pictures.extras import Extras, rgb_and_extras, upright
from vsr.media.pictures.names import PictureFiles
from vsr.media.plane_format import YUV420, PlaneFormat

log = logging.getLogger(__name__)

RGB_COLOUR: Final = Colour(matrix=RGB, full_range=True)
_RGB_PLANES: Final = PlaneFormat(chroma_x=1, chroma_y=1)
_CLOCK: Final = Fraction(1, 90000)
"""Time base of animations in seconds, exact for milliseconds, hundredths and usual rates."""
_DEFAULT_DELAY: Final = Fraction(1, 10)
"""Time for which browsers and FFmpeg show a picture whose delay is 0, in seconds."""
_DEEP: Final = frozenset({"RGB;16B", "RGBA;16B", "LA;16B", "I;16B", "RGB;16L", "RGB;16N"})
_CHANNELS: Final = 3
_COPIES: Final = 4
"""Number of copies of an image in memory: as stored, as packed RGB, as planes, and a temporary."""
_COPIES_ALPHA: Final = 14
"""The same for images with alpha, including the buffers that fill transparent pixels."""

Rgb = npt.NDArray[np.uint8]


class PictureSource:
    """Reads an image input. Iterate once, from one thread; `losses` is complete after the end.

    With `rgb`, frames are R'G'B' and `extras` holds their other data by frame index until it is
    removed; else they are 8-bit 4:2:0 for a video. Without `any_size`, images of another size than
    the first are resized to it. Raises InputError if the first image cannot be read.
    """

    def __init__(
        self,
        pictures: PictureFiles,
        *,
        rgb: bool,
        any_size: bool,
        rate: Fraction | None = None,
        memory: int | None = None,
    ) -> None:
        """`memory`: memory limit for images, in bytes; None: all free memory."""
        self.url = self.name = pictures.name
        self.losses = Losses()
        self.extras: dict[int, Extras] = {}
        self.plane_format = _RGB_PLANES if rgb else YUV420
        self.frames_read = 0
        self._pictures, self._rgb = pictures, rgb
        self._rate = rate or Fraction(25)
        self.any_size = any_size
        first = pictures.files[0]
        try:
            with Image.open(first) as image:
                _check_size(image, self.name, memory)
                self.pictures_held = _COPIES_ALPHA if image.has_transparency_data else _COPIES
                """Number of copies of an image that exist while it is read."""
                self.animated = len(pictures.files) == 1 and getattr(image, "n_frames", 1) > 1
                frames = getattr(image, "n_frames", 1) if self.animated else len(pictures.files)
                self.loop = image.info.get("loop") if self.animated else None
                """How often an animation is played, 0: forever, None: not declared."""
                self.info = self._describe(upright(image), image.format or "", frames)
                self._note_depth(image)
        except InputError:
            raise
        except Exception as exc:  # Pillow's readers may raise anything
            raise InputError(f"{first} is not a picture, or it is damaged: {reason(exc)}") from exc

    @property
    def last_delay(self) -> Fraction | None:
        """Delay of an animation's last picture, in seconds; None if unknown."""
        if not self.animated:
            return None
        try:
            with av.open(absolute_path(str(self._pictures.files[0]))) as file:
                ends = [(p.duration or 0) * p.time_base for p in file.demux(video=0) if p.size]
        except (av.error.FFmpegError, OSError, TypeError):
            return None
        return ends[-1] if ends else None

    @property
    def first_time(self) -> Fraction:
        """Presentation time of the first frame, in seconds."""
        return Fraction(0)

    def offset(self) -> Fraction:
        """Return the input's time (s) at which the output should begin."""
        return Fraction(0)

    def passthrough(self) -> None:
        """Return None: images have nothing else that a video can carry."""

    def close(self) -> None:
        """Do nothing: no file is open between two images."""

    def __iter__(self) -> Iterator[Frame]:
        """Yield the images in order; those that cannot be read are counted and skipped."""
        return self._animation_frames() if self.animated else self._still_frames()

    def _still_frames(self) -> Iterator[Frame]:
        for place, file in enumerate(self._pictures.files):
            read = now()
            number = self._pictures.numbers[place] if self._pictures.numbers else None
            try:
                with Image.open(file) as image:
                    rgb, extras = rgb_and_extras(image, file, number)
            except Exception as exc:  # see __init__
                self._record_loss(f"{file.name} cannot be read: {reason(exc)}")
                continue
            yield self._frame(rgb, extras, place, 1, read)

    def _animation_frames(self) -> Iterator[Frame]:
        file, pts, place = self._pictures.files[0], 0, 0
        try:
            with Image.open(file) as image:
                for place in range(self.info.frames):
                    read = now()
                    image.seek(place)
                    rgb, extras = rgb_and_extras(image, file, None)
                    delay_ms = Fraction(image.info.get("duration") or 0).limit_denominator(10000)
                    ticks = max(1, round((delay_ms / 1000 or _DEFAULT_DELAY) / _CLOCK))
                    yield self._frame(rgb, extras, pts, ticks, read)
                    pts += ticks
        except GeneratorExit:
            raise
        except Exception as exc:  # see __init__
            missing = self.info.frames - self.frames_read
            self._record_loss(f"the file is damaged after {place} pictures: {reason(exc)}", missing)

    def _record_loss(self, note: str, count: int = 1) -> None:
        self.losses.lost += count
        self.losses.notes.setdefault("undecodable", note)
        log.warning("%s", note)

    def _frame(self, rgb: Rgb, extras: Extras, pts: int, duration: int, read: float) -> Frame:
        event = ""
        size = (self.info.width, self.info.height)
        if rgb.shape[1::-1] != size and not self.any_size:
            event = "resized"
            rgb, extras = _resized(rgb, extras, size)
            note = f"pictures of other sizes than {size[0]}x{size[1]} are resized to it"
            if "size" not in self.losses.notes:
                self.losses.notes["size"] = note
                log.warning("%s", note)
        frame = Frame(
            planes=self._planes(rgb), index=self.frames_read, pts=pts,
            time_base=self.info.time_base, duration=duration, format=self.plane_format,
            colour=self.info.colour, stamps=Stamps(read=read, decoded=now()), event=event,
            alpha=None if self._rgb else extras.alpha,
        )  # fmt: skip
        if self._rgb:
            self.extras[frame.index] = extras
        self.frames_read += 1
        return frame

    def _planes(self, rgb: Rgb) -> Planes:
        if self._rgb:
            red, green, blue = (np.ascontiguousarray(rgb[..., k]) for k in range(3))
            return green, blue, red
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        return planes_of(picture, (self.info.width, self.info.height), self.info.colour)

    def _describe(self, image: Image.Image, codec: str, frames: int) -> VideoInfo:
        pixels = "gbrap" if image.has_transparency_data else "gbrp"
        untagged = Colour.from_tags(
            matrix=UNSPECIFIED, range_=0, primaries=UNSPECIFIED, transfer=UNSPECIFIED,
            height=image.height, pix_fmt=pixels,
        )  # fmt: skip
        return VideoInfo(
            codec=codec.lower(), width=image.width, height=image.height, pixel_format=pixels,
            colour=RGB_COLOUR if self._rgb else untagged,
            time_base=_CLOCK if self.animated else 1 / self._rate, rate=self._rate,
            sample_aspect=None, display_matrix=None, frames=frames, duration=None,
            interlaced=False, planes=self.plane_format,
        )  # fmt: skip

    def _note_depth(self, image: Image.Image) -> None:
        tiles = getattr(image, "tile", ())
        mode = tiles[0].args if tiles else ""
        mode = mode[0] if isinstance(mode, tuple) and mode else mode
        if mode in _DEEP or image.mode.startswith("I"):
            self.losses.notes["depth"] = "16 bits per sample are read as 8"
            log.warning("%s: 16 bits per sample are read as 8", self.name)


def _check_size(image: Image.Image, name: str, allowed: int | None) -> None:
    """Raise InputError for an image that exceeds the memory limit, before it is decoded."""
    limit = free_memory() if allowed is None else allowed
    if limit is not None and image.width * image.height * _CHANNELS * _COPIES > limit:
        raise InputError(
            f"{name}: a picture of {image.width}x{image.height} needs more memory than the "
            f"{format_bytes(limit)} available"
        )


def _resized(rgb: Rgb, extras: Extras, size: tuple[int, int]) -> tuple[Rgb, Extras]:
    """Resize an image and its alpha to `size` (width, height)."""

    def resized(array: Rgb) -> Rgb:
        return np.asarray(Image.fromarray(array).resize(size, Image.Resampling.BICUBIC))

    alpha = None if extras.alpha is None else resized(extras.alpha)
    return resized(np.ascontiguousarray(rgb)), replace(extras, alpha=alpha)
