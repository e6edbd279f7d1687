"""An output never replaces a file that the input is read from, however the paths are spelled."""

import os
from pathlib import Path

import pytest

from tests.clips import Clip, make_clip
from vsr.errors import UsageError
from vsr.files.upscale import upscale
from vsr.media.references import files_of, is_part_of


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "in.mp4", Clip(frames=4))


@pytest.mark.parametrize("form", ["file:in.mp4", "file:dir/../in.mp4", "in.mp4", "./in.mp4"])
def test_other_spellings_of_the_input(
    tmp_path: Path, clip: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dir").mkdir()
    before = clip.read_bytes()
    with pytest.raises(UsageError, match="same file"):
        upscale(form, "in.mp4", model="bicubic", overwrite=True)
    assert clip.read_bytes() == before


def test_a_hard_link_is_the_same_file(tmp_path: Path, clip: Path) -> None:
    os.link(clip, tmp_path / "other.mp4")
    with pytest.raises(UsageError, match="same file"):
        upscale(f"file:{clip}", tmp_path / "other.mp4", model="bicubic", overwrite=True)


def test_a_symbolic_link_as_input(tmp_path: Path, clip: Path) -> None:
    (tmp_path / "link.mp4").symlink_to(clip)
    with pytest.raises(UsageError, match="same file"):
        upscale(tmp_path / "link.mp4", clip, model="bicubic", overwrite=True)


def test_a_playlists_second_segment_is_not_replaced(tmp_path: Path) -> None:
    segments = [make_clip(tmp_path / f"s {n}.ts", Clip(frames=4)) for n in range(2)]
    playlist = tmp_path / "list.m3u8"
    lines = "".join(f"#EXTINF:0.16,\ns%20{n}.ts?x=1\n" for n in range(2))
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n{lines}#EXT-X-ENDLIST\n")
    master = tmp_path / "master.m3u8"
    master.write_text(
        '#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,URI="a.m3u8"\n#EXT-X-STREAM-INF:\nlist.m3u8\n'
    )
    before = segments[1].read_bytes()
    for source in (playlist, master):
        with pytest.raises(UsageError, match="same file"):
            upscale(source, segments[1], model="bicubic", overwrite=True)
    assert segments[1].read_bytes() == before


def test_the_files_of_a_concat_list(tmp_path: Path) -> None:
    listed = tmp_path / "all.ffconcat"
    listed.write_text("ffconcat version 1.0\nfile 'it'\\''s one.mp4'\nduration 2\nfile two.mp4\n")
    assert [f.name for f in files_of(listed)] == ["all.ffconcat", "it's one.mp4", "two.mp4"]


def test_the_files_of_a_dash_manifest(tmp_path: Path) -> None:
    for name in ("init-0.m4s", "chunk-0-00001.m4s", "chunk-0-00002.m4s", "other.mp4"):
        (tmp_path / name).write_bytes(b"x")
    manifest = tmp_path / "film.mpd"
    manifest.write_text(
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><AdaptationSet>'
        '<SegmentTemplate media="chunk-$RepresentationID$-$Number%05d$.m4s" '
        'initialization="init-$RepresentationID$.m4s"/></AdaptationSet></Period></MPD>'
    )
    assert is_part_of(tmp_path / "chunk-0-00002.m4s", str(manifest))
    assert is_part_of(tmp_path / "init-0.m4s", str(manifest))
    assert not is_part_of(tmp_path / "other.mp4", str(manifest))


def test_a_playlist_that_names_itself_ends(tmp_path: Path) -> None:
    loop = tmp_path / "loop.m3u8"
    loop.write_text("#EXTM3U\nloop.m3u8\n")
    assert {f.name for f in files_of(loop)} == {"loop.m3u8"}


def test_a_url_as_output_is_refused_without_its_key(tmp_path: Path, clip: Path) -> None:
    with pytest.raises(UsageError, match="use vsr relay to publish") as caught:
        upscale(clip, "rtmp://host/live/k3y", model="bicubic")
    assert "k3y" not in str(caught.value)
