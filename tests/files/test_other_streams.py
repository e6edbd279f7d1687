"""Audio, subtitles and data that FFmpeg cannot decode or the output container cannot hold."""

import itertools
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import vsr
from tests import transport
from tests.clips import Clip, make_clip
from tests.facts import contents
from tests.files.test_faithful import upscaled
from tests.transport import with_extra
from vsr.errors import UsageError
from vsr.media.copying import codec_name

PLAIN = Clip(audio=("mp2",), frames=25)


def codecs(path: Path) -> list[str]:
    """Return FFmpeg's names of a file's codecs, in stream order."""
    with av.open(str(path)) as container:
        return [codec_name(stream) for stream in container.streams]


def longest_step(pts: list[Fraction]) -> Fraction:
    """Return the longest interval between two consecutive frames."""
    return max(b - a for a, b in itertools.pairwise(pts))


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "ts"])
def test_streams_without_a_decoder_are_copied_or_named(tmp_path: Path, suffix: str) -> None:
    plain = make_clip(tmp_path / "plain.ts", PLAIN)
    extras = {
        "dvb_teletext": transport.TELETEXT, "arib_caption": transport.ARIB, "klv": transport.KLV,
        "timed_id3": transport.TIMED_ID3, "stream #6 (unknown codec)": transport.SCTE_35,
        "stream #7 (unknown codec)": transport.UNKNOWN,
    }  # fmt: skip
    source = with_extra(plain, tmp_path / "in.ts", *extras.values())
    result, report = upscaled(source, f"out.{suffix}")
    assert report.exit_code == 0
    assert result.pts == contents(plain).pts
    said = " ".join(report.notes)
    copied = [name for name in extras if name in codecs(tmp_path / f"out.{suffix}")]
    assert all(name in said for name in extras if name not in copied)
    assert copied == (list(extras)[:4] if suffix == "ts" else [])
    if suffix == "ts":
        assert [result.packets[k] for k in range(2, 6)] == [
            contents(source).packets[k] for k in range(2, 6)
        ]


@pytest.mark.parametrize("entry", [b"mhm1", b"ac-4", b"apac", b"enca", b"zz9a"])
def test_sound_without_a_decoder_is_copied_or_named(tmp_path: Path, entry: bytes) -> None:
    """The audio sample entry of an MP4 is replaced by one of a codec without a decoder."""
    plain = make_clip(tmp_path / "plain.mp4", Clip(audio=("ac3",)))
    source = tmp_path / "in.mp4"
    source.write_bytes(plain.read_bytes().replace(b"ac-3", entry).replace(b"dac3", b"zzzz"))
    for target in ("out.mp4", "out.mkv"):
        result, report = upscaled(source, target)
        assert report.exit_code == 0
        assert len(result.pts) == 12
        assert "audio" in result.kinds or "audio #1" in report.notes[0]


def test_a_first_video_without_a_decoder_is_passed_over(tmp_path: Path) -> None:
    """The first of two video tracks gets an unknown sample entry."""
    with av.open(str(tmp_path / "two.mp4"), "w") as out:
        streams = [out.add_stream("mpeg4", rate=25) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"  # type: ignore[union-attr]
        for k, stream in itertools.product(range(5), streams):
            picture = av.VideoFrame.from_ndarray(np.full((72, 64), 128, np.uint8), format="yuv420p")
            picture.pts, picture.time_base = k, Fraction(1, 25)
            out.mux(stream.encode(picture))  # type: ignore[union-attr]
        for stream in streams:
            out.mux(stream.encode(None))  # type: ignore[union-attr]
    data = (tmp_path / "two.mp4").read_bytes()
    data = data.replace(b"mp4v", b"zz9v", 1).replace(b"esds", b"zzzz", 1)
    source = tmp_path / "in.mp4"
    source.write_bytes(data)
    result, report = upscaled(source)
    assert len(result.pts) == 5
    assert "video #0" in report.notes[0]


@pytest.mark.parametrize("early", [1.0, 30.0, -1000.0])
def test_one_wrong_time_of_a_subtitle_moves_nothing_else(tmp_path: Path, early: float) -> None:
    plain = make_clip(tmp_path / "plain.ts", replace(PLAIN, frames=60))
    extras = (transport.DVB_SUBTITLE, transport.KLV, transport.TELETEXT)
    source = with_extra(plain, tmp_path / "in.ts", *extras, early_s=early)
    result, report = upscaled(source, "out.ts")
    before = contents(plain)
    assert result.pts == before.pts
    assert longest_step(result.pts) == Fraction(1, 25)
    assert result.first_pts[1] == before.first_pts[1]
    assert report.exit_code == 0


def test_sound_that_matroska_holds_as_avi_does_is_copied(tmp_path: Path) -> None:
    kinds = ("wmav2", "pcm_alaw", "pcm_mulaw", "adpcm_ms", "adpcm_ima_wav")
    source = _with_sound(tmp_path / "in.avi", *kinds)
    result, report = upscaled(source, "out.mkv")
    assert codecs(tmp_path / "out.mkv")[1:] == list(kinds)
    assert result.packets == contents(source).packets
    assert report.notes == []


@pytest.mark.parametrize(
    ("source", "target", "kinds", "becomes"),
    [
        ("in.avi", "out.mp4", ("wmav2", "pcm_mulaw", "adpcm_ms"), ["aac", "aac", "aac"]),
        ("in.avi", "out.ts", ("adpcm_ima_wav", "pcm_alaw", "mp2"), ["aac", "aac", "mp2"]),
        ("in.avi", "out.flv", ("pcm_s16le",), ["aac"]),
        ("in.mkv", "out.webm", ("pcm_s16le", "libopus", "ac3"), ["opus", "opus", "opus"]),
        ("in.mkv", "out.mov", ("flac", "libopus"), ["alac", "aac"]),
    ],
)
def test_sound_a_container_cannot_hold_is_encoded_anew(
    tmp_path: Path, source: str, target: str, kinds: tuple[str, ...], becomes: list[str]
) -> None:
    made = _with_sound(tmp_path / source, *kinds)
    options = {"codec": "vp9", "preset": "8"} if target == "out.webm" else {}
    result, report = upscaled(made, target, **options)
    assert codecs(tmp_path / target)[1:] == becomes
    assert "audio #1" in report.notes[0]
    assert f"becomes {becomes[0]}" in report.notes[0]
    assert len(result.pts) == 50
    for track in range(len(kinds)):
        samples = _samples(tmp_path / target, track)
        assert abs(_tone(samples) - 440) < 2
        assert abs(len(samples) / 48_000 - 2) < 0.1


def test_pcm_becomes_flac_without_loss(tmp_path: Path) -> None:
    source = _with_sound(tmp_path / "in.avi", "pcm_s24le")
    upscaled(source, "out.mkv", audio="encode")
    assert codecs(tmp_path / "out.mkv")[1] == "flac"
    assert np.array_equal(_samples(tmp_path / "out.mkv"), _samples(source))


def test_sound_is_left_out_on_request_and_only_known_words_are_taken(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4")
    result, report = upscaled(source, audio="none")
    assert result.kinds == ["video"]
    assert report.notes == []
    with pytest.raises(UsageError, match="copy, encode, none"):
        vsr.upscale(source, tmp_path / "other.mp4", audio="loud")


def test_a_gap_in_encoded_sound_stays_a_gap(tmp_path: Path) -> None:
    """Half a second of audio is removed; the audio after it keeps its time."""
    whole = _with_sound(tmp_path / "whole.mkv", "pcm_s16le", chirp=True)
    source = tmp_path / "in.mkv"
    with av.open(str(whole)) as read, av.open(str(source), "w") as out:
        streams = [out.add_stream_from_template(s, opaque=True) for s in read.streams]
        for packet in read.demux():
            if packet.dts is None or packet.time_base is None:
                continue
            if packet.stream.index == 1 and 0.5 <= packet.pts * packet.time_base < 1:
                continue
            packet.stream = streams[packet.stream.index]
            out.mux(packet)
    upscaled(source, "out.mp4", audio="encode")
    begin, samples = _start(tmp_path / "out.mp4"), _samples(tmp_path / "out.mp4")
    beep = np.flatnonzero(np.abs(samples) > 0.3 * np.abs(samples).max())
    late = beep[beep > 48_000][0] / 48_000 + begin
    assert abs(late - 1.5) < 0.03


@pytest.mark.parametrize(
    ("source", "kind", "target"),
    [
        ("in.mkv", "pcm_s16le", "out.ts"),
        ("in.mp4", "aac", "out.webm"),
        ("in.mov", "aac", "out.flv"),
    ],
)
def test_encoded_sound_is_heard_when_it_was(
    tmp_path: Path, source: str, kind: str, target: str
) -> None:
    """The start of a beep relative to the video changes by less than a millisecond."""
    made = _with_sound(tmp_path / source, kind, chirp=True)
    options = {"codec": "vp9", "preset": "8"} if target == "out.webm" else {}
    upscaled(made, target, audio="encode", **options)
    assert abs(_beep(tmp_path / target) - _beep(made)) < 0.001


def _beep(path: Path) -> float:
    """Return the start of the last beep, in seconds after the first frame."""
    samples, begin = _samples(path), _start(path)
    with av.open(str(path)) as container:
        picture = next(container.decode(video=0)).time or 0.0
    loud = np.flatnonzero(np.abs(samples) > 0.5 * np.abs(samples).max())
    return float(loud[loud > 48_000][0]) / 48_000 + begin - picture


@pytest.mark.parametrize("suffix", ["mp4", "flv"])
def test_packets_with_the_time_of_the_one_before_all_arrive(tmp_path: Path, suffix: str) -> None:
    """Every tenth audio packet has the time of the packet before it."""
    whole = make_clip(tmp_path / "whole.mp4", Clip(frames=60))
    source = tmp_path / "in.mkv"
    with av.open(str(whole)) as read, av.open(str(source), "w") as out:
        streams = [out.add_stream_from_template(s, opaque=True) for s in read.streams]
        count = 0
        for packet in read.demux():
            if packet.dts is None:
                continue
            if packet.stream.type == "audio":
                count += 1
                if count % 10 == 5:
                    packet.pts = packet.dts = packet.dts - 1024
            packet.stream = streams[packet.stream.index]
            out.mux(packet)
    result, report = upscaled(source, f"out.{suffix}")
    assert report.packets_refused == 0
    assert len(result.packets[1]) == len(contents(source).packets[1])


def _with_sound(path: Path, *kinds: str, chirp: bool = False) -> Path:
    """Write a 2 s clip with audio tracks of a tone, or of beeps at 0.25 s and 1.5 s if `chirp`."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sounds = [out.add_stream(kind, rate=48_000, layout="mono") for kind in kinds]
        for sound in sounds:
            sound.codec_context.bit_rate = 64_000
        for k in range(50):
            picture = av.VideoFrame.from_ndarray(np.full((72, 64), k, np.uint8), format="yuv420p")
            picture.pts, picture.time_base = k, Fraction(1, 25)
            out.mux(video.encode(picture))
        out.mux(video.encode(None))
        t = np.arange(96_000) / 48_000
        wave = 0.3 * np.sin(2 * np.pi * 440 * t)
        if chirp:
            wave *= ((t > 0.25) & (t < 0.3)) | ((t > 1.5) & (t < 1.55))
        for sound in sounds:
            _encode(out, sound, wave.astype(np.float32)[None])
    return path


def _encode(out: Any, sound: Any, wave: "np.ndarray[Any, Any]") -> None:
    context = sound.codec_context
    frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = 48_000, 0, Fraction(1, 48_000)
    size = context.frame_size or 960
    resampler = av.AudioResampler(context.format.name, "mono", 48_000, frame_size=size)
    for piece in (*resampler.resample(frame), *resampler.resample(None)):
        out.mux(sound.encode(piece))
    out.mux(sound.encode(None))


def _samples(path: Path, track: int = 0) -> "np.ndarray[Any, Any]":
    with av.open(str(path)) as container:
        parts = [f.to_ndarray().reshape(-1) for f in container.decode(audio=track)]
    return np.concatenate(parts).astype(np.float64)


def _start(path: Path) -> float:
    with av.open(str(path)) as container:
        return next(container.decode(audio=0)).time or 0.0


def _tone(samples: "np.ndarray[Any, Any]") -> float:
    """Return the strongest frequency, in hertz."""
    samples = samples[:48_000]
    return float(np.argmax(np.abs(np.fft.rfft(samples))) * 48_000 / len(samples))


@pytest.mark.parametrize(
    ("codec", "source", "target", "becomes"),
    [
        ("subrip", "in.mkv", "out.mp4", "mov_text"), ("ass", "in.mkv", "out.mov", "mov_text"),
        ("mov_text", "in.mp4", "out.mkv", "subrip"), ("webvtt", "in.mkv", "out.mp4", "mov_text"),
        ("mov_text", "in.mov", "out.webm", "webvtt"),
    ],
)  # fmt: skip
def test_text_subtitles_are_converted(
    tmp_path: Path, codec: str, source: str, target: str, becomes: str
) -> None:
    made = _with_text(tmp_path / source, codec)
    options = {"codec": "vp9", "preset": "8"} if target.endswith("webm") else {}
    _, report = upscaled(made, target, **options)
    assert codecs(tmp_path / target)[-1] == becomes
    assert becomes in report.notes[0]
    shown = _shown(tmp_path / target)
    assert [text for _, _, text in shown] == ["first line", "second line"]
    times = [(begin, length) for begin, length, _ in shown]
    assert times == [(Fraction(1, 10), Fraction(15, 100)), (Fraction(3, 10), Fraction(15, 100))]


def _with_text(path: Path, codec: str) -> Path:
    if codec == "mov_text":
        return make_clip(path, Clip(audio=(), subtitles=codec))
    with av.open(str(path), "w") as out:
        video = out.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        text = out.add_stream(codec)
        context: Any = text.codec_context
        text.time_base = context.time_base = Fraction(1, 1000)
        context.subtitle_header = b"[Script Info]\n[V4+ Styles]\n[Events]\n"
        for k in range(12):
            picture = av.VideoFrame.from_ndarray(np.full((72, 64), k, np.uint8), format="yuv420p")
            picture.pts, picture.time_base = k, Fraction(1, 25)
            out.mux(video.encode(picture))
        out.mux(video.encode(None))
        for k, line in enumerate((b"first line", b"second line")):
            said = b"0,0,Default,,0,0,0,," + line
            made = context.encode_subtitle(av.subtitles.subtitle.SubtitleSet.create(said, 0, 150))
            made.stream, made.time_base = text, Fraction(1, 1000)
            made.pts = made.dts = 100 + 200 * k
            made.duration = 150
            out.mux(made)
    return path


def _shown(path: Path) -> list[tuple[Fraction, Fraction, str]]:
    """Return (start in seconds, duration in seconds, text) of every subtitle."""
    found = []
    with av.open(str(path)) as container:
        stream = container.streams.subtitles[0]
        for packet in container.demux(stream):
            if not packet.size or packet.pts is None:
                continue
            text = stream.codec_context.decode2(packet)
            if text is not None and len(text):
                words = re.sub(r"{.*?}", "", text[0].ass.decode().split(",", 8)[-1])
                base = packet.time_base
                found.append((packet.pts * base, (packet.duration or 0) * base, words))
    return found
