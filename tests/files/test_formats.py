"""Bit depth, chroma format, siting and HDR are preserved, or converted on request."""

import json
import subprocess
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import vsr
from tests.clips import Clip, make_clip
from tests.facts import contents
from tests.programs import FFPROBE, needs_ffprobe
from vsr.errors import UsageError
from vsr.media import parameters, track
from vsr.media.boxes import sample_entry_boxes
from vsr.media.hdr import Hdr10
from vsr.media.info import side_data_of

BT2020_PQ = {"matrix": 9, "primaries": 9, "transfer": 16}
DISPLAY = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
"""Mastering display: P3 primaries, D65, 0.005 to 1000 cd/m2, in the units of H.265 D.3.28."""


def shown(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return ffprobe's entry of the video stream, and its first frame's side data by kind."""
    asked = [FFPROBE, "-v", "error", "-select_streams", "v:0", "-read_intervals", "%+#1"]
    done = subprocess.run(
        [*asked, "-show_streams", "-show_frames", "-of", "json", str(path)],
        check=True, capture_output=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    data = found["frames"][0].get("side_data_list", [])
    return found["streams"][0], {entry["side_data_type"]: entry for entry in data}


def deep_ramp(path: Path, codec: str = "ffv1", **options: str) -> Path:
    """Write four 10-bit 4:2:0 frames with a ramp of 900 levels."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 900, 16, "yuv420p10le"
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc = 9, 9, 16
        context.color_range = 1
        stream.options = options
        y = np.arange(50, 950, dtype=np.uint16)[None].repeat(16, 0)
        u = np.full((8, 450), 512, np.uint16)
        for index in range(4):
            frame = av.VideoFrame.from_dlpack((y, u, u.copy()), format="yuv420p10le")
            frame.pts = index
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def test_a_10_bit_ramp_keeps_its_levels_from_file_to_file(tmp_path: Path) -> None:
    """Bicubic x2 of a ramp is a ramp: all levels are kept, exact to half a code value."""
    source = deep_ramp(tmp_path / "in.mkv")
    vsr.upscale(source, tmp_path / "out.mkv", model="bicubic", codec="ffv1")
    with av.open(str(tmp_path / "out.mkv")) as file:
        picture = next(file.decode(video=0))
    assert picture.format.name == "yuv420p10le"
    row = np.array(np.from_dlpack(picture.planes[0]))[16].astype(float)
    exact = 50 + (np.arange(1800) + 0.5) / 2 - 0.5
    assert np.abs(row - exact)[4:-4].max() <= 0.5
    assert len(np.unique(row)) == 900


@pytest.mark.parametrize("pixel_format", ["yuv420p12le", "yuv422p10le", "gbrp10le", "gray10le"])
def test_ffv1_keeps_every_format(tmp_path: Path, pixel_format: str) -> None:
    clip = Clip(codec="ffv1", pixel_format=pixel_format, audio=(), frames=3)
    if pixel_format.startswith("gbrp"):
        clip = Clip(codec="ffv1", pixel_format=pixel_format, audio=(), frames=3, matrix=0, range=2)
    source = make_clip(tmp_path / "in.mkv", clip)
    report = vsr.upscale(source, tmp_path / "out.mkv", model="bicubic", codec="ffv1")
    before, after = contents(source), contents(tmp_path / "out.mkv")
    assert after.pixel_format == pixel_format
    assert (after.pts, after.matrix, after.range) == (before.pts, clip.matrix, clip.range)
    assert report.notes == []


@needs_ffprobe
@pytest.mark.parametrize("codec", ["hevc", "av1", "h264"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_hdr10_metadata_and_siting_come_through(tmp_path: Path, codec: str, suffix: str) -> None:
    source = deep_ramp(
        tmp_path / "in.mp4", "libx265", chroma_sample_location="topleft", preset="ultrafast",
        **{"x265-params": f"log-level=error:master-display={DISPLAY}:max-cll=1000,400"},
    )  # fmt: skip
    target = tmp_path / f"out{suffix}"
    preset = {"av1": "12"}.get(codec, "ultrafast")
    report = vsr.upscale(source, target, model="bicubic", codec=codec, preset=preset)
    stream, data = shown(target)
    assert (report.notes, stream["pix_fmt"]) == ([], "yuv420p10le")
    assert stream["chroma_location"] == "topleft"
    tags = ("color_transfer", "color_primaries", "color_space")
    assert [stream[tag] for tag in tags] == ["smpte2084", "bt2020", "bt2020nc"]
    if codec == "h264":  # old versions of FFmpeg cannot read it in H.264
        return
    display, light = data["Mastering display metadata"], data["Content light level metadata"]
    wanted = {
        "red_x": 0.68, "red_y": 0.32, "green_x": 0.265, "green_y": 0.69, "blue_x": 0.15,
        "blue_y": 0.06, "white_point_x": 0.3127, "white_point_y": 0.329, "min_luminance": 0.005,
        "max_luminance": 1000,
    }  # fmt: skip
    for name, value in wanted.items():
        number, by = map(int, display[name].split("/"))
        assert number / by == pytest.approx(value, abs=2e-5)  # AV1 uses units of 1/65536
    assert (light["max_content"], light["max_average"]) == (1000, 400)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_containers_tell_hdr10_for_encoders_that_cannot(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NVENC's HDR10 metadata cannot be set by PyAV; here x265 does not receive it either."""
    params = f"log-level=error:master-display={DISPLAY}:max-cll=1000,400"
    source = deep_ramp(
        tmp_path / "in.mp4", "libx265", preset="ultrafast", **{"x265-params": params}
    )
    for module in (parameters, track):
        monkeypatch.setattr(module, "HDR_ENCODERS", ())
    target = tmp_path / f"out{suffix}"
    report = vsr.upscale(source, target, model="bicubic", preset="ultrafast")
    assert report.notes == []
    (before, _), (after, told) = (_hdr10(path) for path in (source, target))
    assert after == before and after is not None and after.light == (1000, 400)
    assert told.keys() == {b"mdcv", b"clli"}
    assert contents(target).pixel_format == "yuv420p10le"


def _hdr10(path: Path) -> tuple[Hdr10 | None, dict[bytes, bytes]]:
    """Return the HDR10 metadata of the first frame, and the container's HDR10 boxes."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        told = {k: v for k, v in sample_entry_boxes(stream).items() if k in (b"mdcv", b"clli")}
        return Hdr10.of(side_data_of(next(file.decode(stream)))), told


@pytest.mark.gpu
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_nvenc_keeps_hdr10(tmp_path: Path, suffix: str) -> None:
    params = f"log-level=error:master-display={DISPLAY}:max-cll=1000,400"
    source = deep_ramp(
        tmp_path / "in.mp4", "libx265", preset="ultrafast", **{"x265-params": params}
    )
    target = tmp_path / f"out{suffix}"
    report = vsr.upscale(source, target, model="bicubic", codec="hevc_nvenc")
    assert report.notes == []
    assert _hdr10(target)[0] == _hdr10(source)[0] is not None


def test_hdr_is_10_bit_hevc_by_default_and_never_8_bit(tmp_path: Path) -> None:
    source = deep_ramp(tmp_path / "in.mkv")
    vsr.upscale(source, tmp_path / "out.mp4", model="bicubic", preset="ultrafast")
    result = contents(tmp_path / "out.mp4")
    assert (result.pixel_format, result.transfer) == ("yuv420p10le", 16)
    with pytest.raises(UsageError, match="--sdr"):
        vsr.upscale(
            source, tmp_path / "no.mp4", model="bicubic", codec="h264", pixel_format="yuv420p"
        )
    assert not (tmp_path / "no.mp4").exists()


def test_sdr_maps_hdr_to_8_bit_bt709(tmp_path: Path) -> None:
    """100 cd/m2, PQ code 0.508 (SMPTE ST 2084), is mapped from medium grey to a light level."""
    source = deep_ramp(tmp_path / "in.mkv")
    vsr.upscale(source, tmp_path / "out.mp4", model="bicubic", sdr=True, crf=4)
    result = contents(tmp_path / "out.mp4")
    assert (result.pixel_format, result.matrix, result.primaries) == ("yuv420p", 1, 1)
    assert (result.transfer, result.range) == (1, 1)
    with av.open(str(tmp_path / "out.mp4")) as file:
        row = np.array(np.from_dlpack(next(file.decode(video=0)).planes[0]))[16].astype(int)
    place = 2 * (64 + round(0.508 * 876) - 50)  # column of that level
    assert row[place] > 150
    assert np.diff(row[::50]).min() >= -2


@pytest.mark.parametrize(
    ("codec", "suffix", "pixel_format"),
    [
        ("prores", ".mov", "yuv422p10le"), ("prores", ".mkv", "yuv422p10le"),
        ("dnxhd", ".mov", "yuv422p10le"), ("ffv1", ".mkv", "yuv420p10le"),
    ],
)  # fmt: skip
def test_codecs_for_editing(tmp_path: Path, codec: str, suffix: str, pixel_format: str) -> None:
    clip = Clip(codec="ffv1", size=(128, 64), pixel_format="yuv420p10le", audio=(), frames=3)
    source = make_clip(tmp_path / "in.mkv", clip)
    target = tmp_path / f"out{suffix}"
    vsr.upscale(source, target, model="bicubic", codec=codec)
    result = contents(target)
    assert (result.pixel_format, result.size, result.frames) == (pixel_format, (256, 128), 3)
    assert (result.matrix, result.primaries, result.transfer) == (1, 1, 1)


@pytest.mark.parametrize("pixel_format", ["yuv420p10le", "yuv422p", "gbrp10le"])
def test_y4m_holds_more_than_8_bits(tmp_path: Path, pixel_format: str) -> None:
    rgb = pixel_format.startswith("gbrp")
    clip = Clip(codec="ffv1", pixel_format=pixel_format, audio=(), frames=2, matrix=0 if rgb else 1)
    source = make_clip(tmp_path / "in.mkv", clip)
    vsr.upscale(source, tmp_path / "out.y4m", model="bicubic")
    result = contents(tmp_path / "out.y4m")
    wanted = "yuv444p10le" if rgb else pixel_format
    assert (result.pixel_format, result.frames) == (wanted, 2)


def test_frames_of_python_have_their_depth(tmp_path: Path) -> None:
    source = deep_ramp(tmp_path / "in.mkv")
    with vsr.frames(source) as reader:
        assert (reader.info.planes.bits, reader.info.planes.siting) == (10, "topleft")
        first = next(iter(reader))
    assert (first.planes[0].dtype, first.format.bits) == (np.uint16, 10)
    assert first.to_rgb().shape == (16, 900, 3)
    with vsr.Writer(tmp_path / "copy.mkv", like=source, encoder=vsr.EncoderSettings()) as out:
        out.write(first)
    assert contents(tmp_path / "copy.mkv").pixel_format == "yuv420p10le"


def test_what_the_encoder_cannot_hold_is_said(tmp_path: Path) -> None:
    clip = Clip(codec="ffv1", pixel_format="yuv444p12le", audio=(), frames=2)
    source = make_clip(tmp_path / "in.mkv", clip)
    report = vsr.upscale(source, tmp_path / "out.mp4", model="bicubic", codec="av1", preset="12")
    assert report.notes == [
        "out.mp4 cannot contain 12 bits per sample (it has 10), chroma of 4:4:4 (it has 4:2:0): "
        "left out"
    ]
    asked = vsr.upscale(
        source, tmp_path / "asked.mp4", model="bicubic", codec="h264", pixel_format="yuv420p"
    )
    assert asked.notes == []
