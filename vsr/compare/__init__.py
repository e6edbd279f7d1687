"""Compares videos frame by frame: matches frames by time, measures with FFmpeg, writes a page."""
