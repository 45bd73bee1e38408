"""Provenance: the model, data and version that a steerer was fitted with."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from odesteer.errors import InvalidInputError
from odesteer.untrusted import is_number


@dataclass(frozen=True)
class Provenance:
    """The origin of a fitted method, as far as it is known (None where it is not).

    Attributes:
        model_id: hub id or folder name of the model.
        model_revision: commit of the model on the hub.
        model_width: d, the width of its residual stream.
        n_layers: number of its decoder layers.
        n_heads: number of attention heads in each, where it was fitted on their outputs.
        capture_position: which token positions the activations were captured at.
        chat_template_hash: sha256 of the chat template, None if none was used.
        chat_template_kwargs: arguments that it was given, JSON data by name.
        data_digest: sha256 of the data (`ContrastData.digest`).
        n_positive: number of positive examples.
        n_negative: number of negative examples.
        seed: of whatever was random in the fit.
        held_out: figures on data that the fit did not see, by name (``auc``, ``log_loss``…).
        odesteer_version: the version that fitted it.
    """

    model_id: str | None = None
    model_revision: str | None = None
    model_width: int | None = None
    n_layers: int | None = None
    capture_position: str | None = None
    chat_template_hash: str | None = None
    data_digest: str | None = None
    n_positive: int | None = None
    n_negative: int | None = None
    seed: int | None = None
    held_out: Mapping[str, float] = field(default_factory=dict)
    odesteer_version: str | None = None
    n_heads: int | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (f.name for f in fields(self) if f.name not in _MAPPINGS):
            value = getattr(self, name)
            wanted: type = int if name in _INTEGERS else str
            if value is not None and (not isinstance(value, wanted) or isinstance(value, bool)):
                raise InvalidInputError(
                    f"provenance {name} must be {wanted.__name__} or None, not {value!r:.80}."
                )
            if name in _COUNTS and isinstance(value, int) and value < 0:
                raise InvalidInputError(f"provenance {name} must not be negative, not {value}.")
        if not isinstance(self.held_out, Mapping):
            raise InvalidInputError(
                f"held_out must map names to numbers, not {self.held_out!r:.80}."
            )
        for name, figure in self.held_out.items():
            if not isinstance(name, str) or not is_number(figure):
                raise InvalidInputError(
                    "held_out must map names to finite numbers, not"
                    f" {name!r:.40} to {figure!r:.40}."
                )
        arguments = self.chat_template_kwargs
        if not isinstance(arguments, Mapping) or not all(isinstance(n, str) for n in arguments):
            raise InvalidInputError(
                f"chat_template_kwargs must map names to values, not {arguments!r:.80}."
            )
        plain = {name: arguments[name] for name in sorted(arguments)}
        object.__setattr__(self, "chat_template_kwargs", plain)
        figures = {name: float(self.held_out[name]) for name in sorted(self.held_out)}
        object.__setattr__(self, "held_out", figures)

    def __hash__(self) -> int:
        known = (getattr(self, f.name) for f in fields(self) if f.name not in _MAPPINGS)
        arguments = json.dumps(self.chat_template_kwargs, sort_keys=True, default=repr)
        return hash((*known, *self.held_out.items(), arguments))


_COUNTS = ("model_width", "n_layers", "n_positive", "n_negative", "n_heads")
_MAPPINGS = ("held_out", "chat_template_kwargs")
_INTEGERS = (*_COUNTS, "seed")
