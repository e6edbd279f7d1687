"""Options of the network that commands share: precision, device, look and the flicker filter."""

from collections.abc import Callable
from typing import Any, Final

import click

from vsr.network.precision import PRECISIONS


def network_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--precision`, `--backend` and `--device` to a command."""
    for option in (
        click.option("-d", "--device", help="OpenVINO device (CPU, GPU ...), or GPU number."),
        click.option(
            "--backend", default="auto", show_default=True,
            help="openvino, tensorrt or tensorrt-rtx.",
        ),
        click.option(
            "--precision", type=click.Choice(["auto", *PRECISIONS]), default="auto",
            show_default=True, help="Numerical precision, as in vsr run.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


flicker_option = click.option(
    "--flicker-filter/--no-flicker-filter",
    default=None,
    help="Average the detail over time where the picture stands still, so that it does not "
    "flicker. Default: for networks with a sharp look.",
)
"""Adds `--flicker-filter` to a command; None if it is not given."""


def look_option(default: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option `--look`, None if it is not given; `default` is for its help."""
    return click.option(
        "--look",
        type=click.Choice(["faithful", "sharp"]),
        help="sharp: weights that look most like the original; faithful: weights with the least "
        "error against it. A --model with the other look is replaced by its network's weights of "
        f"this look. Default without --model: {default}.",
    )


DEFAULT_LOOK: Final = "sharp for compressed video at scale 2 or 4"
"""For `look_option`: the default look of a file."""
