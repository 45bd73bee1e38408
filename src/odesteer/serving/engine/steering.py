"""Steering of a batch: each row by its own steerers, and what these did to it."""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from odesteer.artifact import Steerer
from odesteer.artifact.phases import PADDING
from odesteer.artifact.positions import parse_position
from odesteer.errors import InvalidInputError
from odesteer.methods import Amount
from odesteer.models import Receipt, SteeredModel, Steering
from odesteer.serving.engine.output import BarrierChange
from odesteer.serving.steerers import SteererMember, SteererRegistry, SteeringSpec


@dataclass(frozen=True)
class SequenceSteerer:
    """One steerer at one site that acts on a sequence.

    Attributes:
        name: what the request calls it.
        member: the steerer.
        amount: how much.
        digest: of the registered steerer or set.
        observe: whether it only measures.
    """

    name: str
    member: SteererMember
    amount: Amount
    digest: str
    observe: bool = False

    @property
    def reads_whole_prompts(self) -> bool:
        """Whether prompts cannot come in pieces: a gate or a position reads more than a piece."""
        site = self.member.site
        return self.member.gated.gate is not None or not parse_position(site.position).is_plain


@dataclass(frozen=True)
class SteeringEffect:
    """What one steerer of a sequence did in one forward pass, where the next token is chosen.

    Attributes:
        index: of the steerer, among those of the sequence.
        acted: whether it acted on that activation.
        barrier: h of the activation, before and after; None without a barrier.
        gate_open: what its gate decided in this pass; None if it decided nothing.
    """

    index: int
    acted: bool = False
    barrier: BarrierChange | None = None
    gate_open: bool | None = None


def sequence_steerers(
    specs: Sequence[SteeringSpec], registry: SteererRegistry
) -> list[SequenceSteerer]:
    """The steerers that a request asks for, one for each site, in order.

    Raises `InvalidInputError` for steerers that do not exist or come twice, and for amounts that
    they do not have.
    """
    names = [spec.name for spec in specs]
    for name in names:
        if names.count(name) > 1:
            raise InvalidInputError(f"the steerer {name!r} is named twice; name it once.")
    return [steerer for spec in specs for steerer in _steerers_at_sites(spec, registry)]


def _steerers_at_sites(spec: SteeringSpec, registry: SteererRegistry) -> list[SequenceSteerer]:
    entry = registry[spec.name]
    if spec.observe:
        entry.check_observable()
    else:
        entry.check(spec.amount)
    steerers = []
    for member in entry.members:
        amount = member.zero_amount if spec.observe else spec.amount
        if amount is None:
            amount = member.ungated.method.default_amount
        if spec.observe:
            member = member.without_gate
        steerers.append(SequenceSteerer(entry.name, member, amount, entry.digest, spec.observe))
    return steerers


@dataclass(frozen=True)
class ReadTokens:
    """The tokens of a sequence that the cache of a batch holds.

    Attributes:
        columns: their ids, -1 for padding.
        prompt_end: the column in which the first generated token is.
    """

    columns: Sequence[int]
    prompt_end: int

    @classmethod
    def of(cls, prompt: Sequence[int], generated: Sequence[int], width: int) -> "ReadTokens":
        """Of a row that is padded on the left to ``width`` columns."""
        missing = width - len(prompt) - len(generated)
        return cls([*[PADDING] * missing, *prompt, *generated], width - len(generated))


@dataclass
class _RowGroup:
    """Rows that have the same steerer at the same index, and amounts in the same quantity."""

    index: int
    quantity: str
    steerers: list[Steerer | None]
    amounts: list[float | None]

    def steering(
        self,
        lm: SteeredModel,
        prompt_width: int | list[int] | None,
        read: Sequence[ReadTokens],
    ) -> Steering:
        width = prompt_width
        if prompt_width is None and not self._is_plain:
            width = [each.prompt_end for each in read]
        steering = lm.steering(
            self.steerers,
            prompt_width=width,
            receipt=True,
            **{self.quantity: self.amounts},  # type: ignore[arg-type]
        )
        if prompt_width is None and not self._is_plain:
            steering.give_texts([each.columns for each in read])
        return steering

    @property
    def _is_plain(self) -> bool:
        """Whether positions depend on no more than whether a token is generated."""
        sites = (steerer.site for steerer in self.steerers if steerer is not None)
        return all(site is None or parse_position(site.position).is_plain for site in sites)


class BatchSteering:
    """Steers the rows of a batch, in prefill or in decoding.

    Parameters:
        lm: the model.
        rows: for each row its steerers in order; None for one whose gate is closed.
        prompt_ends: in prefill, the number of columns that are the prompt of each row, and gates
            decide; None in decoding, where they have decided.
        read: in decoding, the tokens of each row that the cache holds.
    """

    def __init__(
        self,
        lm: SteeredModel,
        rows: Sequence[Sequence[SequenceSteerer | None]],
        prompt_ends: Sequence[int] | None = None,
        read: Sequence[ReadTokens] = (),
    ) -> None:
        prompt_width: int | list[int] | None = None
        if prompt_ends is not None:
            one_for_all = len({*prompt_ends}) == 1
            prompt_width = prompt_ends[0] if one_for_all else [*prompt_ends]
        groups: dict[tuple[int, int, str], _RowGroup] = {}
        for row, steerers in enumerate(rows):
            for index, steerer in enumerate(steerers):
                if steerer is None:
                    continue
                member, amount = steerer.member, steerer.amount
                applied = member.ungated if prompt_width is None else member.gated
                group = groups.setdefault(
                    (index, id(applied), amount.quantity),
                    _RowGroup(index, amount.quantity, [None] * len(rows), [None] * len(rows)),
                )
                group.steerers[row], group.amounts[row] = applied, float(amount.value)
        # Outer contexts act first.
        self._groups = [
            (group, group.steering(lm, prompt_width, read))
            for group in sorted(groups.values(), key=lambda group: group.index)
        ]

    @contextmanager
    def active(self) -> Iterator[None]:
        """Steer the forward passes inside."""
        with ExitStack() as stack:
            for _, steering in self._groups:
                stack.enter_context(steering)
            yield

    def take_effects(self, first_columns: Sequence[int]) -> Iterator[tuple[int, SteeringEffect]]:
        """By row, what was done from its first column here on, and what gates decided.

        It tells of the passes since it was last called.
        """
        for group, steering in self._groups:
            receipt = steering.take_receipt()
            gates = receipt.decisions
            for row, gate_open in zip(gates.row.tolist(), gates.is_open.tolist(), strict=True):
                if group.steerers[row] is not None:
                    yield row, SteeringEffect(group.index, gate_open=gate_open)
            for row, barrier in _from_columns(receipt, first_columns):
                yield row, SteeringEffect(group.index, acted=True, barrier=barrier)


def _from_columns(
    receipt: Receipt, first_columns: Sequence[int]
) -> Iterator[tuple[int, BarrierChange | None]]:
    fields = (receipt.row, receipt.column, receipt.before, receipt.after)
    for row, where, before, after in zip(*(field.tolist() for field in fields), strict=True):
        if where >= first_columns[row]:
            known = math.isfinite(before) and math.isfinite(after)
            yield row, BarrierChange(before, after) if known else None
