"""Upscale files: `vsr run`."""
