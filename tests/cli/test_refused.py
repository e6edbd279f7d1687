"""Options that another option makes meaningless are refused in one line, before any work."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.clips import Clip, make_clip
from vsr.cli.main import main
from vsr.errors import EXIT_USAGE

WITHOUT_MODELS = "applies only to the excerpt of --models"
PRESET = "exclude each other, as twitch requires a bitrate: leave out"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_clip(tmp_path_factory.mktemp("clips") / "in.mp4", Clip(frames=4)))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("compare IN IN --at 1", f"--at {WITHOUT_MODELS}"),
        ("compare IN IN --seconds 1", f"--seconds {WITHOUT_MODELS}"),
        ("compare IN IN --scale 4", f"--scale {WITHOUT_MODELS}"),
        ("compare IN --models dcscn --align", "--align cannot be combined with --models"),
        ("compare IN --models rt --max-frames 2", "--max-frames cannot be combined with --models"),
        ("compare IN --models nope", "unknown model 'nope'"),
        ("run IN OUT --detelecine --deinterlace bob", "--detelecine and --deinterlace bob exclude"),
        ("run IN OUT -q -v", "--verbose and --quiet exclude each other: use one of them"),
        ("relay IN OUT -q -v", "--verbose and --quiet exclude each other: use one of them"),
        ("relay IN OUT --stream-preset twitch --crf 20", f"--crf and --stream-preset {PRESET}"),
        ("relay IN OUT --stream-preset twitch -e qp=20", f"of -e and --stream-preset {PRESET}"),
        ("run IN OUT --model bicubic --speed best", "--speed selects a network: leave it out with"),
        ("plan IN --model bicubic --speed best", "--speed selects the recommended network: leave"),
        ("relay IN OUT --report-every 3", "--report-every has no effect without --report"),
        ("relay IN OUT --report-keep 3", "--report-keep has no effect without --report"),
        ("relay IN OUT --health-after 3", "--health-after has no effect without --status"),
        ("relay IN OUT --enhanced-rtmp", "--enhanced-rtmp has no effect without an output at rtmp"),
        ("relay rtmp://h/a/k OUT --listen --variant 2", "--variant works only with playlists"),
        ("doctor --filters --json", "--filters is a table only: leave out --json"),
        ("run IN OUT --model bicubic -c ffv1 --crf 3", "it is lossless): leave out --crf"),
        ("run IN OUT --model bicubic -c ffv1 --bitrate 4M", "it is lossless): leave out --bitrate"),
        ("run IN OUT --model bicubic -c prores --crf 3", "-e profile=): leave out --crf"),
        ("relay IN OUT OUT", "is given twice as an output: leave one out"),
        ("relay IN IN", "input and output are the same: the relay would read its own output"),
    ],
)
def test_what_has_no_effect_is_a_usage_error(
    clip: str, tmp_path: Path, command: str, words: str
) -> None:
    names = {"IN": clip, "OUT": str(tmp_path / "out.mkv")}
    done = CliRunner().invoke(main, [names.get(word, word) for word in command.split()])
    assert done.exit_code == EXIT_USAGE
    assert words in done.stderr
    assert done.stderr.count("\n") == 1  # nothing was upscaled before
    assert not list(tmp_path.iterdir())


def test_a_quality_with_a_limit_suits_a_service(clip: str, tmp_path: Path) -> None:
    words = ["--stream-preset", "twitch", "--crf", "30", "--maxrate", "2M", "--model", "bicubic"]
    done = CliRunner().invoke(main, ["relay", clip, str(tmp_path / "out.mkv"), *words])
    assert done.exit_code == 0, done.stderr


def test_a_video_is_no_slate(clip: str, tmp_path: Path) -> None:
    words = ["relay", clip, str(tmp_path / "out.mkv"), "--slate", clip]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 1
    assert f"the slate {clip} is a video, and only an image is shown: save" in done.stderr


def test_pictures_are_advised_for_their_format(clip: str, tmp_path: Path) -> None:
    for name, advice in (("out.png", "leave them out"), ("out.jpg", "use -e quality=90")):
        words = ["run", clip, str(tmp_path / name), "--max-frames", "1", "--crf", "3"]
        done = CliRunner().invoke(main, words)
        assert done.exit_code == EXIT_USAGE
        assert done.stderr.endswith(f"pictures have no codec, crf, preset or bitrate: {advice}\n")
