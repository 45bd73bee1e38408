"""What one share of a steering does at its place."""

from dataclasses import dataclass

import torch
from torch import Tensor

from odesteer.errors import ModelError
from odesteer.flows import FlowInPlace
from odesteer.methods import Amount, Prepared
from odesteer.models import traced
from odesteer.models.gating import GateReader
from odesteer.models.passes import Run
from odesteer.models.rows import Share


@dataclass(frozen=True, eq=False)
class Part:
    """What a share does in batches of one size.

    Attributes:
        rows: numbers of its rows `[r]`; None for all.
        prepared: how they move.
        in_place: moves them where they lie in batches of one column; None without such a form.
    """

    rows: Tensor | None
    prepared: Prepared
    in_place: FlowInPlace | None


class Move:
    """One share at its place, ready to act: parameters on the device, rows of each batch size.

    With a ``gate`` it moves the rows for which the gate is open. Where the gate is read ``late``,
    at a place behind this one, it moves nothing before the first generated token.
    """

    def __init__(
        self, share: Share, device: torch.device, gate: GateReader | None = None, late: bool = False
    ) -> None:
        self.position = share.site.position
        self.number = traced.numbered(self)
        self.gate = gate
        self.late = late
        self._share = share
        self._on(device)

    def _on(self, device: torch.device) -> None:
        self.device = device
        self.method = self._share.steerer.method.to(device)
        self.barrier = getattr(self.method, "barrier", None)
        self._by_batch: dict[tuple[int, torch.dtype], Part] = {}

    def columns(self, run: Run, length: int) -> range:
        """The columns of this pass, of ``length`` columns, that it moves."""
        columns = run.columns(self.position, length)
        if not self.late:
            return columns
        first = run.columns("prompt", length, "a gate").stop
        if first and first < length:
            raise ModelError(
                "this gate is read behind the steered layer, so it is not decided when the tokens"
                " after the prompt pass in the same forward pass; use a cache, or a condition at"
                " the steered layer or before it."
            )
        return range(max(columns.start, first), max(columns.stop, first))

    def part(self, states: Tensor) -> Part:
        """What it does in batches like ``states`` `[batch, columns, d]`."""
        if states.device != self.device:
            self._on(states.device)
        key = len(states), states.dtype
        if key not in self._by_batch:
            self._by_batch[key] = self._prepared(states)
        return self._by_batch[key]

    def _prepared(self, states: Tensor) -> Part:
        share, batch = self._share, len(states)
        if share.n_rows is None or share.rows is None:
            return self._made(None, share.values[0], states[:, :1])
        copies, rest = divmod(batch, share.n_rows)
        if rest or not copies:
            raise ModelError(
                f"the model was given a batch of {batch} rows, and {share.n_rows} steerers or"
                " amounts; give one for each row."
            )
        # Beams and several samples repeat each row in place.
        first = torch.tensor(share.rows, device=self.device) * copies
        rows = (first[:, None] + torch.arange(copies, device=self.device)).flatten()
        value: float | Tensor = share.values[0]
        if len(share.values) > 1:
            values = torch.tensor(share.values, device=self.device)
            value = values.repeat_interleave(copies)[:, None]
        return self._made(None if len(rows) == batch else rows, value, states[: len(rows), :1])

    def _made(self, rows: Tensor | None, value: float | Tensor, like: Tensor) -> Part:
        prepared = self.method.prepared(Amount(self._share.quantity, value), like)
        flow = prepared.in_place
        return Part(rows, prepared, None if flow is None else flow.over(rows))

    def applied(self, states: Tensor) -> Tensor:
        """States `[batch, columns, d]` with its rows moved, all columns of them; a copy."""
        part, moved = self.part(states), states.clone()
        rows = slice(None) if part.rows is None else part.rows
        moved[rows] = part.prepared.solve(states[rows]).state
        return moved
