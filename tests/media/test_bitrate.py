"""Tests of bitrates: parsing, formatting, encoder options, and the default of live streams."""

from fractions import Fraction
from pathlib import Path

import av
import pytest

from tests.media.test_encoder import options_of
from tests.streams import Marked, make_marked
from vsr.errors import UsageError
from vsr.files.job import Job
from vsr.files.settings import RunSettings
from vsr.live.output.rates import live_settings
from vsr.media.bitrate import SERVICES, format_bitrate, live_bitrate, parse_bits
from vsr.media.encoder import EncoderSettings

NOISY = Marked(seconds=4.0, size=(160, 90))


@pytest.mark.parametrize(
    ("text", "bits"),
    [("2500k", 2_500_000), ("2.5M", 2_500_000), ("2.5 Mbit/s", 2_500_000), ("6000kbps", 6_000_000),
     ("300000", 300_000), ("64K", 64_000)],
)  # fmt: skip
def test_rates_are_read_as_streamers_write_them(text: str, bits: int) -> None:
    assert parse_bits(text) == bits


@pytest.mark.parametrize("text", ["", "fast", "-3k", "2500", "0k", "2,5M", "1e3k"])
def test_what_is_no_rate_is_refused_with_advice(text: str) -> None:
    with pytest.raises(UsageError, match=r"2500k|more than 0"):
        parse_bits(text)


@pytest.mark.parametrize("encoder", ["libx264", "libx265", "libsvtav1", "libvpx-vp9"])
@pytest.mark.parametrize(
    "given", [{"bitrate": 300_000}, {"options": {"b": "300k"}}], ids=["option", "e"]
)
def test_no_default_quality_stands_beside_a_bitrate(encoder: str, given: dict[str, object]) -> None:
    options = options_of(encoder, **given)
    assert "crf" not in options
    assert options["b"] in ("300000", "300k")


def test_any_other_rate_control_displaces_the_default_too() -> None:
    assert "crf" not in options_of("libx264", options={"qp": "30"})
    assert "crf" not in options_of("libx265", options={"x265-params": "bitrate=300"})
    assert options_of("libx264", maxrate=2_000_000).items() >= {
        ("crf", "18"), ("maxrate", "2000000"), ("bufsize", "4000000"),
    }  # fmt: skip


@pytest.mark.parametrize(
    "given",
    [{"crf": 20, "bitrate": 300_000}, {"crf": 20, "options": {"b": "300k"}}, {"passes": 2},
     {"bitrate": 300_000, "options": {"b": "1M"}}, {"bufsize": 300_000},
     {"bitrate": 300_000, "maxrate": 200_000}],
)  # fmt: skip
def test_settings_that_contradict_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        options_of("libx264", **given)
    with pytest.raises(UsageError, match="two passes"):
        options_of("libsvtav1", bitrate=300_000, passes=2)


@pytest.mark.parametrize(("codec", "passes"), [("h264", 1), ("h264", 2), ("hevc", 2)])
def test_a_file_has_the_bitrate_asked_for(tmp_path: Path, codec: str, passes: int) -> None:
    clip = make_marked(tmp_path / "in.mp4", NOISY)
    encoder = EncoderSettings(codec=codec, bitrate=60_000, passes=passes, preset="ultrafast")
    Job(str(clip), tmp_path / "out.mkv", RunSettings(model="bicubic", encoder=encoder)).run()
    assert [path.name for path in tmp_path.iterdir() if path != clip] == ["out.mkv"]
    with av.open(str(tmp_path / "out.mkv")) as out:
        packets = [packet for packet in out.demux(video=0) if packet.size]
    bits = 8 * sum(packet.size for packet in packets)
    assert len(packets) == 100
    assert 0.6 * 60_000 < bits / 4.0 < 1.4 * 60_000


def test_a_live_stream_gets_a_bitrate_by_its_size_and_rate() -> None:
    assert live_bitrate((1920, 1080), Fraction(60)) == 6_000_000
    assert live_bitrate((1080, 1920), Fraction(30)) == 4_500_000
    assert live_bitrate((1280, 720), Fraction(30)) == 3_000_000
    assert live_bitrate((3840, 2160), Fraction(30), SERVICES["youtube"]) == 30_000_000
    assert live_bitrate((3840, 2160), Fraction(60), SERVICES["twitch"]) == 6_000_000
    assert live_bitrate((64, 36), Fraction(25)) == 500_000


def test_live_limits_are_added_but_what_was_asked_for_stays() -> None:
    size, rate, url = (1280, 720), Fraction(30), ["rtmp://host/live/key"]
    default = live_settings(EncoderSettings(), url, size, rate)
    assert (default.bitrate, default.maxrate, default.bufsize) == (3_000_000,) * 3
    assert live_settings(EncoderSettings(crf=23), url, size, rate) == EncoderSettings(crf=23)
    own = EncoderSettings(options={"b": "300k"})
    assert live_settings(own, url, size, rate) == own
    assert live_settings(EncoderSettings(), ["rec.mkv"], size, rate) == EncoderSettings()
    with pytest.raises(UsageError, match="stream-preset"):
        live_settings(EncoderSettings(), url, size, rate, "vimeo")


def test_rates_in_words() -> None:
    assert [format_bitrate(bits) for bits in (2_500_000, 625_000)] == ["2.5 Mbit/s", "625 kbit/s"]
