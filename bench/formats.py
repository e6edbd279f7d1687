"""Tests which depth, chroma, colour tags and times of every format are kept, by writing files.

`python -m bench.formats` encodes FFmpeg's `testsrc2` in every codec and pixel format below, adds
the real clips of `$VSR_DATA`, enlarges all with bicubic and prints a Markdown table. It ends with
an error if frames or times are lost, or if depth or chroma are lost without a note.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import av
import click

import vsr
from vsr.errors import VsrError
from vsr.media.info import VideoInfo
from vsr.media.plane_format import is_grey, is_rgb, planes_for
from vsr.media.source import Source

FORMATS: Final[dict[str, str]] = {
    "libx264": "yuv420p yuv422p yuv444p yuv420p10le yuv422p10le yuv444p10le gray gray10le",
    "libx264rgb": "rgb24",
    "libx265": "yuv420p yuv422p yuv444p gbrp yuv420p10le yuv422p10le yuv444p10le gbrp10le "
    "yuv420p12le yuv422p12le yuv444p12le gbrp12le gray gray10le gray12le",
    "libsvtav1": "yuv420p yuv420p10le",
    "libvpx-vp9": "yuv420p yuv422p yuv440p yuv444p gbrp",
    "libvpx": "yuv420p",
    "prores_ks": "yuv422p10le yuv444p10le",
    "dnxhd": "yuv422p yuv422p10le yuv444p10le gbrp10le",
    "ffv1": "yuv420p yuv420p9le yuv420p10le yuv420p12le yuv420p16le yuv422p yuv422p10le "
    "yuv422p12le yuv422p16le yuv444p yuv444p10le yuv444p12le yuv444p16le yuv411p yuv410p yuv440p "
    "bgr0 gbrp10le gbrp12le gbrp16le gray gray10le gray16le",
    "mpeg2video": "yuv420p yuv422p",
    "mpeg4": "yuv420p",
    "mjpeg": "yuvj420p yuvj422p yuvj444p",
    "png": "rgb24 gray rgb48be pal8",
    "huffyuv": "yuv422p rgb24",
    "utvideo": "gbrp yuv420p yuv444p",
    "v210": "yuv422p10le",
    "qtrle": "rgb24",
    "cfhd": "yuv422p10le gbrp12le",
    "rawvideo": "nv12 uyvy422 yuyv422 bgr24",
}
"""Encoder -> pixel formats of the inputs."""
_CONTAINERS: Final = {
    "dnxhd": ".mov", "qtrle": ".mov", "cfhd": ".mov", "v210": ".mov", "png": ".mov",
    "huffyuv": ".avi", "utvideo": ".avi", "rawvideo": ".nut",
}  # fmt: skip
"""Encoder -> suffix of the inputs; all others are Matroska."""
_HDR10: Final = {
    "libx265": {
        "x265-params": "log-level=error:max-cll=1000,400:master-display="
        "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
    },
    "libsvtav1": {
        "svtav1-params": "content-light=1000,400:mastering-display="
        "G(0.265,0.69)B(0.15,0.06)R(0.68,0.32)WP(0.3127,0.329)L(1000,0.005)"
    },
}
"""Encoder -> its options for HDR10 metadata."""
FRAMES: Final = 5
COLUMNS: Final = (
    "input",
    "format",
    "output",
    "format",
    "frames and pts",
    "tags",
    "siting",
    "notes",
)


@dataclass(frozen=True, kw_only=True)
class DecodedVideo:
    """A video as a decoder reads it."""

    info: VideoInfo
    times: tuple[Fraction, ...]
    """Times of its first frames, in seconds from the first."""

    @classmethod
    def of(cls, path: Path, frames: int | None = None) -> "DecodedVideo":
        """Decode a file's video, or its first `frames` frames."""
        source, times = Source(str(path)), []
        for item in source:
            if isinstance(item, vsr.Frame):
                times.append(item.pts * item.time_base)
                if len(times) == frames:
                    break
        seen = cls(info=source.info, times=tuple(time - times[0] for time in times))
        source.close()
        return seen

    @property
    def tags(self) -> tuple[int, bool, int, int, str]:
        """Matrix (BT.709's for RGB), range (limited for RGB), primaries, transfer and HDR10.

        HDR10 is in the units of HEVC, which are coarser than those of AV1.
        """
        colour, hdr = self.info.colour.encoded(rgb=False), self.info.hdr
        return (
            colour.matrix, colour.full_range, colour.primaries, colour.transfer,
            hdr.boxes.hex() if hdr else "",
        )  # fmt: skip


def make(path: Path, codec: str, pixel_format: str, hdr: bool = False) -> None:
    """Encode a fifth of a second of testsrc2, 256x128, in BT.709; or in BT.2020 and PQ as HDR10."""
    graph = av.filter.Graph()
    pixels = graph.add("format", pixel_format)
    graph.add("testsrc2", f"size=256x128:rate=25:duration={FRAMES / 25}").link_to(pixels)
    end = graph.add("buffersink")
    pixels.link_to(end)
    graph.configure()
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 256, 128, pixel_format
        context = stream.codec_context
        full = is_rgb(pixel_format) or pixel_format.startswith("yuvj")
        context.colorspace = 0 if is_rgb(pixel_format) else 1
        context.color_primaries, context.color_trc, context.color_range = 1, 1, 2 if full else 1
        deep = "10" in pixel_format
        profile = "dnxhr_444" if "444" in pixel_format or "gbr" in pixel_format else (
            "dnxhr_hqx" if deep else "dnxhr_hq"
        )  # fmt: skip
        stream.options = {"profile": profile} if codec == "dnxhd" else {}
        if codec == "libx265":
            stream.options = {"x265-params": "log-level=error"}
        if hdr:
            context.colorspace, context.color_primaries, context.color_trc = 9, 9, 16
            stream.options = _HDR10[codec]
        for index in range(FRAMES):
            frame = graph.vpull()
            frame.pts, frame.time_base = index, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def row(source: Path, name: str, target: Path, frames: int | None = None) -> list[str]:
    """Enlarge a file and return a row about the result. Raises SystemExit for a silent loss."""
    before = DecodedVideo.of(source, frames)
    report = vsr.upscale(
        source, target, model="bicubic", max_frames=frames, overwrite=True, segment=0
    )
    after = DecodedVideo.of(target)
    pixels = before.info.pixel_format, after.info.pixel_format
    same_times = before.times == after.times
    own, kept = planes_for(pixels[0]), planes_for(pixels[1])
    lossy = kept.bits < own.bits or kept.chroma_x > own.chroma_x or kept.chroma_y > own.chroma_y
    if not same_times or (lossy and not report.notes):
        raise SystemExit(f"{name} {pixels[0]}: times {same_times}, {pixels[1]}, {report.notes}")
    subsampled = kept.chroma_y > 1 and not is_rgb(pixels[0]) and not is_grey(pixels[0])
    siting = before.info.planes.siting == after.info.planes.siting
    return [
        name, pixels[0], after.info.codec, pixels[1], f"{len(after.times)}, equal",
        "equal" if before.tags == after.tags else f"{before.tags} -> {after.tags}",
        ("equal" if siting else "changed") if subsampled else "",
        "; ".join(report.notes),
    ]  # fmt: skip


def rows(folder: Path) -> Iterator[list[str]]:
    """Yield a row per generated input, then per real clip; `folder` is for temporary files."""
    for codec, names in FORMATS.items():
        for name in names.split():
            source = folder / f"{codec}-{name}{_CONTAINERS.get(codec, '.mkv')}"
            try:
                make(source, codec, name)
            except (av.error.FFmpegError, ValueError) as exc:
                click.echo(f"{codec} {name} cannot be encoded here: {exc}", err=True)
                continue
            yield row(source, codec, folder / "out.mp4")
    for codec in _HDR10:
        for container in (".mkv", ".mp4"):
            source = folder / f"hdr10-{codec}{container}"
            make(source, codec, "yuv420p10le", hdr=True)
            yield row(source, f"{codec} HDR10 {container}", folder / "out.mp4")
    clips = Path(os.environ.get("VSR_DATA", "/nowhere"), "video")
    for kind in ("clips", "format", "gt"):
        for clip in sorted(clips.glob(f"{kind}/*.*")):
            yield row(clip, clip.name, folder / "out.mp4", 8)


def main() -> None:
    """Print the table."""
    os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder prints a banner otherwise
    with TemporaryDirectory() as folder:
        click.echo(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
        try:
            for cells in rows(Path(folder)):
                click.echo(f"| {' | '.join(cells)} |")
        except VsrError as exc:
            raise SystemExit(f"error: {exc}") from exc


if __name__ == "__main__":
    main()
