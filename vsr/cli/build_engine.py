"""`vsr build-engine`: build engines ahead of time; list, clear and explain them."""

import sys
from pathlib import Path
from typing import Any

import click

from vsr.cli.numbers import WholeNumber
from vsr.cli.streams import say, write_if_possible
from vsr.cli.terminal import errors_shown, start_logging, verbosity
from vsr.errors import UsageError
from vsr.network.precision import PRECISIONS


@click.command("build-engine")
@click.option("-m", "--model", help="A name of `vsr models`, or any super-resolution .onnx file.")
@click.option("-s", "--scale", type=WholeNumber(1), help="Enlargement. Default: 2.")
@click.option(
    "--precision",
    type=click.Choice(["auto", *PRECISIONS]),
    default="auto",
    show_default=True,
    help="auto: fp16.",
)
@click.option("--size", metavar="WxH", help="Fixed frame size: the fastest engine.")
@click.option("--min", "least", metavar="WxH", help="Smallest frame size of a range.")
@click.option("--opt", "best", metavar="WxH", help="Frame size that the range is tuned for.")
@click.option(
    "--max", "most", metavar="WxH", help="Largest frame size; it determines the memory use."
)
@click.option("--batch", type=WholeNumber(1), default=1, help="Frames per inference.")
@click.option(
    "--colour",
    type=click.Choice(["auto", "bt601", "bt709", "bt2020"]),
    default="auto",
    help="Matrix of the video. auto: BT.601 under 720 lines, else BT.709.",
)
@click.option(
    "--pix-fmt", "pixel_format", default="yuv420p", show_default=True, metavar="NAME",
    help="Pixel format of the video, such as yuv420p10le.",
)  # fmt: skip
@click.option(
    "--siting", type=click.Choice(["left", "center", "topleft"]), default="left",
    show_default=True, help="Where the video's chroma samples lie.",
)  # fmt: skip
@click.option("--full-range", is_flag=True, help="For full-range video (codes 0 to 255).")
@click.option(
    "--runtime",
    type=click.Choice(["tensorrt", "tensorrt-rtx"]),
    help="Default: the one that is installed.",
)
@click.option(
    "--target", "targets", multiple=True, help="current, sm75, sm86, sm89, sm120 ... Repeatable."
)
@click.option(
    "--fused",
    is_flag=True,
    help="Compute CARN-M's blocks with our own kernel. Not yet timed on a GPU.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the engine to this file.",
)
@click.option(
    "--onnx", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Write the ONNX graph that would be built, and stop.",
)  # fmt: skip
@click.option(
    "--explain", is_flag=True, help="Show the graph rewrites and what they save, and stop."
)
@click.option("--list", "list_", is_flag=True, help="List the engines in the cache, and stop.")
@click.option("--clear", is_flag=True, help="Remove all engines from the cache, and stop.")
@verbosity
def build_engine(list_: bool, clear: bool, verbose: bool, quiet: bool, **options: Any) -> None:
    """Build a network's engine for NVIDIA GPUs, so that `vsr run` finds it in the cache.

    Example: vsr build-engine --model carn-m --size 640x360 --target sm86 --target sm89
    """
    from vsr.inference.tensorrt.builder import table
    from vsr.inference.tensorrt.cache import EngineCache

    start_logging(verbose, quiet)
    with errors_shown(verbose):
        _check_one_command(
            {
                "--list": list_,
                "--clear": clear,
                **{f"--{k}": options[k] for k in ("explain", "onnx")},
            }
        )
        cache = EngineCache()
        if list_:
            say(table(list(cache.entries())))
        elif clear:
            engines, size = cache.clear()
            write_if_possible(
                sys.stdout, f"removed {engines} engines, {size / 1e6:.1f} MB, from {cache.folder}\n"
            )
        else:
            _build(cache, quiet, **options)


def _check_one_command(asked: dict[str, object]) -> None:
    """Raise UsageError for more than one of the options that replace building."""
    given = [option for option, value in asked.items() if value]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} are different commands: give one")


def _build(
    cache: Any, quiet: bool, *, model: str | None, scale: int | None, precision: str,
    size: str | None, least: str | None, best: str | None, most: str | None, batch: int,
    colour: str, pixel_format: str, siting: str, full_range: bool,
    runtime: str | None, targets: tuple[str, ...], fused: bool,
    output: Path | None, onnx: Path | None, explain: bool,
) -> None:  # fmt: skip
    from vsr.inference.default import DEFAULT
    from vsr.inference.tensorrt import prebuild

    order = prebuild.BuildRequest(
        model=model or DEFAULT,
        scale=scale,
        precision=precision,
        sizes=prebuild.parse_size_options(size, (least, best, most)),
        batch=batch,
        matrix=colour,
        pixel_format=pixel_format,
        siting=siting,
        full_range=full_range,
        runtime=runtime,
        targets=targets,
        fused=fused,
        output=output,
    )
    if explain:
        say("\n".join(prebuild.explain(order)))
        return
    if onnx:
        size_mb = prebuild.write_graph(order, onnx) / 1e6
        write_if_possible(sys.stdout, f"{onnx}  {size_mb:.1f} MB\n")
        return
    show = sys.stderr.isatty() and not quiet

    def on_step(phase: str, step: int, steps: int) -> bool:
        if show:
            write_if_possible(sys.stderr, f"\r\x1b[Kbuilding: {phase} {step}/{steps}")
        return True

    done = prebuild.build(order, cache, on_step)
    if show:
        write_if_possible(sys.stderr, "\r\x1b[K")
    for engine in done:
        how = "cached" if engine.cached else f"built in {engine.seconds:.1f} s"
        write_if_possible(sys.stdout, f"{engine.path}  {engine.bytes / 1e6:.1f} MB, {how}\n")
