"""Measurements of steering quality, each a command: ``python -m studies.NAME``."""
