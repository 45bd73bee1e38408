"""Steering each row of a batch in its own way, and what it did there."""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from odesteer.artifact import Steerer
from odesteer.methods import Amount
from odesteer.models import Receipt, SteeredModel, Steering
from odesteer.serving.engine.output import BarrierChange
from odesteer.serving.steerers import SteererMember


@dataclass(frozen=True)
class SequenceSteerer:
    """One steerer at one site that acts on a row, and how much.

    Attributes:
        name: what the request calls it.
        part: the steerer.
        amount: how much it moves.
        digest: of the steerer, or of the set that it belongs to.
        observes: whether it is there to look only.
    """

    name: str
    part: SteererMember
    amount: Amount
    digest: str
    observes: bool = False


@dataclass(frozen=True)
class SteeringEffect:
    """What one of a row's steerers did where its next token is chosen.

    Attributes:
        order: which of them.
        acted: whether it came to act on that activation.
        ratio: log-density ratio of the activation before and after; None without a barrier.
        is_open: what its gate decided in this pass; None where none did.
    """

    order: int
    acted: bool = False
    ratio: BarrierChange | None = None
    is_open: bool | None = None


@dataclass
class _Group:
    """Rows whose steerer of one order is the same and is told in one quantity."""

    order: int
    quantity: str
    steerers: list[Steerer | None]
    amounts: list[float | None]

    def steering(self, lm: SteeredModel, prompt_width: int | None) -> Steering:
        return lm.steering(
            self.steerers,
            prompt_width=prompt_width,
            receipt=True,
            **{self.quantity: self.amounts},  # type: ignore[arg-type]
        )


class BatchSteering:
    """Steers the rows of a batch in passes of one kind.

    ``rows`` are for each row the steerers that act on it, one after another, None in the place of
    one that does not act. Over prompts, whose common width is ``prompt_width``, gates decide; over
    generated tokens they have decided.
    """

    def __init__(
        self,
        lm: SteeredModel,
        rows: Sequence[Sequence[SequenceSteerer | None]],
        prompt_width: int | None = None,
    ) -> None:
        groups: dict[tuple[int, int, str], _Group] = {}
        for row, actings in enumerate(rows):
            for order, acting in enumerate(actings):
                if acting is None:
                    continue
                part, amount = acting.part, acting.amount
                steerer = part.open if prompt_width is None else part.gated
                group = groups.setdefault(
                    (order, id(steerer), amount.quantity),
                    _Group(order, amount.quantity, [None] * len(rows), [None] * len(rows)),
                )
                group.steerers[row], group.amounts[row] = steerer, float(amount.value)
        # Outer contexts act first.
        self._groups = [
            (group, group.steering(lm, prompt_width))
            for group in sorted(groups.values(), key=lambda group: group.order)
        ]

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Steer the passes inside."""
        with ExitStack() as stack:
            for _, steering in self._groups:
                stack.enter_context(steering)
            yield

    def take_deeds(self, column: int) -> Iterator[tuple[int, SteeringEffect]]:
        """By row what was done in this column of the last pass."""
        for group, steering in self._groups:
            receipt = steering.take_receipt()
            gates = receipt.decisions
            for row, is_open in zip(gates.row.tolist(), gates.is_open.tolist(), strict=True):
                if group.steerers[row] is not None:
                    yield row, SteeringEffect(group.order, is_open=is_open)
            for row, ratio in _at(receipt, column):
                yield row, SteeringEffect(group.order, acted=True, ratio=ratio)


def _at(receipt: Receipt, column: int) -> Iterator[tuple[int, BarrierChange | None]]:
    fields = (receipt.row, receipt.column, receipt.before, receipt.after)
    for row, where, before, after in zip(*(field.tolist() for field in fields), strict=True):
        if where == column:
            known = math.isfinite(before) and math.isfinite(after)
            yield row, BarrierChange(before, after) if known else None
