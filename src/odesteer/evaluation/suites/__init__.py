"""Suites of tasks, one a file."""

from odesteer.evaluation.suites.base import Sizes, Suite
from odesteer.registry import Registry

__all__ = ["Sizes", "Suite", "registry"]

_HOME = "odesteer.evaluation.suites"

registry: Registry[Suite] = Registry(
    "suite",
    {
        "terrarium": f"{_HOME}.terrarium:Terrarium",
        "truthfulqa": f"{_HOME}.truthfulqa:TruthfulQA",
        "ultrafeedback": f"{_HOME}.ultrafeedback:UltraFeedback",
        "realtoxicityprompts": f"{_HOME}.realtoxicityprompts:RealToxicityPrompts",
        "contrast": f"{_HOME}.contrast:Contrast",
    },
    "odesteer.suites",
)
