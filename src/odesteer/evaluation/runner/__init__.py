"""Runs benchmarks: contenders, plan, resumable generation and judging, choice of settings."""

from odesteer.evaluation.runner.contenders import Contender, contenders
from odesteer.evaluation.runner.judge_panel import JudgePanel
from odesteer.evaluation.runner.pipeline import BenchmarkProgress
from odesteer.evaluation.runner.plan import CompletionSpec, LayerRange, Plan, PlanCost
from odesteer.evaluation.runner.result_store import ResultStore
from odesteer.evaluation.runner.results import Result, RunResults
from odesteer.evaluation.runner.runner import Runner

__all__ = [
    "BenchmarkProgress",
    "CompletionSpec",
    "Contender",
    "JudgePanel",
    "LayerRange",
    "Plan",
    "PlanCost",
    "Result",
    "ResultStore",
    "RunResults",
    "Runner",
    "contenders",
]
