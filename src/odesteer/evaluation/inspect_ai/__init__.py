"""Steered models in Inspect AI: ``inspect eval task --model odesteer/MODEL -M steer=FILE``."""
