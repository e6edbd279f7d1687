"""Many files into a folder: a bad file does not stop the others, but sets the exit code."""

import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

import vsr
from tests.clips import Clip, make_clip
from tests.facts import contents
from vsr.cli.main import main
from vsr.errors import BackendError, InputError, ModelError, UsageError
from vsr.files import batch
from vsr.files.batch import Batch, Selection, is_batch
from vsr.files.job import Job
from vsr.files.job_list import JobList, ListedJob
from vsr.files.settings import RunSettings, with_options

SETTINGS = with_options(RunSettings(), model="bicubic", preset="ultrafast", max_frames=4)


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """A folder of three videos, a broken one, a text, a hidden file, and a subfolder with one."""
    folder = tmp_path / "films"
    (folder / "more").mkdir(parents=True)
    clip = make_clip(folder / "a.mp4", Clip(size=(32, 32), frames=6))
    for name in ("b.avi", "b.mkv", "more/c.mp4", ".hidden.mp4"):
        shutil.copy(clip, folder / name)
    (folder / "broken.mp4").write_bytes(clip.read_bytes()[:400])
    (folder / "notes.txt").write_text("no video")
    return folder


def _run(*words: object) -> Result:
    options = ["--model", "bicubic", "--preset", "ultrafast", "--max-frames", "4"]
    return CliRunner().invoke(main, ["run", *map(str, words), *options])


def _names(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_a_bad_file_is_named_and_the_others_are_made(tmp_path: Path, films: Path) -> None:
    target = tmp_path / "large"
    result = _run(films, target)
    assert result.exit_code == 3, result.output
    assert _names(target) == {"a.mp4", "b.avi.mkv", "b.mkv"}
    for name in _names(target):
        assert (contents(target / name).frames, contents(target / name).size) == (4, (64, 64))
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["result", *3 * ["done"], *2 * ["failed"]]
    assert [line.split()[1] for line in lines[1:4]] == ["4", "4", "4"]
    for name, line in zip(("broken.mp4", "notes.txt"), lines[4:], strict=True):
        assert f"{name} is not a video" in line


def test_an_encoder_that_takes_no_such_option_fails_for_its_files_alone(
    tmp_path: Path, films: Path
) -> None:
    make_clip(films / "more" / "d.webm", Clip(codec="libvpx-vp9", audio=(), frames=4))
    result = _run(films / "more", tmp_path / "large")  # VP9 has no preset ultrafast
    assert result.exit_code == 3, result.output
    assert [line.split()[0] for line in result.stdout.splitlines()[1:]] == ["done", "failed"]


@pytest.mark.parametrize("fault", [BackendError("no GPU"), ValueError("a defect\n of ours")])
def test_a_file_that_the_backend_fails_on_does_not_end_the_others(
    tmp_path: Path, films: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    run = Job.run

    def faulty(job: Job) -> vsr.Report:
        if "a.mp4" in job._input:
            raise fault
        return run(job)

    monkeypatch.setattr(Job, "run", faulty)
    job = Batch([films / "a.mp4", films / "b.mkv"], tmp_path / "large", SETTINGS)
    first, second = job.run()
    assert (first.result, second.result, job.exit_code()) == ("failed", "done", 3)
    assert (
        "no GPU" in first.message or "unexpected ValueError: a defect of ours (run" in first.message
    )


def test_a_folder_is_enlarged_by_a_scale_that_the_default_network_has_not(
    tmp_path: Path, films: Path
) -> None:
    settings = with_options(RunSettings(), scale=4, preset="ultrafast", max_frames=1)
    [outcome] = Batch([films / "a.mp4"], tmp_path / "large", settings).run()
    assert (outcome.result, contents(outcome.target).size) == ("done", (128, 128))


def test_all_that_went_well_ends_with_0(tmp_path: Path, films: Path) -> None:
    result = _run(films / "a.mp4", films / "more" / "c.mp4", tmp_path / "large")
    assert result.exit_code == 0, result.output
    assert _names(tmp_path / "large") == {"a.mp4", "c.mp4"}


def test_folders_within_and_patterns(tmp_path: Path, films: Path) -> None:
    target = films / "large"  # a subfolder of the input
    for _ in range(2):
        result = _run(films, target, "--recursive", "--pattern", "[ac].mp4", "--skip-existing")
        assert result.exit_code == 0, result.output
        assert _names(target) == {"a.mp4", "more/c.mp4"}
    assert [line.split()[0] for line in result.stdout.splitlines()[1:]] == ["skipped", "skipped"]


def test_a_folder_within_the_output_folder_is_read(tmp_path: Path, films: Path) -> None:
    result = _run(films, tmp_path, "--pattern", "a.mp4")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "a.mp4").exists()


def test_files_of_the_same_name_keep_their_containers(tmp_path: Path, films: Path) -> None:
    given = [films / "a.mp4", films / "b.avi", films / "b.mkv"]
    for k in (1, 2):
        (films / str(k)).mkdir()
        given.append(Path(shutil.copy(films / "a.mp4", films / str(k))))
    pairs = Batch(given, tmp_path, SETTINGS)._found()
    assert [target.name for _, target in pairs] == [
        "a.mp4", "b.avi.mkv", "b.mkv", "a-2.mp4", "a-3.mp4",
    ]  # fmt: skip


def test_an_output_that_is_there_is_kept(tmp_path: Path, films: Path) -> None:
    target = tmp_path / "large"
    target.mkdir()
    (target / "a.mp4").write_text("mine")
    result = _run(films, target, "--pattern", "a.mp4")
    assert result.exit_code == 3
    assert "the output exists" in result.stdout
    assert (target / "a.mp4").read_text() == "mine"


def test_wrong_settings_end_it_at_once_and_leave_nothing(tmp_path: Path, films: Path) -> None:
    target = tmp_path / "large"
    for changes, error in (({"model": "nonsense"}, UsageError), ({"report": "r.json"}, UsageError)):
        job = Batch([films], target, with_options(SETTINGS, **changes))  # type: ignore[arg-type]
        with pytest.raises((error, ModelError)):
            job.run()
        assert not target.exists()
    result = _run(films, films / "a.mp4", "--pattern", "*.mkv")
    assert result.exit_code == 2
    assert "is a file" in result.output
    result = _run(films, target, "--pattern", "*.none")
    assert result.exit_code == 1
    assert f"no file to upscale in {films} that matches *.none" in result.output
    result = _run(films, films)
    assert result.exit_code == 2
    assert "cannot be OUTPUT too: name another folder" in result.output
    result = _run(films / "a.mp4", films / "b.mkv", tmp_path / "large.mp4")
    assert result.exit_code == 2
    assert "large.mp4 looks like a file" in result.output
    assert not (tmp_path / "large.mp4").exists()


@pytest.mark.parametrize("other", ["http://user:secret@127.0.0.1:9/b.mp4", "-"])
def test_what_is_no_file_is_refused_among_several(
    tmp_path: Path, films: Path, other: str, caplog: pytest.LogCaptureFixture
) -> None:
    result = _run(films / "a.mp4", other, tmp_path / "large")
    assert result.exit_code == 2
    words = result.output + caplog.text
    assert "process it separately, or as a job of --list" in words and "secret" not in words
    assert not (tmp_path / "large").exists()


def test_a_stop_ends_it_after_the_file_under_way(tmp_path: Path, films: Path) -> None:
    stop = threading.Event()
    job = Batch([films], tmp_path / "large", SETTINGS, on_progress=lambda _: stop.set(), stop=stop)
    assert [outcome.source.name for outcome in job.run()] == ["a.mp4"]
    assert job.exit_code() == 130


@pytest.mark.parametrize("segment", [None, 1.0], ids=["the same", "in segments"])
@pytest.mark.parametrize("listed", [False, True], ids=["folder", "list"])
def test_a_file_that_was_stopped_is_made_again(
    tmp_path: Path, segment: float | None, listed: bool
) -> None:
    stop, target = threading.Event(), tmp_path / "large" / "a.mp4"
    (tmp_path / "films").mkdir()
    source = make_clip(tmp_path / "films" / "a.mp4", Clip(size=(32, 32), frames=200))
    settings = replace(SETTINGS, max_frames=None)

    def job(skip: bool, stop: threading.Event, settings: RunSettings) -> Batch | JobList:
        show = None if skip else lambda _: stop.set()
        if listed:
            one = ListedJob(input=str(source), output=str(target), settings=settings)
            return JobList([one], skip, show, stop)
        folders = ([source.parent], target.parent)
        return Batch(*folders, settings, Selection(skip_existing=skip), show, stop)

    [outcome] = job(False, stop, settings).run()
    assert outcome.result == "stopped" and "--skip-existing makes the file again" in outcome.message
    assert 0 < contents(target).frames == outcome.frames < 200  # a playable file
    again = replace(settings, segment=segment)
    assert [o.result for o in job(True, threading.Event(), again).run()] == ["done"]
    assert contents(target).frames == 200
    assert [o.result for o in job(True, threading.Event(), again).run()] == ["skipped"]
    assert _names(target.parent) == {"a.mp4"}


def _stepped(
    stop: threading.Event, steps: list[Callable[[], object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replace the waits between scans of a watched folder: each wait runs the next step."""

    def wait(_seconds: float) -> bool:
        steps.pop(0)()
        return stop.is_set()

    monkeypatch.setattr(stop, "wait", wait)


def test_a_folder_that_is_watched_gives_whole_files_only(
    tmp_path: Path, films: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox, target, stop = tmp_path / "inbox", tmp_path / "large", threading.Event()
    inbox.mkdir()
    shutil.copy(films / "a.mp4", inbox / "early.mp4")
    content = (films / "a.mp4").read_bytes()
    steps: list[Callable[[], object]] = [
        lambda: (inbox / "late.mp4").write_bytes(content[:500]),  # has grown by the next scan
        lambda: (inbox / "late.mp4").write_bytes(content),
        lambda: None,
        lambda: None,
        stop.set,
    ]
    _stepped(stop, steps, monkeypatch)
    monkeypatch.setattr(batch, "_POLL_S", 0)
    job = Batch([inbox], target, SETTINGS, Selection(watch=True), stop=stop)
    assert [(o.source.name, o.result) for o in job.run()] == [
        ("early.mp4", "done"),
        ("late.mp4", "done"),
    ]
    assert job.exit_code() == 0


def test_a_file_that_comes_later_does_not_take_the_output_of_one_before(
    tmp_path: Path, films: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox, stop = tmp_path / "inbox", threading.Event()
    inbox.mkdir()
    shutil.copy(films / "a.mp4", inbox / "x.wmv")
    steps: list[Callable[[], object]] = [
        lambda: None,
        lambda: [shutil.copy(films / "a.mp4", inbox / name) for name in ("x.avi", "x.mkv")],
        lambda: None,
        stop.set,
    ]
    _stepped(stop, steps, monkeypatch)
    settings = replace(SETTINGS, overwrite=True)
    job = Batch([inbox], tmp_path / "large", settings, Selection(watch=True), stop=stop)
    made = {o.source.name: o.target.name for o in job.run()}
    assert made == {"x.wmv": "x.mkv", "x.avi": "x.avi.mkv", "x.mkv": "x-2.mkv"}
    assert _names(tmp_path / "large") == set(made.values())


def test_no_file_is_written_over_another_of_the_inputs(tmp_path: Path, films: Path) -> None:
    mine = films / "c.mp4"
    content = shutil.copy(films / "a.mp4", mine).read_bytes()
    result = _run(films / "more" / "c.mp4", mine, films, "-y")
    assert result.exit_code == 3
    assert [line.split()[0] for line in result.stdout.splitlines()[1:]] == ["failed", "done"]
    assert "is one of the other inputs" in result.stdout
    assert mine.read_bytes() == content


def test_a_folder_of_pictures_is_one_sequence(tmp_path: Path, films: Path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    vsr.upscale(films / "a.mp4", frames / "%03d.png", model="bicubic", max_frames=4)
    result = _run(frames, tmp_path / "out.mp4")
    assert result.exit_code == 0, result.output
    assert contents(tmp_path / "out.mp4").frames == 4


def test_pictures_become_a_video_in_their_own_folder_again(tmp_path: Path, films: Path) -> None:
    frames, receipt = tmp_path / "frames", tmp_path / "receipt.json"
    frames.mkdir()
    vsr.upscale(films / "a.mp4", frames / "%03d.png", model="bicubic", max_frames=4)
    for _ in range(2):
        result = _run(frames, frames / "out.mp4", "-y", "--receipt", receipt)
        assert result.exit_code == 0, result.output
        assert contents(frames / "out.mp4").frames == 4
    assert receipt.exists()
    assert _run(frames, tmp_path / "out.mp4").exit_code == 2  # of a video among pictures


@pytest.fixture
def with_poster(films: Path) -> Path:
    """The folder of videos, with a picture."""
    (films / "broken.mp4").unlink()
    (films / "notes.txt").unlink()
    Image.new("RGB", (32, 32)).save(films / "poster.jpg")
    return films


@pytest.mark.parametrize("options", [(), ("--skip-existing",), ("--recursive",)], ids=str)
def test_a_picture_among_videos_is_left_out_with_a_note(
    tmp_path: Path, with_poster: Path, options: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    result = _run(with_poster, tmp_path / "large", *options)
    assert result.exit_code == 0, result.output
    more = {"more/c.mp4"} if "--recursive" in options else set()
    assert _names(tmp_path / "large") == {"a.mp4", "b.avi.mkv", "b.mkv"} | more
    assert caplog.text.count("poster.jpg of ") == 1


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_of_videos_and_pictures_does_not_become_a_file(
    tmp_path: Path, with_poster: Path, exists: bool, caplog: pytest.LogCaptureFixture
) -> None:
    target = tmp_path / "out.mp4"
    if exists:
        target.touch()
    result = _run(with_poster, target)
    assert result.exit_code == 2
    assert "a folder of videos require a folder as OUTPUT" in result.output + caplog.text
    assert target.exists() == exists
    with pytest.raises(InputError, match="is a folder, not a video file"):
        vsr.upscale(with_poster, target, model="bicubic", overwrite=True)


def test_pictures_that_are_named_become_pictures(tmp_path: Path, with_poster: Path) -> None:
    large, poster = tmp_path / "large", with_poster / "poster.jpg"
    settings = with_options(RunSettings(), model="bicubic", max_frames=4)
    job = Batch([with_poster / "a.mp4", poster], large, settings)
    assert [outcome.result for outcome in job.run()] == ["done", "done"]
    assert _names(large) == {"a.mp4", "poster.jpg"}
    with Image.open(large / "poster.jpg") as image:
        assert (image.size, image.format) == ((64, 64), "JPEG")
    assert is_batch([str(poster.parent)], Selection(pattern="*.jpg"))
    job = Batch([poster.parent], tmp_path / "other", settings, Selection(pattern="*.jpg"))
    assert [outcome.target.name for outcome in job.run()] == ["poster.jpg"]


# lists of jobs


def _list(tmp_path: Path, text: str, *words: object) -> Result:
    path = tmp_path / "jobs.toml"
    path.write_text(text, "utf-8")
    return CliRunner().invoke(main, ["run", "--list", str(path), *map(str, words)])


def test_a_list_of_jobs_with_their_own_settings(tmp_path: Path, films: Path) -> None:
    text = f"""
        model = "bicubic"
        preset = "ultrafast"
        [[job]]
        input = "{films / "a.mp4"}"
        output = "{tmp_path / "large" / "a.mkv"}"
        scale = 3
        max-frames = 4
        e = ["g=2", "bf=0"]
        [[job]]
        input = "{films / "notes.txt"}"
        output = "{tmp_path / "large" / "notes.mkv"}"
        [[job]]
        input = "{films / "b.mkv"}"
        output = "{tmp_path / "large" / "b.mp4"}"
        model = "no-such-model"
        [[job]]
        input = "{films / "b.mkv"}"
        output = "{tmp_path / "b.mp4"}"
    """
    result = _list(tmp_path, text)
    assert result.exit_code == 3, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [line[0] for line in lines] == ["result", "done", "failed", "failed", "done"]
    assert [line[1] for line in lines[1:]] == ["4", "0", "0", "6"]
    assert contents(tmp_path / "large" / "a.mkv").size == (96, 96)
    assert contents(tmp_path / "b.mp4").size == (64, 64)
    again = _list(tmp_path, text, "--skip-existing")
    assert [line.split()[0] for line in again.stdout.splitlines()[1::3]] == ["skipped", "skipped"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "contains no job"),
        ("job", "not a valid TOML file"),
        ("[[job]]\ninput = 'a.mp4'", "job 1: 'input' and 'output' must be file names"),
        ("[[job]]\ninput = 'a'\noutput = 'b.mp4'\nsize = 4", "job 1: No such option '--size'"),
        ("[[job]]\ninput = 'a'\noutput = 'b.mp4'\nscale = 'x'", "job 1: "),
        ("[[job]]\ninput = 'a'\noutput = 'b.mp4'\nwatch = true", "'watch' is not a setting"),
        ("[[job]]\ninput = 'a'\noutput = 'b.mp4'\nq = true", "'q' is not a setting"),
        ("[[job]]\ninput = 'a'\noutput = 'b.mp4'\no = 'c.mp4'", "'o' is not a setting"),
        (2 * "[[job]]\ninput = 'a'\noutput = 'b.mp4'\n", "two jobs have the same output: b.mp4"),
        (
            "[[job]]\ninput = 'a'\noutput = 'b.mp4'\n[[job]]\ninput = 'a'\noutput = './b.mp4'",
            "two jobs have the same output: ./b.mp4",
        ),
        (
            "report = 'r.json'\n[[job]]\ninput = 'a'\noutput = 'b.mp4'\n"
            "[[job]]\ninput = 'a'\noutput = 'c.mp4'",
            "two jobs have the same report: r.json",
        ),
        (
            "[[job]]\ninput = 'a'\noutput = 'b.mp4'\nreport = 'r.csv'\n"
            "[[job]]\ninput = 'a'\noutput = 'c.mp4'\nreport = 'r.html'",
            "two jobs have the same receipt: r.receipt.json",
        ),
    ],
)
def test_a_wrong_list_is_refused_before_the_first_job(
    tmp_path: Path, text: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    result = _list(tmp_path, text)
    assert result.exit_code == 2
    assert words in result.output + caplog.text


def test_settings_beside_a_list_are_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for given, name in ((("--max-frames", "3"), "--max-frames"), (("in.mp4",), "INPUT, OUTPUT")):
        result = _list(tmp_path, "[[job]]\ninput = 'a'\noutput = 'b.mp4'", *given)
        assert result.exit_code == 2
        assert f"with --list, set {name} in" in result.output + caplog.text
