"""Encode a relay's frames and send them to its outputs."""
