"""Messages on stderr: text, or one JSON object per line with `--log-format json`."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from vsr.cli.terminal import exit_on_error, log_format, start_logging
from vsr.errors import InputError

ROOT = Path(__file__).parents[2]


def lines(text: str) -> list[dict[str, Any]]:
    """Return the objects of a JSON log."""
    return [json.loads(line) for line in text.splitlines()]


def test_every_event_is_one_object(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    start_logging(form="json")
    # pytest-xdist cannot send a captured log with a lone surrogate to its main process
    monkeypatch.setattr(logging.getLogger("vsr"), "propagate", False)
    log = logging.getLogger("vsr.live.relay")
    log.info("now by %s", "carn-m")
    log.warning('two\nlines, "quotes", \u2028 and \udcff')
    log.debug("not without -v")
    first, second = lines(capsys.readouterr().err)
    moment = datetime.fromisoformat(first.pop("time"))
    assert abs(datetime.now(UTC) - moment) < timedelta(seconds=5)
    assert first == {"level": "info", "logger": "vsr.live.relay", "message": "now by carn-m"}
    assert second["message"] == 'two\nlines, "quotes", \u2028 and \udcff'


@pytest.mark.parametrize("verbose", [False, True])
def test_an_error_is_one_object_with_its_traceback_on_request(
    capsys: pytest.CaptureFixture[str], verbose: bool
) -> None:
    start_logging(verbose, form="json")
    with pytest.raises(SystemExit) as stopped, exit_on_error(verbose):
        raise InputError("no such file: a.mp4")
    assert stopped.value.code == 1
    (line,) = lines(capsys.readouterr().err)
    assert (line["level"], line["message"]) == ("error", "error: no such file: a.mp4")
    assert ("traceback" in line) == verbose
    assert not verbose or "InputError" in line["traceback"]


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_unexpected_error_and_its_traceback_tell_no_stream_key(
    capsys: pytest.CaptureFixture[str], form: str
) -> None:
    start_logging(True, form=form)
    with pytest.raises(SystemExit), exit_on_error(True):
        raise OSError(5, "I/O error", "rtmp://host/live/k3y-of-stream")
    said = capsys.readouterr().err
    assert "Traceback" in said and "unexpected OSError" in said
    assert "rtmp://host/live/***" in said and "k3y-of-stream" not in said


def test_words_for_people_stay_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    start_logging()
    logging.getLogger("vsr.files.job").info("done")
    assert capsys.readouterr().err == "vsr: done\n"


def test_the_option_knows_its_forms() -> None:
    @click.command()
    @log_format
    def command(log_format: str) -> None:
        click.echo(log_format)

    assert CliRunner().invoke(command).output == "text\n"
    assert CliRunner().invoke(command, ["--log-format", "json"]).output == "json\n"
    assert CliRunner().invoke(command, ["--log-format", "xml"]).exit_code == 2


@pytest.mark.parametrize("form", ["json", "text"])
def test_even_the_last_words_have_the_form(form: str) -> None:
    code = (
        "import sys, time; from vsr.cli.terminal import *\n"
        f"start_logging(form={form!r})\n"
        "run_stoppable(lambda stop: (log.info('ready'), time.sleep(9)))"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = [process.stderr.readline()]
        os.kill(process.pid, signal.SIGTERM)
        said.append(process.stderr.readline())
        time.sleep(0.6)
        os.kill(process.pid, signal.SIGTERM)
        said += process.stderr.readlines()
        assert process.wait(5) == 130
    texts = [line["message"] for line in lines("".join(said))] if form == "json" else said
    assert [text.strip() for text in texts] == [
        f"{'' if form == 'json' else 'vsr: '}{words}"
        for words in (
            "ready",
            "stopping after the frames in progress; press Ctrl+C again to stop immediately",
            "error: stopped immediately",
        )
    ]


def test_a_second_signal_at_once_is_the_same_as_the_first() -> None:
    """`timeout` sends the same signal twice: to the process and to its process group."""
    code = (
        "import time; from vsr.cli.terminal import *\n"
        "start_logging()\n"
        "def work(stop): log.info('ready'); stop.wait(9); time.sleep(1); log.info('finished')\n"
        "run_stoppable(work)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "vsr: ready\n"
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            os.kill(process.pid, number)
            time.sleep(0.05)
        assert process.stderr.readlines()[-1] == "vsr: finished\n"
        assert process.wait(5) == 0


LEAVER = """
import atexit, logging, sys, threading
from vsr.cli import main as cli

def end():
    print("done")
    logging.getLogger("vsr").warning("a word")
    sys.exit(3)

logging.basicConfig()
atexit.register(print, "taken down")
if sys.argv[1] == "at work":
    threading.Thread(target=threading.Event().wait, daemon=True).start()
cli.main = end
cli.run_program()
"""


@pytest.mark.parametrize(("threads", "more"), [("at work", ""), ("none", "taken down\n")])
def test_python_is_not_taken_down_around_a_thread_at_work(threads: str, more: str) -> None:
    command = [sys.executable, "-c", LEAVER, threads]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (3, f"done\n{more}")
    assert "a word" in done.stderr
