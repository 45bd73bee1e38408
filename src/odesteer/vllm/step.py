"""One step of an engine: which rows of its batch are moved, by whom and how far."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from odesteer.methods import Amount, Method, Prepared
from odesteer.vllm.catalogue import Steering
from odesteer.vllm.positions import moved_tokens


@dataclass(frozen=True)
class Segment:
    """The rows of one steered request in a batch.

    Attributes:
        steering: what the request wants.
        row: the first of its rows.
        start, stop: which of its tokens they are, counted from the first of its prompt.
        prompt_length: how many of its tokens are the prompt.
    """

    steering: Steering
    row: int
    start: int
    stop: int
    prompt_length: int


class Movement(Protocol):
    """What moves rows at one layer."""

    def apply(self, hidden: Tensor, residual: Tensor | None) -> None:
        """Move rows of the residual stream ``hidden + residual``, `[n, d]`, within ``hidden``."""


@dataclass(frozen=True)
class Move:
    """A method that moves rows: a slice of them, or those of indices `[r]` on the device."""

    prepared: Prepared
    rows: slice | Tensor

    def apply(self, hidden: Tensor, residual: Tensor | None) -> None:
        """As `Movement.apply`, in float32."""
        part = hidden[self.rows].float()
        stream = part if residual is None else part + residual[self.rows].float()
        moved = self.prepared.solve(stream[:, None]).state[:, 0]
        hidden[self.rows] = (part + (moved - stream)).to(hidden.dtype)


Moves = Mapping[int, Sequence[Movement]]
"""By layer, what moves there, one after the other."""


@dataclass
class Step:
    """What is moved at each layer, and which layers have looked."""

    moves: Moves
    visited: set[int] = field(default_factory=set)

    def at(self, layer: int) -> Sequence[Movement]:
        self.visited.add(layer)
        return self.moves.get(layer, ())


@dataclass
class _Share:
    """The rows that one method moves at one layer, and how far each part of them goes."""

    method: Method
    quantity: str
    rows: list[range] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


# Turn, layer, method and quantity.
_Key = tuple[int, int, int, str]


class Planner:
    """Makes the steps of one engine, with methods on the device of its model."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._methods: dict[int, Method] = {}
        self._last: tuple[dict[_Key, _Share], Moves] = ({}, {})

    def step(self, segments: Iterable[Segment]) -> Step | None:
        """The step in which these rows run; None if none of them is moved."""
        shares = _shares(segments)
        if not shares:
            return None
        if shares != self._last[0]:  # while tokens are generated, steps are mostly alike
            moves: dict[int, list[Move]] = {}
            for (_, layer, *_), share in shares.items():
                moves.setdefault(layer, []).append(self._move(share))
            self._last = (shares, moves)
        return Step(self._last[1])

    def whole(self, steering: Steering, n_rows: int) -> Step:
        """A step in which every one of ``n_rows`` rows is moved."""
        moves: dict[int, list[Move]] = {}
        for each in steering.applied:
            rows, value = [range(n_rows)], [float(each.amount.value)]
            share = _Share(each.steerer.method, each.amount.quantity, rows, value)
            moves.setdefault(each.site.layer, []).append(self._move(share))
        return Step(moves)

    def _move(self, share: _Share) -> Move:
        numbers = [number for part in share.rows for number in part]
        value: float | Tensor = share.values[0]
        if len(set(share.values)) > 1:
            pairs = zip(share.rows, share.values, strict=True)
            each = [[value] for rows, value in pairs for _ in rows]
            value = torch.tensor(each, device=self._device)
        rows: slice | Tensor = slice(numbers[0], numbers[-1] + 1)
        if any(one.stop != other.start for one, other in pairwise(share.rows)):
            rows = torch.tensor(numbers, device=self._device)
        method = self._on_device(share.method)
        like = torch.empty(len(numbers), 1, method.width_, device=self._device)
        return Move(method.prepared(Amount(share.quantity, value), like), rows)

    def _on_device(self, method: Method) -> Method:
        if id(method) not in self._methods:
            self._methods[id(method)] = method.to(self._device)
        return self._methods[id(method)]


def _shares(segments: Iterable[Segment]) -> dict[_Key, _Share]:
    """Who moves which rows, by layer and turn: rows with one method at one turn move together."""
    shares: dict[_Key, _Share] = {}
    for segment in segments:
        turns: Counter[int] = Counter()
        for each in segment.steering.applied:
            layer, method, amount = each.site.layer, each.steerer.method, each.amount
            turns[layer] += 1
            tokens = moved_tokens(
                each.site.position, segment.start, segment.stop, segment.prompt_length
            )
            if tokens:
                shift = segment.row - segment.start
                key = (turns[layer], layer, id(method), amount.quantity)
                share = shares.setdefault(key, _Share(method, amount.quantity))
                share.rows.append(range(tokens.start + shift, tokens.stop + shift))
                share.values.append(float(amount.value))
    return dict(sorted(shares.items()))
