"""The steering of one request: steerers, amounts, tokens that are moved, prefix-cache keys."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

from odesteer.artifact import Site, Steerer, SteererRequest, parse_requests
from odesteer.errors import InvalidInputError
from odesteer.methods import Amount

SteeringText = str | tuple[str, ...]
"""What a request asks for: names and amounts, in one text or in several."""


@dataclass(frozen=True)
class LayerSteering:
    """One steerer as a request wants it.

    Attributes:
        steerer: who moves.
        site: where it acts.
        amount: how much.
        digest: of everything that decides what it does to an activation.
    """

    steerer: Steerer
    site: Site
    amount: Amount
    digest: str


@dataclass(frozen=True, eq=False)
class RequestSteering:
    """All that one request wants, in the order in which it is applied.

    Requests with equal texts share one object.
    """

    applied: tuple[LayerSteering, ...]

    @cached_property
    def turns(self) -> tuple[tuple[int, LayerSteering], ...]:
        """Each, with how many come before it at its layer."""
        layers = [each.site.layer for each in self.applied]
        return tuple((layers[:i].count(layers[i]), each) for i, each in enumerate(self.applied))

    def block_key(self, start: int, stop: int, prompt_length: int) -> str | None:
        """What tells the keys and values of tokens ``start`` to ``stop`` from unsteered ones.

        It says which of these tokens are moved by whom, and is None if none is. Tokens before them
        are not part of it: the keys of blocks are chained.
        """
        moved = []
        for each in self.applied:
            tokens = moved_tokens(each.site.position, start, stop, prompt_length)
            if tokens:
                moved.append(f"{each.digest}:{tokens.start - start}:{tokens.stop - start}")
        return hashlib.sha256(" ".join(moved).encode()).hexdigest() if moved else None


def requested_steering(params: object) -> SteeringText | None:
    """What a request's parameters ask for; None if they ask for nothing.

    Raises `InvalidInputError` for what is no text.
    """
    arguments = getattr(params, "extra_args", None) or {}
    if "odesteer" not in arguments:
        return None
    text = arguments["odesteer"]
    if isinstance(text, (list, tuple)) and text and all(isinstance(each, str) for each in text):
        return tuple(text)
    if isinstance(text, str):
        return text
    raise InvalidInputError(
        f"odesteer={text!r:.80} does not ask for steerers; write a text such as 'truthful@1.5', or"
        " a list of them."
    )


def parse_steering(text: SteeringText) -> tuple[SteererRequest, ...]:
    texts = (text,) if isinstance(text, str) else text
    return tuple(asked for each in texts for asked in parse_requests(each))


def moved_tokens(position: str, start: int, stop: int, prompt_length: int) -> range:
    """Those of the tokens ``start`` to ``stop`` of a request that a steerer at ``position`` moves.

    Tokens are counted from the first of the prompt, so that it does not matter in which pieces
    they are computed, or how often: `last` are the last of the prompt and all generated ones.
    """
    first = {"last": prompt_length - 1, "generated": prompt_length}.get(position, 0)
    last = min(prompt_length, stop) if position == "prompt" else stop
    first = max(first, start)
    return range(first, max(last, first))
