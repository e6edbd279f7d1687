"""The version, in a place everything may import."""

__version__ = "0.1.0"
