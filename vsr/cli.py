"""The command line: parse, call, print, exit code; no logic of its own."""

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import click

from vsr.errors import EXIT_FAILED, EXIT_INTERRUPTED, VsrError
from vsr.version import __version__

log = logging.getLogger("vsr")
T = TypeVar("T")
_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vsr")
def main() -> None:
    """Real-time super-resolution for video files and streams."""
    os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder prints a banner otherwise


def _verbosity(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option("-v", "--verbose", is_flag=True, help="More words, and tracebacks.")(
        command
    )
    return click.option("-q", "--quiet", is_flag=True, help="Only errors.")(command)


def _start_logging(verbose: bool, quiet: bool) -> None:
    level = logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO
    handler = logging.StreamHandler(sys.stderr)
    clear = "\r\x1b[K" if sys.stderr.isatty() else ""  # the progress line stands there
    handler.setFormatter(logging.Formatter(f"{clear}vsr: %(message)s"))
    root = logging.getLogger("vsr")
    root.handlers[:] = [handler]
    root.setLevel(level)


@contextmanager
def _errors_shown(verbose: bool) -> Iterator[None]:
    """End the program with one line and the error's exit code instead of a traceback."""
    try:
        yield
    except VsrError as exc:
        _fail(str(exc), exc.exit_code, verbose)
    except Exception as exc:  # a defect of ours: still one line, and how to report it
        text = f"unexpected {type(exc).__name__}: {exc} (run with -v for details, and report it)"
        _fail(" ".join(text.split()), EXIT_FAILED, verbose)


def _fail(message: str, code: int, verbose: bool) -> None:
    log.error("error: %s", message, exc_info=verbose)
    sys.exit(code)


def _stopping_on_signals(work: Callable[[threading.Event], T], part: Path) -> T:
    """Do `work` on a thread, so that signals are heard even while an encoder drains.

    The first SIGINT, SIGTERM or SIGHUP sets the event; the second removes `part` and ends the
    process.
    """
    stop = threading.Event()
    heard: list[int] = []
    outcome: Future[T] = Future()

    def handle(number: int, _frame: FrameType | None) -> None:
        # no lock may be taken here: this thread may hold it where the signal found it
        heard.append(number)
        if len(heard) > 1:
            part.unlink(missing_ok=True)
            os.write(2, b"vsr: error: stopped at once; nothing was written\n")
            os._exit(EXIT_INTERRUPTED)

    def run_work() -> None:
        try:
            outcome.set_result(work(stop))
        except BaseException as exc:  # raised again by the waiting thread
            outcome.set_exception(exc)

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    worker = threading.Thread(target=run_work, name="job", daemon=True)
    worker.start()
    try:
        while worker.is_alive():
            worker.join(0.1)  # wakes for signals, which only this thread hears
            if heard and not stop.is_set():
                log.warning("stopping after the frames under way; once more stops at once")
                stop.set()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return outcome.result()


class _Option(click.ParamType[tuple[str, str]]):
    name = "KEY=VALUE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        key, found, text = str(value).partition("=")
        if not found or not key:
            self.fail(f"'{value}' is not of the form KEY=VALUE", param, ctx)
        return key, text


def _named_or_flagged(flagged: str | None, positional: str | None, what: str) -> str:
    if bool(flagged) == bool(positional):
        raise click.UsageError(
            f"give one {what} (a name that begins with '-' needs './' before it)"
        )
    return flagged or positional or ""


@main.command("run")
@click.argument("paths", nargs=-1, metavar="INPUT OUTPUT")
@click.option("-i", "--input", "input_", metavar="INPUT", help="The same as the first argument.")
@click.option("-o", "--output", metavar="OUTPUT", help="The same as the second argument.")
@click.option("-m", "--model", help="A name of `vsr models`, or any super-resolution .onnx file.")
@click.option(
    "-s",
    "--scale",
    type=click.IntRange(1),
    help="Enlargement. Default: 2, or the .onnx file's own.",
)
@click.option("--backend", default="auto", show_default=True, help="auto or openvino.")
@click.option("-d", "--device", help="OpenVINO's name: CPU, GPU, NPU ... Default: CPU.")
@click.option("-c", "--codec", help="h264 (default), hevc, av1, vp9 or an FFmpeg encoder.")
@click.option("--crf", type=click.IntRange(0), help="Constant quality; lower is better.")
@click.option("--preset", help="The encoder's speed preset.")
@click.option("-e", "options", type=_Option(), multiple=True, help="An encoder option. Repeatable.")
@click.option("--start-frame", type=click.IntRange(0), default=0, help="Skip frames before this.")
@click.option("--max-frames", type=click.IntRange(1), help="Stop after so many frames.")
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    help="Write the latency of every frame: .json or .csv.",
)
@click.option("-y", "overwrite", is_flag=True, help="Replace an existing output.")
@click.option(
    "--progress",
    type=click.Choice(["auto", "none", "json"]),
    default="auto",
    help="json: one object a line on stdout.",
)
@_verbosity
def run(
    paths: tuple[str, ...], input_: str | None, output: str | None,
    model: str | None, scale: int | None, backend: str, device: str | None,
    codec: str | None, crf: int | None, preset: str | None, options: tuple[tuple[str, str], ...],
    start_frame: int, max_frames: int | None, report: Path | None,
    overwrite: bool, progress: str, verbose: bool, quiet: bool,
) -> None:  # fmt: skip
    """Upscale the video INPUT into OUTPUT, with its sound and everything else it holds.

    Example: vsr run in.mp4 out.mp4 --model carn-m
    """
    from vsr import models
    from vsr.encoder import EncoderSettings
    from vsr.job import Job, Settings
    from vsr.pipeline import Window
    from vsr.progress import shower
    from vsr.sink import part_path

    names = iter(paths)
    source = _named_or_flagged(input_, None if input_ else next(names, None), "INPUT")
    target = _named_or_flagged(output, None if output else next(names, None), "OUTPUT")
    if next(names, None) is not None:
        raise click.UsageError("more than one INPUT and one OUTPUT given")
    _start_logging(verbose, quiet)
    settings = Settings(
        model=model or models.DEFAULT,
        scale=scale,
        backend=backend,
        device=device,
        encoder=EncoderSettings(codec=codec, crf=crf, preset=preset, options=dict(options)),
        window=Window(start=start_frame, count=max_frames),
        overwrite=overwrite,
        report=report,
    )
    show = shower("none" if quiet and progress == "auto" else progress)
    with _errors_shown(verbose):
        result = _stopping_on_signals(
            lambda stop: Job(source, Path(target), settings, show, stop).run(),
            part_path(Path(target)),
        )
        for line in result.closing_words():
            log.warning(line)
        sys.exit(result.exit_code)


@main.command("models")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def list_models(as_json: bool) -> None:
    """List the networks that --model knows."""
    from vsr import models

    _start_logging(verbose=False, quiet=False)
    with _errors_shown(verbose=False):
        click.echo(json.dumps(models.catalogue(), indent=1) if as_json else models.table())


@main.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def examine(as_json: bool) -> None:
    """Say what this machine has, and what is missing."""
    from vsr import doctor

    _start_logging(verbose=False, quiet=False)
    with _errors_shown(verbose=False):
        findings = doctor.examine()
    click.echo(
        json.dumps(doctor.as_json(findings), indent=1) if as_json else doctor.as_text(findings)
    )
    sys.exit(0 if all(f.works for f in findings if f.needed) else EXIT_FAILED)


if __name__ == "__main__":
    main()
