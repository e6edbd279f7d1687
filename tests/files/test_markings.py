"""Tags and markings are kept, or named in the single warning of the run."""

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from tests.clips import Clip, make_clip, picture
from tests.facts import contents
from tests.files.test_faithful import upscaled
from vsr.media.boxes import box
from vsr.media.spatial import scale_markings

PHONE = {
    "com.apple.quicktime.make": "Apple",
    "com.apple.quicktime.location.ISO6709": "+48.1000+011.5000/",
    "com.android.version": "14",
    "title": "a film",
}
SPHERICAL_ID = bytes.fromhex("ffcc8263f8554a938814587a02521fdd")
SPHERICAL = (
    b'<?xml version="1.0"?><rdf:SphericalVideo '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
    b'xmlns:GSpherical="http://ns.google.com/videos/1.0/spherical/"><GSpherical:Spherical>true'
    b"</GSpherical:Spherical><GSpherical:Stitched>true</GSpherical:Stitched>"
    b"<GSpherical:StitchingSoftware>x</GSpherical:StitchingSoftware>"
    b"<GSpherical:ProjectionType>equirectangular</GSpherical:ProjectionType></rdf:SphericalVideo>"
)


def _tagged(path: Path, tags: dict[str, str], form: str = "mov") -> Path:
    """Write a clip with custom tags, under unchanged names."""
    options = {"movflags": "use_metadata_tags"} if form == "mov" else {}
    plain = make_clip(path.with_name("plain.mkv"), Clip(audio=(), metadata={}))
    with (
        av.open(str(plain)) as read,
        av.open(str(path), "w", format=form, container_options=options) as out,
    ):
        out.metadata.update(tags)
        stream = out.add_stream_from_template(read.streams[0], opaque=True)
        for packet in read.demux():
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    return path


@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.mkv"])
def test_tags_of_phones_are_kept(tmp_path: Path, name: str) -> None:
    source = _tagged(tmp_path / "in.mov", PHONE)
    result, report = upscaled(source, name)
    found = {key.lower(): value for key, value in result.metadata.items()}
    assert {key: found.get(key.lower()) for key in PHONE} == PHONE
    assert report.notes == []


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("out.mp4", ["publisher", "director"]), ("out.mov", []), ("out.mkv", []), ("out.flv", []),
        ("out.3gp", ["publisher", "director"]), ("out.ts", ["publisher", "director"]),
    ],
)  # fmt: skip
def test_tags_a_container_cannot_hold_are_named(tmp_path: Path, name: str, lost: list[str]) -> None:
    tags = {"title": "a film", "publisher": "someone", "director": "someone else"}
    source = _tagged(tmp_path / "in.mkv", tags, "matroska")
    result, report = upscaled(source, name)
    found = {key.lower(): value for key, value in result.metadata.items()}
    assert [key for key in ("publisher", "director") if key not in found] == lost
    said = " ".join(report.notes).lower()
    assert all(key in said for key in lost)
    assert "title" not in said
    assert len(report.notes) == bool(lost)


def _spherical(path: Path) -> Path:
    """Write an MP4 whose track has Google's Spherical Video V1 marking (360-degree video)."""
    plain = path.with_name("plain.mp4")
    with av.open(str(plain), "w") as out:
        _encode(out, {})
    data = bytearray(plain.read_bytes())
    box = SPHERICAL_ID + SPHERICAL
    box = (len(box) + 8).to_bytes(4, "big") + b"uuid" + box
    movie = data.index(b"moov") - 4
    track = data.index(b"trak", movie) - 4
    end = track + int.from_bytes(data[track : track + 4], "big")
    for at in (movie, track):
        size = int.from_bytes(data[at : at + 4], "big") + len(box)
        data[at : at + 4] = size.to_bytes(4, "big")
    data[end:end] = box
    path.write_bytes(bytes(data))
    return path


def _encode(out: Any, options: dict[str, str], tags: dict[str, str] | None = None) -> None:
    video = out.add_stream("libx264", rate=25, options={"preset": "ultrafast", **options})
    video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
    video.codec_context.colorspace = 1
    video.metadata.update(tags or {})
    for k in range(6):
        frame = av.VideoFrame.from_ndarray(picture((64, 48), k), format="rgb24")
        frame = frame.reformat(format="yuv420p")
        frame.pts, frame.time_base = k, Fraction(1, 25)
        out.mux(video.encode(frame))
    out.mux(video.encode(None))


def _sides(path: Path) -> dict[str, bytes]:
    """Return the side data of a file's first frame, by kind."""
    with av.open(str(path)) as container:
        data: Any = next(container.decode(video=0)).side_data
        return {d.type.name: bytes(d) for d in data}


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("out.mp4", "h264"), ("out.mov", "h264"), ("out.mkv", "h264"), ("out.mp4", "hevc"),
        ("out.mkv", "hevc"), ("out.mp4", "av1"), ("out.webm", "vp9"),
    ],
)  # fmt: skip
def test_a_360_degree_marking_is_kept(tmp_path: Path, name: str, codec: str) -> None:
    source = _spherical(tmp_path / "in.mp4")
    preset = {"av1": "12", "vp9": "8"}.get(codec, "ultrafast")
    result, report = upscaled(source, name, codec=codec, preset=preset)
    assert _sides(tmp_path / name)["SPHERICAL"] == _sides(source)["SPHERICAL"]
    assert (report.notes, result.pts) == ([], contents(source).pts)
    assert (result.size, result.matrix) == ((128, 96), contents(source).matrix)
    if name == "out.mp4" and codec == "hevc":
        assert b"hvc1" in (tmp_path / name).read_bytes()


def test_a_marking_survives_the_way_through_matroska_and_segments(tmp_path: Path) -> None:
    source = _spherical(tmp_path / "in.mp4")
    upscaled(source, "a.mkv", segment=0.1)
    _, report = upscaled(tmp_path / "a.mkv", "b.mp4", segment=0.1)
    assert report.notes == []
    assert _sides(tmp_path / "b.mp4")["SPHERICAL"] == _sides(source)["SPHERICAL"]


@pytest.mark.parametrize(
    ("name", "codec"), [("out.ts", "h264"), ("out.flv", "h264"), ("out.mkv", "ffv1")]
)
def test_a_360_degree_marking_is_named(tmp_path: Path, name: str, codec: str) -> None:
    preset = None if codec == "ffv1" else "ultrafast"
    _, report = upscaled(_spherical(tmp_path / "in.mp4"), name, codec=codec, preset=preset)
    assert report.notes == [f"{name} cannot contain the 360-degree marking: left out"]


def test_the_padding_of_a_cube_is_enlarged() -> None:
    cube = box(b"cbmp", struct.pack(">III", 0, 0, 5))
    marking = box(b"sv3d", box(b"proj", cube))
    assert scale_markings(marking, Fraction(2)) == marking[:-1] + b"\x0a"
    assert scale_markings(b"", Fraction(2)) == b""


def _stereo(path: Path) -> list[tuple[str, int]]:
    """Return (kind of side data, packing type) of the stereo marking of a file's first frame."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        data: Any = frame.side_data
        return [(d.type.name, bytes(d)[0]) for d in data if d.type.name == "STEREO3D"]


@pytest.mark.parametrize(("packing", "kind"), [(3, 1), (4, 2), (1, 7)])
@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.ts"])
def test_two_views_in_a_picture_stay_marked(
    tmp_path: Path, packing: int, kind: int, name: str
) -> None:
    source = tmp_path / "in.ts"
    with av.open(str(source), "w") as out:
        _encode(out, {"x264-params": f"frame-packing={packing}"})
    assert _stereo(source) == [("STEREO3D", kind)]
    _, report = upscaled(source, name)
    assert set(_stereo(tmp_path / name)) == {("STEREO3D", kind)}
    assert report.notes == []


@pytest.mark.parametrize(
    ("name", "codec", "kept"),
    [("out.mkv", "hevc", True), ("out.mp4", "hevc", False), ("out.mp4", "h264", False)],
)
def test_a_marking_that_cannot_be_kept_is_named(
    tmp_path: Path, name: str, codec: str, kept: bool
) -> None:
    """The right view comes first, which Matroska can signal and x264 cannot."""
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w") as out:
        _encode(out, {}, {"stereo_mode": "right_left"})
    _, report = upscaled(source, name, codec=codec)
    if kept:
        with av.open(str(tmp_path / name)) as container:
            assert container.streams[0].metadata["stereo_mode"] == "right_left"
    assert ("two views" in " ".join(report.notes)) is not kept


def test_transparency_beside_the_picture_is_named(tmp_path: Path) -> None:
    """WebM stores VP9's alpha in additional blocks, which MP4 does not have."""
    clip = Clip(codec="libvpx-vp9", pixel_format="yuva420p", audio=())
    _, report = upscaled(make_clip(tmp_path / "in.webm", clip))
    assert "out.mp4 cannot contain transparency" in report.notes[0]
    assert contents(tmp_path / "out.mp4").frames == 12
