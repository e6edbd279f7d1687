"""`vsr models` and `vsr doctor`: list networks and findings, as a table or as JSON."""

import json
import sys

import click

from vsr.cli.streams import print_result
from vsr.cli.terminal import exit_on_error, start_logging
from vsr.errors import EXIT_FAILED, UsageError


@click.command("models")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_models(as_json: bool) -> None:
    """List the available networks, for --model."""
    from vsr.inference import models

    start_logging()
    with exit_on_error():
        print_result(json.dumps(models.catalogue(), indent=1) if as_json else models.table())


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--filters", is_flag=True, help="List the filters that `vsr run --vf` accepts.")
def examine(as_json: bool, filters: bool) -> None:
    """Report devices, libraries and encoders, and how to install what is missing."""
    from vsr.cli import doctor
    from vsr.media.filters import table

    start_logging()
    with exit_on_error():
        if filters and as_json:
            raise UsageError("--filters is a table only: leave out --json")
        if filters:
            print_result(table())
            return
        findings = doctor.examine()
        print_result(
            json.dumps(doctor.as_json(findings), indent=1) if as_json else doctor.as_text(findings)
        )
    sys.exit(0 if all(f.works for f in findings if f.needed) else EXIT_FAILED)
