"""Choice of a direction to ablate, by layer and position: effect, KL filter, addition."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from odesteer.artifact import Site, Steerer, SteererSet
from odesteer.data import ContrastData
from odesteer.errors import InvalidInputError
from odesteer.methods import CAA, Ablation, Amount
from odesteer.models import Divergence, SteeredModel
from odesteer.models.tokens.capture_positions import CapturePosition
from odesteer.tuning.fit_cache import FitCache
from odesteer.tuning.layer_rules import early_layers
from odesteer.tuning.objectives.base import Objective, Score


@dataclass(frozen=True)
class AblationChoice:
    """One candidate direction, and what was measured of it.

    Attributes:
        layer: whose activations gave the direction.
        position: where they were captured.
        steerers: the ablation of this direction.
        divergence: what it costs.
        score: of the objective under the ablation; None where it is refused for its cost.
        induced: of the objective where the difference of means is subtracted, at this layer and
            all tokens; None likewise.
        failure: why the candidate is refused; empty if it is not.
    """

    layer: int
    position: CapturePosition
    steerers: SteererSet
    divergence: Divergence
    score: Score | None = None
    induced: Score | None = None
    failure: str = ""


def choose_ablation(
    lm: SteeredModel,
    data: ContrastData,
    objective: Objective,
    *,
    layers: Sequence[int] | None = None,
    positions: Sequence[CapturePosition] = ("last",),
    everywhere: bool = True,
    max_kl: float = 0.1,
    seed: int = 0,
    batch_size: int = 16,
    progress: Callable[[str], None] = lambda text: None,
) -> list[AblationChoice]:
    """Directions to ablate, best first, by the rule of Arditi et al. (arXiv 2406.11717).

    The candidates are the mean differences at each layer, by default without the last fifth
    (`early_layers`), and position. Refused are those whose ablation costs more than ``max_kl``
    nats a token on neutral prompts, and those that do not induce what is undesired: subtracting the
    difference of means, μ₊ - μ₋, has to lower the objective below its value without steering. The
    rest are sorted by the objective under the ablation, more being better; refused ones come last,
    with the reason.

    With ``everywhere`` one direction is taken out behind every layer, at all tokens, as published;
    what the attention of a layer writes along it is still seen by the rest of that layer. Without,
    at its own layer alone. Report the choice on other data than the objective's.

    Raises `InvalidInputError` for a ``max_kl`` that is not positive and for layers and positions
    that there are not.
    """
    if not max_kl > 0:
        raise InvalidInputError(f"max_kl must be positive, not {max_kl} nats a token.")
    chosen = early_layers(lm.n_layers) if layers is None else list(dict.fromkeys(layers))
    if not chosen or not positions:
        raise InvalidInputError("give a layer and a position at least.")
    without = objective.score(None)
    found = []
    for position in positions:
        fits = FitCache(lm, data, position, "all", seed, batch_size)
        progress(f"capturing activations at {position}")
        fits.capture(chosen)
        for layer in chosen:
            progress(f"layer {layer}, {position}")
            ablation = fits.fitted("ablation", Ablation(), layer)
            every = range(lm.n_layers) if everywhere else [layer]
            steerers = SteererSet(replace(ablation, site=Site(k, "all")) for k in every)
            one = AblationChoice(layer, position, steerers, lm.divergence(steerers))
            cost = one.divergence.mean
            if not cost <= max_kl:  # nor a cost that is no number
                one = replace(one, failure=f"it costs {cost:.3g} nats a token, over {max_kl:g}")
            else:
                difference = fits.fitted("difference", CAA(), layer)
                one = _judged(one, difference, objective, without)
            found.append(one)
    return sorted(found, key=_rank)


def _judged(
    one: AblationChoice, difference: Steerer, objective: Objective, without: Score
) -> AblationChoice:
    score = objective.score(one.steerers)
    induced = objective.score(difference, Amount("T", -1.0))
    failure = ""
    if not induced.value < without.value:
        failure = (
            f"subtracting the difference does not induce what is undesired: the objective is"
            f" {induced.value:.3g}, and {without.value:.3g} without steering"
        )
    return replace(one, score=score, induced=induced, failure=failure)


def _rank(one: AblationChoice) -> tuple[bool, float]:
    value = None if one.score is None else one.score.value
    return bool(one.failure), 0.0 if value is None or value != value else -value
