"""Tests of `vsr plan`."""
