"""Log-likelihoods of answers under many steerings, the beginning of each prompt computed once."""

from collections.abc import Sequence

from torch import Tensor

from odesteer import SteeredModel
from odesteer.data import Example
from odesteer.evaluation.metrics.prefix_scorer import PrefixScorer, SteeringFactory

__all__ = ["ContinuationScorer", "SteeringFactory"]


class ContinuationScorer:
    """Scores the responses of the same examples, at the last prompt token and after, steered so.

    Args:
        lm: the model.
        examples: prompts with responses.
    """

    def __init__(self, lm: SteeredModel, examples: Sequence[Example]) -> None:
        self._scorer = PrefixScorer(lm)
        self._examples = [lm.encode(example) for example in examples]

    def log_likelihoods(self, steering: SteeringFactory) -> Tensor:
        """Of each response given its prompt, `[n]`, nats."""
        return self._scorer.totals(self._examples, steering)
