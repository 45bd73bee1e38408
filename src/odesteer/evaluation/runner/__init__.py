"""Running benchmarks: what is compared, the plan, and results that survive being killed."""

from odesteer.evaluation.runner.contenders import Contender, contenders
from odesteer.evaluation.runner.judge_panel import Bench
from odesteer.evaluation.runner.pipeline import Progress, Result
from odesteer.evaluation.runner.plan import Cost, Layers, Plan, Row
from odesteer.evaluation.runner.result_store import ResultStore
from odesteer.evaluation.runner.runner import Outcome, Runner

__all__ = [
    "Bench",
    "Contender",
    "Cost",
    "Layers",
    "Outcome",
    "Plan",
    "Progress",
    "Result",
    "ResultStore",
    "Row",
    "Runner",
    "contenders",
]
