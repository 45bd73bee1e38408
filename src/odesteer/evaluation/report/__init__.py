"""Reports: tables, plots and a page from the results of a run."""

from odesteer.evaluation.report.folder import FINAL, PlotsWarning, write_report
from odesteer.evaluation.report.summary import Line, summarize

__all__ = ["FINAL", "Line", "PlotsWarning", "summarize", "write_report"]
