"""Converts pictures between HDR and SDR."""

from dataclasses import replace
from typing import Any, cast

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from vsr.media.colour import SDR, Colour, own_colour
from vsr.media.frame import SWSCALE_MATRIX, Plane, Planes, swscale_threads
from vsr.media.info import VideoInfo, native_planes
from vsr.media.plane_format import YUV420, PlaneFormat


class ColourConverter:
    """Converts pictures to planes of another size and colour, by swscale. Use from one thread.

    Between HDR and SDR, and between PQ and HLG, swscale maps the tones.
    """

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        """Shared by all pictures: building swscale's HDR tables takes longer than a conversion."""

    def planes(
        self, picture: av.VideoFrame, colour: Colour, to: Colour, size: tuple[int, int],
        form: PlaneFormat = YUV420,
    ) -> Planes:  # fmt: skip
        """Convert a picture of `colour` to planes of `form`, `size` and the colour `to`."""
        tone_mapped: dict[str, Any] = {}
        if (colour.is_hdr or to.is_hdr) and colour.transfer != to.transfer:
            picture.color_trc, picture.color_primaries = colour.transfer, colour.primaries
            tone_mapped = {"dst_color_trc": to.transfer, "dst_color_primaries": to.primaries}
        made = self._reformatter.reformat(
            picture, width=size[0], height=size[1], format=form.pixel_format(),
            src_colorspace=SWSCALE_MATRIX[colour.matrix],
            dst_colorspace=SWSCALE_MATRIX[to.matrix],
            src_color_range=colour.range_code, dst_color_range=to.range_code,
            interpolation="BICUBIC", threads=swscale_threads(size[0]), **tone_mapped,
        )  # fmt: skip
        y, u, v = (cast(Plane, np.from_dlpack(plane)) for plane in made.planes)
        return y, u, v


class SdrPictures:
    """Converts a source's HDR pictures to SDR; leaves pictures of SDR sources unchanged.

    Use for one source; its methods are callbacks for `Reading`.
    """

    def __init__(self) -> None:
        self._source_info: VideoInfo | None = None
        self._converter = ColourConverter()

    def info_after_conversion(self, info: VideoInfo) -> VideoInfo:
        """Return the properties of the pictures that `planes` makes."""
        if not info.colour.is_hdr:
            return info
        self._source_info = info
        return replace(info, colour=SDR, planes=YUV420, hdr=None)

    def planes(self, picture: av.VideoFrame, info: VideoInfo) -> Planes:
        """Convert a decoded picture to planes."""
        if self._source_info is None:
            return native_planes(picture, info)
        own = own_colour(picture, self._source_info.colour)
        return self._converter.planes(picture, own, SDR, (info.width, info.height))
