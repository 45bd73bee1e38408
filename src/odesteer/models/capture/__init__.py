"""Capturing activations in forward passes, in memory or spilled to disk."""
