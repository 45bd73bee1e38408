"""Amounts that cost a given KL to the unsteered model, for every candidate at every layer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from odesteer.artifact import Steerer
from odesteer.data import ContrastData
from odesteer.errors import ConvergenceError, InvalidInputError
from odesteer.methods import Amount
from odesteer.models import Divergence, SteeredModel
from odesteer.models.tokens.capture_positions import CapturePosition
from odesteer.tuning.cost_search import search_of
from odesteer.tuning.fit_cache import FitCache, layer_part
from odesteer.tuning.objectives.base import Objective, Score
from odesteer.tuning.search.grid import Candidate


@dataclass(frozen=True)
class AtCost:
    """One candidate at one layer, at the cost that was asked for or as near as it comes.

    Attributes:
        label: of the candidate.
        layer: of the steerer.
        steerer: fitted.
        amount: that costs so much; None where the candidate costs less at its largest amount.
        divergence: at that amount; None without one.
        score: of the objective there; None without an objective.
        failure: why there is no amount; empty if there is one.
    """

    label: str
    layer: int
    steerer: Steerer | None
    amount: Amount | None = None
    divergence: Divergence | None = None
    score: Score | None = None
    failure: str = ""

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"candidate": self.label, "layer": self.layer}
        if self.amount is None or self.divergence is None:
            return {**found, "failure": self.failure}
        found |= {
            "quantity": self.amount.quantity,
            "value": float(self.amount.value),
            "kl": self.divergence.mean,
            "kl_error": self.divergence.standard_error,
        }
        if self.score is not None:
            found |= {"score": self.score.value, "score_error": self.score.value_error}
        return found


def tune_to_cost(
    lm: SteeredModel,
    data: ContrastData,
    candidates: Sequence[Candidate],
    layers: Sequence[int],
    kl: float,
    objective: Objective | None = None,
    *,
    position: CapturePosition = "last",
    steer_position: str = "last",
    seed: int = 0,
    batch_size: int = 16,
    progress: Callable[[str], None] = lambda text: None,
) -> list[AtCost]:
    """The amount of every candidate at every layer that costs ``kl``, best first.

    Costs are KL(unsteered ‖ steered) on the bundled neutral prompts, nats a token
    (`SteeredModel.divergence`), met within 5 %. With an objective those that meet it are sorted
    by its value on all items, so that candidates are compared at equal cost; without one they are
    in the order given. The rest, with the reason, comes last.

    Raises `InvalidInputError` for a cost that is not positive, or if no candidate can be fitted.
    """
    if not kl > 0:
        raise InvalidInputError(f"the cost must be positive, not {kl} nats a token.")
    fits = FitCache(lm, data, position, steer_position, seed, batch_size)
    for part in {layer_part(candidate.method) for candidate in candidates}:
        progress("capturing activations")
        fits.capture(layers, part)
    found = []
    for number, candidate in enumerate(candidates):
        for layer in layers:
            progress(f"{candidate.label}, layer {layer}")
            try:
                steerer = fits.fitted(number, candidate.method, layer)
                one = _at_cost(lm, candidate, layer, steerer, kl, objective)
            except (InvalidInputError, ConvergenceError) as error:
                one = AtCost(candidate.label, layer, None, failure=str(error))
            found.append(one)
    if all(one.steerer is None for one in found):
        raise InvalidInputError(found[0].failure)
    return sorted(found, key=_rank)


def _at_cost(
    lm: SteeredModel,
    candidate: Candidate,
    layer: int,
    steerer: Steerer,
    kl: float,
    objective: Objective | None,
) -> AtCost:
    known: dict[float, Divergence] = {}

    def cost(amount: Amount) -> float:
        quantity: dict[str, Any] = {amount.quantity: amount.value}
        found = known[float(amount.value)] = lm.divergence(steerer, **quantity)
        return found.mean

    quantity, search = search_of(cost, steerer, candidate.quantity)
    value = search.find(kl)
    if value is None:
        most = max(known, key=lambda amount: known[amount].mean)
        failure = f"it costs at most {known[most].mean:.3g}, at {quantity}={most:g}"
        return AtCost(candidate.label, layer, steerer, failure=failure)
    if abs(known[value].mean / kl - 1) > 0.25:
        failure = f"it costs {known[value].mean:.3g} already at {quantity}={value:g}"
        return AtCost(candidate.label, layer, steerer, failure=failure)
    amount = Amount(quantity, value)
    score = None
    if objective is not None:
        score = Score.of(objective.measure(steerer, amount, range(objective.n_items)))
    return AtCost(candidate.label, layer, steerer, amount, known[value], score)


def _rank(one: AtCost) -> tuple[bool, float]:
    value = None if one.score is None else one.score.value
    return one.amount is None, 0.0 if value is None or value != value else -value
