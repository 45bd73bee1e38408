"""Steering of one request: which steerers, which of its tokens, and its prefix-cache keys."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from odesteer.artifact import Site, Steerer, SteererRequest, parse_requests
from odesteer.artifact.phases import PhasedText
from odesteer.artifact.positions import parse_position
from odesteer.errors import InvalidInputError
from odesteer.methods import Amount

EXTRA_ARG = "odesteer"
"""The name of steering among the extra arguments of a request."""

SteeringText = str | tuple[str, ...]
"""What a request asks for: names and amounts, in one text or in several."""


@dataclass(frozen=True)
class LayerSteering:
    """One steerer of a request, at one layer.

    Attributes:
        steerer: the steerer.
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
    """All steerers of one request, in the order in which they are applied.

    Requests with equal texts share one object.
    """

    applied: tuple[LayerSteering, ...]

    @cached_property
    def ranked(self) -> tuple[tuple[int, LayerSteering], ...]:
        """Each steerer, with the number of those before it at its layer."""
        layers = [each.site.layer for each in self.applied]
        return tuple((layers[:i].count(layers[i]), each) for i, each in enumerate(self.applied))

    @cached_property
    def counts_tokens(self) -> bool:
        """Whether a steerer stops or begins to move tokens while they are generated."""
        return any(not parse_position(each.site.position).is_plain for each in self.applied)

    @cached_property
    def reads_text(self) -> bool:
        """Whether which tokens a steerer moves depends on the text."""
        positions = (parse_position(each.site.position) for each in self.applied)
        return any(position.phase is not None for position in positions)

    def block_key(
        self, start: int, stop: int, prompt_length: int, text: PhasedText | None = None
    ) -> str | None:
        """The key of the cache block of tokens ``start`` to ``stop``; None if none is moved.

        It tells which of these tokens are moved, by which steerer and how far. Earlier tokens are
        not part of it: vLLM chains the keys of blocks.
        """
        moved = []
        for each in self.applied:
            tokens = moved_tokens(each.site.position, start, stop, prompt_length, text)
            if tokens:
                where = ",".join(f"{one.start - start}:{one.stop - start}" for one in tokens)
                moved.append(f"{each.digest}:{where}")
        return hashlib.sha256(" ".join(moved).encode()).hexdigest() if moved else None


def requested_steering(params: object) -> SteeringText | None:
    """The steering in a request's sampling parameters (``extra_args``); None if there is none.

    Raises `InvalidInputError` for what is no text.
    """
    arguments = getattr(params, "extra_args", None) or {}
    if EXTRA_ARG not in arguments:
        return None
    text = arguments[EXTRA_ARG]
    if isinstance(text, (list, tuple)) and text and all(isinstance(each, str) for each in text):
        return tuple(text)
    if isinstance(text, str):
        return text
    raise InvalidInputError(
        f"odesteer={text!r:.80} does not ask for steerers; write a text such as 'truthful@1.5', or"
        " a list of them."
    )


def parse_steering(text: SteeringText) -> tuple[SteererRequest, ...]:
    """The names and amounts in a text. Raises `InvalidInputError`."""
    texts = (text,) if isinstance(text, str) else text
    return tuple(request for each in texts for request in parse_requests(each))


def moved_tokens(
    position: str, start: int, stop: int, prompt_length: int, text: PhasedText | None = None
) -> list[range]:
    """Those of the tokens ``start`` to ``stop`` of a request that a steerer at ``position`` moves.

    Tokens are counted from the first of the prompt, so chunked prefill and recomputation change
    nothing: `last` is the last token of the prompt and all generated ones. Positions that depend on
    the text need the ``text`` up to ``stop``.
    """
    parsed = parse_position(position)
    first, last = 0, stop
    if parsed.tokens == "prompt":
        last = min(prompt_length, stop)
    elif parsed.is_behind_prompt:
        begin = prompt_length - parsed.lead
        first = begin + parsed.start
        last = stop if parsed.stop is None else min(begin + parsed.stop, stop)
    first = max(first, start)
    if last <= first:
        return []
    if parsed.phase is None:
        return [range(first, last)]
    assert text is not None
    inside = text.in_phase(parsed.phase, prompt_length, first)[: last - first]
    runs = groupby(range(first, last), key=lambda token: inside[token - first])
    found = [list(tokens) for is_inside, tokens in runs if is_inside]
    return [range(tokens[0], tokens[-1] + 1) for tokens in found]
