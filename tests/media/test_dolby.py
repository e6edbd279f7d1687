"""Tests that Dolby Vision without a base layer is refused, and that lost metadata is reported."""

from pathlib import Path
from typing import Any

import av
import pytest

import vsr
from tests.dolby import escaped, film, hevc, muxed, record, with_record
from tests.facts import contents
from vsr.media.boxes import sample_entry_boxes

RECORDS = {5: 0, 7: 6, 8: 1}
"""Profile -> base layer compatibility id."""


def _copied(source: Path, target: Path) -> Path:
    """Remux with FFmpeg, which keeps the configuration record."""
    options = {"strict": "unofficial"}
    with av.open(str(source)) as read, av.open(str(target), "w", container_options=options) as out:
        stream = out.add_stream_from_template(read.streams.video[0], opaque=True)
        for packet in read.demux():
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    return target


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder per profile: bare.mp4, bare.mkv (RPUs only), in.mp4, in.mkv (and a record)."""
    made = tmp_path_factory.mktemp("dolby")
    for profile, compatible in RECORDS.items():
        place = made / str(profile)
        place.mkdir()
        bare = film(place / "bare.mp4", profile)
        with_record(bare, place / "in.mp4", profile, compatible)
        _copied(bare, place / "bare.mkv")
        _copied(place / "in.mp4", place / "in.mkv")
    return made


@pytest.mark.parametrize("name", ["in.mp4", "in.mkv", "bare.mp4", "bare.mkv"])
def test_profile_5_is_refused_with_what_to_do(folder: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(vsr.InputError, match=r"profile 5.*no base layer.*HDR10.*ffmpeg") as caught:
        vsr.upscale(folder / "5" / name, tmp_path / "out.mkv", model="bicubic")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_profile_5_is_refused_by_its_record_alone(tmp_path: Path) -> None:
    """The same rule refuses AV1 without a base layer (profile 10, compatibility id 0)."""
    plain = muxed(hevc(2), tmp_path / "plain.mp4")
    source = with_record(plain, tmp_path / "in.mp4", 10, 0)
    with pytest.raises(vsr.InputError, match="profile 10"):
        vsr.upscale(source, tmp_path / "out.mkv", model="bicubic")


@pytest.mark.parametrize("profile", [7, 8])
@pytest.mark.parametrize("name", ["in.mp4", "in.mkv", "bare.mp4"])
def test_the_base_layer_of_others_is_kept_and_the_rest_named(
    folder: Path, tmp_path: Path, profile: int, name: str
) -> None:
    target = tmp_path / f"out{Path(name).suffix}"
    report = vsr.upscale(folder / str(profile) / name, target, model="bicubic", preset="ultrafast")
    assert report.notes == ["its Dolby Vision metadata is left out"]
    result = contents(target)
    assert (result.frames, result.size, result.transfer) == (6, (128, 96), 16)
    assert result.pixel_format == "yuv420p10le"
    with av.open(str(target)) as film_:
        stream = film_.streams.video[0]
        assert not {b"dvcC", b"dvvC"} & sample_entry_boxes(stream).keys()
        sides: Any = next(film_.decode(stream)).side_data
        assert not [side for side in sides if side.type.name.startswith("DOVI")]


def test_the_record_is_read_as_ffmpeg_writes_it(folder: Path) -> None:
    for name in ("in.mp4", "in.mkv"):
        with av.open(str(folder / "8" / name)) as source:
            assert sample_entry_boxes(source.streams.video[0])[b"dvvC"] == record(8, 1)[8:]


def _hdr10_plus() -> bytes:
    """Return an HDR10+ message (SMPTE ST 2094-40, CTA-861-H annex S): one window, flat curve."""
    bits = ""
    for value, length in (
        (4, 8), (1, 8),  # application identifier and version
        (1, 2), (1000, 27), (0, 1),  # windows, targeted luminance
        (1000, 17), (1000, 17), (1000, 17), (500, 17), (0, 4), (0, 10),
        (0, 1), (0, 1), (0, 1),
    ):  # fmt: skip
        bits += format(value, f"0{length}b")
    bits += "0" * (-len(bits) % 8)
    body = b"\xb5\x00\x3c\x00\x01" + int(bits, 2).to_bytes(len(bits) // 8, "big")
    return b"\x4e\x01" + escaped(bytes([4, len(body)]) + body + b"\x80")


def test_hdr10_plus_is_named(tmp_path: Path) -> None:
    source = muxed(hevc(unit=_hdr10_plus(), before=True), tmp_path / "in.mkv")
    with av.open(str(source)) as read:
        sides: Any = next(read.decode(video=0)).side_data
        assert "DYNAMIC_HDR_PLUS" in [side.type.name for side in sides]
    report = vsr.upscale(source, tmp_path / "out.mkv", model="bicubic", preset="ultrafast")
    assert report.notes == ["its HDR10+ metadata is left out"]
    assert contents(tmp_path / "out.mkv").frames == 6
