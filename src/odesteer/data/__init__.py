"""Contrastive data: examples, rows of files and data sets, preference formats."""

from odesteer.data.contrast import ContrastData, Example, Message
from odesteer.data.load import load_contrast, save_contrast
from odesteer.data.rows import (
    DataWarning,
    DuplicateRowsWarning,
    IdenticalSidesWarning,
    UnusedColumnsWarning,
)

__all__ = [
    "ContrastData",
    "DataWarning",
    "DuplicateRowsWarning",
    "Example",
    "IdenticalSidesWarning",
    "Message",
    "UnusedColumnsWarning",
    "load_contrast",
    "save_contrast",
]
