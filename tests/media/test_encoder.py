"""Encoder settings: what each option becomes for each encoder."""

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import av
import pytest

from tests.clips import Clip, make_clip
from vsr.errors import UsageError
from vsr.media.encoder import EncoderSettings, configure, encoder_name
from vsr.media.source import Source


def options_of(encoder: str, clip: Path, settings: EncoderSettings) -> Mapping[str, str]:
    """The private options an encoder is configured with."""
    context = av.CodecContext.create(encoder, "w")
    assert isinstance(context, av.VideoCodecContext)
    source = Source(str(clip))
    configure(context, settings, source.info, (128, 96))
    source.close()
    return context.options


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "in.mp4", Clip(rate=Fraction(30000, 1001), audio=()))


def test_short_names_and_ffmpegs_own() -> None:
    names = [encoder_name(EncoderSettings(codec=c), "mp4") for c in ("h264", "hevc", "av1")]
    assert names == ["libx264", "libx265", "libsvtav1"]
    assert encoder_name(EncoderSettings(codec="mpeg4"), "mp4") == "mpeg4"


def test_without_a_codec_the_container_decides() -> None:
    assert encoder_name(EncoderSettings(), "mp4") == "libx264"
    assert encoder_name(EncoderSettings(), "webm") == "libvpx-vp9"


def test_crf_and_preset_override_the_defaults(clip: Path) -> None:
    assert options_of("libx264", clip, EncoderSettings())["crf"] == "18"
    chosen = options_of("libx264", clip, EncoderSettings(crf=30, preset="slow"))
    assert (chosen["crf"], chosen["preset"]) == ("30", "slow")


def test_an_e_option_wins_over_all(clip: Path) -> None:
    settings = EncoderSettings(crf=30, options={"crf": "7"})
    assert options_of("libx264", clip, settings)["crf"] == "7"


def test_x265_is_quiet_unless_asked(clip: Path) -> None:
    quiet = options_of("libx265", clip, EncoderSettings())
    assert quiet["x265-params"] == "log-level=error"
    settings = EncoderSettings(options={"x265-params": "keyint=9"})
    assert options_of("libx265", clip, settings)["x265-params"] == "keyint=9:log-level=error"
    settings = EncoderSettings(options={"x265-params": "log-level=info"})
    assert options_of("libx265", clip, settings)["x265-params"] == "log-level=info"


def test_crf_becomes_the_constant_quality_of_hardware_encoders(clip: Path) -> None:
    assert options_of("h264_nvenc", clip, EncoderSettings(crf=25))["cq"] == "25"


def test_an_encoder_without_constant_quality_refuses_crf(clip: Path) -> None:
    with pytest.raises(UsageError, match="no constant-quality option"):
        options_of("ffv1", clip, EncoderSettings(crf=25))


def test_the_encoder_keeps_the_sources_time_and_rate(clip: Path) -> None:
    context = av.CodecContext.create("libx264", "w")
    assert isinstance(context, av.VideoCodecContext)
    source = Source(str(clip))
    configure(context, EncoderSettings(), source.info, (128, 96))
    assert context.time_base == source.video.time_base
    assert context.framerate == Fraction(30000, 1001)
    source.close()
