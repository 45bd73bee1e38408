"""`Intervention`: one steerer on its rows at its site, prepared for a device and batch size."""

from dataclasses import dataclass

import torch
from torch import Tensor

from odesteer.artifact.positions import parse_position
from odesteer.errors import ModelError
from odesteer.flows import FlowInPlace
from odesteer.methods import Amount, Prepared
from odesteer.models.steering.compiled import register_intervention
from odesteer.models.steering.gates import GateReader
from odesteer.models.steering.pass_tracker import PassTracker
from odesteer.models.steering.rows import RowAssignment


@dataclass(frozen=True, eq=False)
class PreparedRows:
    """An intervention prepared for batches of one size.

    Attributes:
        rows: indices of its rows `[r]`; None for all.
        prepared: the method with checked amounts.
        in_place: moves batches of one column in place; None without such a form.
    """

    rows: Tensor | None
    prepared: Prepared
    in_place: FlowInPlace | None


class Intervention:
    """One row assignment at its site: parameters on the device, rows of each batch size.

    With a ``gate`` it acts on the rows for which the gate is open. With ``gate_is_later`` the gate
    is read at a later site, and nothing is moved before the first generated token.
    """

    def __init__(
        self,
        assignment: RowAssignment,
        device: torch.device,
        tracker: PassTracker,
        gate: GateReader | None = None,
        gate_is_later: bool = False,
    ) -> None:
        self.position = parse_position(assignment.site.position)
        self.number = register_intervention(self)
        self.gate = gate
        self.gate_is_later = gate_is_later
        self._tracker = tracker
        self._assignment = assignment
        self._to_device(device)

    def _to_device(self, device: torch.device) -> None:
        self.device = device
        self.method = self._assignment.steerer.method.to(device)
        self.barrier = getattr(self.method, "barrier", None)
        self._by_batch: dict[tuple[int, torch.dtype], PreparedRows] = {}

    def columns(self, tracker: PassTracker) -> range:
        """The columns of the current pass that it moves in at least one row."""
        current = tracker.current
        columns = current.columns(self.position)
        if not self.gate_is_later or not columns:
            return columns
        prompt, generated = current.columns("prompt"), current.columns("generated")
        if prompt and generated:
            raise ModelError(
                "this gate is read behind the steered layer, so it is not decided when the tokens"
                " after the prompt pass in the same forward pass; use a cache, or a condition at"
                " the steered layer or before it."
            )
        return range(max(columns.start, generated.start), columns.stop)

    def prepared_rows(self, states: Tensor) -> PreparedRows:
        """Prepared for batches like ``states`` `[batch, columns, d]`."""
        if states.device != self.device:
            self._to_device(states.device)
        key = len(states), states.dtype
        if key not in self._by_batch:
            self._by_batch[key] = self._prepare(states)
        return self._by_batch[key]

    def _prepare(self, states: Tensor) -> PreparedRows:
        assignment, batch = self._assignment, len(states)
        if assignment.n_rows is None or assignment.rows is None:
            return self._prepare_with(None, assignment.values[0], states[:, :1])
        copies, rest = divmod(batch, assignment.n_rows)
        if rest or not copies:
            raise ModelError(
                f"the model was given a batch of {batch} rows, and {assignment.n_rows} steerers or"
                " amounts; give one for each row."
            )
        # Beams and several samples repeat each row in place.
        first = torch.tensor(assignment.rows, device=self.device) * copies
        rows = (first[:, None] + torch.arange(copies, device=self.device)).flatten()
        value: float | Tensor = assignment.values[0]
        if len(assignment.values) > 1:
            values = torch.tensor(assignment.values, device=self.device)
            value = values.repeat_interleave(copies)[:, None]
        return self._prepare_with(
            None if len(rows) == batch else rows, value, states[: len(rows), :1]
        )

    def _prepare_with(
        self, rows: Tensor | None, value: float | Tensor, like: Tensor
    ) -> PreparedRows:
        prepared = self.method.prepared(Amount(self._assignment.quantity, value), like)
        flow = prepared.in_place
        return PreparedRows(rows, prepared, None if flow is None else flow.over(rows))

    def is_covered(self) -> bool:
        """Whether the calling thread is steered; warns once if it is not."""
        return self._tracker.looks_covered()

    def apply(self, states: Tensor) -> Tensor:
        """States `[batch, columns, d]` with its rows moved, all columns of them; a copy."""
        prepared_rows, moved = self.prepared_rows(states), states.clone()
        rows = slice(None) if prepared_rows.rows is None else prepared_rows.rows
        moved[rows] = prepared_rows.prepared.solve(states[rows]).state
        return moved
