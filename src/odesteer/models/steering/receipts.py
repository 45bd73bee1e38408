"""Receipts: what steering did at each position."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from odesteer.artifact import PARTS
from odesteer.flows import Solution
from odesteer.models.architecture.sites import SiteModule


@dataclass(frozen=True)
class GateDecisions:
    """One entry for each row of each prompt that a gate decided, in the order of the passes.

    Attributes (each `[n]`, on the CPU):
        gate: which gate, counted from zero in the order of the steerers that have one.
        forward: which forward pass, counted from zero since the steering began.
        row: row of the batch in that pass.
        value: h of the condition at the prompt, nats.
        is_open: whether the row is steered.
    """

    gate: Tensor
    forward: Tensor
    row: Tensor
    value: Tensor
    is_open: Tensor

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True)
class Receipt:
    """One entry for each position that was moved, in the order of the moves.

    Attributes (each `[n]`, on the CPU, but for the last):
        layer: the decoder layer that it was moved at.
        heads: whether the outputs of that layer's heads were moved rather than its own.
        final: whether the output of the norm behind it was.
        forward: which forward pass, counted from zero since the steering began.
        row: row of the batch in that pass.
        column: column of the batch, counted from the first one that a cache holds.
        before: log-density ratio before, nats; NaN where the method has no barrier.
        after: log-density ratio after, nats.
        distance: arc length travelled, activation units.
        capped: whether it was to reach a level and ran to the cap instead.
        usable: False for zero, NaN and infinite activations, which are left as they are.
        decisions: what gates decided; rows that they closed have no entries.
    """

    layer: Tensor
    heads: Tensor
    final: Tensor
    forward: Tensor
    row: Tensor
    column: Tensor
    before: Tensor
    after: Tensor
    distance: Tensor
    capped: Tensor
    usable: Tensor
    decisions: GateDecisions

    def __len__(self) -> int:
        return len(self.row)

    @property
    def n_capped(self) -> int:
        return int(self.capped.sum())

    @property
    def n_unusable(self) -> int:
        return int((~self.usable).sum())


@dataclass
class ReceiptRecorder:
    """Collects the entries of a receipt, on the devices of the activations."""

    _places: list[Tensor] = field(default_factory=list)
    _figures: list[Tensor] = field(default_factory=list)
    _decisions: list[Tensor] = field(default_factory=list)

    def record(
        self,
        site: SiteModule,
        forward: int,
        rows: Tensor | int,
        columns: Tensor | range,
        mask: Tensor | None,
        solution: Solution,
        before: Tensor | None,
        after: Tensor | None,
    ) -> None:
        """Record `[r, c]` positions; those with a False ``mask`` are padding and are dropped later.

        ``rows`` is `[r]` or a number of rows from the first, ``columns`` a range or `[r, c]`.
        """
        time = solution.time
        shape, device = time.shape, time.device
        if isinstance(rows, int):
            rows = torch.arange(rows, device=device)
        if isinstance(columns, range):
            columns = torch.arange(columns.start, columns.stop, device=device)
        nan = time.new_full((), math.nan)
        usable = (
            torch.ones_like(time, dtype=torch.bool) if solution.usable is None else solution.usable
        )
        capped = (
            torch.zeros_like(usable) if solution.reached is None else usable & ~solution.reached
        )
        kept = torch.ones_like(usable) if mask is None else mask
        numbers = (site.layer, PARTS.index(site.part), forward)
        where = (*(torch.full_like(rows, number) for number in numbers), rows)
        places = [part[:, None].expand(shape) for part in where] + [columns.expand(shape)]
        figures = [nan if before is None else before, nan if after is None else after, time]
        flags = [capped, usable, kept]
        self._places.append(torch.stack(places).flatten(1))
        self._figures.append(
            torch.stack([part.float().expand(shape) for part in (*figures, *flags)]).flatten(1)
        )

    def record_decision(self, gate: int, forward: int, value: Tensor, is_open: Tensor) -> None:
        """Record the decisions of a gate about the rows of a batch, each `[rows]`."""
        rows = torch.arange(len(value), device=value.device)
        numbers = (torch.full_like(rows, number) for number in (gate, forward))
        # float64 holds all of these numbers exactly.
        self._decisions.append(torch.stack([p.double() for p in (*numbers, rows, value, is_open)]))

    def clear(self) -> None:
        """Discard all entries."""
        self._places, self._figures, self._decisions = [], [], []

    def receipt(self) -> Receipt:
        """All entries so far; the only place that synchronises with the devices."""
        places = _gathered(self._places, torch.zeros(5, 0, dtype=torch.long))
        figures = _gathered(self._figures, torch.zeros(6, 0, dtype=torch.float32))
        kept = figures[5] > 0
        layer, part, forward, row, column = places[:, kept]
        before, after, distance, capped, usable, _ = figures[:, kept]
        decided = _gathered(self._decisions, torch.zeros(5, 0, dtype=torch.float64))
        gate, passed, judged, value, is_open = decided
        return Receipt(
            layer,
            part == PARTS.index("heads"),
            part == PARTS.index("final"),
            *(forward, row, column),
            *(before, after, distance, capped > 0, usable > 0),
            GateDecisions(gate.long(), passed.long(), judged.long(), value.float(), is_open > 0),
        )


def _gathered(parts: Sequence[Tensor], empty: Tensor) -> Tensor:
    if len({part.device for part in parts}) == 1:
        return torch.cat([*parts], dim=1).cpu()
    return torch.cat([empty, *(part.cpu() for part in parts)], dim=1)
