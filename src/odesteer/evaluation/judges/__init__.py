"""Judges: score completions by exact rules, local models, trained classifiers or an endpoint."""

from inspect import signature
from typing import Any

from odesteer.errors import InvalidInputError
from odesteer.evaluation.judges.base import Judge, Scores
from odesteer.registry import Registry

__all__ = ["Judge", "Scores", "create", "registry"]

_HOME = "odesteer.evaluation.judges"

registry: Registry[Judge] = Registry(
    "judge",
    {
        "choice-margin": f"{_HOME}.choice_margin:ChoiceMargin",
        "diversity": f"{_HOME}.ngrams:Diversity",
        "form": f"{_HOME}.form:Form",
        "multiple-choice": f"{_HOME}.multiple_choice:MultipleChoice",
        "perplexity": f"{_HOME}.perplexity:Perplexity",
        "profanity": f"{_HOME}.profanity:Profanity",
        "repetition": f"{_HOME}.ngrams:Repetition",
        "reward-model": f"{_HOME}.reward_model:RewardModel",
        "rubric": f"{_HOME}.rubric:Rubric",
        "small-info": f"{_HOME}.small_truthfulqa:SmallInfo",
        "small-sentiment": f"{_HOME}.small_sentiment:SmallSentiment",
        "small-toxicity": f"{_HOME}.small_toxicity:SmallToxicity",
        "small-truth": f"{_HOME}.small_truthfulqa:SmallTruth",
        "terrarium": f"{_HOME}.terrarium:TerrariumJudge",
        "toxicity-model": f"{_HOME}.toxicity_model:ToxicityModel",
        "truthfulqa-info": f"{_HOME}.published_truthfulqa:TruthfulQAInfo",
        "truthfulqa-truth": f"{_HOME}.published_truthfulqa:TruthfulQATruth",
        "vader": f"{_HOME}.vader:Vader",
    },
    "odesteer.judges",
)


def create(name: str, **options: Any) -> Judge:
    """The judge of that name. Raises `InvalidInputError` for options that it does not have."""
    cls = registry.get(name)
    known = tuple(signature(cls).parameters)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise InvalidInputError(
            f"the judge {name!r} has no option {unknown[0]!r}; it has {', '.join(known) or 'none'}."
        )
    return cls(**options)
