"""Steering forward passes: the context, its hooks, rows, positions, gates and receipts."""
