"""Tests of `vsr compare`."""
