"""How fast a model writes, steered and not."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from odesteer.artifact import Steerer
from odesteer.cli.output.text import seconds
from odesteer.models import SteeredModel


@dataclass(frozen=True)
class Speed:
    """Tokens a second over all rows of one batch.

    Attributes:
        unsteered, steered: medians over the rounds.
        batch_size: rows.
        tokens: generated for each row.
        rounds: runs of either kind, by turns.
    """

    unsteered: float
    steered: float
    batch_size: int
    tokens: int
    rounds: int

    @property
    def change(self) -> float:
        """Relative change by steering; negative is slower."""
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
    """Write the same number of tokens for the same prompts with and without, by turns.

    By turns, so that whatever else the machine does meets both alike; once each beforehand, so
    that neither pays for what is done only once.
    """

    def run(how: Steerer | None) -> float:
        started = seconds()
        lm.generate(
            prompts,
            how,
            level=None if how is None else level,
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=False,
        )
        return len(prompts) * tokens / (seconds() - started)

    kinds = (None, steerer)
    for how in kinds:
        run(how)
    rates = [[run(how) for how in kinds] for _ in range(rounds)]
    unsteered, steered = (median(column) for column in zip(*rates, strict=True))
    return Speed(unsteered, steered, len(prompts), tokens, rounds)
