"""Reports: tables, plots and a page from the results of a run."""

from odesteer.evaluation.report.summary import SummaryRow, summarize
from odesteer.evaluation.report.writer import FINAL, PlotsWarning, about_model, write_report

__all__ = ["FINAL", "PlotsWarning", "SummaryRow", "about_model", "summarize", "write_report"]
