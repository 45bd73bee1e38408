"""One step of an engine: which rows of its batch are moved, by whom and how far."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from odesteer.methods import Amount, Method, Prepared
from odesteer.vllm.request_steering import RequestSteering, moved_tokens


@dataclass(frozen=True, eq=False)
class StepBatch:
    """The requests of a step, in the order of their rows.

    Attributes:
        steerings: what each of the n requests wants; None for nothing.
        rows: `[n + 1]`, the first row of each, and the end.
        starts: `[n]`, which token its first row is, counted from the first of its prompt.
        prompts: `[n]`, how many of its tokens are the prompt.
    """

    steerings: Sequence[RequestSteering | None]
    rows: Any
    starts: Any
    prompts: Any

    def goes_on(self, before: "StepBatch") -> bool:
        """Whether the same requests generate, in the same rows as in the step before."""
        return (
            self.steerings == before.steerings
            and np.array_equal(self.rows, before.rows)
            and bool((self.starts >= self.prompts).all())
            and bool((before.starts >= before.prompts).all())
        )


class LayerOperation(Protocol):
    """What moves rows at one layer."""

    def apply(self, hidden: Tensor, residual: Tensor | None) -> None:
        """Move rows of the residual stream ``hidden + residual``, `[n, d]`, within ``hidden``."""


@dataclass(frozen=True)
class RowSteering:
    """A method that moves rows: a slice of them, or those of indices `[r]` on the device."""

    prepared: Prepared
    rows: slice | Tensor

    def apply(self, hidden: Tensor, residual: Tensor | None) -> None:
        """As `LayerOperation.apply`, in float32; only the difference is rounded to the dtype."""
        part = hidden[self.rows].float()
        stream = part if residual is None else part + residual[self.rows].float()
        moved = stream[:, None].clone()
        if self.prepared.in_place is None or not self.prepared.in_place.move(moved):
            moved = self.prepared.solve(moved).state
        hidden[self.rows] = (part + (moved[:, 0] - stream)).to(hidden.dtype)


Moves = Mapping[int, Sequence[LayerOperation]]
"""By layer, what moves there, one after the other."""


@dataclass
class SteeringStep:
    """What is moved at each layer, and which layers have looked."""

    moves: Moves
    visited: set[int] = field(default_factory=set)

    def at(self, layer: int) -> Sequence[LayerOperation]:
        self.visited.add(layer)
        return self.moves.get(layer, ())


@dataclass
class _RowGroup:
    """The rows that one method moves at one layer, and how far each part of them goes."""

    method: Method
    quantity: str
    rows: list[range] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


# Turn, layer, method and quantity.
_Key = tuple[int, int, int, str]


class StepPlanner:
    """Makes the steps of one engine, with methods on the device of its model."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._methods: dict[int, Method] = {}
        self._last: tuple[StepBatch, Moves] | None = None

    def step(self, batch: StepBatch) -> SteeringStep | None:
        """The step in which this batch runs; None if none of its rows is moved."""
        if not any(steering is not None for steering in batch.steerings):
            return None
        if self._last is None or not batch.goes_on(self._last[0]):
            moves: dict[int, list[RowSteering]] = {}
            for (_, layer, *_), share in _shares(batch).items():
                moves.setdefault(layer, []).append(self._move(share))
            self._last = (batch, moves)
        return SteeringStep(self._last[1]) if self._last[1] else None

    def whole(self, steering: RequestSteering, n_rows: int) -> SteeringStep:
        """A step in which every one of ``n_rows`` rows is moved."""
        moves: dict[int, list[RowSteering]] = {}
        for each in steering.applied:
            rows, value = [range(n_rows)], [float(each.amount.value)]
            share = _RowGroup(each.steerer.method, each.amount.quantity, rows, value)
            moves.setdefault(each.site.layer, []).append(self._move(share))
        return SteeringStep(moves)

    def _move(self, share: _RowGroup) -> RowSteering:
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
        return RowSteering(method.prepared(Amount(share.quantity, value), like), rows)

    def _on_device(self, method: Method) -> Method:
        if id(method) not in self._methods:
            self._methods[id(method)] = method.to(self._device)
        return self._methods[id(method)]


def _shares(batch: StepBatch) -> dict[_Key, _RowGroup]:
    """Who moves which rows, by layer and turn: rows with one method at one turn move together."""
    shares: dict[_Key, _RowGroup] = {}
    rows, starts, prompts = batch.rows.tolist(), batch.starts.tolist(), batch.prompts.tolist()
    for i, steering in enumerate(batch.steerings):
        if steering is None:
            continue
        start, shift = starts[i], rows[i] - starts[i]
        for turn, each in steering.turns:
            tokens = moved_tokens(each.site.position, start, rows[i + 1] - shift, prompts[i])
            if tokens:
                method, amount = each.steerer.method, each.amount
                key = (turn, each.site.layer, id(method), amount.quantity)
                share = shares.get(key)
                if share is None:
                    share = shares[key] = _RowGroup(method, amount.quantity)
                share.rows.append(range(tokens.start + shift, tokens.stop + shift))
                share.values.append(float(amount.value))
    return dict(sorted(shares.items()))
