"""Carries what decoded pictures hold besides their samples, such as captions, to an encoder's."""

from collections.abc import Iterable, Mapping
from typing import Final, cast

import av
import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import SideData, SideDataContainer
from av.sidedata.sidedata import Type as SideType

CAPTIONS: Final = SideType.A53_CC.name
UNREGISTERED: Final = SideType.SEI_UNREGISTERED.name
USUAL: Final = frozenset({CAPTIONS, SideType.S12M_TIMECODE.name})
"""Kinds that are carried without being asked for, by PyAV's names."""
_BY_OPTION: Final = {
    "a53cc": CAPTIONS, "s12m_tc": SideType.S12M_TIMECODE.name, "udu_sei": UNREGISTERED,
}  # fmt: skip
"""An encoder's option -> the kind of side data that it writes with it."""
_ON_REQUEST: Final = "udu_sei"
_OFF: Final = ("", "0", "false", "no", "n")
_SIDE: Final = 16


def wanted(options: Mapping[str, str]) -> frozenset[str]:
    """Kinds of side data to carry for an encoder with these options.

    Unregistered messages only where they are asked for (`-e udu_sei=1`): x264 and others leave
    their settings in them.
    """
    asked = options.get(_ON_REQUEST, "") not in _OFF
    return USUAL | {UNREGISTERED} if asked else USUAL


def carrier_of(picture: av.VideoFrame, kinds: frozenset[str] = USUAL) -> av.VideoFrame | None:
    """A small picture with the side data of a large one; None where it has none of the kinds.

    PyAV makes no side data, but converting a picture keeps it.
    """
    try:
        found = {data.type.name for data in side_data_in(picture)}
    except ValueError:  # kinds that PyAV does not know
        return None
    if not found & kinds:
        return None
    return picture.reformat(width=_SIDE, height=_SIDE, format="gray")


def side_data_in(picture: av.VideoFrame) -> Iterable[SideData]:
    """The side data of a picture. Raises ValueError for kinds that PyAV does not know.

    `picture.side_data` would keep what refers to the picture in the picture: its memory would not
    be free before Python's collector looks for such circles, hundreds of pictures later.
    """
    # the stub says that it is a mapping, made of nothing; it iterates over its values
    return cast(Iterable[SideData], SideDataContainer(picture))  # type: ignore[call-arg]


def with_side_data(picture: av.VideoFrame, carrier: av.VideoFrame | None) -> av.VideoFrame:
    """A picture with the side data of another; the same one where there is none, else a copy."""
    if carrier is None:
        return picture
    copy = carrier.reformat(width=picture.width, height=picture.height, format=picture.format.name)
    for source, target in zip(picture.planes, copy.planes, strict=True):
        rows, into = _rows(source), _rows(target)
        width = min(rows.shape[1], into.shape[1])
        into[:, :width] = rows[:, :width]
    copy.pict_type = 0  # the decoded picture's, which the encoder would have to follow
    copy.pts, copy.time_base, copy.duration = picture.pts, picture.time_base, picture.duration
    return copy


def written_by(encoder: str, options: Mapping[str, str] | None = None) -> frozenset[str]:
    """Kinds of side data of its pictures that an FFmpeg encoder writes, of those carried here."""
    try:
        context = av.CodecContext.create(encoder, "w")
    except ValueError:  # Pillow
        return frozenset()
    known = {option.name for option in context.supported_options.private}
    given = options or {}
    on = {n for n in known & _BY_OPTION.keys() if n != _ON_REQUEST or n in given}
    return frozenset(_BY_OPTION[name] for name in on if given.get(name, "1") not in _OFF)


def _rows(plane: "av.video.plane.VideoPlane") -> npt.NDArray[np.uint8]:
    return np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: plane.height]
