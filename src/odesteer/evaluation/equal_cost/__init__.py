"""Comparison at equal cost: the effect of every method at the same KL to the unsteered model."""

from odesteer.evaluation.equal_cost.comparison import EqualCostComparison
from odesteer.evaluation.equal_cost.curve import CostCurve, CurveSegment, MeasuredAmount
from odesteer.evaluation.equal_cost.report import EqualCostRow, html_section, write_equal_cost

__all__ = [
    "CostCurve",
    "CurveSegment",
    "EqualCostComparison",
    "EqualCostRow",
    "MeasuredAmount",
    "html_section",
    "write_equal_cost",
]
