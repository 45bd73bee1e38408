"""Amounts of a method that cost as much as is asked for, found by measuring the cost."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from odesteer.artifact import Steerer, SteererSet
from odesteer.errors import ConvergenceError, InvalidInputError
from odesteer.methods import Amount, Method

LARGEST = {"level": 16.0, "strength": 64.0, "T": 1e5, "interpolation": 4.0}
"""The largest amounts that are tried, where the method allows them."""

_SMALLEST_SHARE = 1e-3
_LEAST_POWER = 0.15
_FACTOR = 4.0  # between neighbouring amounts outside of what was measured


@dataclass
class CostSearch:
    """Finds amounts by their cost, which grows with the amount about as a power of it.

    Parameters:
        cost: measures an amount, nats a token; what it raises as `InvalidInputError` or
            `ConvergenceError` counts as too large an amount.
        start: the first amount.
        most: the largest amount.
        tolerance: the share by which a cost may differ from what was asked for.
        evaluations: the most measurements for one target.

    Attributes:
        measured: the cost of every amount that was measured.
    """

    cost: Callable[[float], float]
    start: float
    most: float
    tolerance: float = 0.05
    evaluations: int = 8
    measured: dict[float, float] = field(default_factory=dict)

    def find(self, target: float) -> float | None:
        """The amount whose cost is nearest to ``target``, in rounds of three digits.

        None where even the largest amount costs less by more than the tolerance. Where the
        smallest amount already costs more, that one.
        """
        if not (target > 0 and math.isfinite(target)):
            raise InvalidInputError(f"the cost must be a positive number, not {target}.")
        for _ in range(self.evaluations):
            near = self._nearest(target)
            if near is not None and self._is_met(near, target):
                return near
            amount = self._next(target)
            if amount in self.measured or self._is_level(target):
                break
            self._measure(amount)
        near = self._nearest(target)
        if near is None or self.measured[near] < target * (1 - max(self.tolerance, 0.25)):
            return None
        return near

    def _nearest(self, target: float) -> float | None:
        known = [a for a, c in self.measured.items() if math.isfinite(c) and c > 0]
        return min(known, key=lambda a: abs(math.log(self.measured[a] / target)), default=None)

    def _is_met(self, amount: float, target: float) -> bool:
        return abs(self.measured[amount] / target - 1) <= self.tolerance

    def _measure(self, amount: float) -> None:
        try:
            found = self.cost(amount)
        except (InvalidInputError, ConvergenceError):
            if amount == self.start:
                raise
            found = math.inf
        self.measured[amount] = found if math.isfinite(found) else math.inf

    def _next(self, target: float) -> float:
        """The amount to measure next: between its neighbours, else beyond the outermost."""
        below = [a for a, c in self.measured.items() if c < target]
        above = [a for a, c in self.measured.items() if c >= target]
        if not self.measured:
            return _rounded(min(self.start, self.most))
        if not above:
            low = max(below)
            return _rounded(min(low * self._growth(low, target), self.most))
        high = min(above)
        smaller = [a for a in below if a < high]
        if not smaller:
            least = self.start * _SMALLEST_SHARE
            return _rounded(max(high * self._growth(high, target), least))
        return _rounded(self._between(max(smaller), high, target))

    def _is_level(self, target: float) -> bool:
        """Whether larger amounts hardly cost more, as where a method caps what it does."""
        known = sorted(self.measured)
        power = self._power()
        return power is not None and power < _LEAST_POWER and self.measured[known[-1]] < target

    def _power(self) -> float | None:
        """With what power of the amount the cost grows at the largest two; None if unknown."""
        known = sorted(self.measured)[-2:]
        costs = [self.measured[amount] for amount in known]
        if len(known) < 2 or min(costs) <= 0 or not all(map(math.isfinite, costs)):
            return None
        return math.log(costs[1] / costs[0]) / math.log(known[1] / known[0])

    def _growth(self, amount: float, target: float) -> float:
        """By what factor to change an outermost amount: costs grow about with the square."""
        cost = self.measured[amount]
        if not math.isfinite(cost):
            return 1 / _FACTOR
        if cost <= 0:
            return _FACTOR
        power = self._power() if cost < target else None
        power = 2.0 if power is None else min(max(power, 0.25), 4.0)
        return float(min(max((target / cost) ** (1 / power), 1 / _FACTOR), _FACTOR))

    def _between(self, low: float, high: float, target: float) -> float:
        costs = self.measured[low], self.measured[high]
        if costs[0] <= 0 or not math.isfinite(costs[1]):
            return math.sqrt(low * high)
        slope = math.log(costs[1] / costs[0])
        share = math.log(target / costs[0]) / slope if slope > 0 else 0.5
        # Away from the ends, so that every measurement narrows the interval.
        share = min(max(share, 0.05), 0.95)
        return float(low ** (1 - share) * high**share)


def largest_amount(method: Method, quantity: str) -> float:
    """The largest amount of a quantity that a method takes, at most `LARGEST`."""
    most = LARGEST[quantity]
    for value in (most, most / 2, most / 4, 1.0):
        try:
            method.check_amount(Amount(quantity, value))
        except InvalidInputError:
            continue
        return value
    raise InvalidInputError(f"{method!r:.80} takes no {quantity}.")


def search_of(
    cost: Callable[[Amount], float],
    steerer: Steerer | SteererSet,
    quantity: str | None = None,
    *,
    start: float | None = None,
    tolerance: float = 0.05,
) -> tuple[str, CostSearch]:
    """The search for amounts of a fitted steerer, in its method's first quantity by default."""
    method = steerer.members[0].method
    quantity = method.quantities[0] if quantity is None else quantity
    default = method.default_amount
    if start is None:
        own = default.quantity == quantity and float(default.value) > 0
        start = float(default.value) if own else 1.0
    search = CostSearch(
        lambda value: cost(Amount(quantity, value)),
        start,
        largest_amount(method, quantity),
        tolerance,
    )
    return quantity, search


def _rounded(amount: float) -> float:
    """Three significant digits, so that a found amount does not depend on rounding."""
    return float(f"{amount:.3g}")
