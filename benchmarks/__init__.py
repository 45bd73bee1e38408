"""Measurements of speed and of steering quality, run as ``python -m benchmarks.NAME``."""
