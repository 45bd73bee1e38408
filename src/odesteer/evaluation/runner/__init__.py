"""Running benchmarks: what is compared, the plan, and results that survive being killed."""

from odesteer.evaluation.runner.completing import Progress, Result
from odesteer.evaluation.runner.contenders import Contender, contenders
from odesteer.evaluation.runner.judging import Bench
from odesteer.evaluation.runner.plan import Cost, Layers, Plan, Row
from odesteer.evaluation.runner.run import Outcome, Runner
from odesteer.evaluation.runner.store import ResultStore

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
