"""Reports: tables, plots and a page from the results of a run."""

from odesteer.evaluation.report.summary import Line, summarize
from odesteer.evaluation.report.writer import FINAL, PlotsWarning, write_report

__all__ = ["FINAL", "Line", "PlotsWarning", "summarize", "write_report"]
