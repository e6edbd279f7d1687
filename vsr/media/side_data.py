"""Carries side data, such as captions, from decoded pictures to an encoder's pictures."""

from collections.abc import Iterable, Mapping
from typing import Final, cast

import av
import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import SideData, SideDataContainer
from av.sidedata.sidedata import Type as SideType

CAPTIONS: Final = SideType.A53_CC.name
UNREGISTERED: Final = SideType.SEI_UNREGISTERED.name
DEFAULT_KINDS: Final = frozenset({CAPTIONS, SideType.S12M_TIMECODE.name})
"""Kinds of side data that are carried by default, by PyAV's names."""
_BY_OPTION: Final = {
    "a53cc": CAPTIONS, "s12m_tc": SideType.S12M_TIMECODE.name, "udu_sei": UNREGISTERED,
}  # fmt: skip
"""Encoder option -> kind of side data that the encoder writes with it."""
_ON_REQUEST: Final = "udu_sei"
_FALSE_VALUES: Final = ("", "0", "false", "no", "n")
_CARRIER_SIZE: Final = 16


def kinds_to_carry(options: Mapping[str, str]) -> frozenset[str]:
    """Return the kinds of side data to carry for an encoder with these options.

    Unregistered SEI messages are carried only on request (`-e udu_sei=1`), as x264 and others store
    their settings in them.
    """
    asked = options.get(_ON_REQUEST, "") not in _FALSE_VALUES
    return DEFAULT_KINDS | {UNREGISTERED} if asked else DEFAULT_KINDS


def carrier_of(
    picture: av.VideoFrame, kinds: frozenset[str] = DEFAULT_KINDS
) -> av.VideoFrame | None:
    """Make a small picture with the side data of a large one; None if it has none of the kinds.

    PyAV cannot create side data, but converting a picture keeps it.
    """
    try:
        found = {data.type.name for data in side_data_in(picture)}
    except ValueError:  # kinds that PyAV does not know
        return None
    if not found & kinds:
        return None
    return picture.reformat(width=_CARRIER_SIZE, height=_CARRIER_SIZE, format="gray")


def side_data_in(picture: av.VideoFrame) -> Iterable[SideData]:
    """Return the side data of a picture. Raises ValueError for kinds that PyAV does not know.

    `picture.side_data` would create a reference cycle with the picture: its memory would be freed
    only when Python's garbage collector runs, hundreds of pictures later.
    """
    # the stub declares a mapping and no argument; iterating yields the values
    return cast(Iterable[SideData], SideDataContainer(picture))  # type: ignore[call-arg]


def with_side_data(picture: av.VideoFrame, carrier: av.VideoFrame | None) -> av.VideoFrame:
    """Copy a picture and add the side data of `carrier`; return it unchanged without a carrier."""
    if carrier is None:
        return picture
    copy = carrier.reformat(width=picture.width, height=picture.height, format=picture.format.name)
    for source, target in zip(picture.planes, copy.planes, strict=True):
        rows, into = _rows(source), _rows(target)
        width = min(rows.shape[1], into.shape[1])
        into[:, :width] = rows[:, :width]
    copy.pict_type = 0  # else the encoder would have to use the decoded picture's type
    copy.pts, copy.time_base, copy.duration = picture.pts, picture.time_base, picture.duration
    return copy


def kinds_written_by(encoder: str, options: Mapping[str, str] | None = None) -> frozenset[str]:
    """Return which of the kinds of side data carried here an FFmpeg encoder writes."""
    try:
        context = av.CodecContext.create(encoder, "w")
    except ValueError:  # not an FFmpeg encoder: Pillow
        return frozenset()
    known = {option.name for option in context.supported_options.private}
    given = options or {}
    on = {n for n in known & _BY_OPTION.keys() if n != _ON_REQUEST or n in given}
    return frozenset(_BY_OPTION[name] for name in on if given.get(name, "1") not in _FALSE_VALUES)


def _rows(plane: "av.video.plane.VideoPlane") -> npt.NDArray[np.uint8]:
    return np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: plane.height]
