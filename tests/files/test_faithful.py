"""`vsr run` preserves all but the pixels: times, audio, tags, aspect, and other streams."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

import vsr
from tests.clips import Clip, make_clip, make_resizing_clip, picture
from tests.facts import Contents, contents, pictures
from vsr.media.timestamps import TimestampCorrector


def upscaled(source: Path, name: str = "out.mp4", **options: object) -> tuple[Contents, vsr.Report]:
    """Upscale by bicubic x2 into the source's folder and read the result."""
    target = source.with_name(name)
    options = {"model": "bicubic", "preset": "ultrafast"} | options
    report = vsr.upscale(source, target, **options)  # type: ignore[arg-type]
    return contents(target), report


def test_frames_and_times_are_the_sources_own(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(frames=30, rate=Fraction(30000, 1001)))
    result, report = upscaled(source)
    assert result.pts == contents(source).pts
    assert (report.frames_in, report.frames_out, report.exit_code) == (30, 30, 0)
    assert result.size == (128, 96)


def test_variable_frame_times_survive(tmp_path: Path) -> None:
    times = [0, 20, 50, 120, 130, 200, 333, 340, 500, 510, 700, 901]
    source = make_clip(tmp_path / "in.mp4", Clip(pts=times))
    result, _ = upscaled(source)
    assert result.pts == [Fraction(t, 1000) for t in times]


@pytest.mark.parametrize("codec", ["hevc", "av1"])
def test_every_frame_is_there_with_other_encoders(tmp_path: Path, codec: str) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(size=(128, 96), frames=20))
    result, _ = upscaled(source, codec=codec, preset="10" if codec == "av1" else "ultrafast")
    assert result.pts == contents(source).pts


def test_audio_tracks_and_languages_survive(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mkv", Clip(audio=("aac", "libopus", "ac3")))
    result, _ = upscaled(source, "out.mkv")
    before = contents(source)
    assert result.packets == before.packets
    assert result.languages == before.languages
    assert result.kinds == ["video", "audio", "audio", "audio"]


def test_start_offset_between_picture_and_sound_survives(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(start=0.4567))
    result, _ = upscaled(source)
    before = contents(source)
    assert before.pts[0] > Fraction(45, 100)
    assert result.pts == before.pts
    assert result.first_pts == before.first_pts


def test_subtitles_chapters_and_attachments_survive(tmp_path: Path) -> None:
    chapters = ((0.0, 0.2, "one"), (0.2, 0.48, "two"))
    clip = Clip(subtitles="subrip", chapters=chapters, attachment=b"font" * 50)
    source = make_clip(tmp_path / "in.mkv", clip)
    result, report = upscaled(source, "out.mkv")
    before = contents(source)
    assert result.kinds == before.kinds == ["video", "audio", "subtitle", "attachment"]
    assert result.packets == before.packets
    assert result.chapters == before.chapters != []
    assert report.notes == []
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert container.streams.attachments[0].data == b"font" * 50


def test_chapters_of_an_mp4_are_written_once(tmp_path: Path) -> None:
    chapters = ((0.0, 0.2, "one"), (0.2, 0.48, "two"))
    source = make_clip(tmp_path / "in.mp4", Clip(subtitles="mov_text", chapters=chapters))
    result, report = upscaled(source)
    before = contents(source)
    assert result.chapters == before.chapters != []
    assert result.kinds == before.kinds
    assert report.notes == []


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_cover_art_and_metadata_survive(tmp_path: Path, suffix: str) -> None:
    clip = Clip(cover=True, metadata={"title": "Titel äöü", "artist": "someone"})
    source = make_clip(tmp_path / f"in{suffix}", clip)
    result, _ = upscaled(source, f"out{suffix}")
    before = contents(source)
    assert result.dispositions == before.dispositions
    assert result.packets == before.packets
    assert result.metadata["title"] == "Titel äöü"
    assert {k.lower(): v for k, v in result.metadata.items()}["artist"] == "someone"


def test_what_the_container_cannot_carry_is_named_in_one_warning(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mkv", Clip(subtitles="subrip", attachment=b"font"))
    result, report = upscaled(source)
    assert result.kinds == ["video", "audio", "subtitle"]
    assert len(report.notes) == 1
    assert "subtitle #2 (srt, eng) becomes mov_text" in report.notes[0]
    assert "attachment #3" in report.notes[0]


@pytest.mark.parametrize("name", ["12:30.mp4", "50% off, 'quoted' äö.mp4", "-dash.mp4"])
def test_any_file_name_works(tmp_path: Path, name: str) -> None:
    source = make_clip(tmp_path / "plain.mp4", Clip()).rename(tmp_path / name)
    result, _ = upscaled(source, f"out {name}")
    assert result.frames == 12


def test_joined_recordings_play_on_where_times_jump_back(tmp_path: Path) -> None:
    part = make_clip(tmp_path / "part.ts", Clip(frames=50))
    source = tmp_path / "in.ts"
    source.write_bytes(part.read_bytes() * 3)
    result, report = upscaled(source)
    assert result.frames == 150
    steps = [float(b - a) for a, b in zip(result.pts, result.pts[1:], strict=False)]
    assert max(steps) < 0.2 and min(steps) > 0.01
    assert "timestamps jump at" in report.losses[0]
    assert (report.packets_refused, report.exit_code) == (0, 0)
    assert len(result.packets[1]) == 3 * len(contents(part).packets[1])


@pytest.mark.parametrize("suffix", [".ts", ".flv"])
def test_rotation_and_chapters_a_container_has_no_place_for_are_named(
    tmp_path: Path, suffix: str
) -> None:
    chapters = ((0.0, 0.2, "one"), (0.2, 0.48, "two"))
    source = make_clip(tmp_path / "in.mp4", Clip(rotation=90, chapters=chapters))
    _, report = upscaled(source, f"out{suffix}")
    assert "the rotation of the picture" in report.notes[0]
    assert "chapters" in report.notes[0]


def test_a_transport_stream_gets_only_what_players_can_read_in_it(tmp_path: Path) -> None:
    clip = Clip(subtitles="subrip", attachment=b"font")
    _, report = upscaled(make_clip(tmp_path / "in.mkv", clip), "out.ts")
    _, cover = upscaled(make_clip(tmp_path / "in.mp4", Clip(cover=True)), "cover.ts")
    assert "cover art #2 (mjpeg)" in cover.notes[0]
    for thing in ("subtitle #2", "attachment #3"):
        assert thing in report.notes[0]


def test_a_grey_picture_keeps_its_values(tmp_path: Path) -> None:
    """swscale would read limited-range grey as full range, and darken it."""
    clip = Clip(codec="ffv1", pixel_format="gray", matrix=2, range=1, audio=())
    source = make_clip(tmp_path / "in.mkv", clip)
    upscaled(source, crf=2)
    before = np.mean([planes[0].mean() for planes in pictures(source)])
    after = np.mean([planes[0].mean() for planes in pictures(tmp_path / "out.mp4")])
    assert abs(before - after) < 1


@pytest.mark.parametrize("codec", ["hevc", "av1", "vp9"])
def test_rotation_survives_with_other_encoders(tmp_path: Path, codec: str) -> None:
    clip = Clip(size=(128, 96), rotation=90, sar=Fraction(4, 3))
    source = make_clip(tmp_path / "in.mp4", clip)
    preset = {"hevc": "ultrafast", "av1": "10", "vp9": "8"}[codec]
    result, _ = upscaled(source, codec=codec, preset=preset)
    assert (result.rotation, result.sar, result.frames) == (90, Fraction(4, 3), 12)
    assert result.pts == contents(source).pts


@pytest.mark.parametrize("degrees", [90, 180, 270])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_rotation_survives(tmp_path: Path, degrees: int, suffix: str) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(rotation=degrees, sar=Fraction(4, 3)))
    result, _ = upscaled(source, f"out{suffix}")
    assert contents(source).rotation == result.rotation == degrees
    assert result.sar == Fraction(4, 3)
    assert result.frames == 12


def test_rotation_survives_in_webm_and_what_does_not_is_named(tmp_path: Path) -> None:
    clip = Clip(rotation=90, sar=Fraction(4, 3), audio=())
    result, report = upscaled(make_clip(tmp_path / "in.mp4", clip), "out.webm", preset="8")
    assert (result.rotation, result.frames) == (90, 12)
    assert "the pixel aspect in vp9" in report.notes[0]


def test_a_mirrored_picture_stays_mirrored(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(rotation=-1))
    upscaled(source)
    assert display_matrix(tmp_path / "out.mp4") == display_matrix(source) != b""


def display_matrix(path: Path) -> bytes:
    """Return FFmpeg's 3x3 display matrix of the first frame; empty if it has none."""
    with av.open(str(path)) as container:
        picture = next(container.decode(video=0))
        data = [bytes(d) for d in picture.side_data if d.type.name == "DISPLAYMATRIX"]  # type: ignore[attr-defined]
    return b"".join(data)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_pixel_aspect_survives(tmp_path: Path, suffix: str) -> None:
    source = make_clip(tmp_path / f"in{suffix}", Clip(sar=Fraction(64, 45)))
    result, _ = upscaled(source, f"out{suffix}")
    assert result.sar == Fraction(64, 45)


@pytest.mark.parametrize(
    ("matrix", "range_", "primaries", "transfer"), [(6, 1, 6, 6), (1, 2, 1, 1), (9, 1, 9, 14)]
)
def test_colour_tags_survive(
    tmp_path: Path, matrix: int, range_: int, primaries: int, transfer: int
) -> None:
    clip = Clip(matrix=matrix, range=range_, primaries=primaries, transfer=transfer)
    result, _ = upscaled(make_clip(tmp_path / "in.mp4", clip))
    tags = (result.matrix, result.range, result.primaries, result.transfer)
    assert tags == (matrix, range_, primaries, transfer)


@pytest.mark.parametrize(("height", "matrix"), [(48, 6), (718, 6), (720, 1)])
def test_an_untagged_stream_is_tagged_with_what_was_used(
    tmp_path: Path, height: int, matrix: int
) -> None:
    clip = Clip(size=(64, height), frames=2, matrix=2, range=0, primaries=2, transfer=2)
    source = make_clip(tmp_path / "in.mp4", clip)
    assert contents(source).matrix == 2
    result, _ = upscaled(source)
    assert (result.matrix, result.range) == (matrix, 1)
    assert (result.primaries, result.transfer) == (2, 2)


@pytest.mark.parametrize("matrix", [6, 1])
@pytest.mark.parametrize("range_", [1, 2])
def test_flat_colours_come_back_within_one_code_value(
    tmp_path: Path, matrix: int, range_: int
) -> None:
    """Input and output are (nearly) lossless, so only vsr itself could change the values."""
    low, high = (16, 235) if range_ == 1 else (0, 255)
    clip = Clip(matrix=matrix, range=range_, options={"qp": "0"}, audio=())
    source = tmp_path / "in.mkv"
    values = [(low, 128, 128), (high, 128, 128), (81, 90, 240), (145, 54, 34), (60, 200, 100)]
    _write_flat(source, clip, values)
    upscaled(source, "out.mkv", crf=None, encoder_options={"qp": "0"})
    for planes, expected in zip(pictures(tmp_path / "out.mkv"), values, strict=True):
        for plane, value in zip(planes, expected, strict=True):
            assert np.abs(plane.astype(int) - value).max() <= 1


def _write_flat(path: Path, clip: Clip, values: list[tuple[int, int, int]]) -> None:
    width, height = clip.size
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25, options=dict(clip.options))
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.codec_context.colorspace = clip.matrix
        video.codec_context.color_range = clip.range
        for index, (y, u, v) in enumerate(values):
            planes = (
                np.full((height, width), y, np.uint8),
                np.full((height // 2, width // 2), u, np.uint8),
                np.full((height // 2, width // 2), v, np.uint8),
            )
            frame = av.VideoFrame.from_dlpack(planes, format="yuv420p")
            frame.pts = index
            out.mux(video.encode(frame))
        out.mux(video.encode(None))


@pytest.mark.parametrize("model", ["bicubic", "c-dcscn"])
def test_odd_sizes_work(tmp_path: Path, model: str) -> None:
    clip = Clip(size=(65, 47), codec="libvpx-vp9", options={"deadline": "realtime"}, audio=())
    source = make_clip(tmp_path / "in.webm", clip)
    result, _ = upscaled(source, model=model)
    assert result.size == (130, 94)
    assert result.frames == 12


def test_an_odd_size_at_scale_three_is_rounded_up(tmp_path: Path) -> None:
    clip = Clip(size=(65, 47), codec="libvpx-vp9", options={"deadline": "realtime"}, audio=())
    result, _ = upscaled(make_clip(tmp_path / "in.webm", clip), scale=3)
    assert result.size == (196, 142)


@pytest.mark.parametrize("pixel_format", ["yuv420p10le", "yuv444p", "yuv422p"])
def test_other_pixel_formats_are_kept_without_a_word(tmp_path: Path, pixel_format: str) -> None:
    source = make_clip(tmp_path / "in.mkv", Clip(pixel_format=pixel_format))
    result, report = upscaled(source)
    assert (result.pixel_format, report.notes) == (pixel_format, [])
    gap = np.abs(_mean_planes(source) - _mean_planes(tmp_path / "out.mp4"))
    assert gap.max() < 1.5


def _mean_planes(path: Path) -> np.ndarray:  # type: ignore[type-arg]
    """Return the mean Y, U and V of all frames on the 8-bit scale."""
    means = []
    for planes in pictures(path):
        scale = 4 if planes[0].dtype == np.uint16 else 1
        means.append([plane.mean() / scale for plane in planes])
    return np.mean(means, axis=0)


def test_rgb_video_keeps_its_colours(tmp_path: Path) -> None:
    """swscale must convert with the matrix that the output is tagged with."""
    clip = Clip(size=(64, 48), frames=2, codec="ffv1", pixel_format="bgr0", matrix=0, range=2)
    source = make_clip(tmp_path / "in.mkv", clip)
    result, report = upscaled(source, crf=4)
    assert (result.pixel_format, result.matrix, result.range) == ("yuv444p", 1, 1)
    assert report.notes == []
    before, after = _mean_rgb(source), _mean_rgb(tmp_path / "out.mp4")
    assert np.abs(before - after).max() < 2


def _mean_rgb(path: Path) -> np.ndarray:  # type: ignore[type-arg]
    with av.open(str(path)) as container:
        picture = next(container.decode(video=0))
        rgb = picture.reformat(
            format="rgb24", src_colorspace=1, src_color_range=picture.color_range
        )
        return rgb.to_ndarray().reshape(-1, 3).mean(0)


def test_a_recording_from_a_running_clock_begins_at_its_beginning(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mkv", Clip(start=34001.0, audio=()))
    result, _ = upscaled(source)
    assert result.pts == [Fraction(k, 25) for k in range(12)]


def test_pictures_before_zero_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MP4 cannot show frames with negative times, so all times are shifted to start at 0.

    Only broadcasts whose clock wraps start with negative times, and no muxer used here writes them:
    the test shifts the times while they are read.
    """
    source = make_clip(tmp_path / "in.mkv", Clip(audio=(), options={"bf": "0"}))

    def earlier(_: TimestampCorrector, packet: av.Packet) -> None:  # type: ignore[type-arg]
        packet.pts = None if packet.pts is None else packet.pts - 200

    monkeypatch.setattr(TimestampCorrector, "correct", earlier)
    result, _ = upscaled(source)
    assert result.pts == [Fraction(k, 25) for k in range(12)]


def test_pcm_of_a_nameless_layout_fits_an_mp4(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mkv", Clip(audio=("pcm_s16le",)))
    with av.open(str(source)) as container:
        assert container.streams.audio[0].layout.name == "2 channels"
    result, report = upscaled(source)
    assert result.kinds == ["video", "audio"]
    assert report.notes == []


def test_sound_a_transport_stream_cannot_hold_is_encoded_and_named(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mkv", Clip(audio=("flac",)))
    result, report = upscaled(source, "out.ts")
    assert result.kinds == ["video", "audio"]
    assert report.notes == ["audio #1 (flac, eng) becomes aac"]


def test_lost_transparency_is_named(tmp_path: Path) -> None:
    clip = Clip(codec="ffv1", pixel_format="yuva420p", audio=())
    _, report = upscaled(make_clip(tmp_path / "in.mkv", clip))
    assert "cannot contain transparency" in report.notes[0]


def test_side_data_pyav_does_not_know_is_no_obstacle(tmp_path: Path) -> None:
    """A JPEG picture has an EXIF block, a kind that PyAV's enumeration of side data lacks."""
    packets = _encoded_jpeg((64, 48))
    exif = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01"
    exif += b"\x00\x06\x00\x00\x00\x00\x00\x00"  # orientation 6
    block = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    (tmp_path / "in.jpg").write_bytes(packets[:2] + block + packets[2:])
    result, _ = upscaled(tmp_path / "in.jpg")
    assert (result.frames, result.size) == (1, (128, 96))


def _encoded_jpeg(size: tuple[int, int]) -> bytes:
    context = av.CodecContext.create("mjpeg", "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height = size
    context.pix_fmt, context.time_base = "yuvj420p", Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(picture(size, 0), format="rgb24")
    packets = [*context.encode(frame.reformat(format="yuvj420p")), *context.encode(None)]
    return b"".join(bytes(packet) for packet in packets)


def test_interlaced_video_that_is_left_so_is_named(tmp_path: Path) -> None:
    options = {"x264-params": "tff=1"}
    source = make_clip(tmp_path / "in.mkv", Clip(options=options))
    _, report = upscaled(source, deinterlace="off")
    assert len(report.notes) == 1
    assert "interlaced" in report.notes[0]


def test_a_size_change_keeps_the_first_output_size(tmp_path: Path) -> None:
    source = make_resizing_clip(tmp_path / "in.ts", [(64, 48), (96, 64)])
    result, report = upscaled(source)
    assert result.frames == 12
    assert result.size == (128, 96)
    assert [row["event"] for row in report.ledger.rows()] == [""] * 6 + ["resized"] * 6
    assert "changes size to 96x64" in report.losses[0]
    assert report.exit_code == 0


def test_only_the_first_video_track_is_upscaled_and_the_second_is_copied(tmp_path: Path) -> None:
    source = tmp_path / "two.mkv"
    first = make_clip(tmp_path / "a.mkv", Clip(audio=()))
    second = make_clip(tmp_path / "b.mkv", Clip(audio=(), size=(96, 64)))
    _merge(source, first, second)
    result, _ = upscaled(source, "out.mkv")
    assert result.size == (128, 96)
    assert result.packets == contents(source).packets


def _merge(target: Path, *sources: Path) -> None:
    with av.open(str(target), "w") as out:
        inputs = [av.open(str(path)) for path in sources]
        streams = [out.add_stream_from_template(i.streams.video[0], opaque=True) for i in inputs]
        for container, stream in zip(inputs, streams, strict=True):
            for packet in container.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    out.mux(packet)
            container.close()


def test_mp4_output_starts_fast_and_plays_in_a_browser(tmp_path: Path) -> None:
    upscaled(make_clip(tmp_path / "in.mp4", Clip()))
    data = (tmp_path / "out.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")
    with av.open(str(tmp_path / "out.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")


def test_hevc_in_mp4_has_the_tag_apple_players_want(tmp_path: Path) -> None:
    upscaled(make_clip(tmp_path / "in.mp4", Clip(size=(128, 96))), codec="hevc")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].codec_context.codec_tag == "hvc1"


def test_a_window_keeps_times_and_the_sound_that_plays_with_it(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(frames=75, cover=True))
    before = contents(source)
    result, report = upscaled(source, start_frame=25, max_frames=25)
    assert result.pts == [t - before.pts[25] for t in before.pts[25:50]], "it begins at 0"
    assert report.frames_out == 25
    first, last = packet_times(tmp_path / "out.mp4")
    assert 0.0 <= first < 0.03  # AAC frames last 21 ms
    assert 0.93 < last < 1.1  # includes packets read before the last frame
    assert result.packets[2] == before.packets[2], "cover art belongs to any window"


def packet_times(path: Path) -> tuple[float, float]:
    """Return the first and last pts of the audio, in seconds."""
    with av.open(str(path)) as container:
        sound = container.streams.audio[0]
        times = [float(p.pts * p.time_base) for p in container.demux(sound) if p.size]
    return min(times), max(times)


def test_times_missing_in_the_container_are_made_from_the_frame_rate(tmp_path: Path) -> None:
    source = tmp_path / "in.h264"
    make_clip(source, replace(Clip(), audio=(), metadata={}, options={"bf": "0"}))
    result, report = upscaled(source)
    assert report.frames_out == result.frames == 12
    steps = {b - a for a, b in zip(result.pts, result.pts[1:], strict=False)}
    assert steps == {Fraction(1, 25)}
