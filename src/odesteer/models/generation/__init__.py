"""Generating text with a steered model: options, seeds, streaming, the result."""
