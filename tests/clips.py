"""Generates small video files with unusual properties for tests and benchmarks."""

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

from vsr.media.scheduling import keep_scheduling

_PICTURE = Path(__file__).parents[1] / "engines/pcarn-m/x2.jpg"


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Parameters of a test clip. The defaults describe an ordinary clip."""

    size: tuple[int, int] = (64, 48)
    frames: int = 12
    rate: Fraction = Fraction(25)
    pts: Sequence[int] | None = None
    """Pts of each frame in 1/1000 s; None: evenly spaced."""
    start: float = 0.0
    """Time of the first frame, in seconds."""
    codec: str = "libx264"
    pixel_format: str = "yuv420p"
    matrix: int = 1
    range: int = 1
    primaries: int = 1
    transfer: int = 1
    sar: Fraction | None = None
    rotation: int = 0
    """Degrees, as PyAV's `frame.rotation` reports them: 90, 180 or 270; -1 mirrors instead."""
    audio: Sequence[str] = ("aac",)
    languages: Sequence[str] = ("eng", "deu", "fra")
    subtitles: str | None = None
    chapters: Sequence[tuple[float, float, str]] = ()
    attachment: bytes | None = None
    cover: bool = False
    metadata: dict[str, str] = field(default_factory=lambda: {"title": "a test"})
    options: dict[str, str] = field(default_factory=dict)


def picture(size: tuple[int, int], index: int) -> npt.NDArray[np.uint8]:
    """Return RGB [H, W, 3] of smooth moving waves, so that frames differ and need bits to code."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    waves = [
        np.sin(x / (5 + c) + index / 3) + np.cos(y / (7 - c) - index / 5 + c) for c in range(3)
    ]
    return np.clip(128 + 50 * np.stack(waves, -1), 0, 255).astype(np.uint8)


@keep_scheduling()
def make_clip(path: Path, clip: Clip = Clip()) -> Path:
    """Write the clip. The file name's suffix determines the container."""
    if clip.rotation:
        upright = make_clip(path.with_name(f"upright_{path.name}"), _without_rotation(clip))
        return _rotated(upright, path, clip.rotation)
    with av.open(str(path), "w") as out:
        out.metadata.update(clip.metadata)
        video = _add_video(out, clip)
        sounds = [_add_audio(out, name, k, clip) for k, name in enumerate(clip.audio)]
        subtitle = _add_subtitle(out, clip)
        cover = _add_cover(out, path) if clip.cover else None
        if clip.attachment is not None:
            out.add_attachment("font.ttf", "application/x-truetype-font", clip.attachment)
        if clip.chapters:
            out.set_chapters(_chapters(clip))
        if cover is not None:
            _mux_cover(out, cover)
        _encode_video(out, video, clip)
        for sound in sounds:
            _encode_audio(out, sound, clip)
        if subtitle is not None:
            _mux_subtitles(out, subtitle, clip)
    return path


def make_still_clip(
    path: Path, crf: int, *, frames: int = 12, noise: float = 4, key_frames: int = 250,
    repeated: tuple[int, ...] = (),
) -> Path:  # fmt: skip
    """Encode a still picture with the noise of a camera; `repeated` frames equal the one before."""
    with Image.open(_PICTURE) as image:
        luma = np.asarray(image.convert("L").resize((image.width // 2, image.height // 2)))
    small, rng = luma[:120, :200] * (219 / 255) + 16, np.random.default_rng(1)
    grey = np.full((small.shape[0] // 2, small.shape[1]), 128)
    noisy = small
    with av.open(str(path), "w") as out:
        options = {"crf": str(crf), "threads": "1", "g": str(key_frames)}
        video = out.add_stream("libx264", rate=25, options=options)
        video.height, video.width, video.pix_fmt = *small.shape, "yuv420p"
        for k in range(frames):
            if k not in repeated:
                noisy = np.clip(np.rint(small + rng.normal(0, noise, small.shape)), 16, 235)
            picture = np.concatenate([noisy, grey]).astype(np.uint8)
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="yuv420p")))
        out.mux(video.encode(None))
    return path


def _without_rotation(clip: Clip) -> Clip:
    from dataclasses import replace

    return replace(clip, rotation=0)


def _add_video(out: Any, clip: Clip) -> Any:
    video = out.add_stream(clip.codec, rate=clip.rate)
    video.width, video.height = clip.size
    video.pix_fmt = clip.pixel_format
    context = video.codec_context
    context.time_base = Fraction(1, 1000) if clip.pts else Fraction(1, 90000)
    context.colorspace, context.color_range = clip.matrix, clip.range
    context.color_primaries, context.color_trc = clip.primaries, clip.transfer
    if clip.sar:
        context.sample_aspect_ratio = clip.sar
    defaults = {"libx264": {"preset": "ultrafast", "bf": "2"}}.get(clip.codec, {})
    video.options = {**defaults, **clip.options}
    return video


def _encode_video(out: Any, video: Any, clip: Clip) -> None:
    base = video.codec_context.time_base
    for index in range(clip.frames):
        frame = av.VideoFrame.from_ndarray(picture(clip.size, index), format="rgb24")
        frame = frame.reformat(
            format=clip.pixel_format, dst_colorspace="ITU709", dst_color_range=clip.range
        )
        start = round(clip.start / base)
        frame.pts = start + (clip.pts[index] if clip.pts else round(index / clip.rate / base))
        frame.time_base = base
        out.mux(video.encode(frame))
    out.mux(video.encode(None))


def _add_audio(out: Any, codec: str, index: int, clip: Clip) -> Any:
    sound = out.add_stream(codec, rate=48000)
    sound.metadata["language"] = clip.languages[index]
    return sound


def _encode_audio(out: Any, sound: Any, clip: Clip) -> None:
    seconds = float(clip.frames / clip.rate)
    frame_size = sound.codec_context.frame_size or 1024
    layout, kind = sound.codec_context.layout.name, sound.codec_context.format.name
    for k in range(max(1, int(seconds * 48000 / frame_size))):
        t = (np.arange(frame_size) + k * frame_size) / 48000
        wave = 0.1 * np.sin(2 * np.pi * (330 + 110 * sound.index) * t)
        samples = np.stack([wave] * len(sound.codec_context.layout.channels)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
        frame.sample_rate, frame.pts = 48000, k * frame_size
        for piece in av.AudioResampler(kind, layout, 48000).resample(frame):
            piece.pts, piece.time_base = k * frame_size, Fraction(1, 48000)
            out.mux(sound.encode(piece))
    out.mux(sound.encode(None))


def _add_subtitle(out: Any, clip: Clip) -> Any:
    if not clip.subtitles:
        return None
    stream = out.add_mux_stream(clip.subtitles, time_base=Fraction(1, 1000))
    stream.metadata["language"] = "eng"
    return stream


def _mux_subtitles(out: Any, stream: Any, clip: Clip) -> None:
    for k, text in enumerate((b"first line", b"second line")):
        data = struct.pack(">H", len(text)) + text if clip.subtitles == "mov_text" else text
        packet: Any = av.Packet(data)
        packet.stream, packet.time_base = stream, Fraction(1, 1000)
        packet.pts = packet.dts = 100 + 200 * k
        packet.duration = 150
        out.mux(packet)


def _add_cover(out: Any, path: Path) -> Any:
    """Add cover art; return the stream whose picture follows, None if it is already attached."""
    if path.suffix == ".mkv":
        jpeg = io.BytesIO()
        Image.fromarray(picture((32, 32), 0)).save(jpeg, "JPEG")
        out.add_attachment("cover.jpg", "image/jpeg", jpeg.getvalue())
        return None
    cover = out.add_stream("mjpeg", rate=1)
    cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
    cover.disposition = av.stream.Disposition.attached_pic
    return cover


def _mux_cover(out: Any, cover: Any) -> None:
    frame = av.VideoFrame.from_ndarray(picture((32, 32), 0), format="rgb24")
    frame = frame.reformat(format="yuvj420p")
    frame.pts = 0
    out.mux(cover.encode(frame))
    out.mux(cover.encode(None))


def _chapters(clip: Clip) -> list[Any]:
    base = Fraction(1, 1000)
    return [
        {
            "id": k + 1,
            "start": round(begin / base),
            "end": round(end / base),
            "time_base": base,
            "metadata": {"title": title},
        }
        for k, (begin, end, title) in enumerate(clip.chapters)
    ]


def _rotated(source: Path, target: Path, degrees: int) -> Path:
    """Move an MP4 to `target`, with a rotation matrix in its video track's header."""
    one, turns = 1 << 16, {
        90: (0, -1, 1, 0), 180: (-1, 0, 0, -1), 270: (0, 1, -1, 0), -1: (-1, 0, 0, 1)
    }  # fmt: skip
    a, b, c, d = (n * one for n in turns[degrees])
    data = bytearray(source.read_bytes())
    at = data.index(b"tkhd") + 4
    start = at + (52 if data[at] else 40)
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    target.write_bytes(bytes(data))
    source.unlink()
    return target


def make_resizing_clip(path: Path, sizes: Sequence[tuple[int, int]], frames: int = 6) -> Path:
    """Write an MPEG-TS whose video changes to each of the sizes in turn, as broadcasts do."""
    parts = []
    for k, size in enumerate(sizes):
        part = path.with_name(f"part{k}.ts")
        start = k * frames / 25
        parts.append(make_clip(part, Clip(size=size, frames=frames, audio=(), start=start)))
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def cut_off(source: Path, target: Path, share: float) -> Path:
    """Write the first part of a file, a share of 0 to 1, like an interrupted download."""
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


def remuxed(source: Path, target: Path, **options: str) -> Path:
    """Write all streams of a file into another, with these options of FFmpeg's muxer."""
    with av.open(str(source)) as i, av.open(str(target), "w", container_options=options) as out:
        streams = [out.add_stream_from_template(s, opaque=True) for s in i.streams]
        for packet in i.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    return target
