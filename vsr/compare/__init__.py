"""Compares videos frame by frame: matched by time, measured by FFmpeg, shown on a page."""
