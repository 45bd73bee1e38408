"""What the engine hands out while it writes a text."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Finish = Literal["stop", "length", "error"]


@dataclass(frozen=True)
class Ratio:
    """Log-density ratio, nats, of the activation that a token was chosen from."""

    before: float
    after: float


@dataclass(frozen=True)
class Alternative:
    """A token that could have been chosen.

    Attributes:
        text: of this token alone.
        logprob: as that of the token in its place.
    """

    text: str
    logprob: float


@dataclass(frozen=True)
class Token:
    """One written token.

    Attributes:
        text: the text that it completes; those of all tokens add up to the whole.
        logprob: logarithm of its probability under the steered model, before temperature and
            top_p; None where it was not asked for.
        alternatives: the likeliest tokens in its place, likeliest first.
        values: by the name of a steerer with a barrier, the ratio before and after it moved.
    """

    text: str
    logprob: float | None = None
    alternatives: tuple[Alternative, ...] = ()
    values: Mapping[str, Ratio] = field(default_factory=dict)


@dataclass(frozen=True)
class Account:
    """What one steerer did to one text, at one site.

    Attributes:
        name: of the steerer.
        layer, position, part: its site.
        quantity, amount: how much it was to move; None where it only observed.
        digest: sha256 of the steerer.
        tokens: how many of the generated tokens it acted on.
        mean_before, mean_after: mean log-density ratio, nats, over these; None without a barrier.
        is_open: what its gate decided about the prompt; None without a gate.
    """

    name: str
    layer: int
    position: str
    part: str
    quantity: str | None
    amount: float | None
    digest: str
    tokens: int
    mean_before: float | None
    mean_after: float | None
    is_open: bool | None


@dataclass(frozen=True)
class Piece:
    """Some more of a text.

    Attributes:
        tokens: the tokens that came.
        finish: why the text ends here; None if it goes on.
        accounts: with the last piece, what each steerer did.
        n_generated: with the last piece, number of tokens that were generated, the one that ended
            the text included.
        error: the reason, if finish is `error`.
        blames_request: whether what was asked for is the cause of it.
    """

    tokens: tuple[Token, ...]
    finish: Finish | None = None
    accounts: tuple[Account, ...] = ()
    n_generated: int = 0
    error: str | None = None
    blames_request: bool = False

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)
