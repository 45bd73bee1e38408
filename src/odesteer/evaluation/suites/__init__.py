"""Suites of benchmark tasks, one in each file, and their registry."""

from odesteer.evaluation.suites.base import Sizes, Suite
from odesteer.registry import Registry

__all__ = ["Sizes", "Suite", "registry"]

_HOME = "odesteer.evaluation.suites"

registry: Registry[Suite] = Registry(
    "suite",
    {
        "terrarium": f"{_HOME}.terrarium:TerrariumSuite",
        "terrarium-hard": f"{_HOME}.terrarium:TerrariumHardSuite",
        "truthfulqa": f"{_HOME}.truthfulqa:TruthfulQASuite",
        "ultrafeedback": f"{_HOME}.ultrafeedback:UltraFeedbackSuite",
        "realtoxicityprompts": f"{_HOME}.realtoxicityprompts:RealToxicityPromptsSuite",
        "persona": f"{_HOME}.persona:PersonaSuite",
        "detox": f"{_HOME}.detox:DetoxSuite",
        "sentiment": f"{_HOME}.sentiment:SentimentSuite",
        "contrast": f"{_HOME}.contrast:ContrastSuite",
    },
    "odesteer.suites",
)
