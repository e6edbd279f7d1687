"""Fuzz tests: mutated files and networks, and readers with random input."""
