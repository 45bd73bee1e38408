"""The ``odesteer`` command."""

from odesteer.cli.app import main

__all__ = ["main"]
