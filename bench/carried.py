"""Tests how each container carries the streams besides the video, by writing files.

`python -m bench.carried` prints the table of docs/carried.md. For every codec it creates a source
of one stream (with FFmpeg's encoder; if there is none, a stream with only a header), writes it with
the code that `vsr run` uses, and reads it back. It ends with an error if the codec is not found.
Attachments and cover art are written beside a video, as a file with nothing else cannot be read.
"""

import io
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import numpy as np

from tests import transport
from tests.clips import Clip, make_clip
from vsr.media.copying import codec_name, is_cover
from vsr.media.other_streams import OtherStreams
from vsr.media.passthrough import close_quietly
from vsr.media.timestamps import Packet

CONTAINERS: Final = {
    ".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".ts": "mpegts",
    ".flv": "flv", ".3gp": "3gp",
}  # fmt: skip
AUDIO_CODECS: Final = (
    "aac", "mp3", "mp2", "ac3", "eac3", "opus", "vorbis", "flac", "alac",
    "pcm_s16le", "pcm_s24le", "pcm_f32le", "pcm_alaw", "pcm_mulaw", "adpcm_ms", "adpcm_ima_wav",
    "wmav2",
)  # fmt: skip
ENCODERS: Final = {"opus": "libopus", "mp3": "libmp3lame"}
_ACCEPTED_AS: Final = {"mp3": ("mp2",), "mp2": ("mp3",)}
"""Codec -> others that it is accepted as: some containers do not store the layer of MPEG audio,
but decoders detect it."""
TEXT_CODECS: Final = ("subrip", "ass", "webvtt")
PICTURE_SUBTITLES: Final = ("dvb_subtitle", "hdmv_pgs_subtitle", "dvd_subtitle")
"""Picture subtitles: the stream description in a Matroska header is enough to copy them."""
BROADCAST: Final = (transport.TELETEXT, transport.ARIB, transport.KLV, transport.TIMED_ID3)
VIDEO: Final = ("libx264", "libx265", "libsvtav1", "libvpx-vp9")
SCRIPT: Final = b"[Script Info]\n[V4+ Styles]\n[Events]\n"


def table(folder: Path) -> Iterator[str]:
    """Yield the lines of a Markdown table; `folder` is for temporary files."""
    os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder prints a banner otherwise
    yield f"| stream | {' | '.join(CONTAINERS)} |"
    yield f"| --- |{' --- |' * len(CONTAINERS)}"
    for kind, path, index in _sources(folder):
        with av.open(str(path)) as source:
            name = f"{kind}: {codec_name(source.streams[index])}".replace("none", "of unknown type")
        cells = [_carriage_of(path, index, form) for form in CONTAINERS.values()]
        yield f"| {name} | {' | '.join(cells)} |"


def _sources(folder: Path) -> Iterator[tuple[str, Path, int]]:
    """Yield (kind, file, index of its stream) of all streams that are tested."""
    for codec in AUDIO_CODECS:
        yield "sound", _write_audio(folder / f"{codec}.mkv", codec), 0
    for codec in TEXT_CODECS:
        yield "subtitle", _write_text(folder / f"{codec}.mkv", codec), 0
    yield "subtitle", _write_text(folder / "mov_text.mp4", "mov_text"), 0
    yield "subtitle", _write_header(folder / "ttml.mp4", "ttml"), 0
    for codec in PICTURE_SUBTITLES:
        yield "subtitle", _write_header(folder / f"{codec}.mkv", codec), 0
    plain = make_clip(folder / "plain.ts", Clip(audio=("mp2",), frames=50))
    broadcast = transport.with_extra(plain, folder / "all.ts", *BROADCAST, transport.UNKNOWN)
    kinds = ("subtitle", "subtitle", "data", "data", "stream")
    for index, kind in enumerate(kinds, 2):
        yield kind, broadcast, index
    extras = Clip(audio=(), codec="libvpx-vp9", cover=True)
    yield "cover art", make_clip(folder / "cover.mp4", extras), 1
    extras = Clip(audio=(), codec="libvpx-vp9", attachment=b"font")
    yield "attachment", make_clip(folder / "extras.mkv", extras), 1
    for codec in VIDEO:
        options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
        clip = Clip(audio=(), codec=codec, options=options)
        yield "further video", make_clip(folder / f"{codec}.mkv", clip), 0


def _carriage_of(path: Path, index: int, form: str) -> str:
    """Write a stream into a container and read it back; return `copied`, `left out` or a codec."""
    with av.open(str(path)) as source:
        stream = source.streams[index]
        before, content = codec_name(stream), io.BytesIO()
        output = av.open(content, "w", format=form)
        art = is_cover(stream)
        covers = {index: bytes(next(source.demux(stream)))} if art else {}
        others = OtherStreams(output, covers=covers)
        others.add(stream)
        if others.left_out:
            close_quietly(output)
            return "left out"
        after = codec_name(output.streams[0])
        if art or stream.type == "attachment":
            after = before  # an attachment has no codec until it is read
            others.add(source.streams.video[0])
        output.start_encoding()
        source.seek(0)
        for packet in source.demux():
            if packet.size:
                for made in others.packets(packet):
                    output.mux(made)
        for made in others.flush():
            output.mux(made)
        output.close()
    content.seek(0)
    with av.open(content) as written:
        found = [codec_name(s) for s in written.streams if is_cover(s) == art]
        found += _ACCEPTED_AS.get(found[0] if found else "", ())
    assert after in found, f"{before} in {form}: expected {after}, read back {found}"
    return "copied" if after == before else after


def _write_audio(path: Path, codec: str) -> Path:
    """Write half a second of a tone; into AVI if PyAV cannot write the codec into Matroska."""
    with av.open(str(path), "w", format="matroska") as probe:
        held = _can_store(probe, ENCODERS.get(codec, codec))
    path = path if held else path.with_suffix(".avi")
    with av.open(str(path), "w") as out:
        sound: Any = out.add_stream(ENCODERS.get(codec, codec), rate=48_000, layout="stereo")
        context = sound.codec_context
        context.bit_rate = 192_000
        context.options = {"strict": "experimental"}
        wave = 0.1 * np.sin(2 * np.pi * 440 * np.arange(24_000) / 48_000)
        frame = av.AudioFrame.from_ndarray(
            np.stack([wave, wave]).astype(np.float32), format="fltp", layout="stereo"
        )
        frame.sample_rate, frame.pts, frame.time_base = 48_000, 0, Fraction(1, 48_000)
        size = context.frame_size or 960
        resampler = av.AudioResampler(context.format.name, "stereo", 48_000, frame_size=size)
        for piece in (*resampler.resample(frame), *resampler.resample(None)):
            out.mux(sound.encode(piece))
        out.mux(sound.encode(None))
    return path


def _can_store(output: "av.container.OutputContainer", encoder: str) -> bool:
    try:
        output.add_stream(encoder, rate=48_000)
    except ValueError:
        return False
    return True


def _write_text(path: Path, codec: str) -> Path:
    """Write two lines of text."""
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream(codec)
        context = stream.codec_context
        stream.time_base = context.time_base = Fraction(1, 1000)
        context.subtitle_header = SCRIPT
        for k in range(2):
            words = av.subtitles.subtitle.SubtitleSet.create(b"0,0,Default,,0,0,0,,words", 0, 150)
            packet = context.encode_subtitle(words)
            packet.stream, packet.time_base = stream, Fraction(1, 1000)
            packet.pts = packet.dts = 100 + 200 * k
            packet.duration = 150
            out.mux(packet)
    return path


def _write_header(path: Path, codec: str) -> Path:
    """Write a stream of one packet, which is never decoded."""
    with av.open(str(path), "w") as out:
        stream = out.add_mux_stream(codec, time_base=Fraction(1, 1000))
        packet: Packet = av.Packet(bytes(64))
        packet.stream, packet.time_base = stream, Fraction(1, 1000)
        packet.pts = packet.dts = 0
        packet.duration, packet.is_keyframe = 40, True
        out.mux(packet)
    return path


if __name__ == "__main__":
    import tempfile

    import click

    with tempfile.TemporaryDirectory() as scratch:
        for line in table(Path(scratch)):
            click.echo(line)
