"""Tests of reading, converting and writing media."""
