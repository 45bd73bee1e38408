"""Curve of a method's effect against its cost, and the effect at a given cost by interpolation."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from odesteer.evaluation.metrics import Observation

ItemKey = tuple[str, int, str]
"""Unit, seed and key of an item, as in `Observation`."""


@dataclass(frozen=True)
class MeasuredAmount:
    """One amount of a fitted method, measured on test items.

    Attributes:
        amount: as text.
        layer: of the steerer; None for prompts.
        kl: KL(unsteered ‖ steered) on neutral text, nats a token.
        kl_error: its standard error.
        values: the headline metric by item; None where it is missing.
        gains: the same less that of the unsteered model.
        side_effects: what else it costs, by name.
    """

    amount: str
    layer: int | None
    kl: float
    kl_error: float
    values: Mapping[ItemKey, float | None]
    gains: Mapping[ItemKey, float | None]
    side_effects: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class CurveSegment:
    """The amounts of one fit: of one fold under one seed, on its items."""

    fold: str
    seed: int
    points: tuple[MeasuredAmount, ...]

    @property
    def most(self) -> float:
        """The largest KL that was measured."""
        return max((point.kl for point in self.points), default=0.0)

    def effect(self, kl: float) -> dict[ItemKey, float | None]:
        """The gain of each item at a cost; all missing where that cost was not reached.

        Linear in √KL between the nearest costs, of which 0 with no gain is one: for small moves
        gains grow with the move and KL with its square.
        """
        found = sorted(self.points, key=lambda point: point.kl)
        keys = list(found[0].gains) if found else []
        for i, high in enumerate(found):
            if high.kl < kl:
                continue
            low = found[i - 1] if i else None
            start = 0.0 if low is None else math.sqrt(low.kl)
            width = math.sqrt(high.kl) - start
            share = (math.sqrt(kl) - start) / width if width > 0 else 1.0
            return {
                key: _between(0.0 if low is None else low.gains[key], high.gains[key], share)
                for key in keys
            }
        return dict.fromkeys(keys)


@dataclass
class CostCurve:
    """The curve of one row of a comparison.

    Attributes:
        task: name of the task.
        contender: name of the row.
        title: what it is, a line.
        segments: one for each fold and seed.
        is_dialled: whether its amounts were chosen by their cost; prompts have only their own.
        failures: why it could not be fitted or steered.
    """

    task: str
    contender: str
    title: str
    segments: list[CurveSegment] = field(default_factory=list)
    is_dialled: bool = True
    failures: list[str] = field(default_factory=list)

    def reaches(self, kl: float) -> bool:
        """Whether the cost was reached in every fold and under every seed."""
        return bool(self.segments) and all(segment.most >= kl for segment in self.segments)

    def observations(self, kl: float) -> list[Observation]:
        """The gain of every item at a cost."""
        return [
            Observation(key[0], key[1], value, key[2])
            for segment in self.segments
            for key, value in segment.effect(kl).items()
        ]

    def measured(self) -> list[tuple[float, list[Observation]]]:
        """The mean cost of the n-th amount of all segments, with the gains of all their items."""
        n = min((len(segment.points) for segment in self.segments), default=0)
        found = []
        for i in range(n):
            points = [sorted(s.points, key=lambda p: p.kl)[i] for s in self.segments]
            observations = [
                Observation(key[0], key[1], value, key[2])
                for point in points
                for key, value in point.gains.items()
            ]
            found.append((math.fsum(p.kl for p in points) / len(points), observations))
        return found


def gains(
    values: Mapping[ItemKey, float | None], unsteered: Mapping[ItemKey, float | None]
) -> dict[ItemKey, float | None]:
    """Item by item what is gained over the unsteered model."""
    found: dict[ItemKey, float | None] = {}
    for key, value in values.items():
        base = unsteered.get(key)
        found[key] = None if value is None or base is None else value - base
    return found


def mean(values: Sequence[float | None]) -> float | None:
    """Of those that are not missing."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _between(low: float | None, high: float | None, share: float) -> float | None:
    return None if low is None or high is None else low + share * (high - low)
