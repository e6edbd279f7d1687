"""The audio of an output: its timing, copied packets and inserted silence."""

import io
import itertools
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest

from vsr.live.aac import FrameEncoder, open_encoder, silent_packet
from vsr.live.audio import OutputAudio
from vsr.live.clock import OutputClock
from vsr.live.input.mailbox import AudioPacket
from vsr.live.playout_audio import PlayoutAudio
from vsr.live.sample_timeline import SampleTimeline

FRAME = 1024
BEEP = 0.06
"""Duration of a beep, in seconds."""
EXACT = 0.002
"""Tolerance of a beep's time in re-encoded audio, in seconds."""


def _beeps(
    codec: str, rate: int, layout: str, seconds: float, form: str = "nut"
) -> tuple[Any, list[Any]]:
    """Return a decoder and the packets of audio with a 1 kHz beep each second."""
    memory, begins = io.BytesIO(), list[float]()
    with av.open(memory, "w", format=form) as out:
        stream = out.add_stream(codec, rate=rate, layout=layout)
        assert isinstance(stream, av.AudioStream)
        stream.codec_context.open()
        size = stream.codec_context.frame_size or FRAME
        for place in range(0, round(seconds * rate), size):
            at = np.arange(place, place + size) / rate
            wave = 0.5 * np.sin(2 * np.pi * 1000 * at) * (at % 1 < BEEP)
            whole = np.repeat(wave[None].astype(np.float32), stream.layout.nb_channels, axis=0)
            frame = av.AudioFrame.from_ndarray(whole, format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, place, Fraction(1, rate)
            made = stream.encode(frame)
            begins += [_time(p) for p in made]
            out.mux(made)
        out.mux(stream.encode(None))
    memory.seek(0)
    with av.open(memory) as source:
        packets = [p for p in source.demux() if p.pts is not None and p.size]
        for packet in packets[::-1]:  # undo the muxer's shift of negative times
            packet.pts += round(begins[0] / packet.time_base) - packets[0].pts
        return source.streams.audio[0].codec_context, packets


def _time(packet: Any) -> float:
    return float(packet.pts * packet.time_base)


def _sent(sound: OutputAudio, packets: Iterable[Any], shift: float = 0.0) -> list[Any]:
    return [
        heard.packet for p in packets for heard in sound.convert(p, _time(p) + shift, _time(p))
    ]  # fmt: skip


def _silence(sound: OutputAudio, end: float) -> list[Any]:
    return [heard.packet for heard in sound.add_silence(end)]


def _heard(sound: OutputAudio, packets: list[Any]) -> tuple[np.ndarray, float]:
    """Decode packets; return the samples of a channel and the time of the first (s)."""
    decoder = av.CodecContext.create("aac", "r")
    assert isinstance(decoder, av.AudioCodecContext)
    decoder.extradata = sound.context.extradata
    rate = sound.context.rate
    first = round(_time(packets[0]) * rate)
    whole = np.zeros(round(_time(packets[-1]) * rate) + 2 * FRAME - first, np.float32)
    for packet in packets:
        place = round(_time(packet) * rate) - first
        for frame in decoder.decode(packet):
            whole[place : place + FRAME] = frame.to_ndarray()[0][:FRAME]
    return whole, first / rate


def _onsets(sound: OutputAudio, packets: list[Any]) -> list[float]:
    """Return the start times of the beeps (s)."""
    samples, first = _heard(sound, packets)
    loud = np.flatnonzero(np.abs(samples) > 0.1)
    begins = loud[np.diff(loud, prepend=-1e9) > sound.context.rate / 4]
    return [float(first + at / sound.context.rate) for at in begins]


def _assert_even(packets: list[Any], step: float) -> None:
    times = [_time(p) for p in packets]
    steps = [b - a for a, b in itertools.pairwise(times)]
    assert steps == pytest.approx([step] * len(steps), abs=0.002)


@pytest.mark.parametrize("form", ["nut", "mpegts"])
def test_aac_is_copied_with_new_times(form: str) -> None:
    """From MPEG-TS without its ADTS headers, which FLV and MP4 do not accept."""
    decoder, packets = _beeps("aac", 48_000, "stereo", 3, form)
    sound = OutputAudio(decoder)
    payloads = [bytes(p)[7 if form == "mpegts" else 0 :] for p in packets]
    out = _sent(sound, packets, 5)
    assert sound.is_copying
    assert [bytes(o) for o in out[-len(payloads) :]] == payloads
    _assert_even(out[-len(payloads) :], FRAME / 48_000)
    assert max(b - a for a, b in itertools.pairwise(map(_time, out))) < 2 * FRAME / 48_000
    assert sound.end_s == pytest.approx(_time(out[-1]) + FRAME / 48_000)
    assert _onsets(sound, out)[:3] == pytest.approx([5, 6, 7], abs=EXACT)


@pytest.mark.parametrize(
    ("codec", "rate", "layout", "becomes"),
    [
        ("libopus", 48_000, "stereo", (48_000, "stereo")),
        ("libmp3lame", 44_100, "mono", (44_100, "mono")),
        ("pcm_alaw", 8_000, "mono", (48_000, "mono")),
        ("pcm_s16le", 96_000, "5.1", (48_000, "stereo")),
    ],
)
def test_other_sound_becomes_aac_and_is_heard_when_it_was(
    codec: str, rate: int, layout: str, becomes: tuple[int, str]
) -> None:
    """Codec delay is compensated, and silence fills the output before the first audio."""
    decoder, packets = _beeps(codec, rate, layout, 4)
    sound = OutputAudio(decoder)
    out = _sent(sound, packets, 3)
    assert not sound.is_copying
    assert (sound.context.rate, sound.context.layout.name) == becomes
    assert _time(out[0]) < FRAME / becomes[0]
    _assert_even(out, FRAME / becomes[0])
    assert _onsets(sound, out)[:4] == pytest.approx([3, 4, 5, 6], abs=EXACT)


@pytest.mark.parametrize("gap", [0.03, 0.5, 2.0])
def test_what_was_lost_is_silent_and_all_after_it_in_time(gap: float) -> None:
    """Also after a gap so short that only a series of frames can confirm it."""
    decoder, packets = _beeps("libmp3lame", 48_000, "stereo", 6)
    sound, half = OutputAudio(decoder), len(packets) // 2
    out = _sent(sound, packets[:half]) + _sent(sound, packets[half:], gap)
    _assert_even(out, FRAME / 48_000)
    begin = _onsets(sound, out)
    assert begin[1:3] == pytest.approx([1, 2], abs=EXACT)
    assert begin[-2:] == pytest.approx([4 + gap, 5 + gap], abs=EXACT)


@pytest.mark.parametrize("codec", ["aac", "libmp3lame"])
def test_silence_between_packets_is_counted(codec: str) -> None:
    decoder, packets = _beeps(codec, 48_000, "stereo", 3)
    sound = OutputAudio(decoder)
    _sent(sound, [p for p in packets if _time(p) % 1 < 0.5])
    assert sound.counts.silence_s == pytest.approx(1.0, abs=0.1)


def test_what_was_said_is_not_said_again() -> None:
    decoder, packets = _beeps("libmp3lame", 48_000, "stereo", 4)
    sound, half = OutputAudio(decoder), len(packets) // 2
    out = _sent(sound, packets[:half]) + _sent(sound, packets[half:], -0.7)
    times = [_time(o) for o in out]
    assert all(a < b for a, b in itertools.pairwise(times))
    assert sound.counts.late == pytest.approx(0.7 * 48_000 / 1152, abs=2)
    assert _onsets(sound, out)[-1] == pytest.approx(2.3, abs=EXACT)


@pytest.mark.parametrize("drift", [1.0003, 0.9995])
def test_a_clock_that_drifts_is_followed_without_a_seam(drift: float) -> None:
    """Over 30 s, a sound card's clock and the timestamps diverge by 9 and 15 ms."""
    decoder, packets = _beeps("pcm_s16le", 48_000, "mono", 30)
    sound = OutputAudio(decoder)
    out = [h.packet for p in packets for h in sound.convert(p, _time(p) * drift, 0.0)]
    due = [k * drift for k in range(30)]
    assert _onsets(sound, out)[1:] == pytest.approx(due[1:], abs=0.003)
    samples, _ = _heard(sound, out)
    assert np.abs(np.diff(samples[4 * FRAME :])).max() < 0.1  # 1 kHz steps by 0.07 at most


def test_times_that_jitter_leave_no_gaps() -> None:
    decoder, packets = _beeps("pcm_s16le", 48_000, "mono", 10)
    sound, random = OutputAudio(decoder), np.random.default_rng(0)
    off = [0.0, *random.uniform(-0.02, 0.02, len(packets) - 1)]
    out = [
        h.packet
        for p, by in zip(packets, off, strict=True)
        for h in sound.convert(p, _time(p) + by)
    ]  # fmt: skip
    assert _onsets(sound, out)[1:] == pytest.approx(range(1, 10), abs=0.01)
    assert sound.counts.late == 0


def test_silence_goes_on_where_the_sound_ended_and_is_silent() -> None:
    decoder, packets = _beeps("aac", 44_100, "stereo", 1)
    sound = OutputAudio(decoder)
    said = _sent(sound, packets, 1)
    quiet = [q for end in np.arange(2.0, 3.0, 0.04) for q in _silence(sound, float(end))]
    _assert_even(said + quiet, FRAME / 44_100)
    assert _time(quiet[-1]) + 2 * FRAME / 44_100 > 2.96 - 1e-9
    assert {bytes(q) for q in quiet} == {bytes(quiet[0])}
    samples, _ = _heard(sound, said + quiet)
    assert np.abs(samples[-20 * FRAME : -2 * FRAME]).max() < 1e-3
    assert len(_silence(sound, 100.0)) < 2 * 44_100 / FRAME + 1  # not 97 s at once
    assert _sent(sound, packets[3:4], 50.0) == []


def test_later_sessions_are_made_like_the_first() -> None:
    """Otherwise viewers' decoders would get a format that the header does not describe."""
    first, packets = _beeps("aac", 48_000, "stereo", 1)
    sound = OutputAudio(first)
    out = _sent(sound, packets, 1)
    other, packets = _beeps("aac", 44_100, "mono", 2)
    sound.set_source(other)
    out += _sent(sound, packets, 5)
    assert not sound.is_copying
    assert _onsets(sound, out)[-2:] == pytest.approx([5, 6], abs=EXACT)
    sound.set_source(None)
    assert _sent(sound, packets[:1], 9.0) == []
    assert len(_silence(sound, sound.end_s + 0.1)) == 4
    again, packets = _beeps("aac", 48_000, "stereo", 1)
    sound.set_source(again)
    end = sound.end_s
    more = _sent(sound, packets, 12)
    assert sound.is_copying
    assert [bytes(o) for o in more[-len(packets) :]] == [bytes(p) for p in packets]
    assert _time(more[0]) == pytest.approx(end, abs=1e-6)


def test_damaged_sound_is_skipped_and_counted() -> None:
    decoder, packets = _beeps("libmp3lame", 48_000, "stereo", 1)
    sound = OutputAudio(decoder)
    out = 0
    for k, packet in enumerate(packets):
        if k % 3 == 0:
            bad: av.Packet[Any] = av.Packet(bytes(range(50)))
            bad.pts = bad.dts = packet.pts
            bad.time_base = packet.time_base
        else:
            bad = packet
        out += len(_sent(sound, [bad], 1))
    assert out > 10
    assert sound.counts.undecodable > 5


def _adts(packet: Any, *, sized: int | None = None, blocks: int = 1, size: int = -1) -> Any:
    """Return a copy with another frame length or count in its header, or truncated."""
    data = bytearray(bytes(packet))[: size if size >= 0 else None]
    if sized is not None:
        data[3], data[4], data[5] = data[3] & 0xFC, sized >> 3, data[5] & 0x1F | sized << 5 & 0xE0
    data[6] |= blocks - 1
    made: av.Packet[Any] = av.Packet(bytes(data))
    made.pts, made.dts, made.time_base = packet.pts, packet.dts, packet.time_base
    return made


@pytest.mark.parametrize("change", [{"size": 7}, {"sized": 0}])
def test_damaged_headers_of_copied_sound_are_skipped_and_counted(change: dict[str, int]) -> None:
    decoder, packets = _beeps("aac", 48_000, "stereo", 2, "mpegts")
    sound, bad = OutputAudio(decoder), _adts(packets[20], **change)
    assert len(_sent(sound, packets[:20])) >= 19
    assert _sent(sound, [bad]) == []
    assert sound.counts.undecodable == 1
    assert sound.is_copying
    assert len(_sent(sound, packets[21:40])) >= 19


def test_packets_that_say_to_hold_several_frames_are_not_copied() -> None:
    """A packet of an FLV or MP4 file holds one frame."""
    decoder, packets = _beeps("aac", 48_000, "stereo", 1, "mpegts")
    sound = OutputAudio(decoder)
    _sent(sound, [_adts(p, blocks=2) for p in packets])
    assert not sound.is_copying


@pytest.mark.parametrize("wrong", [1e9, -1e30, np.inf, np.nan])
def test_sound_far_beyond_full_scale_is_bounded(wrong: float) -> None:
    """Damaged packets decode to such samples, and FFmpeg's AAC encoder hangs on them."""
    line = SampleTimeline(open_encoder(48_000, "mono"))
    samples = np.full((1, FRAME), 0.5, np.float32)
    samples[0, 100:200] = wrong
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
    frame.sample_rate = 48_000
    laid = line.place(frame, 0.0, 0.0, 0)
    assert laid is not None
    assert np.isfinite(laid).all() and np.abs(laid).max() <= 32
    assert laid[0, 50] == pytest.approx(0.5)


def test_sound_of_eight_channels_is_encoded_in_order() -> None:
    """PyAV crashes on the planes of eight channels."""
    encoder = open_encoder(48_000, "7.1")
    levels = np.linspace(0.1, 0.8, 8, dtype=np.float32)
    frame = av.AudioFrame.from_ndarray(
        np.tile(levels, FRAME)[None], format="flt", layout=encoder.layout.name
    )
    frame.sample_rate = 48_000
    laid = SampleTimeline(encoder).place(frame, 0.0, 0.0, 0)
    assert laid is not None
    assert laid.shape[0] == len(levels)
    assert laid[:, 500] == pytest.approx(levels, abs=1e-3)
    assert list(FrameEncoder(encoder).encode(np.concatenate([laid] * 4, axis=1)))
    assert silent_packet(encoder)


class _Played:
    """Passes 25 frames per second and late audio through the clock and audio of a relay."""

    def __init__(self, codec: str, late: float, seconds: float = 8, since: float = 0.0) -> None:
        self.decoder, packets = _beeps(codec, 48_000, "stereo", seconds)
        self.clock, self.warnings = OutputClock(0.04), [""][:0]
        self.audio = PlayoutAudio(self.clock, self.decoder, lambda w, _: self.warnings.append(w))
        self.heard: list[Any] = []
        sounds = [(_time(p) + late, p) for p in packets if _time(p) >= since]
        for k in range(round(25 * seconds)):
            while sounds and sounds[0][0] <= k / 25:
                packet = sounds.pop(0)[1]
                self.heard += self.audio.add(AudioPacket(packet, _time(packet)))
            self.heard += self.audio.fill_to(self.clock.place_frame(k / 25, k / 25))

    @property
    def onsets(self) -> list[float]:
        return _onsets(self.audio._audio, [h.packet for h in self.heard])


@pytest.mark.parametrize("codec", ["aac", "libmp3lame"])
@pytest.mark.parametrize("late", [0.0, 0.15, 0.9])
def test_sound_that_comes_late_replaces_silence(codec: str, late: float) -> None:
    played = _Played(codec, late)
    assert played.onsets[1:] == pytest.approx(range(1, len(played.onsets)), abs=0.025)
    assert len(played.onsets) >= 7
    assert played.audio.figures()["sound_dropped"] == 0
    assert not [words for words in played.warnings if "dropped" in words]


def test_sound_that_comes_very_late_is_told_and_waited_for() -> None:
    played = _Played("libmp3lame", 3.0, seconds=14)
    assert played.onsets[-5:] == pytest.approx([6, 7, 8, 9, 10], abs=EXACT)
    assert played.audio.figures()["sound_dropped"] > 0
    assert any("3.0 s after its frames" in words for words in played.warnings)


def test_sound_that_begins_later_is_heard_at_once() -> None:
    """Until then silence is sent, with a warning."""
    played = _Played("libmp3lame", 0.1, since=3.5)
    assert played.onsets == pytest.approx([4, 5, 6, 7], abs=EXACT)
    assert any("silence is sent" in words for words in played.warnings)
    figures = played.audio.figures()
    assert figures["silence_s"] == pytest.approx(3.5, abs=0.1)
    assert figures["sound_dropped"] == 0


@pytest.mark.parametrize("codec", ["aac", "libmp3lame"])
@pytest.mark.parametrize("lead", [0.0, 0.2])
def test_sound_of_a_publisher_that_restarts_is_in_sync_and_not_late(
    codec: str, lead: float
) -> None:
    """Behind a server the session goes on, and the times after the pause follow those before it.

    The first sound comes `lead` seconds before the first frame.
    """
    decoder, packets = _beeps(codec, 48_000, "stereo", 8)
    clock, warnings = OutputClock(0.04), [""][:0]
    audio = PlayoutAudio(clock, decoder, lambda words, _: warnings.append(words))
    heard: list[Any] = []
    sounds = [AudioPacket(p, _time(p)) for p in packets]
    for k in range(8 * 25):
        pause = 4.0 * (k >= 75)
        if k == 75:
            for n in range(100):
                if (100 - n) / 25 <= lead:
                    heard += audio.add(sounds.pop(0))
                heard += audio.fill_to(clock.place_repeat((75 + n) / 25))
        while sounds and sounds[0].time <= k / 25:
            heard += audio.add(sounds.pop(0))
        heard += audio.fill_to(clock.place_frame(k / 25, k / 25 + pause))
    found = _onsets(audio._audio, [h.packet for h in heard])
    assert found[-4:] == pytest.approx([8, 9, 10, 11], abs=0.05)
    assert found[1:3] == pytest.approx([1, 2], abs=0.025)
    figures = audio.figures()
    assert figures["sound_dropped"] == 0
    assert figures["sound_late_ms"] < 200
    assert not [words for words in warnings if "dropped" in words]


class _Stepped:
    """Passes frames and audio at stepped times through the clock and audio of a relay."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
        self.decoder, packets = _beeps("aac", 48_000, "mono", seconds)
        self.sounds = [AudioPacket(p, _time(p)) for p in packets]
        self.clock, self.warnings = OutputClock(0.04), [""][:0]
        self.audio = PlayoutAudio(self.clock, self.decoder, lambda w, _: self.warnings.append(w))
        self.heard: list[Any] = []
        self.wall = 0.0
        monkeypatch.setattr("vsr.live.playout_audio.now", lambda: self.wall)

    def play(self, until: float, *, picture: float | None, sound: float | None) -> None:
        """Go on; `picture` and `sound` are how late they are (s), None if they stall."""
        while self.wall < until:
            while sound is not None and self.sounds and self.sounds[0].time <= self.wall - sound:
                self.heard += self.audio.add(self.sounds.pop(0))
            if picture is None:
                time = self.clock.place_repeat(self.wall)
            else:
                time = self.clock.place_frame(self.wall - picture, self.wall)
            self.heard += self.audio.fill_to(time)
            self.wall = round(self.wall + 0.04, 6)

    def onsets(self, since: float) -> list[float]:
        found = _onsets(self.audio._audio, [h.packet for h in self.heard])
        return [at for at in found if at > since]


def test_sound_that_is_always_late_goes_on_while_the_pictures_stall(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    played = _Stepped(monkeypatch, 60)
    played.play(15, picture=0.0, sound=3.0)
    dropped = played.audio.figures()["sound_dropped"]
    played.play(60, picture=None, sound=3.0)
    assert played.onsets(14.5)[:40] == pytest.approx(range(15, 55), abs=0.03)
    assert played.audio.figures()["sound_dropped"] == dropped


def test_sound_that_catches_up_after_a_stall_is_heard_though_the_pictures_stay_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    played = _Stepped(monkeypatch, 30)
    played.play(5, picture=0.0, sound=0.0)
    played.play(8, picture=None, sound=None)
    played.play(30, picture=None, sound=0.0)
    assert played.onsets(8.5) == pytest.approx(range(9, 30), abs=0.03)
    assert played.audio.figures()["sound_late_ms"] < 600


def test_sound_that_goes_on_alone_after_a_pause_is_heard_before_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The publisher restarts behind a server, and sends its pictures 20 s later."""
    played = _Stepped(monkeypatch, 40)
    played.play(5, picture=0.0, sound=0.0)
    played.play(9, picture=None, sound=None)
    played.play(29, picture=None, sound=4.0)
    played.play(44, picture=4.0, sound=4.0)
    found = played.onsets(5.5)
    assert found == pytest.approx(range(14, 44), abs=0.1)
    assert played.audio.figures()["sound_late_ms"] < 600


def test_an_output_without_sound_is_silent_and_takes_up_sound_that_comes() -> None:
    clock = OutputClock(0.04)
    audio = PlayoutAudio(clock, None, lambda *_: None)
    quiet = [h for k in range(100) for h in audio.fill_to(clock.place_frame(k / 25, k / 25))]
    assert len(quiet) > 3.5 * 48_000 / FRAME
    decoder, packets = _beeps("pcm_alaw", 8_000, "mono", 2)
    audio.start_session(decoder)
    heard = [h for p in packets for h in audio.add(AudioPacket(p, 4.0 + _time(p)))]
    assert _onsets(audio._audio, [h.packet for h in quiet + heard]) == pytest.approx(
        [4, 5], abs=EXACT
    )


def test_packets_tell_the_source_time_of_what_they_hold() -> None:
    played = _Played("libmp3lame", 0.3)
    told = [(h.origin, _time(h.packet)) for h in played.heard if h.origin is not None]
    assert len(told) > 100
    assert max(abs(origin - time) for origin, time in told) < EXACT


def test_sound_that_waited_for_slow_engines_holds_up_nothing() -> None:
    """17 s of audio come before the first frame, more than merely late audio would."""
    decoder, packets = _beeps("libmp3lame", 48_000, "stereo", 21)
    clock, warnings = OutputClock(0.04), [""][:0]
    audio = PlayoutAudio(clock, decoder, lambda words, _: warnings.append(words))
    sounds, heard = [AudioPacket(p, _time(p)) for p in packets], list[Any]()
    while sounds[0].time < 17:
        heard += audio.add(sounds.pop(0))
    audio.drop_before(17.0)
    for k in range(4 * 25):
        while sounds and sounds[0].time <= 17 + k / 25:
            heard += audio.add(sounds.pop(0))
        heard += audio.fill_to(clock.place_frame(17 + k / 25, k / 25))
    found = _onsets(audio._audio, [h.packet for h in heard])
    assert found[-3:] == pytest.approx([1, 2, 3], abs=EXACT)
    assert not warnings
    figures = audio.figures()
    assert (figures["sound_dropped"], figures["silence_s"]) == (0, 0)
