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
from vsr.media.timestamps import Packet

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
