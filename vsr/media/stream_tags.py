"""Selects a stream's tags and flags for an output, and describes those its container drops."""

import io
import re
from fractions import Fraction
from typing import Final

import av
from av.stream import Disposition

from vsr.media.passthrough import kept_tags, without_statistics
from vsr.media.timestamps import Packet

_TWO_CODES: Final = (
    "sqi/alb hye/arm eus/baq mya/bur zho/chi ces/cze nld/dut fra/fre kat/geo deu/ger ell/gre "
    "isl/ice mkd/mac mri/mao msa/may fas/per ron/rum slk/slo bod/tib cym/wel"
)
"""ISO 639-2 languages with two codes, as terminological/bibliographic."""
_MAC_SPELLINGS: Final = {
    "swe": "sve", "hrv": "hr ", "fao": "fo ", "srp": "sr ", "pan": "pa ", "gle": "iri",
}  # fmt: skip
"""ISO 639-2 code -> FFmpeg's spelling in MOV, where a language is an old Macintosh number."""
_ISO_CODES: Final = {spelling: code for code, spelling in _MAC_SPELLINGS.items()}
_ISO_639_2: Final = re.compile("[a-z]{3}")
_IMPAIRED: Final = Disposition.hearing_impaired | Disposition.visual_impaired
_READ_ALONG: Final = Disposition.captions | Disposition.descriptions
"""Flags that FFmpeg also sets when it reads MP4's roles for the two above."""
_VERSION: Final = Disposition.dub | Disposition.original | Disposition.comment
_SONG: Final = Disposition.lyrics | Disposition.karaoke
_FLAGS: Final = (
    _VERSION | _SONG | Disposition.forced | _IMPAIRED | Disposition.clean_effects | _READ_ALONG
)
"""Flags whose loss is worth a warning; the others do not describe the content."""
_FLAGS_IN: Final = {
    "mp4": Disposition.dub | Disposition.comment | Disposition.forced | _IMPAIRED | _READ_ALONG,
    "matroska": _VERSION | Disposition.forced | _IMPAIRED,
    "subtitle in matroska": _VERSION | Disposition.forced | _IMPAIRED | Disposition.descriptions,
    "webm": Disposition.forced,
    "subtitle in webm": Disposition.forced | _READ_ALONG,
    "nut": _VERSION | _SONG,
    "audio in mpegts": _IMPAIRED | Disposition.clean_effects,
    "subtitle in mpegts": Disposition.hearing_impaired,
}
"""Container, or type of stream in it -> flags that FFmpeg both writes and reads there."""
_WITHOUT_TITLES: Final = frozenset({"3gp", "mpegts", "flv"})


def stream_tags(
    stream: av.stream.Stream, container: str, outdated: frozenset[str] = frozenset()
) -> dict[str, str]:
    """Return the tags that a stream's copy gets in a container, without the `outdated` ones."""
    tags = without_statistics(kept_tags(stream.metadata, outdated))
    if "name" in tags and "title" not in tags:  # FFmpeg reads an MP4's title as "name"
        tags["title"] = tags.pop("name")
    if language := tags.pop("language", ""):
        tags["language"] = _spelling(_ISO_CODES.get(language, language), container)
    elif container == "mpegts" and stream.disposition & _flags_in(stream.type, container):
        tags["language"] = "und"  # stored in one descriptor with the flags
    return tags


def describe_lost_marks(stream: av.stream.Stream, container: str) -> str:
    """Describe, for messages, the title, language and flags that a container drops; "" if none.

    For example `the language and the flag forced`. A video's language is no loss: many files have
    one, and pictures have none.
    """
    tags, lost = stream_tags(stream, container), []
    if "title" in tags and container in _WITHOUT_TITLES:
        lost.append("the title")
    language = tags.get("language", "und")
    heard_or_read = stream.type != "video" and language != "und"
    if heard_or_read and not _holds_language(language, stream.type, container):
        lost.append("the language")
    flags = stream.disposition & _FLAGS
    if flags & _IMPAIRED:
        flags &= ~_READ_ALONG
    dropped = flags & ~_flags_in(stream.type, container)
    if names := [str(flag.name) for flag in Disposition if flag & dropped]:
        lost.append(f"the flag{'s' * (len(names) > 1)} {', '.join(names)}")
    return " and ".join(lost)


def _flags_in(kind: str, container: str) -> Disposition:
    return _FLAGS_IN.get(f"{kind} in {container}", _FLAGS_IN.get(container, Disposition(0)))


def _spelling(language: str, container: str) -> str:
    """Return the code of a language that a container can hold; the same code if there is none."""
    if container != "mov" or _is_in_mov(language):
        return language
    for pair in _TWO_CODES.split():
        if language in pair.split("/"):
            return next(filter(_is_in_mov, pair.split("/")), language)
    return _MAC_SPELLINGS.get(language, language)


def _holds_language(language: str, kind: str, container: str) -> bool:
    if container == "mov":
        return _is_in_mov(language)
    if container == "flv":
        return False
    if container == "mpegts":
        return kind != "video" and len(language) % 4 == 3  # several are joined by commas
    return container not in ("mp4", "3gp") or bool(_ISO_639_2.fullmatch(language))


def _is_in_mov(language: str) -> bool:
    """Return whether FFmpeg writes a language into MOV; tested by writing one."""
    content = io.BytesIO()
    with av.open(content, "w", format="mov") as trial:
        stream = trial.add_stream("pcm_s16le", rate=48_000)
        stream.metadata["language"] = language
        packet: Packet = av.Packet(bytes(4))
        packet.stream, packet.time_base = stream, Fraction(1, 48_000)
        packet.pts = packet.dts = 0
        trial.mux_one(packet)
    content.seek(0)
    with av.open(content) as written:
        return written.streams[0].language == language
