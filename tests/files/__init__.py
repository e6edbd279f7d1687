"""Tests of `vsr run`."""
