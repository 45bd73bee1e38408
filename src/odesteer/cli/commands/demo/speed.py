"""Generation speed with and without steering."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

from odesteer.artifact import Steerer
from odesteer.models import SteeredModel


@dataclass(frozen=True)
class Speed:
    """Tokens a second over all rows of one batch.

    Attributes:
        unsteered, steered: medians over the rounds.
        batch_size: rows.
        tokens: generated for each row.
        rounds: runs of either kind, alternating.
    """

    unsteered: float
    steered: float
    batch_size: int
    tokens: int
    rounds: int

    @property
    def change(self) -> float:
        """Relative change of the speed by steering; negative is slower."""
        return self.steered / self.unsteered - 1


def measure_speed(
    lm: SteeredModel,
    steerer: Steerer,
    prompts: Sequence[str],
    *,
    level: float,
    tokens: int,
    rounds: int,
) -> Speed:
    """Generate the same number of tokens for the same prompts with and without steering.

    Runs alternate, so that other load on the machine affects both alike, after one warm-up each.
    """

    def run(steerer: Steerer | None) -> float:
        started = perf_counter()
        lm.generate(
            prompts,
            steerer,
            level=None if steerer is None else level,
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=False,
        )
        return len(prompts) * tokens / (perf_counter() - started)

    kinds = (None, steerer)
    for kind in kinds:
        run(kind)
    rates = [[run(kind) for kind in kinds] for _ in range(rounds)]
    unsteered, steered = (median(column) for column in zip(*rates, strict=True))
    return Speed(unsteered, steered, len(prompts), tokens, rounds)
