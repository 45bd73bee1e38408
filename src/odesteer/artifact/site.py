"""Where in a model a steerer acts."""

from dataclasses import dataclass

from odesteer.errors import InvalidInputError

POSITIONS = ("last", "generated", "prompt", "all")


@dataclass(frozen=True)
class Site:
    """The output of decoder layer ``layer`` (from zero), at some positions of the sequence.

    ``position`` is ``last`` (the last position of every forward pass: the last prompt token,
    then each generated one), ``generated``, ``prompt`` or ``all``.
    """

    layer: int
    position: str = "last"

    def __post_init__(self) -> None:
        if isinstance(self.layer, bool) or not isinstance(self.layer, int) or self.layer < 0:
            raise InvalidInputError(f"layer must be an integer from zero, not {self.layer!r}.")
        if self.position not in POSITIONS:
            raise InvalidInputError(
                f"position must be one of {', '.join(POSITIONS)}, not {self.position!r}."
            )

    def __str__(self) -> str:
        return f"layer {self.layer}, positions: {self.position}"
