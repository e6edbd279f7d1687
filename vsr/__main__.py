"""Runs the command line for `python -m vsr`."""

from vsr.cli.main import run_program

run_program()
