"""Base class of objectives, and their measurements and scores."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from odesteer.artifact import Steerer, SteererSet
from odesteer.errors import InvalidInputError
from odesteer.methods import Amount


@dataclass(frozen=True)
class Measurement:
    """The measurement of one validation item under one setting.

    Attributes:
        value: how well the aim was met, more is better; None where it could not be judged.
        fluency: cost in fluency, nats a token, less is better; None where it has no text to be
            measured on.

    Raises `InvalidInputError` for values that are not finite.
    """

    value: float | None
    fluency: float | None

    def __post_init__(self) -> None:
        for name in ("value", "fluency"):
            figure = getattr(self, name)
            if figure is not None and not math.isfinite(figure):
                raise InvalidInputError(f"{name} must be a finite number or None, not {figure}.")


@dataclass(frozen=True)
class Score:
    """Means over items, each with its standard error; NaN where there was nothing to average.

    Attributes:
        value: mean of the values.
        fluency: mean of the costs in fluency, nats a token.
        value_error, fluency_error: standard errors of the means.
        n: number of items.
        missing: how many of them have no value.
    """

    value: float
    fluency: float
    value_error: float = math.nan
    fluency_error: float = math.nan
    n: int = 0
    missing: int = 0

    @classmethod
    def of(cls, measurements: Sequence[Measurement]) -> "Score":
        values = [m.value for m in measurements if m.value is not None]
        costs = [m.fluency for m in measurements if m.fluency is not None]
        value, value_error = mean_and_error(values)
        cost, cost_error = mean_and_error(costs)
        n = len(measurements)
        return cls(value, cost, value_error, cost_error, n, n - len(values))


def mean_and_error(figures: Iterable[float]) -> tuple[float, float]:
    """Mean and its standard error; NaN for the mean of none and the error of one."""
    known = list(figures)
    if not known:
        return math.nan, math.nan
    mean = math.fsum(known) / len(known)
    if len(known) < 2:
        return mean, math.nan
    squares = math.fsum((figure - mean) ** 2 for figure in known)
    return mean, math.sqrt(squares / (len(known) - 1) / len(known))


class Objective(ABC):
    """Measures a setting on validation items, each by itself.

    A subclass has a number of items (``n_items``) and measures a range of them. The same range is
    always measured in the same way (same prompts, same seed), so that settings can be compared
    item by item and the measurements of ranges can be concatenated.

    Attributes:
        title: the meaning of ``value`` in a few words, for tables and plots.
        fluency_title: the meaning of ``fluency``.
    """

    title: str
    fluency_title: str = "rise of the negative log-likelihood, nats a token"

    @property
    @abstractmethod
    def n_items(self) -> int:
        """Number of validation items."""

    @abstractmethod
    def measure(
        self, steerer: Steerer | SteererSet | None, amount: Amount | None, items: range
    ) -> Sequence[Measurement]:
        """One measurement for each of ``items``; no steerer is the unsteered model.

        ``amount`` None is the method's own default.
        """

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """Description as plain data, with all that its measurements depend on."""

    def score(self, steerer: Steerer | SteererSet | None, amount: Amount | None = None) -> Score:
        """Means over all items."""
        return Score.of(self.measure(steerer, amount, range(self.n_items)))
