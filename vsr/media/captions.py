"""Carries closed captions (A/53, CEA-608 and 708) from decoded pictures to an encoder's."""

from collections.abc import Iterable
from typing import Final, cast

import av
import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import SideData, SideDataContainer

KIND: Final = "A53_CC"
"""PyAV's name of their side data."""
_OPTION: Final = "a53cc"
_SIDE: Final = 16


def captions_of(picture: av.VideoFrame) -> av.VideoFrame | None:
    """A small picture that holds the captions of a large one; None where it has none.

    PyAV makes no side data, but converting a picture keeps it.
    """
    try:
        found = [data.type.name for data in side_data_in(picture)]
    except ValueError:  # kinds that PyAV does not know
        return None
    if KIND not in found:
        return None
    return picture.reformat(width=_SIDE, height=_SIDE, format="gray")


def side_data_in(picture: av.VideoFrame) -> Iterable[SideData]:
    """The side data of a picture. Raises ValueError for kinds that PyAV does not know.

    `picture.side_data` would keep what refers to the picture in the picture: its memory would not
    be free before Python's collector looks for such circles, hundreds of pictures later.
    """
    # the stub says that it is a mapping, made of nothing; it iterates over its values
    return cast(Iterable[SideData], SideDataContainer(picture))  # type: ignore[call-arg]


def with_captions(picture: av.VideoFrame, captions: av.VideoFrame | None) -> av.VideoFrame:
    """A picture with captions; the same one where there are none, else a copy."""
    if captions is None:
        return picture
    copy = captions.reformat(width=picture.width, height=picture.height, format=picture.format.name)
    for source, target in zip(picture.planes, copy.planes, strict=True):
        rows, into = _rows(source), _rows(target)
        width = min(rows.shape[1], into.shape[1])
        into[:, :width] = rows[:, :width]
    copy.pict_type = 0  # the decoded picture's, which the encoder would have to follow
    copy.pts, copy.time_base, copy.duration = picture.pts, picture.time_base, picture.duration
    return copy


def side_data_of(encoder: str) -> frozenset[str]:
    """Kinds of side data of its pictures that an FFmpeg encoder writes, of those carried here."""
    try:
        context = av.CodecContext.create(encoder, "w")
    except ValueError:  # Pillow
        return frozenset()
    options = {option.name for option in context.supported_options.private}
    return frozenset({KIND} if _OPTION in options else ())


def _rows(plane: "av.video.plane.VideoPlane") -> npt.NDArray[np.uint8]:
    return np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: plane.height]
