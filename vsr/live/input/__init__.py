"""Receives a live stream: opens and decodes it, and queues the newest frames."""
