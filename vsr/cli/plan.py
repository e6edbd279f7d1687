"""`vsr plan`: forecast the speed of networks on this machine, with headroom and bottleneck."""

import json
import logging
import time
from fractions import Fraction
from typing import Final

import click

from vsr.cli.encoder_options import preset_options
from vsr.cli.given import refuse
from vsr.cli.network_options import DEFAULT_LOOK, look_option, network_options
from vsr.cli.numbers import Number, WholeNumber
from vsr.cli.streams import print_result
from vsr.cli.terminal import exit_on_error, ratio, start_logging, verbosity
from vsr.errors import UsageError

log = logging.getLogger("vsr")
_RATE: Final = Fraction(30)
"""Default frame rate for --size, in frames per second."""


def _size(
    _ctx: click.Context, _param: click.Parameter, given: str | None
) -> tuple[int, int] | None:
    """Parse a size such as 640x360."""
    if given is None:
        return None
    from vsr.inference.tensorrt.builder import parse_size

    try:
        width, height = parse_size(given)
    except UsageError:
        width = height = 0
    if not width * height:
        raise click.BadParameter(f"'{given}' is not a size such as 640x360")
    return width, height


@click.command("plan")
@click.argument("source", required=False, metavar="[INPUT]")
@click.option("--size", callback=_size, metavar="WxH", help="Frame size, if there is no INPUT.")
@click.option(
    "--fps", callback=ratio, metavar="N|N/D", help="Frame rate, if there is no INPUT. Default: 30."
)
@click.option(
    "-m",
    "--model",
    "names",
    multiple=True,
    help="Forecast only this model, without a recommendation. Repeatable.",
)
@click.option(
    "-s", "--scale", type=WholeNumber(1), default=2, show_default=True, help="Scale factor."
)
@look_option(DEFAULT_LOOK)
@network_options
@click.option("-c", "--codec", help="Codec of the output, as in vsr run.")
@preset_options
@click.option(
    "--speed", type=click.Choice(["fast", "balanced", "best"]), default="balanced",
    show_default=True, help="Required speed of the network, as in vsr run.",
)  # fmt: skip
@click.option(
    "--seconds", type=Number(0.01), default=1.0, show_default=True,
    help="Measuring time per stage.",
)  # fmt: skip
@click.option("--again", is_flag=True, help="Ignore cached measurements.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@verbosity
def plan(
    source: str | None, size: tuple[int, int] | None, fps: Fraction | None, names: tuple[str, ...],
    scale: int, look: str | None, precision: str, backend: str, device: str | None,
    codec: str | None, preset: str | None, options: dict[str, str], speed: str, seconds: float,
    again: bool, as_json: bool, verbose: bool, quiet: bool,
) -> None:  # fmt: skip
    """Forecast the speed of each network for INPUT, or for a frame size and rate, on this machine.

    Decoder, networks and encoder are measured for about a second each, then all together in a short
    trial. The measurements are cached, unless the machine is busy with other work. The forecast for
    a network that is too slow for a trial is computed from the single measurements.

    Example: vsr plan in.mp4

    Example: vsr plan --size 1280x720 --fps 50 --codec hevc
    """
    started = time.perf_counter() - time.process_time()  # approximate start of Python
    import vsr.files.job  # noqa: F401 - what a run loads
    from vsr.inference.backend import load_backend
    from vsr.inference.look import model_name_for
    from vsr.media.encoder import EncoderSettings
    from vsr.plan import formatting
    from vsr.plan.cost_cache import CostCache
    from vsr.plan.plan import Planner, models_for_scale, task_of, task_without_input

    start_logging(verbose, quiet)
    with exit_on_error(verbose):
        if source is None and size is None:
            raise UsageError("INPUT is missing: give a file or URL, or --size")
        if source is not None and size is not None:
            raise UsageError("--size replaces INPUT: leave one of them out")
        if source is not None and fps is not None:
            raise UsageError("--fps applies only to --size: INPUT has its own frame rate")
        if names:
            refuse(["speed"], "selects the recommended network: leave it out with --model")
        wanted = dict.fromkeys(model_name_for(name, look) for name in names)
        encoder = EncoderSettings(codec=codec, preset=preset, options=options)
        task = task_without_input(
            size or (2, 2), fps or _RATE, scale=scale, precision=precision, encoder=encoder,
            look=look,
        )  # fmt: skip
        costs = CostCache()
        if again:
            costs.clear()
        runner = load_backend(backend, device)
        startup_s = time.perf_counter() - started
        if source is not None:
            task = task_of(source, task, seconds)
        planner = Planner(task, runner, costs, seconds, startup_s)
        lines = []
        for name in wanted or models_for_scale(task):
            log.debug("measuring %s", name)
            lines.append(planner.line(name))
        chosen = None if wanted else planner.choose(speed)[0]
        if costs.measured_busy:
            log.warning(
                "this machine is busy with other work: the figures are estimates, and are measured "
                "again next time"
            )
        if as_json:
            print_result(json.dumps(formatting.as_json(task, lines, chosen), indent=1))
            return
        lines_out = [formatting.table(task, lines)]
        if chosen is not None:
            lines_out += ["", *formatting.recommendation(task, planner.line(chosen), speed)]
            lines_out.append(formatting.live_recommendation(task, planner.of_relay()))
        print_result("\n".join(lines_out))
