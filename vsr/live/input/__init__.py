"""Receive a live stream: open, decode and hand over the newest frame."""
