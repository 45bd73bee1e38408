"""Running benchmarks: what is compared, the plan, and results that survive being killed."""

from odesteer.benchmarks.runner.completing import Progress, Result
from odesteer.benchmarks.runner.contenders import Contender, contenders
from odesteer.benchmarks.runner.judging import Bench
from odesteer.benchmarks.runner.plan import Cost, Layers, Plan, Row
from odesteer.benchmarks.runner.run import Outcome, Runner
from odesteer.benchmarks.runner.store import ResultStore

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
