"""Rules for the layers that a search begins with: opposite signs of the class means, depth."""

from collections.abc import Sequence
from typing import Literal, get_args

from odesteer.data import ContrastData
from odesteer.errors import InvalidInputError
from odesteer.models import SteeredModel
from odesteer.models.tokens.capture_positions import CapturePosition
from odesteer.tuning.search.grid import coarse_layers

LayerRule = Literal["opposite-signs", "early"]


def opposite_sign_layers(
    lm: SteeredModel,
    data: ContrastData,
    layers: Sequence[int] | None = None,
    *,
    position: CapturePosition = "last",
    batch_size: int | None = None,
) -> list[int]:
    """The layers whose class means lie on opposite sides of the origin along their difference.

    μ₊·(μ₊ - μ₋) > 0 > μ₋·(μ₊ - μ₋): there the sign of a projection says which class an activation
    is of, and rotations and ablations about the origin act between the classes (Selective Steering,
    arXiv 2601.19375). Of ``layers``, all without. Raises `InvalidInputError` where none is so.
    """
    asked = list(range(lm.n_layers)) if layers is None else list(layers)
    examples = (*data.positive, *data.negative)
    found = lm.capture(examples, asked, position, batch_size=batch_size)
    positive = found.example < len(data.positive)
    kept = []
    for layer in asked:
        states = found.states[layer].double()
        means = states[positive].mean(dim=0), states[~positive].mean(dim=0)
        difference = means[0] - means[1]
        if float(means[0] @ difference) > 0 > float(means[1] @ difference):
            kept.append(layer)
    if not kept:
        raise InvalidInputError(
            f"at none of the layers {asked} do the class means lie on opposite sides of the origin;"
            " choose layers by a search instead."
        )
    return kept


def layers_by_rule(
    lm: SteeredModel,
    data: ContrastData,
    rule: LayerRule,
    layers: Sequence[int] | None = None,
    *,
    position: CapturePosition = "last",
    batch_size: int | None = None,
) -> list[int]:
    """Those of ``layers``, by default the coarse ones of `tune`, that a rule keeps.

    The rule is ``opposite-signs``, see `opposite_sign_layers`, or ``early``, see `early_layers`.
    Raises `InvalidInputError` for another rule and where no layer is kept.
    """
    asked = coarse_layers(lm.n_layers) if layers is None else list(dict.fromkeys(layers))
    if rule == "opposite-signs":
        return opposite_sign_layers(lm, data, asked, position=position, batch_size=batch_size)
    if rule != "early":
        raise InvalidInputError(f"a rule is {' or '.join(get_args(LayerRule))}, not {rule!r}.")
    early = set(early_layers(lm.n_layers))
    kept = [layer for layer in asked if layer in early]
    if not kept:
        raise InvalidInputError(f"all of the layers {asked} are in the last fifth of the model.")
    return kept


def early_layers(n_layers: int, share: float = 0.8) -> list[int]:
    """The first ``share`` of a model's layers, at least one.

    Directions to be ablated are chosen without the last fifth of the layers, which write next
    tokens more than features (Arditi et al., arXiv 2406.11717). Raises `InvalidInputError` for a
    share that is not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise InvalidInputError(f"share must be above 0 and at most 1, not {share}.")
    return list(range(max(1, int(n_layers * share))))
