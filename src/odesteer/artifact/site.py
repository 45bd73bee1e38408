"""Site: the layer, part and token positions that a steerer acts on."""

from dataclasses import dataclass
from typing import Any

from odesteer.artifact.positions import parse_position
from odesteer.errors import InvalidInputError
from odesteer.untrusted import is_integer

PARTS = ("residual", "heads", "final")
# In the order of a forward pass.
_ORDER = ("heads", "residual", "final")
_WORDS = {"residual": "", "heads": ", heads", "final": ", behind the last norm"}


@dataclass(frozen=True)
class Site:
    """A part of decoder layer ``layer`` (from zero), at some positions of the sequence.

    ``position`` is ``last`` (the last prompt token, then each generated one), ``generated``,
    ``prompt``, ``all``, a window such as ``generated:0:32``, or a phase of the text such as
    ``thinking`` or ``after:MARKER``, see `odesteer.artifact.positions`. ``part`` is ``residual``
    (the output of the layer, the residual stream), ``heads`` (the outputs of all attention heads
    of the layer side by side, `n_heads * head_width` wide: what its output projection is given) or,
    of the last layer alone, ``final`` (the output of the norm behind it, which the language model
    head is given; moving it changes no keys and values).
    """

    layer: int
    position: str = "last"
    part: str = "residual"

    def __post_init__(self) -> None:
        if not is_integer(self.layer, 0):
            raise InvalidInputError(f"layer must be an integer from zero, not {self.layer!r}.")
        object.__setattr__(self, "position", str(parse_position(self.position)))
        if self.part not in PARTS:
            raise InvalidInputError(f"part must be one of {', '.join(PARTS)}, not {self.part!r}.")

    @property
    def depth(self) -> tuple[int, int]:
        """A sort key in the order of a forward pass: the heads of a layer, its output, the norm."""
        return self.layer, _ORDER.index(self.part)

    @property
    def part_words(self) -> str:
        """The part as it follows the number of the layer in a message; nothing for `residual`."""
        return _WORDS[self.part]

    def described(self) -> dict[str, Any]:
        """The site as JSON.

        The part is left out for the residual stream: files and digests of residual sites are
        the same as before there were other parts.
        """
        part = {} if self.part == "residual" else {"part": self.part}
        return {"layer": self.layer, "position": self.position, **part}

    def __str__(self) -> str:
        return f"layer {self.layer}{self.part_words}, positions: {self.position}"
