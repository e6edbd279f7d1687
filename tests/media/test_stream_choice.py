"""Tests of which streams of an input are selected."""

from pathlib import Path

import av
import pytest

from tests.clips import Clip, make_clip
from tests.facts import contents
from tests.files.test_faithful import upscaled
from vsr.errors import InputError
from vsr.media.frame import Frame
from vsr.media.source import Source

SMALL, LARGE = (64, 48), (128, 96)


def _variant(folder: Path, name: str, clip: Clip) -> str:
    """Write the playlist of a variant, with one segment, and return the playlist's name."""
    segment = make_clip(folder / f"{name}.ts", clip)
    lines = ("#EXTM3U", "#EXT-X-TARGETDURATION:2", "#EXTINF:1.0,", segment.name, "#EXT-X-ENDLIST")
    (folder / f"{name}.m3u8").write_text("\n".join(lines) + "\n")
    return f"{name}.m3u8"


def _sound(folder: Path, name: str, codec: str) -> str:
    """Write an audio-only playlist and return its name."""
    playlist = _variant(folder, name, Clip(audio=(codec,), frames=25))
    whole = folder / f"{name}.ts"
    alone = folder / f"{name}_alone.ts"
    with av.open(str(whole)) as read, av.open(str(alone), "w") as out:
        sound = read.streams.audio[0]
        stream = out.add_stream_from_template(sound, opaque=True)
        for packet in read.demux(sound):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    alone.replace(whole)
    return playlist


def _master(folder: Path, *lines: str) -> Path:
    path = folder / "master.m3u8"
    path.write_text("\n".join(("#EXTM3U", *lines)) + "\n")
    return path


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_the_largest_variant_is_taken_with_its_own_sound(
    tmp_path: Path, order: tuple[int, int, int]
) -> None:
    """Each variant contains its audio. The last two have the same size; any order works."""
    variants = []
    for k, (size, codec, bits) in enumerate(
        [(SMALL, "mp2", 90_000), (LARGE, "aac", 300_000), (LARGE, "ac3", 800_000)]
    ):
        playlist = _variant(tmp_path, f"v{k}", Clip(size=size, audio=(codec,), frames=25))
        w, h = size
        info = f"#EXT-X-STREAM-INF:BANDWIDTH={bits},RESOLUTION={w}x{h}"
        variants.append((info, playlist))
    master = _master(tmp_path, *(line for k in order for line in variants[k]))
    result, report = upscaled(master)
    assert result.size == (256, 192)
    assert sorted(result.kinds) == ["audio", "video"]
    assert report.frames_out == 25
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.audio[0].codec_context.name == "ac3"
    assert result.packets[1] == contents(tmp_path / "v2.ts").packets[1]


@pytest.mark.parametrize("small_first", [True, False])
def test_the_sound_of_the_variants_group_is_taken(tmp_path: Path, small_first: bool) -> None:
    """Both audio groups contain a track of the same name; the small size has variants with each."""
    sounds = [
        f'#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="{group}",NAME="English",LANGUAGE="en",URI="{uri}"'
        for group, uri in (
            ("lo", _sound(tmp_path, "lo", "mp2")), ("hi", _sound(tmp_path, "hi", "ac3"))
        )
    ]  # fmt: skip
    lines = []
    for k, (size, group) in enumerate(((SMALL, "lo"), (SMALL, "hi"), (LARGE, "hi"))):
        playlist = _variant(tmp_path, f"v{k}", Clip(size=size, audio=(), frames=25))
        bits = 100_000 * (k + 1)
        lines.append((f'#EXT-X-STREAM-INF:BANDWIDTH={bits},AUDIO="{group}"', playlist))
    lines = lines if small_first else lines[::-1]
    source = Source(str(_master(tmp_path, *sounds, *(x for pair in lines for x in pair))))
    kinds = [(s.type, s.codec_context.name) for s in source.passthrough().streams]
    assert sorted(kinds) == [("audio", "ac3"), ("video", "h264")]
    assert (source.info.width, source.info.height) == LARGE
    assert sum(isinstance(item, Frame) for item in source) == 25


def test_a_media_playlist_and_plain_files_keep_all_their_streams(tmp_path: Path) -> None:
    playlist = _variant(tmp_path, "v", Clip(audio=("aac", "mp2"), frames=25))
    source = Source(str(tmp_path / playlist))
    assert [s.type for s in source.passthrough().streams] == ["video", "audio", "audio"]
    source.close()


@pytest.mark.parametrize("text", ['<?xml version="1.0"?>\n<MPD xmlns="urn:x"></MPD>', "<MPD/>"])
def test_a_dash_manifest_is_not_called_damaged(tmp_path: Path, text: str) -> None:
    path = tmp_path / "m.mpd"
    path.write_text(text)
    with pytest.raises(InputError, match="DASH manifest, which this FFmpeg cannot read"):
        Source(str(path))
