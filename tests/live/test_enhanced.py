"""HEVC over RTMP: sent only to servers that announce support for it."""

import socket
from pathlib import Path
from typing import Any

import pytest

import vsr
from tests.live.test_listen import KEY, Ear
from tests.programs import needs_nginx
from tests.rtmp import Server, wait_for
from tests.streams import Marked, make_marked
from vsr.live.output.enhanced_rtmp import _announced_codecs, check_codec_support
from vsr.live.settings import OutputSettings
from vsr.media.encoder import EncoderSettings


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "in.flv"
    return make_marked(path, Marked(seconds=2, size=(160, 90)))


def _settings(**output: Any) -> vsr.RelaySettings:
    return vsr.RelaySettings(
        model="bicubic", max_latency=5.0, output=OutputSettings(**output),
        encoder=EncoderSettings(
            codec="hevc", preset="ultrafast", options={"x265-params": "log-level=none"}
        ),
    )  # fmt: skip


@needs_nginx
def test_a_server_that_does_not_know_it_is_sent_nothing(
    tmp_path: Path, clip: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Server(tmp_path / "nginx") as server:
        with pytest.raises(vsr.OutputError, match="does not announce support for hevc"):
            vsr.relay(str(clip), server.url(KEY), settings=_settings())
        log = (tmp_path / "nginx" / "error.log").read_text()
    assert "publish" not in log
    assert "use -c h264, or --enhanced-rtmp" in caplog.text
    assert KEY not in caplog.text


@pytest.mark.parametrize("forced", [False, True])
def test_a_server_that_says_so_is_sent_hevc(clip: Path, forced: bool) -> None:
    with Ear() as ear:
        watch = ear.watch()
        vsr.relay(str(clip), ear.url, settings=_settings(enhanced_rtmp=forced))
        wait_for(lambda: watch.end, 20, "the relay did not leave")
    assert watch.codec == "hevc"
    assert len(watch.frames) > 30


def test_only_application_and_codecs_are_told_when_asking() -> None:
    with Ear() as ear:
        for codec in ("hevc", "av1", "vp9"):
            check_codec_support(ear.url, codec, {}, 5.0)
        with pytest.raises(ValueError, match="refused the application"):
            check_codec_support(ear.url_of(KEY, "other"), "hevc", {}, 5.0)
    with pytest.raises(ConnectionRefusedError):
        check_codec_support(ear.url, "hevc", {}, 5.0)


@pytest.mark.parametrize(
    ("facts", "codes"),
    [
        ({"fourCcList": ["hvc1", 5.0]}, {"hvc1"}),
        ({"videoFourCcInfoMap": {"av01": 3.0, "*": 4.0}}, {"av01", "*"}),
        ({"capsEx": 1.0, "fourCcList": None}, set()),
        (None, set()),
    ],
)
def test_both_forms_of_the_answer_are_read(facts: Any, codes: set[str]) -> None:
    assert _announced_codecs(["_result", 1.0, {"fmsVer": "FMS/3,0,1,123"}, facts]) == codes


def test_a_server_that_says_nothing_is_not_waited_for_long() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"rtmp://127.0.0.1:{silent.getsockname()[1]}/live/{KEY}"
        with pytest.raises(TimeoutError):
            check_codec_support(url, "hevc", {}, 0.3)
