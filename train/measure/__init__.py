"""Measure networks on pictures and clips, and compare with the papers."""
