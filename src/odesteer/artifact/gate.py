"""When a steerer acts: a condition on the prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from odesteer.errors import InvalidInputError
from odesteer.untrusted import is_number

if TYPE_CHECKING:
    from odesteer.artifact.site import Site
    from odesteer.artifact.steerer import Steerer

POOLS = ("last", "mean")


@dataclass(frozen=True)
class Gate:
    """Steer a row only if its prompt meets a condition (Lee et al., ICLR 2025, arXiv 2409.05907).

    Whether a row is steered is decided once, where its prompt ends, and held while it generates:
    the barrier h of ``condition`` at the prompt's activation, at the condition's own layer, is
    compared with a level of that barrier. Exactly one of ``below`` (steer where h is under that
    level) and ``above`` (steer where it is over it) is given; 0 is the decision boundary.
    ``pool`` says which activation of the prompt: that of its ``last`` token, or the ``mean`` over
    its tokens, as in the paper; fit the condition on the same.

    A condition before the steered layer, or at it, also decides over the tokens of the prompt
    itself. One behind it is known only when the prompt has passed: then the prompt's tokens are
    never moved, the last one included, and steering begins with the first generated token.

    Raises `InvalidInputError` for a condition without a barrier or a site.
    """

    condition: Steerer
    below: float | None = None
    above: float | None = None
    pool: str = "last"

    def __post_init__(self) -> None:
        from odesteer.artifact.steerer import Steerer

        if not isinstance(self.condition, Steerer):
            raise InvalidInputError(
                f"a condition is a Steerer whose barrier decides, not {self.condition!r:.80}."
            )
        method = type(self.condition.method).__name__
        if getattr(self.condition.method, "barrier", None) is None:
            raise InvalidInputError(
                f"{method} has no barrier, so it cannot be a condition; fit one that has, such as"
                " ODESteer or CAA."
            )
        if self.condition.site is None:
            raise InvalidInputError(
                "this condition is not bound to a layer; build it with a site, as in"
                " Steerer(method, Site(layer=13))."
            )
        if self.condition.gate is not None:
            raise InvalidInputError("a condition cannot have a condition itself.")
        if self.pool not in POOLS:
            raise InvalidInputError(f"pool must be one of {', '.join(POOLS)}, not {self.pool!r}.")
        if (self.below is None) == (self.above is None):
            raise InvalidInputError(
                f"give one of below and above, not below={self.below} and above={self.above}."
            )
        if not is_number(self.level):
            raise InvalidInputError(f"the level of a gate must be a number, not {self.level!r}.")

    @property
    def level(self) -> float:
        """The level that h is compared with."""
        return self.below if self.below is not None else self.above  # type: ignore[return-value]

    @property
    def site(self) -> Site:
        """Where the condition is read."""
        return self.condition.site  # type: ignore[return-value]

    @property
    def threshold(self) -> float:
        """The value of h that the level stands for. Raises `InvalidInputError` where none does."""
        return float(self.condition.barrier.threshold(self.level))

    def __str__(self) -> str:
        side = "below" if self.below is not None else "above"
        heads = ", heads" if self.site.part == "heads" else ""
        tokens = "the last token" if self.pool == "last" else "the mean"
        return (
            f"only where {type(self.condition.method).__name__} at layer {self.site.layer}{heads}"
            f" finds {tokens} of the prompt {side} level {self.level:g}"
        )
