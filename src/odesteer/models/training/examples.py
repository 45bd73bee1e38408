"""Examples to train end to end on: encoded pairs, prompts, and which groups are held out."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from odesteer.data import ContrastData, Example, Message
from odesteer.errors import InvalidInputError
from odesteer.models.divergence import as_question
from odesteer.models.observed_model import ObservedModel
from odesteer.models.tokens.encoding import Encoded, Prompt


def preference_pairs(
    lm: ObservedModel, data: ContrastData
) -> dict[str, list[tuple[Encoded, Encoded]]]:
    """Encoded pairs of a chosen and a rejected answer, by group.

    Within a group the first of both sides, the second of both, and so on, the shorter side serving
    again in turn. Raises `InvalidInputError` for pairs whose sides are identical, and where no
    group has both sides.
    """
    sides: dict[str, tuple[list[int], list[int]]] = {}
    for side, groups in enumerate(data.groups):
        for i, group in enumerate(groups):
            sides.setdefault(group, ([], []))[side].append(i)
    encoded = [
        [encoded_example(lm, example, f"{name} example {i}") for i, example in enumerate(examples)]
        for name, examples in (("positive", data.positive), ("negative", data.negative))
    ]
    pairs: dict[str, list[tuple[Encoded, Encoded]]] = {}
    for group, (chosen, rejected) in sides.items():
        if not chosen or not rejected:
            continue
        for k in range(max(len(chosen), len(rejected))):
            i, j = chosen[k % len(chosen)], rejected[k % len(rejected)]
            if encoded[0][i].ids == encoded[1][j].ids:
                raise InvalidInputError(
                    f"positive example {i} and negative example {j} are identical, so neither can"
                    " be preferred; remove the pair."
                )
            pairs.setdefault(group, []).append((encoded[0][i], encoded[1][j]))
    if not pairs:
        raise InvalidInputError(
            "no group has a positive and a negative example, so there are no pairs to prefer one"
            " side of; give pairs, or use objective=Likelihood()."
        )
    return pairs


def encoded_example(lm: ObservedModel, example: Example, name: str) -> Encoded:
    """A text whose prompt has a token: nothing decides about the first token of a text.

    Raises `InvalidInputError` for a text of one token.
    """
    encoded = lm.encode_example(example, name)
    if len(encoded) < 2:
        raise InvalidInputError(
            f"{name} ({example.response!r:.80}) is a single token, which no token before it decides"
            " about; give it a prompt, or remove it."
        )
    return encoded if encoded.n_prompt else Encoded(encoded.ids, 1)


def prompts_of(data: Any) -> list[Prompt]:
    """Prompts from a list of texts or chats, or the different prompts of contrastive data."""
    if isinstance(data, ContrastData):
        found = [example.prompt for example in (*data.positive, *data.negative)]
        return list(dict.fromkeys(found))
    if isinstance(data, str) or not isinstance(data, Sequence) or not data:
        raise InvalidInputError(f"give a list of prompts (texts or chats), not {data!r:.80}.")
    return list(data)


def as_prompt(lm: ObservedModel, prompt: Prompt, system: str | None = None) -> Prompt:
    """A text as a question (`as_question`), a chat as it is; both behind a system prompt."""
    if isinstance(prompt, str):
        return as_question(lm, prompt, system)
    return prompt if system is None else (Message("system", system), *prompt)


def last_message(chat: Sequence[Any]) -> str:
    """The text of the last message of a chat."""
    last = chat[-1]
    return last.content if isinstance(last, Message) else str(last["content"])


def n_held_out(n: int, share: float) -> int:
    """How many of ``n`` groups are held out. Raises `InvalidInputError` for fewer than three."""
    if n < 3:
        raise InvalidInputError(
            f"{n} groups are too few to hold any out; give more pairs or prompts."
        )
    return max(1, round(share * n)) if share else 0


def split_groups(
    groups: Mapping[str, list[Any]], share: float, seed: int
) -> tuple[list[Any], list[Any]]:
    """The items of groups to train on and of those held out."""
    names = sorted(groups)
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen = {names[i] for i in order[: n_held_out(len(names), share)]}
    train = [item for name in groups if name not in chosen for item in groups[name]]
    return train, [item for name in groups if name in chosen for item in groups[name]]
