"""Measurements of speed, each a command: ``python -m benchmarks.NAME``."""
