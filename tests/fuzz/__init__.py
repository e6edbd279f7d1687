"""Mutated files and readers fed with nonsense."""
