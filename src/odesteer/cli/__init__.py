"""The ``odesteer`` command line: its commands, and what they share."""

from odesteer.cli.app import main

__all__ = ["main"]
