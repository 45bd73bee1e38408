"""Parse the candidates of ``odesteer tune``: methods, varied parameters, amounts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from odesteer.cli.errors import UsageError

if TYPE_CHECKING:
    from odesteer.tuning import Candidate


def candidates_of(
    methods: Sequence[str],
    params: Sequence[str],
    varied: Sequence[str],
    amounts: Sequence[str],
    seed: int,
) -> "list[Candidate]":
    """Every method with every combination of the varied parameters."""
    from odesteer.cli.arguments.parameters import combinations, pairs_of
    from odesteer.tuning import Candidate

    for name in methods:
        if methods.count(name) > 1:
            raise UsageError(f"--method {name} is given twice; leave one out.")
    ranges = {name: _numbers(name, text) for name, text in pairs_of(amounts, "--amounts").items()}
    found = []
    for name in methods:
        for label, built in combinations(name, varied, params, seed).items():
            own = [quantity for quantity in built.quantities if quantity in ranges]
            if ranges and not own:
                raise UsageError(
                    f"--amounts {' and '.join(ranges)}: {name} takes"
                    f" {' or '.join(built.quantities)}."
                )
            quantity = own[0] if own else None
            values = ranges[quantity] if quantity else None
            found.append(Candidate.of(built, f"{name} {label}".strip(), quantity, values))
    return found


def _numbers(name: str, text: str) -> list[float]:
    from odesteer.methods import Amount

    values = []
    for word in text.split(","):
        try:
            values.append(float(word))
        except ValueError:
            raise UsageError(f"--amounts {name}={text}: {word!r} is not a number.") from None
        Amount(name, values[-1])
    return values
