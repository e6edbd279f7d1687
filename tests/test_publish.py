"""Encoding for a live stream: every picture's packet is the one it became."""

import threading
from pathlib import Path

import av
import pytest

import vsr
from tests.streams import Marked, make_marked, number_of
from vsr.encoder import EncoderSettings
from vsr.live.relay import Relay
from vsr.live.settings import RelaySettings


@pytest.mark.parametrize("options", [{}, {"tune": "film", "rc-lookahead": "8"}])
def test_an_encoder_that_holds_pictures_back_loses_none_and_no_time(
    tmp_path: Path, options: dict[str, str]
) -> None:
    """As NVENC may, and x264 when it is asked to look ahead."""
    clip = make_marked(tmp_path / "in.flv", Marked(seconds=2, sound=None))
    target = tmp_path / "out.flv"
    encoder = EncoderSettings(options={"preset": "ultrafast", **options})
    settings = RelaySettings(model="bicubic", scale=2, max_latency=5.0, encoder=encoder)
    report = Relay(str(clip), [str(target)], settings).run(threading.Event())
    assert (report.frames_in, report.frames_out) == (50, 50)
    held = report.ledger.stages()["encode"]["p50"]
    assert held > 35 or not options
    assert report.ledger.stages()["total"]["p50"] >= held > 0
    with av.open(str(target)) as out:
        pictures = list(out.decode(video=0))
    assert [number_of(p) for p in pictures] == list(range(50))
    times = [p.time for p in pictures if p.time is not None]
    assert times == pytest.approx([k / 25 for k in range(50)], abs=0.0015)


def test_a_relay_from_python(tmp_path: Path) -> None:
    clip = make_marked(tmp_path / "in.flv", Marked(seconds=1))
    target, told = tmp_path / "out.flv", tmp_path / "report.html"
    settings = vsr.RelaySettings(model="bicubic", scale=3, max_latency=5.0)
    report = vsr.relay(str(clip), str(target), settings=settings, report=told)
    assert (report.frames_in, report.frames_out, report.exit_code) == (25, 25, 0)
    assert report.output["size"] == [480, 270]
    assert "<html" in told.read_text(encoding="utf-8")
    with pytest.raises(vsr.UsageError, match="cannot publish to gopher"):
        vsr.relay(str(clip), ["gopher://host/out"], settings=settings)
