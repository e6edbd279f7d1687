"""Tests of engines, models and tiles."""
