"""Log-likelihood and perplexity of responses given their prompts, steered or not."""

import math
from collections.abc import Sequence
from dataclasses import replace

from odesteer.artifact import Steerer, SteererSet
from odesteer.data import Example
from odesteer.errors import InvalidInputError, ModelError
from odesteer.evaluation.metrics.prefix_scorer import PrefixScorer
from odesteer.methods import Amount
from odesteer.models import Encoded, SteeredModel
from odesteer.models.tokens.encoding import Encoder
from odesteer.tuning.objectives.log_likelihood import LogLikelihood
from odesteer.tuning.objectives.log_likelihood import log_likelihoods as encoded_log_likelihoods
from odesteer.untrusted import is_integer


def log_likelihoods(
    lm: SteeredModel,
    examples: Sequence[Example],
    steerer: Steerer | SteererSet | None = None,
    amount: Amount | None = None,
    *,
    batch_size: int = 16,
    truncate: bool = False,
    scorer: PrefixScorer | None = None,
) -> list[LogLikelihood]:
    """Log-likelihoods of the responses of ``examples``, each given its prompt, in order; nats.

    A token that holds characters of both prompt and response counts as response. Without any token
    before a response, not even a BOS, its first token is not scored. With a steerer, passes
    are steered as generating the response token by token would have been. With ``truncate``,
    prompts that are too long for the model's context lose their beginning, BOS included, as in
    lm-evaluation-harness; each result says how much. A ``scorer`` of the model computes prompts
    once for all calls, where the steerer leaves prompts alone.

    Raises `InvalidInputError` for examples that do not fit into the model's context, and for
    responses without a token that can be scored.
    """
    if not is_integer(batch_size, 1):
        raise InvalidInputError(f"batch_size must be a positive integer, not {batch_size!r}.")
    if steerer is None and amount is not None:
        raise InvalidInputError(f"an amount ({amount}) needs a steerer to apply it.")
    if lm.model.training:
        raise ModelError("the model is in training mode, with dropout; call model.eval() first.")
    encode = _Truncating(lm) if truncate else lm.encode
    encoded = [encode(example) for example in examples]
    for example, ids in zip(examples, encoded, strict=True):
        if len(ids) <= max(ids.n_prompt, 1):
            raise InvalidInputError(
                f"the response {example.response!r:.80} has a single token with nothing before"
                " it; give it a prompt."
            )
    has_prompts = all(ids.n_prompt for ids in encoded)
    if scorer is not None and has_prompts and PrefixScorer.can_score(lm, steerer):
        found = scorer.log_likelihoods(encoded, steerer, amount)
    else:
        found = encoded_log_likelihoods(lm, encoded, steerer, amount, batch_size=batch_size)
    if not isinstance(encode, _Truncating):
        return found
    return [replace(one, n_lost=n) for one, n in zip(found, encode.lost, strict=True)]


class _Truncating:
    """Encodes examples, cutting the beginning off prompts that are too long.

    The last token of a response is predicted and never read: one more than the context fits.

    Attributes:
        lost: how many tokens each example lost, in order.
    """

    def __init__(self, lm: SteeredModel) -> None:
        self._encoder = Encoder(lm.tokenizer, template_arguments=lm.chat_template_kwargs)
        self._most = None if lm.context is None else lm.context + 1
        self.lost: list[int] = []

    def __call__(self, example: Example) -> Encoded:
        whole = self._encoder.example(example)
        lost = 0 if self._most is None else max(len(whole) - self._most, 0)
        if lost and lost >= whole.n_prompt:
            raise InvalidInputError(
                f"the response {example.response!r:.80} alone is longer than the model's context;"
                " leave it out or choose another model."
            )
        self.lost.append(lost)
        return Encoded(whole.ids[lost:], whole.n_prompt - lost)


def nll(likelihood: LogLikelihood) -> float:
    """Mean negative log-likelihood, nats a token."""
    return -likelihood.total / likelihood.n_tokens


def perplexity(likelihood: LogLikelihood) -> float:
    """Exponential of `nll`; infinite beyond what a float holds."""
    try:
        return math.exp(nll(likelihood))
    except OverflowError:
        return math.inf
