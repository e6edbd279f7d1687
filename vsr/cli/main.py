"""The command `vsr`: parses options, calls the library, sets the exit code; no other logic."""

import logging
import os
import sys
from pathlib import Path
from typing import Any

import click

from vsr.cli.build_engine import build_engine
from vsr.cli.cluster import cluster
from vsr.cli.compare import compare
from vsr.cli.encoder_options import preset_options, rate_options
from vsr.cli.given import refuse
from vsr.cli.many import run_list, run_many, selection_options
from vsr.cli.network_options import DEFAULT_LOOK, flicker_option, look_option
from vsr.cli.numbers import WholeNumber, byte_size
from vsr.cli.plan import plan
from vsr.cli.relay import relay
from vsr.cli.segment_options import own_stdout, sharing_options
from vsr.cli.streams import open_missing
from vsr.cli.tables import examine, list_models
from vsr.cli.terminal import (
    exit_on_error,
    exit_process,
    ratio,
    reserve_stdout,
    run_stoppable,
    start_logging,
    variant_named,
    verbosity,
)
from vsr.cli.verify import verify
from vsr.network.precision import PRECISIONS
from vsr.version import __version__

log = logging.getLogger("vsr")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vsr")
def main() -> None:
    """Real-time super-resolution for video files and streams."""
    os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder prints a banner otherwise


def _inputs_and_output(
    paths: list[str], input_: str | None, output: str | None
) -> tuple[list[str], str]:
    """Return (inputs, output) from positional names and -i and -o. Raises click.UsageError."""
    inputs = [input_, *paths] if input_ else paths
    target = output or (inputs.pop() if len(inputs) > 1 else "")
    for found, what in ((inputs and all(inputs), "INPUT"), (target, "OUTPUT")):
        if not found:
            raise click.UsageError(
                f"{what} is missing (write './' before a name that begins with '-')"
            )
    return inputs, target


@main.command("run")
@click.argument("paths", nargs=-1, metavar="INPUT OUTPUT")
@click.option("-i", "--input", "input_", metavar="INPUT", help="The same as the first argument.")
@click.option("-o", "--output", metavar="OUTPUT", help="The same as the second argument.")
@click.option("-m", "--model", help="Name from `vsr models`, or a super-resolution .onnx file.")
@look_option(DEFAULT_LOOK)
@click.option(
    "--speed", type=click.Choice(["fast", "balanced", "best"]), default="balanced",
    show_default=True,
    help="Without --model, use the best network that reaches 1.5 (fast) or 0.5 (balanced) times "
    "real time on this machine, or the best one at any speed.",
)  # fmt: skip
@click.option(
    "-s",
    "--scale",
    type=WholeNumber(1),
    help="Scale factor. Default: 2, or that of the .onnx file.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", *PRECISIONS]),
    default="auto",
    show_default=True,
    help="auto: int8 on CPUs with 8-bit instructions (fp32 for video above 8 bits), fp16 on GPUs; "
    "for an .onnx file, the fastest that is within 50 dB of fp32.",
)
@click.option(
    "--backend", default="auto", show_default=True, help="openvino, tensorrt or tensorrt-rtx."
)
@click.option(
    "-d",
    "--device",
    help="OpenVINO device (CPU, GPU ...), or GPU number; several separated by commas: 0,1,2.",
)
@click.option("--batch", type=WholeNumber(1), default=1, help="Frames per inference on a GPU.")
@flicker_option
@click.option(
    "-c", "-c:v", "--codec",
    help="h264 (default; hevc for HDR and more than 8 bits), hevc, av1, vp9, prores, ffv1 or "
    "another FFmpeg encoder.",
)  # fmt: skip
@click.option(
    "--pix-fmt", "pixel_format", metavar="NAME",
    help="Pixel format of the output, such as yuv420p10le. Default: that of the input, or "
    "the most similar one that the encoder supports.",
)  # fmt: skip
@click.option("--sdr", is_flag=True, help="Convert HDR (PQ, HLG) to 8-bit SDR.")
@click.option("--crf", type=WholeNumber(0), help="Constant quality; lower is better.")
@rate_options
@click.option(
    "--passes", type=WholeNumber(1, 2), default=1,
    help="2: process the input twice, to distribute --bitrate by complexity.",
)  # fmt: skip
@preset_options
@click.option(
    "--audio",
    type=click.Choice(["copy", "encode", "none"]),
    default="copy",
    show_default=True,
    help="copy: copy the audio, and encode only what the output container does not support.",
)
@click.option(
    "--start-frame", type=WholeNumber(0), default=0, help="Number of the first frame to process."
)
@click.option(
    "--variant", callback=variant_named, default="best", show_default=True, metavar="best|WxH|N",
    help="Variant of an HLS playlist to read; best: the one with the largest frames.",
)  # fmt: skip
@click.option("--max-frames", type=WholeNumber(1), help="Maximum number of frames to process.")
@click.option(
    "--fps", callback=ratio, metavar="N|N/D",
    help="Frame rate of numbered pictures or a folder of pictures. Default: 25.",
)  # fmt: skip
@click.option(
    "--deinterlace",
    type=click.Choice(["auto", "off", "frame", "bob"]),
    default="auto",
    show_default=True,
    help="auto: interlaced frames only; frame: all frames; bob: all, with two output frames each.",
)
@click.option(
    "--detelecine", is_flag=True, help="Remove hard telecine: restore 24p film from 30i video."
)
@click.option(
    "--vf", "filters", metavar="FILTERS",
    help="FFmpeg filters applied before the network, such as crop=640:360,eq=gamma=1.1.",
)  # fmt: skip
@click.option(
    "--max-memory", "memory", callback=byte_size, metavar="SIZE",
    help="Memory limit for frames, such as 2G. Default: all free memory.",
)  # fmt: skip
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    help="Write the latency of every frame as .html, .json or .csv.",
)
@click.option("-y", "overwrite", is_flag=True, help="Replace an existing output.")
@click.option(
    "-f",
    "--format",
    "container",
    help="Container of OUTPUT -: mkv (default), nut, y4m, ts, webm, flv.",
)
@click.option(
    "--progress",
    type=click.Choice(["auto", "none", "json"]),
    default="auto",
    help="json: one object per line on stdout (stderr where OUTPUT is -).",
)
@sharing_options
@selection_options
@verbosity
@click.pass_context
def run(
    context: click.Context, /, paths: tuple[str, ...], input_: str | None, output: str | None,
    listed: Path | None, progress: str, verbose: bool, quiet: bool, **options: Any,
) -> None:  # fmt: skip
    """Upscale the video INPUT to OUTPUT, and keep its audio and other streams.

    INPUT can be a URL, - for stdin, a picture, numbered pictures (frame_%05d.png) or a folder of
    pictures. OUTPUT can be - for stdout, a picture, numbered pictures, a .gif or an .apng.

    With several files, or a folder of videos, OUTPUT is a folder, and the files are processed one
    after the other. --list runs the jobs of a TOML file, each with its own settings.

    Example: vsr run in.mp4 out.mp4 --model carn-m
    """
    from vsr.cli.progress import progress_printer
    from vsr.cli.run_settings import selection_of, settings_of
    from vsr.files.batch import is_batch
    from vsr.files.job import Job
    from vsr.media.target import STDOUT, part_path, pipe_of

    start_logging(verbose, quiet)
    own = own_stdout(options["cluster"])
    show = progress_printer("none" if quiet and progress == "auto" else progress, json_to=own)
    if listed is not None:
        with exit_on_error(verbose):
            run_list(context, listed, options["skip_existing"], show)
    inputs, target = _inputs_and_output(list(paths), input_, output)
    source = inputs[0]
    with exit_on_error(verbose):
        if options["model"] is not None:
            refuse(["speed"], "selects a network: leave it out with --model")
        selection = selection_of(options)
        settings = settings_of(options)
        if is_batch(inputs, selection, target):
            run_many(inputs, target, settings, selection, show)
        target = reserve_stdout() if target == STDOUT else target
        pipe = pipe_of(Path(target)) is not None
        result = run_stoppable(
            lambda stop: Job(source, target, settings, show, stop).run(),
            None if pipe else lambda: part_path(Path(target)),
            "" if pipe else "; nothing was written",
        )
        for line in result.closing_words():
            log.warning(line)
        sys.exit(result.exit_code)


main.add_command(build_engine)
main.add_command(cluster)
main.add_command(compare)
main.add_command(plan)
main.add_command(examine)
main.add_command(list_models)
main.add_command(relay)
main.add_command(verify)


def run_program() -> None:
    """Run `main` as a program, and end the process with its exit code."""
    open_missing()
    try:
        main()
    except SystemExit as exc:
        exit_process(exc)


if __name__ == "__main__":
    run_program()
