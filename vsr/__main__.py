"""`python -m vsr`: the command line."""

from vsr.cli.main import run_program

run_program()
