"""Attachments, cover art, and titles, languages and flags of streams: kept, or named if lost."""

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from av.stream import Disposition
from PIL import Image

from tests.clips import Clip, make_clip, picture
from tests.files.test_faithful import upscaled
from vsr.media.stream_tags import describe_lost_marks, stream_tags
from vsr.media.timestamps import Packet

NO_MARK = (
    Disposition.default | Disposition.attached_pic | Disposition.timed_thumbnails
    | Disposition.non_diegetic | Disposition.metadata | Disposition.dependent
    | Disposition.still_image | Disposition.multilayer
)  # fmt: skip
NONE: dict[str, str] = {}
WEBM = {"codec": "vp9", "preset": "8"}


@pytest.mark.parametrize("suffix", ["webm", "nut", "mp4"])
def test_attachments_a_container_drops_are_named(tmp_path: Path, suffix: str) -> None:
    source = make_clip(tmp_path / "in.mkv", Clip(audio=(), attachment=b"font"))
    result, report = upscaled(source, f"out.{suffix}", **(WEBM if suffix == "webm" else {}))
    assert result.kinds == ["video"]
    assert "cannot contain attachment #1 (font.ttf)" in report.notes[0]


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_cover_art_of_an_mp4_is_an_attachment_in_matroska_and_comes_back(
    tmp_path: Path, kind: str
) -> None:
    pictures = [_image(kind, 1), _image(kind, 2)]
    source = _with_covers(tmp_path / "in.mp4", kind, pictures)
    ending = {"jpeg": "jpg"}.get(kind, kind)
    _, report = upscaled(source, "out.mkv")
    names = [f"cover.{ending}", f"cover_2.{ending}"]
    assert _covers(tmp_path / "out.mkv") == list(zip(names, pictures, strict=True))
    assert _tags(tmp_path / "out.mkv", 1)["mimetype"] == f"image/{kind}"
    upscaled(tmp_path / "out.mkv", "again.mp4")
    assert [picture for _, picture in _covers(tmp_path / "again.mp4")] == pictures
    assert report.notes == []


def test_attached_cover_art_keeps_its_name(tmp_path: Path) -> None:
    source, picture = tmp_path / "in.mkv", _image("png", 1)
    with av.open(str(source), "w") as out, av.open(str(make_clip(tmp_path / "plain.mp4"))) as plain:
        streams = [out.add_stream_from_template(s, opaque=True) for s in plain.streams]
        out.add_attachment("small_cover.png", "image/png", picture)
        for packet in plain.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    for form in ({}, {"segment": 0.2}, {"start_frame": 3}):
        upscaled(source, "out.mkv", overwrite=True, **form)
        assert _covers(tmp_path / "out.mkv") == [("small_cover.png", picture)]


@pytest.mark.parametrize("suffix", ["nut", "mov", "webm", "3gp"])
def test_cover_art_without_a_place_is_named_and_no_video(tmp_path: Path, suffix: str) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(audio=(), cover=True))
    result, report = upscaled(source, f"out.{suffix}", **(WEBM if suffix == "webm" else {}))
    assert result.kinds == ["video"]
    assert "cannot contain cover art #1 (mjpeg)" in report.notes[0]


def _image(kind: str, index: int) -> bytes:
    content = io.BytesIO()
    Image.fromarray(picture((32, 32), index)).save(content, kind)
    return content.getvalue()


def _with_covers(path: Path, kind: str, pictures: list[bytes]) -> Path:
    """Write a clip with cover art in an MP4."""
    plain = make_clip(path.with_name("plain.mp4"), Clip(audio=()))
    codec, pixels = {"jpeg": ("mjpeg", "yuvj420p"), "png": ("png", "rgb24")}[kind]
    with av.open(str(path), "w") as out, av.open(str(plain)) as source:
        video = out.add_stream_from_template(source.streams.video[0], opaque=True)
        covers: list[Any] = [out.add_stream(codec, rate=1) for _ in pictures]
        for cover in covers:
            cover.width, cover.height, cover.pix_fmt = 32, 32, pixels
            cover.disposition = Disposition.attached_pic
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = video
                out.mux(packet)
        for cover, data in zip(covers, pictures, strict=True):
            made: Packet = av.Packet(data)
            made.stream, made.pts, made.dts, made.time_base = cover, 0, 0, Fraction(1, 90_000)
            made.is_keyframe = True
            out.mux(made)
    return path


def _covers(path: Path) -> list[tuple[str, bytes]]:
    """Return (file name or "", picture) of a file's cover art; fail if it has a second video."""
    with av.open(str(path)) as container:
        videos = container.streams.video
        art = [s for s in videos if s.disposition & Disposition.attached_pic]
        assert len(videos) == len(art) + 1
        found = {s.index: b"" for s in art}
        for packet in container.demux(*art):
            found[packet.stream.index] += bytes(packet)
        return [(s.metadata.get("filename", ""), found[s.index]) for s in art]


def _tags(path: Path, index: int) -> dict[str, str]:
    with av.open(str(path)) as container:
        return container.streams[index].metadata


@pytest.mark.parametrize(("source", "target"), [("mkv", "mp4"), ("mkv", "mov"), ("mkv", "mkv")])
def test_titles_of_tracks_survive_two_runs(tmp_path: Path, source: str, target: str) -> None:
    """FFmpeg calls a track's title `name` when it reads an MP4, and `title` when it writes one."""
    made = _marked(tmp_path / f"in.{source}", title="Kommentar äöü")
    upscaled(made, f"out.{target}")
    upscaled(tmp_path / f"out.{target}", f"again.{target}")
    upscaled(tmp_path / f"again.{target}", "last.mkv")
    for index in (0, 1):
        tags = _tags(tmp_path / "last.mkv", index)
        assert tags["title"] == "Kommentar äöü"
        assert "NAME" not in tags


@pytest.mark.parametrize(
    ("language", "held"),
    [
        ("deu", "ger"),
        ("ger", "ger"),
        ("fra", "fra"),
        ("fre", "fra"),
        ("cze", "ces"),
        ("swe", "sve"),
    ],
)
def test_a_language_is_written_into_mov_with_the_code_it_has_there(
    tmp_path: Path, language: str, held: str
) -> None:
    source = _marked(tmp_path / "in.mp4", language=language)
    _, report = upscaled(source, "out.mov")
    assert [_tags(tmp_path / "out.mov", k)["language"] for k in (0, 1)] == [held, held]
    assert report.notes == []
    upscaled(tmp_path / "out.mov", "back.mkv")
    assert _tags(tmp_path / "back.mkv", 1)["language"] == {"sve": "swe"}.get(held, held)


@pytest.mark.parametrize(
    ("target", "marks", "said"),
    [
        ("mov", {"language": "nob"}, "the language of audio #1 (aac, nob)"),
        ("mp4", {"language": "pt-BR"}, "the language of audio #1 (aac, pt-BR)"),
        ("flv", {"language": "deu"}, "the language of audio #1 (aac, deu)"),
        ("ts", {"title": "Deutsch"}, "the title of audio #1 (aac)"),
        ("mov", {"flags": "comment"}, "the flag comment of audio #1 (aac)"),
        ("ts", {"flags": "original"}, "the flag original of audio #1 (aac)"),
        ("nut", {"flags": "forced"}, "the flag forced of audio #1 (aac)"),
        ("webm", {"flags": "comment"}, "the flag comment of audio #1 (aac)"),
    ],
)
def test_marks_a_container_drops_are_named(
    tmp_path: Path, target: str, marks: dict[str, str], said: str
) -> None:
    source = _marked(tmp_path / "in.mkv", **marks)
    _, report = upscaled(source, f"out.{target}", **(WEBM if target == "webm" else {}))
    assert said in report.notes[0]


@pytest.mark.parametrize("kind", ["audio", "subtitle"])
@pytest.mark.parametrize("form", ["mp4", "mov", "3gp", "matroska", "webm", "mpegts", "flv", "nut"])
def test_a_flag_is_read_back_or_named_as_lost(form: str, kind: str) -> None:
    codecs = {"webm": ("libopus", "webvtt"), "matroska": ("aac", "subrip"), "nut": ("aac", "ass")}
    codecs |= {"mpegts": ("aac", "dvb_subtitle")}
    codec = codecs.get(form, ("aac", "mov_text"))[kind == "subtitle"]
    if (form, kind) == ("flv", "subtitle"):
        pytest.skip("FLV has no subtitles")
    for flag in (f for f in Disposition if f not in NO_MARK):
        content = io.BytesIO()
        with av.open(content, "w", format=form) as out:
            written = _one_packet(out, kind, codec, flag)
            named = describe_lost_marks(written, form)
        content.seek(0)
        with av.open(content) as read:
            kept = bool(read.streams[0].disposition & flag)
        assert kept == (not named), f"{flag.name} of {kind} in {form}: said '{named}'"


def _one_packet(out: Any, kind: str, codec: str, flag: Disposition) -> Any:
    stream = out.add_stream(codec, rate=48_000) if kind == "audio" else out.add_mux_stream(codec)
    stream.time_base, stream.disposition = Fraction(1, 1000), flag
    stream.metadata.update(stream_tags(stream, out.format.name))
    packet: Packet = av.Packet(b"\0\2ab")
    packet.stream, packet.pts, packet.dts, packet.duration = stream, 0, 0, 50
    packet.time_base, packet.is_keyframe = Fraction(1, 1000), True
    out.mux(packet)
    return stream


@pytest.mark.parametrize(("target", "audio"), [("mkv", "copy"), ("nut", "encode")])
def test_counts_of_the_inputs_packets_are_not_carried_over(
    tmp_path: Path, target: str, audio: str
) -> None:
    """mkvmerge writes them with the language of their names."""
    counts = {
        "BPS": "12", "BPS-eng": "34", "NUMBER_OF_FRAMES-eng": "12", "NUMBER_OF_BYTES-eng": "9",
        "DURATION-eng": "00:00:09.000000000", "_STATISTICS_TAGS-eng": "BPS", "vendor_id": "FFMP",
    }  # fmt: skip
    source = _marked(tmp_path / "in.mkv", tags={**counts, "SOURCE_ID": "0100"})
    upscaled(source, f"out.{target}", audio=audio, max_frames=4)
    for index in (0, 1):
        tags = _tags(tmp_path / f"out.{target}", index)
        assert tags["SOURCE_ID"] == "0100"
        assert not {key.upper() for key in counts} & {key.upper() for key in tags}


def _marked(
    path: Path, title: str = "", language: str = "", flags: str = "", tags: dict[str, str] = NONE
) -> Path:
    """Write a clip whose video and sound have these marks."""
    plain = make_clip(path.with_name("plain.mp4"), Clip(languages=("und",)))
    with av.open(str(path), "w") as out, av.open(str(plain)) as source:
        streams = [out.add_stream_from_template(s, opaque=True) for s in source.streams]
        for stream in streams:
            stream.metadata.update({**tags, **({"title": title} if title else {})})
            stream.metadata.update({"language": language} if language else {})
            stream.disposition = Disposition[flags] if flags else Disposition.default
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    return path
