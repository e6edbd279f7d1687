"""Options of the network's precision and device, which `vsr relay` and `vsr plan` share."""

from collections.abc import Callable
from typing import Any

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
