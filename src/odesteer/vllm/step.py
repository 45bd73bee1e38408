"""One step of an engine: which rows of its batch are moved, by which methods and how far."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from odesteer.artifact.phases import PhasedText
from odesteer.methods import Amount, Method, Prepared
from odesteer.vllm.request_steering import RequestSteering, moved_tokens


@dataclass(frozen=True, eq=False)
class StepBatch:
    """The requests of a step, in the order of their rows.

    Attributes:
        steerings: of each of the n requests; None for unsteered ones.
        row_offsets: `[n + 1]`, the first row of each, and the end.
        first_tokens: `[n]`, which token its first row is, counted from the first of its prompt.
        prompt_lengths: `[n]`, numbers of tokens.
        texts: up to the last row of each; None where no position depends on it. None at all if
            this holds for every request.
    """

    steerings: Sequence[RequestSteering | None]
    row_offsets: Any
    first_tokens: Any
    prompt_lengths: Any
    texts: Sequence[PhasedText | None] = ()

    @property
    def reads_texts(self) -> bool:
        """Whether which tokens are moved depends on the text of a request."""
        return any(each is not None and each.reads_text for each in self.steerings)

    def continues(self, previous: "StepBatch") -> bool:
        """Whether the same rows are moved as in the step before: the same requests are decoded in
        them, and no steerer counts their tokens."""
        return (
            self.steerings == previous.steerings
            and not any(each is not None and each.counts_tokens for each in self.steerings)
            and np.array_equal(self.row_offsets, previous.row_offsets)
            and bool((self.first_tokens >= self.prompt_lengths).all())
            and bool((previous.first_tokens >= previous.prompt_lengths).all())
        )


class LayerOperation(Protocol):
    """What a step does to the residual stream after one layer."""

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


LayerOperations = Mapping[int, Sequence[LayerOperation]]
"""By layer, its operations in order."""


@dataclass
class SteeringStep:
    """The operations of a step, and which layers have asked for theirs."""

    operations: LayerOperations
    visited: set[int] = field(default_factory=set)

    def at(self, layer: int) -> Sequence[LayerOperation]:
        self.visited.add(layer)
        return self.operations.get(layer, ())


@dataclass
class _MovedRows:
    """The rows that one method moves at one layer; ``values`` has an amount for each range."""

    method: Method
    quantity: str
    rows: list[range] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


_GroupKey = tuple[int, int, int, str]
"""Rank at the layer, layer, id of the method, quantity."""


class StepPlanner:
    """Makes the steps of one engine, with methods on the device of its model."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._methods: dict[int, Method] = {}
        self._last: tuple[StepBatch, LayerOperations] | None = None

    def step(self, batch: StepBatch) -> SteeringStep | None:
        """The step of this batch; None if none of its rows is moved."""
        if not any(steering is not None for steering in batch.steerings):
            return None
        if self._last is None or not batch.continues(self._last[0]):
            operations: dict[int, list[RowSteering]] = {}
            for (_, layer, *_), group in _moved_rows(batch).items():
                operations.setdefault(layer, []).append(self._row_steering(group))
            self._last = (batch, operations)
        return SteeringStep(self._last[1]) if self._last[1] else None

    def on_all_rows(self, steering: RequestSteering, n_rows: int) -> SteeringStep:
        """A step in which every one of ``n_rows`` rows is moved."""
        operations: dict[int, list[RowSteering]] = {}
        for each in steering.applied:
            rows, values = [range(n_rows)], [float(each.amount.value)]
            group = _MovedRows(each.steerer.method, each.amount.quantity, rows, values)
            operations.setdefault(each.site.layer, []).append(self._row_steering(group))
        return SteeringStep(operations)

    def _row_steering(self, group: _MovedRows) -> RowSteering:
        indices = [row for part in group.rows for row in part]
        value: float | Tensor = group.values[0]
        if len(set(group.values)) > 1:
            pairs = zip(group.rows, group.values, strict=True)
            by_row = [[value] for rows, value in pairs for _ in rows]
            value = torch.tensor(by_row, device=self._device)
        rows: slice | Tensor = slice(indices[0], indices[-1] + 1)
        if any(one.stop != following.start for one, following in pairwise(group.rows)):
            rows = torch.tensor(indices, device=self._device)
        method = self._on_device(group.method)
        like = torch.empty(len(indices), 1, method.width_, device=self._device)
        return RowSteering(method.prepared(Amount(group.quantity, value), like), rows)

    def _on_device(self, method: Method) -> Method:
        if id(method) not in self._methods:
            self._methods[id(method)] = method.to(self._device)
        return self._methods[id(method)]


def _moved_rows(batch: StepBatch) -> dict[_GroupKey, _MovedRows]:
    """The moved rows; those with the same method at the same layer and rank move together."""
    groups: dict[_GroupKey, _MovedRows] = {}
    offsets, first_tokens = batch.row_offsets.tolist(), batch.first_tokens.tolist()
    prompt_lengths = batch.prompt_lengths.tolist()
    for i, steering in enumerate(batch.steerings):
        if steering is None:
            continue
        start, shift = first_tokens[i], offsets[i] - first_tokens[i]
        for rank, each in steering.ranked:
            stop = offsets[i + 1] - shift
            text = batch.texts[i] if batch.texts else None
            tokens = moved_tokens(each.site.position, start, stop, prompt_lengths[i], text)
            if tokens:
                method, amount = each.steerer.method, each.amount
                key = (rank, each.site.layer, id(method), amount.quantity)
                group = groups.get(key)
                if group is None:
                    group = groups[key] = _MovedRows(method, amount.quantity)
                group.rows += [range(one.start + shift, one.stop + shift) for one in tokens]
                group.values += [float(amount.value)] * len(tokens)
    return dict(sorted(groups.items()))
