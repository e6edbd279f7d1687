"""`vsr.relay` from Python: keywords, progress and errors."""

import threading
from itertools import pairwise
from pathlib import Path
from typing import get_type_hints

import av
import numpy as np
import pytest

import vsr
from tests.clips import Clip, make_clip, make_still_clip
from vsr.cli.relay import relay
from vsr.live.settings import RelayOptions, RelaySettings, with_options

_FRAMES = 20


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(
        tmp_path_factory.mktemp("clip") / "in.mp4", Clip(size=(64, 36), frames=_FRAMES)
    )


def test_progress_is_told_to_the_end(clip: Path, tmp_path: Path) -> None:
    told: list[vsr.Snapshot] = []
    report = vsr.relay(
        str(clip), str(tmp_path / "out.mkv"), model="bicubic", crf=30, max_latency=5.0,
        report=str(tmp_path / "r.json"), on_progress=told.append,
    )  # fmt: skip
    assert told[-1].rung == "bicubic"
    assert sum(told[-1].shown.values()) == report.frames_out == _FRAMES
    assert (tmp_path / "r.json").exists()


def test_a_still_picture_is_filtered_with_a_sharp_network(tmp_path: Path) -> None:
    source, changes = make_still_clip(tmp_path / "in.mkv", 28), {}
    for name, model, wanted in (
        ("bicubic", "bicubic", None), ("default", "rt-sharp", None), ("off", "rt-sharp", False),
    ):  # fmt: skip
        target = tmp_path / f"{name}.mkv"
        report = vsr.relay(
            str(source), str(target), flicker_filter=wanted, max_latency=5.0,
            **({"look": "sharp"} if name == "default" else {"model": model}),  # type: ignore[arg-type]
            codec="libx264", preset="ultrafast", encoder_options={"qp": "0"},
        )  # fmt: skip
        assert report.facts()["output"]["flicker_filter"] is (name == "default")
        with av.open(str(target)) as made:
            lumas = [p.to_ndarray()[: p.height].astype(int) for p in made.decode(video=0)]
        assert len(lumas) == report.frames_out == 12
        changes[name] = np.mean([np.abs(b - a).mean() for a, b in pairwise(lumas)])
    assert changes["default"] <= 1.3 * changes["bicubic"] < changes["off"]


def test_an_error_of_the_callback_ends_the_relay(clip: Path, tmp_path: Path) -> None:
    stop = threading.Event()

    def fails(_: vsr.Snapshot) -> None:
        raise ArithmeticError("mine")

    with pytest.raises(ArithmeticError, match="mine"):
        vsr.relay(
            str(clip), str(tmp_path / "out.mkv"), model="bicubic", loop=True,
            on_progress=fails, stop=stop,
        )  # fmt: skip
    assert stop.is_set()


def test_keywords_win_over_settings_and_keep_the_rest() -> None:
    settings = RelaySettings(model="dcscn", encoder=vsr.EncoderSettings(preset="fast", crf=20))
    found = with_options(settings, crf=30, retry_max=3, tls_verify=False, report="r.csv")
    assert (found.model, found.encoder.preset, found.encoder.crf) == ("dcscn", "fast", 30)
    assert (found.ingest.retry_max, found.ingest.tls_verify) == (3, False)
    assert not found.output.tls_verify
    assert found.rolling.report == Path("r.csv")


def test_every_option_of_the_command_is_a_keyword() -> None:
    shared = {"urls", "input_", "config", "verbose", "quiet", "log_format"}
    renamed = {"options": "encoder_options", "tls_no_verify": "tls_verify"}
    parts = {"report_every", "report_keep"}  # fields of `rolling`
    names = {renamed.get(str(one.name), str(one.name)) for one in relay.params} - shared - parts
    assert names == set(get_type_hints(RelayOptions))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_latancy": 1.0}, "unknown option 'max_latancy'; did you mean max_latency"),
        ({"crf": "low"}, "crf is 'low'"),
        ({"retry_max": -1}, "retry_max is -1"),
        ({"max_latency": 0.0}, "max_latency is 0.0"),
    ],
)
def test_wrong_keywords_are_named(options: RelayOptions, words: str) -> None:
    with pytest.raises(vsr.UsageError, match=words):
        vsr.relay("in.flv", "out.flv", **options)
