"""The command line as users see it: messages, numbers, signals, exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.clips import Clip, make_clip
from tests.facts import contents
from vsr import __version__
from vsr.cli.main import main
from vsr.cli.network_options import DEFAULT_LOOK
from vsr.cli.progress import progress_json, progress_line, progress_printer
from vsr.files.progress import Progress
from vsr.files.settings import RunSettings
from vsr.inference import models
from vsr.inference.look import model_name_for
from vsr.inference.models import WHY_DEFAULT

FFMPEG_KEYS = ["frame", "fps", "out_time_us", "drop_frames", "dup_frames", "speed", "progress"]


def test_run_with_positions_and_with_flags(tmp_path: Path) -> None:
    clip = str(make_clip(tmp_path / "in.mp4", Clip()))
    common = ["--model", "bicubic", "--preset", "ultrafast"]
    one = CliRunner().invoke(main, ["run", clip, str(tmp_path / "a.mp4"), *common])
    two = CliRunner().invoke(main, ["run", "-i", clip, "-o", str(tmp_path / "b.mp4"), *common])
    three = CliRunner().invoke(main, ["run", "-i", clip, str(tmp_path / "c.mp4"), *common])
    assert [r.exit_code for r in (one, two, three)] == [0, 0, 0], one.output + two.output
    assert {contents(tmp_path / f"{n}.mp4").frames for n in "abc"} == {12}


@pytest.mark.parametrize("command", ["run", "relay"])
def test_the_codec_may_be_named_as_for_ffmpeg(tmp_path: Path, command: str) -> None:
    clip = str(make_clip(tmp_path / "in.mp4", Clip(frames=2)))
    words = [command, clip, str(tmp_path / "out.mkv"), "--model", "bicubic", "-c:v", "nonsense"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert "unknown codec 'nonsense'" in result.output


def test_the_default_network_runs(tmp_path: Path) -> None:
    clip = str(make_clip(tmp_path / "in.mp4", Clip()))
    result = CliRunner().invoke(main, ["run", clip, str(tmp_path / "out.mp4")])
    assert result.exit_code == 0, result.output
    assert contents(tmp_path / "out.mp4").size == (128, 96)


def test_json_progress_has_ffmpegs_keys_and_goes_to_stdout(tmp_path: Path) -> None:
    clip = str(make_clip(tmp_path / "in.mp4", Clip()))
    words = ["run", clip, str(tmp_path / "out.mp4"), "--model", "bicubic", "--progress", "json"]
    result = CliRunner().invoke(main, words)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [list(line) for line in lines] == [FFMPEG_KEYS] * len(lines)
    assert [line["progress"] for line in lines[:-1]] == ["continue"] * (len(lines) - 1)
    assert lines[-1]["progress"] == "end"
    assert lines[-1]["frame"] == 12


def test_the_progress_line_says_how_far_and_how_long() -> None:
    halfway = Progress(frames=50, total=100, position=2.0, elapsed=4.0)
    assert progress_line(halfway) == " 50% 50/100 frames  12.5 fps  0.50x  left 0:04"
    unknown = Progress(frames=50, total=0, position=2.0, elapsed=4.0)
    assert progress_line(unknown) == "50 frames  12.5 fps  0.50x"
    done = Progress(frames=100, total=100, position=4.0, elapsed=8.0, finished=True)
    assert progress_line(done) == "done 100 frames in 0:08  12.5 fps  0.50x"
    assert json.loads(progress_json(done))["out_time_us"] == 4_000_000


def test_progress_is_silent_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    progress_printer("auto")(Progress(frames=1, total=1, position=1, elapsed=1, finished=True))
    assert capsys.readouterr() == ("", "")


def test_version_and_help() -> None:
    assert __version__ in CliRunner().invoke(main, ["--version"]).output
    for words in (["-h"], ["run", "-h"], ["models", "-h"], ["doctor", "-h"]):
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 0
        assert "Usage:" in result.output


def test_models_lists_every_network_and_scale() -> None:
    text = CliRunner().invoke(main, ["models"])
    data = CliRunner().invoke(main, ["models", "--json"])
    assert text.exit_code == data.exit_code == 0
    entries = {(e["model"], e["scale"]) for e in json.loads(data.output)}
    assert {("c-dcscn", 2), ("bicubic", 8)} <= entries
    assert all(model in text.output for model, _ in entries)


def test_models_says_what_each_is_good_for_and_which_is_taken_and_why() -> None:
    text = CliRunner().invoke(main, ["models"]).output
    entries = json.loads(CliRunner().invoke(main, ["models", "--json"]).output)
    uses = {e["model"]: e["good_for"] for e in entries}
    assert uses["c-dcscn"] == "film, clean"
    assert uses["c-dcscn-stream"] == "compressed stream"
    for line in text.splitlines():
        if words := line.split():
            assert line.endswith(uses.get(words[0], ""))
    [default] = {e["model"] for e in entries if e["default"]}
    assert text.splitlines()[1].split()[0] == default == model_name_for(RunSettings().model, None)
    assert f"Other inputs use {default}:\n{WHY_DEFAULT}.\n" in text
    assert "`vsr run` uses the best that is fast enough here for its file" in text


def test_models_come_as_it_is_said_the_default_first_then_by_work() -> None:
    entries = json.loads(CliRunner().invoke(main, ["models", "--json"]).output)
    least: dict[str, int] = {}
    for e in entries:
        work = e["multadds_720p"] or 10**15  # bicubic, which has none, comes last
        least[e["model"]] = min(work, least.get(e["model"], work))
    default, *others = least
    assert default == model_name_for(RunSettings().model, None)
    assert others == sorted(others, key=lambda name: (least[name], name))


def test_doctor_finds_what_run_needs() -> None:
    text = CliRunner().invoke(main, ["doctor"])
    data = CliRunner().invoke(main, ["doctor", "--json"])
    assert text.exit_code == data.exit_code == 0, text.output
    findings = {f["what"]: f for f in json.loads(data.output)["findings"]}
    assert findings["inference"]["works"]
    assert "pip install" in findings["tensorrt"]["remedy"]
    assert findings["encoder h264"]["works"]
    assert "c-dcscn x2" in findings["networks"]["detail"]
    assert "Unknown error" not in text.output


def start(*words: object) -> subprocess.Popen[str]:
    """Start the real program in a separate process."""
    command = [sys.executable, "-m", "vsr", "run", *map(str, words)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )


def long_clip(folder: Path) -> Path:
    """Write a clip of 4,000 frames: long enough for a signal to arrive before its end."""
    clip = Clip(size=(320, 240), frames=50, audio=(), options={"bf": "0"})
    small = make_clip(folder / "small.ts", clip).read_bytes()
    target = folder / "in.ts"
    target.write_bytes(small * 80)
    return target


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_leaves_a_playable_file(tmp_path: Path, number: int) -> None:
    clip = long_clip(tmp_path)
    process = start(clip, tmp_path / "out.mp4", "--model", "c-dcscn", "--progress", "json")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["frame"] >= 1
    process.send_signal(number)
    _, words = process.communicate(timeout=60)
    assert process.returncode == 130, words
    found = contents(tmp_path / "out.mp4")
    assert 1 <= found.frames < 4000
    assert f"--start-frame {found.frames}" in words
    assert {p.name for p in tmp_path.iterdir()} == {"in.ts", "small.ts", "out.mp4"}


@pytest.mark.parametrize(
    ("words", "code"), [("models", 0), ("models --json", 0), ("doctor", 0), ("--help", 1)]
)
def test_nobody_reads_what_is_printed(words: str, code: int) -> None:
    """As in `vsr models | true`: no message, no traceback. Click's exit code for `--help` is 1."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "vsr", *words.split()]
    try:
        done = subprocess.run(
            command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, timeout=60
        )
    finally:
        os.close(writer)
    assert done.stderr == ""
    assert done.returncode == code


def test_a_listener_that_leaves_does_not_stop_the_run(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.mp4", Clip(frames=60))
    process = start(clip, tmp_path / "out.mp4", "--model", "bicubic", "--progress", "json")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    words = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 0, words
    assert contents(tmp_path / "out.mp4").frames == 60


@pytest.mark.parametrize("many", [False, True])
def test_the_second_signal_stops_at_once_and_leaves_nothing(tmp_path: Path, many: bool) -> None:
    clip = long_clip(tmp_path)
    folder = tmp_path / "large" if many else tmp_path
    ends = [tmp_path / "small.ts", folder] if many else [folder / "out.mp4"]
    # a slow encoder with a deep look-ahead: the flush after the first signal takes a while
    slow = ["--model", "bicubic", "--scale", "4", "--preset", "placebo"]
    process = start(clip, *ends, *slow, "--progress", "json")
    assert process.stdout is not None and process.stderr is not None
    while not list(folder.glob(".*.part*")):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    while "stopping" not in process.stderr.readline():  # with many inputs, each file is logged
        pass
    process.send_signal(signal.SIGSTOP)  # a fast machine could finish before the second signal
    time.sleep(0.6)  # less would count as the same signal
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    for _ in range(2):  # a third and fourth signal change nothing
        process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=60)
    assert process.returncode == 130, words
    assert "not written" in words or "nothing was written" in words
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} == {"in.ts", "small.ts"}


def test_what_a_killed_run_left_is_deleted_by_the_next(tmp_path: Path) -> None:
    clip, out = long_clip(tmp_path), tmp_path / "out[1].mp4"
    slow = ["--model", "bicubic", "--scale", "4", "--preset", "placebo", "--segment", "0"]
    process = start(clip, out, *slow)
    while not (left := list(tmp_path.glob(".*.part*"))):
        time.sleep(0.05)
    process.kill()
    process.communicate(timeout=60)
    [dead] = left
    ours = dead.name.replace(str(process.pid), str(os.getpid()))  # a process that still runs
    others = {
        ours,
        dead.name.replace("out[1]", "out1"),
        f"{dead.name}.txt",
        dead.name.replace(dead.name.split("-")[1].split(".")[0], "another"),
    }
    for name in others:
        (tmp_path / name).touch()
    process = start(clip, out, "--model", "bicubic", "--max-frames", "2", "--preset", "ultrafast")
    _, words = process.communicate(timeout=60)
    assert process.returncode == 0, words
    assert f"deleted {dead}, which a killed run left" in words
    assert {p.name for p in tmp_path.iterdir()} == {"in.ts", out.name, "small.ts"} | others


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "a.mp4", "b.mp4", "--crf", "abc"], "'--crf': 'abc' is not a whole number"),
        (["relay", "a", "b", "--retry-delay", "abc"], "'--retry-delay': 'abc' is not a number"),
        (["run", "a.mp4", "b.mp4", "--batch", "0"], "0 is not in the range x>=1"),
        (["plan", "--size", "64x36", "--seconds", "nan"], "'--seconds': 'nan' is not a number"),
        (["compare", "a", "b", "--seconds", "inf"], "'--seconds': 'inf' is not a number"),
    ],
)
def test_what_is_no_number_is_called_so(words: list[str], said: str) -> None:
    result = CliRunner().invoke(main, words)
    assert (result.exit_code, said in result.output) == (2, True), result.output


def test_a_wrong_preset_is_one_line_and_a_usage_error(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.mp4", Clip(frames=1))
    words = ["--preset", "warp", "--model", "bicubic", "--progress", "none"]
    process = start(clip, tmp_path / "out.mp4", *words)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    (line,) = err.splitlines()
    assert "no preset 'warp'; it has: ultrafast," in line


def test_the_help_names_the_scales_of_sharp_networks() -> None:
    """Reading the manifest for it would slow down every start."""
    assert DEFAULT_LOOK.endswith(" or ".join(map(str, models.sharp_scales())))
