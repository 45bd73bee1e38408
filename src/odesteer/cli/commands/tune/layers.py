"""The layers that a rule keeps of those to be tried."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from odesteer.cli.errors import checking_usage
from odesteer.cli.output.screen import Screen

if TYPE_CHECKING:
    from odesteer.data import ContrastData
    from odesteer.models import SteeredModel
    from odesteer.models.tokens.capture_positions import CapturePosition
    from odesteer.terrarium import World

LayerRule = Literal["opposite-signs", "early"]

_N_PAIRS = 100  # of a world


def kept_layers(
    lm: "SteeredModel",
    source: "ContrastData | World",
    rule: LayerRule | None,
    layers: "Sequence[int] | None",
    *,
    position: "CapturePosition",
    seed: int,
    batch_size: int,
    screen: Screen,
) -> list[int] | None:
    """``layers``, or those of them that a rule keeps; None for the ones that tuning takes itself.

    Raises `UsageError` where none is kept.
    """
    if rule is None:
        return None if layers is None else list(layers)
    from odesteer.data import ContrastData
    from odesteer.tuning import layers_by_rule

    data = source
    if not isinstance(data, ContrastData):
        data = data.contrast("fit", seed, _N_PAIRS)
    with checking_usage():
        kept = layers_by_rule(lm, data, rule, layers, position=position, batch_size=batch_size)
    screen.note(f"layers by the rule {rule}: {', '.join(map(str, kept))}")
    return kept
