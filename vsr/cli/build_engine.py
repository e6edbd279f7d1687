"""`vsr build-engine`: build engines ahead of time; list, clear and explain them."""

import sys
from pathlib import Path
from typing import Any

import click

from vsr.cli.given import refuse
from vsr.cli.numbers import WholeNumber
from vsr.cli.streams import print_result, write_if_possible
from vsr.cli.terminal import exit_on_error, start_logging, verbosity
from vsr.errors import UsageError
from vsr.network.precision import PRECISIONS


@click.command("build-engine")
@click.option("-m", "--model", help="Name from `vsr models`, or a super-resolution .onnx file.")
@click.option("-s", "--scale", type=WholeNumber(1), help="Scale factor. Default: 2.")
@click.option(
    "--precision",
    type=click.Choice(["auto", *PRECISIONS]),
    default="auto",
    show_default=True,
    help="Numerical precision. auto: fp16.",
)
@click.option("--size", metavar="WxH", help="Fixed frame size, for the fastest engine.")
@click.option("--min", "least", metavar="WxH", help="Minimum frame size of a range.")
@click.option("--opt", "best", metavar="WxH", help="Frame size for which the range is optimised.")
@click.option(
    "--max", "most", metavar="WxH", help="Maximum frame size; it determines the memory use."
)
@click.option("--batch", type=WholeNumber(1), default=1, help="Frames per inference.")
@click.option(
    "--colour",
    type=click.Choice(["auto", "bt601", "bt709", "bt2020"]),
    default="auto",
    help="Colour matrix of the video. auto: BT.601 below 720 lines, otherwise BT.709.",
)
@click.option(
    "--pix-fmt", "pixel_format", default="yuv420p", show_default=True, metavar="NAME",
    help="Pixel format of the video, such as yuv420p10le.",
)  # fmt: skip
@click.option(
    "--siting", type=click.Choice(["left", "center", "topleft"]), default="left",
    show_default=True, help="Position of the chroma samples.",
)  # fmt: skip
@click.option("--full-range", is_flag=True, help="For full-range video (values 0 to 255).")
@click.option(
    "--runtime",
    type=click.Choice(["tensorrt", "tensorrt-rtx"]),
    help="Inference library. Default: the installed one.",
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    help="GPU architecture: current, sm75, sm86, sm89, sm120 ... Repeatable.",
)
@click.option(
    "--fused",
    is_flag=True,
    help="Use a custom kernel for CARN-M's blocks. Not yet measured on a GPU.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the engine to this file.",
)
@click.option(
    "--onnx", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Write the ONNX graph to this file instead of building the engine.",
)  # fmt: skip
@click.option(
    "--explain",
    is_flag=True,
    help="Show the graph rewrites and their savings instead of building the engine.",
)
@click.option("--list", "list_", is_flag=True, help="List the engines in the cache.")
@click.option("--clear", is_flag=True, help="Delete all engines from the cache.")
@verbosity
def build_engine(list_: bool, clear: bool, verbose: bool, quiet: bool, **options: Any) -> None:
    """Build the engine of a network for NVIDIA GPUs and store it in the cache of `vsr run`.

    Example: vsr build-engine --model carn-m --size 640x360 --target sm86 --target sm89
    """
    from vsr.inference.tensorrt.builder import table
    from vsr.inference.tensorrt.cache import EngineCache

    start_logging(verbose, quiet)
    with exit_on_error(verbose):
        _check_one_command(
            {
                "--list": list_,
                "--clear": clear,
                **{f"--{k}": options[k] for k in ("explain", "onnx")},
            }
        )
        if list_ or clear:
            what = "--clear, which removes" if clear else "--list, which shows"
            others = set(options) - {"onnx", "explain"}
            refuse(others, f"cannot be combined with {what} all engines")
        if options["explain"] or options["onnx"]:
            what = "--explain" if options["explain"] else "--onnx"
            refuse(["output"], f"cannot be combined with {what}, which builds no engine")
        cache = EngineCache()
        if list_:
            print_result(table(list(cache.entries())))
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
        raise UsageError(f"{' and '.join(given)} cannot be combined: use one of them")


def _build(
    cache: Any, quiet: bool, *, model: str | None, scale: int | None, precision: str,
    size: str | None, least: str | None, best: str | None, most: str | None, batch: int,
    colour: str, pixel_format: str, siting: str, full_range: bool,
    runtime: str | None, targets: tuple[str, ...], fused: bool,
    output: Path | None, onnx: Path | None, explain: bool,
) -> None:  # fmt: skip
    from vsr.inference.default import DEFAULT
    from vsr.inference.tensorrt import prebuild

    request = prebuild.BuildRequest(
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
        print_result("\n".join(prebuild.explain(request)))
        return
    if onnx:
        size_mb = prebuild.write_graph(request, onnx) / 1e6
        write_if_possible(sys.stdout, f"{onnx}  {size_mb:.1f} MB\n")
        return
    show = sys.stderr.isatty() and not quiet

    def on_step(phase: str, step: int, steps: int) -> bool:
        if show:
            write_if_possible(sys.stderr, f"\r\x1b[Kbuilding: {phase} {step}/{steps}")
        return True

    done = prebuild.build(request, cache, on_step)
    if show:
        write_if_possible(sys.stderr, "\r\x1b[K")
    for engine in done:
        how = "cached" if engine.cached else f"built in {engine.seconds:.1f} s"
        write_if_possible(sys.stdout, f"{engine.path}  {engine.bytes / 1e6:.1f} MB, {how}\n")
