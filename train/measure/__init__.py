"""Measure networks on pictures and clips, and compare the results with the papers."""
