"""Generates the fuzzer's corpus: tiny valid files of many containers and codecs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import numpy as np

from tests.clips import Clip, make_clip, picture
from vsr.media.scheduling import keep_scheduling


@dataclass(frozen=True, kw_only=True)
class Plain:
    """Parameters of a clip with a codec that `tests.clips` does not support; audio is optional."""

    codec: str
    pixels: str = "yuv420p"
    size: tuple[int, int] = (32, 24)
    frames: int = 4
    sound: str = ""
    sound_rate: int = 48000
    options: Mapping[str, str] = field(default_factory=dict)
    container_format: str | None = None
    container_options: Mapping[str, str] = field(default_factory=dict)


@keep_scheduling()
def make_plain(path: Path, clip: Plain) -> None:
    """Write the clip, encoded by one thread so that its bytes are reproducible."""
    options = {"fflags": "+bitexact", **clip.container_options}
    with av.open(str(path), "w", format=clip.container_format, container_options=options) as out:
        video: Any = out.add_stream(clip.codec, rate=Fraction(25))
        video.width, video.height = clip.size
        video.pix_fmt = clip.pixels
        video.options = {"threads": "1", **clip.options}
        sound: Any = out.add_stream(clip.sound, rate=clip.sound_rate) if clip.sound else None
        if sound is not None:
            sound.bit_rate = 64_000
        for index in range(clip.frames):
            frame = av.VideoFrame.from_ndarray(picture(clip.size, index), format="rgb24")
            frame = frame.reformat(format=clip.pixels)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if sound is not None:
            _hum(out, sound)


def _hum(out: Any, sound: Any) -> None:
    rate = sound.codec_context.rate
    tone = np.sin(np.arange(rate // 6) / 20).astype(np.float32)[None]
    frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    out.mux(sound.encode(frame))
    out.mux(sound.encode(None))


_SHORT: Final = {"size": (32, 24), "frames": 5}
_X264: Final = {"preset": "ultrafast", "threads": "1"}


def _clip(**facts: Any) -> Callable[[Path], object]:
    return lambda path: make_clip(path, Clip(**{**_SHORT, **facts}))


def _plain(codec: str, **facts: Any) -> Callable[[Path], object]:
    return lambda path: make_plain(path, Plain(codec=codec, **facts))


CORPUS: Final[dict[str, Callable[[Path], object]]] = {
    "h264_aac.mp4": _clip(options=_X264),
    "h264_turned_chapters.mp4": _clip(
        rotation=90, options=_X264, chapters=[(0, 0.1, "one"), (0.1, 0.2, "two")]
    ),
    "h264_fragments.mp4": _plain(
        "libx264",
        options=_X264,
        sound="aac",
        container_options={"movflags": "frag_keyframe+empty_moov"},
    ),
    "h264_subtitles_cover_font.mkv": _clip(
        options=_X264,
        subtitles="srt",
        attachment=b"font",
        cover=True,
        chapters=[(0, 0.1, "one")],
    ),
    "hevc.mkv": _plain(
        "libx265", options={"preset": "ultrafast", "x265-params": "pools=none:log-level=none"}
    ),
    "vp9_opus.webm": _plain("libvpx-vp9", sound="libopus", options={"cpu-used": "8"}),
    "vp8.webm": _plain("libvpx", options={"cpu-used": "8"}),
    "av1.ivf": _plain("libsvtav1", size=(64, 64), frames=2, options={"preset": "13"}),
    "prores.mov": _plain("prores_ks", pixels="yuv422p10le", sound="pcm_s16le"),
    "mpeg2_mp2.ts": _plain("mpeg2video", sound="mp2"),
    "mpeg1_mp2.mpg": _plain("mpeg1video", sound="mp2"),
    "mpeg2.mxf": _plain("mpeg2video", sound="pcm_s16le"),
    "h264_aac.flv": _plain("libx264", options=_X264, sound="aac", sound_rate=44100),
    "mpeg4_mp3.avi": _plain("mpeg4", sound="libmp3lame"),
    "mjpeg.avi": _plain("mjpeg", pixels="yuvj420p"),
    "wmv2_wma2.asf": _plain("wmv2", sound="wmav2", sound_rate=44100),
    "h263.3gp": _plain("h263", size=(128, 96), frames=2),
    "ffv1_flac.nut": _plain("ffv1", sound="flac"),
    "raw.y4m": _plain("rawvideo", frames=3, container_format="yuv4mpegpipe"),
    "vp8_flac.ogg": _plain("libvpx", sound="flac", container_format="ogg"),
    "annexb.h264": _plain("libx264", options=_X264),
    "annexb.hevc": _plain("libx265", options={"x265-params": "pools=none:log-level=none"}),
    "dv.dv": _plain("dvvideo", size=(720, 576), frames=1),
    "huffyuv.avi": _plain("huffyuv", pixels="yuv422p"),
    "qtrle.mov": _plain("qtrle", pixels="argb"),
    "moving.gif": _plain("gif", pixels="rgb8"),
    "moving.apng": _plain("apng", pixels="rgba", container_options={"plays": "0"}),
    "still.png": _plain("png", pixels="rgb24", frames=1, container_format="image2"),
    "still.jpg": _plain("mjpeg", pixels="yuvj420p", frames=1, container_format="image2"),
    "still.tiff": _plain("tiff", pixels="rgb24", frames=1, container_format="image2"),
    "still.bmp": _plain("bmp", pixels="bgr24", frames=1, container_format="image2"),
    "still.webp": _plain("libwebp", frames=1, container_format="webp"),
}
"""File name -> function that writes the file."""


def make_corpus(folder: Path) -> list[Path]:
    """Write every file of the corpus into a folder. Return the paths in the order of `CORPUS`."""
    for name, make in CORPUS.items():
        make(folder / name)
    return [folder / name for name in CORPUS]
