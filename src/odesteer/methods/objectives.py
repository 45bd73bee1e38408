"""Objectives of training end to end: what the outputs of the steered model are to be."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

from odesteer.errors import InvalidInputError
from odesteer.estimator import Parametrised
from odesteer.untrusted import is_integer

Judge = Callable[[str, str], float]
"""Scores an answer, given the text of its prompt and the answer; higher is better."""


class TrainingObjective(Parametrised):
    """What a barrier is trained for, see `EndToEnd`."""

    family: ClassVar[str] = "objective"

    def check(self) -> None:
        """Raise `InvalidInputError` for parameters that mean nothing."""

    def stored(self) -> "TrainingObjective":
        """The objective without what cannot be written to a file."""
        return self


class Preference(TrainingObjective):
    """Chosen answers are to become likelier than rejected ones: pairs.

    The loss of direct preference optimisation (Rafailov et al., NeurIPS 2023, arXiv 2305.18290),
    -log σ(β(Δ₊ - Δ₋)), with Δ the log-likelihood of an answer under the steered model less that
    under the unsteered one, nats.

    Parameters:
        beta: β, per nat; pairs whose gain is far beyond 1/β count for little.
    """

    def __init__(self, beta: float = 0.3) -> None:
        self.beta = beta

    def check(self) -> None:
        if not 0 < self.beta < math.inf:
            raise InvalidInputError(f"beta must be a positive number, not {self.beta!r}.")


class Likelihood(TrainingObjective):
    """Chosen answers are to become likely; rejected ones are not looked at.

    The loss is their negative log-likelihood, nats a token.
    """


class Distillation(TrainingObjective):
    """The steered model is to answer as the model does with a system prompt that it no longer sees.

    The loss is KL(prompted ‖ steered) at the positions of answers that the prompted model wrote,
    nats a token (context distillation: Askell et al., 2021, arXiv 2112.00861). It needs prompts
    alone, no answers.

    Parameters:
        system: the system prompt; for models without a chat template, a text in front.
        max_new_tokens: the most tokens of an answer.
    """

    def __init__(self, system: str = "", max_new_tokens: int = 32) -> None:
        self.system = system
        self.max_new_tokens = max_new_tokens

    def check(self) -> None:
        if not isinstance(self.system, str) or not self.system.strip():
            raise InvalidInputError("distillation needs a system prompt: Distillation(system=…).")
        _check_tokens(self.max_new_tokens)


class Reward(TrainingObjective):
    """Answers that a judge scores high are to become likely.

    Before each epoch the steered model samples answers to the prompts. With advantages A, scores
    less their mean over the answers to one prompt in units of the deviation of all, the loss is
    -A times the log-likelihood, nats a token (REINFORCE with a baseline for each group; Shao et
    al., 2024, arXiv 2402.03300).

    Parameters:
        judge: called with the prompt's text and an answer; returns a number, higher is better. It
            is not stored.
        samples: answers to a prompt in each epoch.
        max_new_tokens: the most tokens of an answer.
        temperature: of the sampling.
    """

    def __init__(
        self,
        judge: Judge | None = None,
        samples: int = 4,
        max_new_tokens: int = 32,
        temperature: float = 1.0,
    ) -> None:
        self.judge = judge
        self.samples = samples
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature

    def check(self) -> None:
        if not callable(self.judge):
            raise InvalidInputError(
                f"judge is {self.judge!r:.80}; give a function of the prompt and the answer."
            )
        if not is_integer(self.samples, 2):
            raise InvalidInputError(
                f"samples must be an integer of at least 2, to compare, not {self.samples!r}."
            )
        if not 0 < self.temperature < math.inf:
            raise InvalidInputError(f"temperature must be positive, not {self.temperature!r}.")
        _check_tokens(self.max_new_tokens)

    def stored(self) -> "Reward":
        return self.with_params(judge=None)


def _check_tokens(n: Any) -> None:
    if not is_integer(n, 1):
        raise InvalidInputError(f"max_new_tokens must be a positive integer, not {n!r}.")
