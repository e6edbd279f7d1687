"""Tests of encoder settings: the private options that each encoder gets, pts, and errors."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import av
import pytest

from vsr.errors import UsageError
from vsr.media import encoder as encoder_module
from vsr.media.colour import Colour
from vsr.media.encoder import (
    EncoderSettings,
    VideoFormat,
    encoder_name,
    open_encoder,
)
from vsr.media.matcher import PacketMatcher
from vsr.media.timestamps import Packet

VIDEO = VideoFormat(
    size=(128, 96), rate=Fraction(30000, 1001), time_base=Fraction(1, 90000),
    colour=Colour(matrix=6, full_range=True, primaries=5, transfer=8),
    sample_aspect=Fraction(4, 3),
)  # fmt: skip


def opened(encoder: str, key_interval: float | None = None, **settings: Any) -> Any:
    context = av.CodecContext.create(encoder, "w")
    assert isinstance(context, av.VideoCodecContext)
    open_encoder(context, EncoderSettings(**settings), VIDEO, key_interval)
    return context


def options_of(encoder: str, **settings: Any) -> Mapping[str, str]:
    """Return the private options that an encoder would be opened with, without opening it."""
    context: Any = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder_module, "_open", lambda configured: None)
        context = opened(encoder, **settings)
    return dict(context.options)


def test_short_names_and_ffmpegs_own() -> None:
    names = [encoder_name(EncoderSettings(codec=c), "mp4") for c in ("h264", "hevc", "av1")]
    assert names == ["libx264", "libx265", "libsvtav1"]
    assert encoder_name(EncoderSettings(codec="mpeg4"), "mp4") == "mpeg4"


def test_without_a_codec_the_container_decides() -> None:
    assert encoder_name(EncoderSettings(), "mp4") == "libx264"
    assert encoder_name(EncoderSettings(), "webm") == "libvpx-vp9"


def test_crf_and_preset_override_the_defaults() -> None:
    assert options_of("libx264")["crf"] == "18"
    chosen = options_of("libx264", crf=30, preset="slow")
    assert (chosen["crf"], chosen["preset"]) == ("30", "slow")


def test_an_e_option_wins_over_all() -> None:
    assert options_of("libx264", crf=30, options={"crf": "7"})["crf"] == "7"
    own = {"tune": "film", "bf": "2"}
    live = options_of("libx264", key_interval=2.0, options=own)
    assert live.items() >= (own | {"forced-idr": "1"}).items()


def test_x265_is_quiet_unless_asked() -> None:
    assert options_of("libx265")["x265-params"] == "log-level=error"
    for given, expected in (
        ("keyint=9", "keyint=9:log-level=error"),
        ("log-level=info", "log-level=info"),
    ):
        options = options_of("libx265", options={"x265-params": given})
        assert options["x265-params"] == expected


@pytest.mark.parametrize("own", ["no-slow-firstpass=1", "slow_firstpass=0:frame-threads=1"])
def test_keys_of_parameters_are_compared_whole(own: str) -> None:
    """`pass` is added although the string occurs in `slow-firstpass`."""
    settings = {"bitrate": 10**6, "passes": 2, "analysis": (1, "file")}
    options = options_of("libx265", options={"x265-params": own}, **settings)
    assert options["x265-params"] == f"{own}:pass=1:stats=file:log-level=error"


def test_a_key_with_an_underscore_is_the_same() -> None:
    options = options_of("libx265", options={"x265-params": "log_level=info"})
    assert options["x265-params"] == "log_level=info"


def test_crf_becomes_the_constant_quality_of_hardware_encoders() -> None:
    assert options_of("h264_nvenc", crf=25)["cq"] == "25"


def test_an_encoder_without_constant_quality_refuses_crf() -> None:
    with pytest.raises(UsageError, match="no constant-quality option: use --bitrate"):
        options_of("dnxhd", crf=25)


@pytest.mark.parametrize("name", ["ffv1", "prores_ks", "huffyuv"])
@pytest.mark.parametrize("given", ["crf", "bitrate", "maxrate"])
def test_an_encoder_that_ignores_quality_and_bitrate_refuses_them(name: str, given: str) -> None:
    with pytest.raises(UsageError, match=rf"no quality or bitrate to set .*: leave out --{given}$"):
        options_of(name, **{given: 25})


def test_the_encoder_keeps_time_rate_shape_and_colours() -> None:
    context = opened("libx264")
    assert (context.width, context.height) == (128, 96)
    assert (context.time_base, context.framerate) == (Fraction(1, 90000), Fraction(30000, 1001))
    assert context.sample_aspect_ratio == Fraction(4, 3)
    tags = (context.colorspace, context.color_range, context.color_primaries, context.color_trc)
    assert tags == (6, 2, 5, 8)


def encoded(context: Any, count: int) -> list[tuple[int | None, Any]]:
    """Return (number that the matcher finds, pts) of every packet of `count` frames."""
    matcher, found = PacketMatcher[int](), []
    for number in range(count):
        picture = av.VideoFrame(128, 96, "yuv420p")
        for plane in picture.planes:
            plane.update(bytes([number * 7 % 256]) * plane.buffer_size)
        picture.pts, picture.time_base = 3003 * number, VIDEO.time_base
        matcher.add(picture.pts, number)
        found += [(matcher.take(packet), packet.pts) for packet in context.encode(picture)]
    found += [(matcher.take(packet), packet.pts) for packet in context.encode(None)]
    assert len(matcher) == 0
    return found


def test_packets_are_matched_by_pts_whatever_their_order() -> None:
    found = encoded(opened("libx264", options={"bf": "2", "b_strategy": "0"}), 12)
    numbers = [number for number, _ in found]
    assert numbers != sorted(numbers), "there are no B-frames in this"
    assert sorted(numbers) == list(range(12))
    assert all(pts == 3003 * number for number, pts in found)


def test_a_packet_nobody_waits_for_matches_nothing() -> None:
    packet: Packet = av.Packet(b"x")
    matcher = PacketMatcher[str]()
    matcher.add(5, "five")
    assert matcher.take(packet) is None
    packet.pts = 4
    assert matcher.take(packet) is None
    packet.pts = 5
    assert (matcher.take(packet), matcher.take(packet)) == ("five", None)


@pytest.mark.parametrize("encoder", ["libx264", "libx265"])
def test_a_live_encoder_holds_nothing_back_and_has_its_header_apart(encoder: str) -> None:
    context = opened(encoder, key_interval=2.0, preset="ultrafast")
    assert context.extradata
    assert (context.gop_size, context.max_b_frames) == (120, 0)
    picture = av.VideoFrame(128, 96, "yuv420p")
    picture.pts, picture.time_base = 0, VIDEO.time_base
    assert len(context.encode(picture)) == 1
    context.encode(None)


@pytest.mark.parametrize(
    ("encoder", "settings", "words"),
    [
        ("libx264", {"crf": 99}, "libx264 takes crf from 0 to 51, not '99'"),
        ("libx265", {"crf": 52}, "libx265 takes crf from 0 to 51, not '52'"),
        ("libsvtav1", {"crf": 64}, "libsvtav1 takes crf from 0 to 63, not '64'"),
        ("libvpx-vp9", {"crf": 99}, "libvpx-vp9 takes crf from 0 to 63, not '99'"),
        ("libx264", {"options": {"crf": "-3"}}, "libx264 takes crf from 0 to 51, not '-3'"),
        ("libx264", {"options": {"qp": "good"}}, "libx264 takes qp from 0 to 51, not 'good'"),
        ("libx264", {"preset": "warp"}, "libx264 has no preset 'warp'; .*ultrafast, .*placebo"),
        ("libx265", {"preset": "10"}, "libx265 has no preset '10'; .*ultrafast, .*placebo"),
        ("libsvtav1", {"preset": "warp"}, "takes preset from -2 to 13, not 'warp'"),
        ("libvpx-vp9", {"preset": "9"}, r"takes preset \(cpu-used\) from -8 to 8, not '9'"),
        ("h264_nvenc", {"preset": "warp"}, "h264_nvenc has no preset 'warp'; .*p1, "),
    ],
)
def test_values_the_encoder_does_not_have_are_refused_with_those_it_has(
    encoder: str, settings: dict[str, Any], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match=words):
        opened(encoder, **settings)
    assert capfd.readouterr() == ("", "")  # nothing is printed by the encoder either


@pytest.mark.parametrize(
    ("encoder", "settings"),
    [
        ("libx264", {"crf": 0, "preset": "placebo"}),
        ("libx264", {"crf": 51, "preset": "0"}),
        ("libx264", {"options": {"crf": "18.5"}}),
        ("libx265", {"crf": 51, "preset": "9"}),
        ("libsvtav1", {"crf": 63, "preset": "13"}),
        ("libvpx-vp9", {"crf": 63, "preset": "8"}),
    ],
)
def test_the_ends_of_the_ranges_are_taken(encoder: str, settings: dict[str, Any]) -> None:
    assert opened(encoder, **settings).is_open


def test_a_pixel_format_that_ffmpeg_does_not_know_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="unknown pixel format 'x': use an FFmpeg name"):
        encoder_name(EncoderSettings(pixel_format="x"), "mp4", VIDEO)
