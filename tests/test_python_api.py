"""Tests of the public API: names exist and load lazily, and examples in docs/python.md run."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vsr
from tests.clips import Clip, make_clip
from tests.facts import contents

ROOT = Path(__file__).parents[1]
LIGHT = "import vsr, sys; {}; print(*(m for m in {} if m in sys.modules))"
LATE = ["openvino", "http.server", "prometheus_client", "jinja2", "cuda", "torch"]
HEAVY = ["av", "numpy", "onnx", *LATE, "filelock", "click"]


def test_public_names_are_sorted_and_all_there() -> None:
    assert vsr.__all__ == sorted(vsr.__all__)
    assert [name for name in vsr.__all__ if not hasattr(vsr, name)] == []
    assert set(vsr.__all__) < set(dir(vsr))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'upscal'"):
        vsr.upscal  # noqa: B018


@pytest.mark.parametrize(
    ("used", "absent"),
    [
        ("vsr.__version__", HEAVY),
        ("import vsr.cli.main", HEAVY[:-1]),
        ("vsr.upscale, vsr.relay, vsr.frames, vsr.load_engine", LATE),
    ],
)
def test_libraries_are_loaded_when_they_are_used(used: str, absent: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIGHT.format(used, absent)], cwd=ROOT, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == ""


def test_the_examples_of_the_page_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_clip(tmp_path / "in.mp4", Clip(size=(64, 48), frames=6))
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    runnable = [block for block in blocks if not block.startswith("# not run here")]
    assert len(runnable) == len(blocks) - 1 == 4
    names: dict[str, object] = {}
    for block in runnable:
        exec(block, names)
    assert capsys.readouterr().out.startswith("6 ")
    by_hand = contents(tmp_path / "by_hand.mp4")
    assert by_hand.packets[1] == contents(tmp_path / "in.mp4").packets[1]
    assert (by_hand.frames, by_hand.size) == (6, (128, 96))
    assert contents(tmp_path / "hevc.mkv").frames == 5
    assert [names[n].shape for n in ("big", "deep", "many")] == [  # type: ignore[attr-defined]
        (96, 128, 3), (96, 128, 3), (2, 96, 128, 3),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"max_frames": 0}, "max_frames is 0: it must be 1 or more"),
        ({"batch": 0}, "batch is 0: it must be 1 or more"),
        ({"start_frame": -1}, "start_frame is -1: it must be 0 or more"),
        ({"scale": 0}, "scale is 0: it must be 1 or more"),
    ],
)
def test_numbers_out_of_range_are_usage_errors(wrong: dict[str, int], words: str) -> None:
    with pytest.raises(vsr.UsageError, match=words):
        vsr.upscale("in.mp4", "out.mp4", **wrong)  # type: ignore[arg-type]
    with pytest.raises(vsr.UsageError, match=words):
        vsr.RunSettings(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("RunSettings", {"scale": "2"}, "scale is '2': it must be a whole number or None"),
        ("RunSettings", {"scale": True}, "scale is True: it must be a whole number or None"),
        ("RunSettings", {"overwrite": "no"}, "overwrite is 'no': it must be True or False"),
        ("RunSettings", {"fps": 0}, "fps is 0: it must be more than 0"),
        ("RunSettings", {"report": "r.json"}, "report is 'r.json': it must be a Path or None"),
        ("RunSettings", {"encoder": {}}, "encoder is {}: it must be vsr.EncoderSettings"),
        ("EncoderSettings", {"options": {"bf": 2}}, "it must be a mapping of text to text"),
        ("EncoderSettings", {"bitrate": -5}, "bitrate is -5: it must be 1 or more"),
        ("EncoderSettings", {"analysis": (1,)}, "must be a tuple of .a whole number, text. or"),
        ("RelaySettings", {"ladder": "bicubic"}, "ladder is 'bicubic': it must be a tuple of"),
        ("RelaySettings", {"max_latency": float("nan")}, "max_latency is nan: it must be"),
        ("RelaySettings", {"stream_preset": "x"}, "stream_preset is 'x': it must be one of"),
        ("IngestSettings", {"retry_max": -1}, "retry_max is -1: it must be 0 or more"),
        ("upscale", {"input": "a", "output": "b", "settings": {}}, "it must be vsr.RunSettings"),
        ("relay", {"input": "a", "outputs": "b", "settings": {}}, "it must be vsr.RelaySettings"),
        ("load_engine", {"model": 3, "size": (8, 8)}, "model is 3: it must be text"),
        ("load_engine", {"model": "bicubic", "size": 8}, "size is 8: it must be a tuple of"),
        ("load_engine", {"size": (8, 8), "device": 0}, "device is 0: it must be text or None"),
    ],
)
def test_values_of_another_type_are_usage_errors(name: str, given: Any, words: str) -> None:
    with pytest.raises(vsr.UsageError, match=words):
        getattr(vsr, name)(**given)


def test_what_stands_for_a_type_is_taken() -> None:
    given: Any = {"max_frames": np.int64(3), "fps": 25, "segment": 2, "report": Path("r.json")}
    assert vsr.RunSettings(**given).max_frames == 3
    vsr.EncoderSettings(analysis=(1, "stats"), options={"bf": "2"})
    vsr.RelaySettings(ladder=("a", "b"), slate_after=0, slate=Path("s.png"))


def test_keywords_win_over_settings() -> None:
    from vsr.files.settings import with_options

    encoder = vsr.EncoderSettings(codec="hevc", crf=30)
    settings = vsr.RunSettings(model="carn-m", encoder=encoder)
    changed = with_options(settings, model="dcscn", crf=20, encoder_options={"tune": "film"})
    assert (changed.model, changed.encoder.codec) == ("dcscn", "hevc")
    assert (changed.encoder.crf, changed.encoder.options) == (20, {"tune": "film"})
    assert with_options(settings) == settings


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"overwrit": True}, "unknown option 'overwrit'; did you mean overwrite"),
        ({"max_frame": 3}, "unknown option 'max_frame'; did you mean max_frames"),
        ({"xyzzy": 3}, "unknown option 'xyzzy'; known: audio, backend, .*start_frame"),
    ],
)
def test_unknown_keywords_are_usage_errors_with_those_that_look_like_them(
    wrong: dict[str, int], words: str
) -> None:
    with pytest.raises(vsr.UsageError, match=words):
        vsr.upscale("in.mp4", "out.mp4", **wrong)  # type: ignore[arg-type]


def test_a_batch_that_has_no_effect_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    assert list(vsr.upscale_frames([], model="bicubic", backend="openvino", batch=4)) == []
    with vsr.load_engine("bicubic", backend="openvino", size=(8, 8), batch=1):
        pass
    assert [r.message for r in caplog.records if "batch 4 has no effect" in r.message] == [
        r.message for r in caplog.records
    ]
    assert len(caplog.records) == 1
