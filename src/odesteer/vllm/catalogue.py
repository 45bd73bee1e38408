"""The steerers that an engine serves, by name."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from odesteer.artifact import (
    Asked,
    Site,
    Steerer,
    SteererSet,
    check_name,
    from_pretrained,
    read_asked,
)
from odesteer.errors import InvalidInputError, ModelError, UnknownNameError
from odesteer.methods import Amount
from odesteer.vllm.positions import moved_tokens

VARIABLE = "ODESTEER_STEERERS"

Text = str | tuple[str, ...]
"""What a request asks for: names and amounts, in one text or in several."""


@dataclass(frozen=True)
class Applied:
    """One steerer as a request wants it.

    Attributes:
        steerer: who moves.
        site: where it acts.
        amount: how much.
        digest: of everything that decides what it does to an activation.
    """

    steerer: Steerer
    site: Site
    amount: Amount
    digest: str


@dataclass(frozen=True, eq=False)
class Steering:
    """All that one request wants, in the order in which it is applied.

    Requests with equal texts share one object.
    """

    applied: tuple[Applied, ...]

    @cached_property
    def turns(self) -> tuple[tuple[int, Applied], ...]:
        """Each, with how many come before it at its layer."""
        layers = [each.site.layer for each in self.applied]
        return tuple((layers[:i].count(layers[i]), each) for i, each in enumerate(self.applied))

    def block_key(self, start: int, stop: int, prompt_length: int) -> str | None:
        """What tells the keys and values of tokens ``start`` to ``stop`` from unsteered ones.

        It says which of these tokens are moved by whom, and is None if none is. Tokens before them
        are not part of it: the keys of blocks are chained.
        """
        moved = []
        for each in self.applied:
            tokens = moved_tokens(each.site.position, start, stop, prompt_length)
            if tokens:
                moved.append(f"{each.digest}:{tokens.start - start}:{tokens.stop - start}")
        return hashlib.sha256(" ".join(moved).encode()).hexdigest() if moved else None


@dataclass(frozen=True)
class ModelShape:
    """What a steerer must fit: the width of the residual stream and the number of layers."""

    width: int
    n_layers: int


class Catalogue(Mapping[str, Steerer | SteererSet]):
    """Steerers by name, and what requests make of them."""

    def __init__(self, steerers: Mapping[str, Steerer | SteererSet]) -> None:
        for name in steerers:
            check_name(name)
        self._steerers = dict(steerers)
        self._digests = {
            id(member): member.digest() for each in steerers.values() for member in each.members
        }
        self.steering = lru_cache(maxsize=4096)(self._steering)

    @classmethod
    def from_words(cls, words: str) -> "Catalogue":
        """The steerers in ``name=path,name=path`` or in a folder, named after their files.

        A path is a file, a folder with a saved steerer, or a repository on the Hugging Face hub.
        Raises `InvalidInputError` for other words, `ArtifactError` for what is no steerer.
        """
        return cls({name: from_pretrained(path) for name, path in _paths(words.strip()).items()})

    def __getitem__(self, name: str) -> Steerer | SteererSet:
        try:
            return self._steerers[name]
        except KeyError:
            known = ", ".join(self._steerers) or f"none; name them in {VARIABLE}"
            raise UnknownNameError(
                f"there is no steerer {name!r:.80}; this engine has {known}."
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._steerers)

    def __len__(self) -> int:
        return len(self._steerers)

    def layers(self, model: ModelShape | None = None) -> tuple[int, ...]:
        """The layers that steerers act on; with ``model``, of those that fit it."""
        fitting = (each for each in self.values() if model is None or _misfit(each, model) is None)
        sites = (member.site for each in fitting for member in each.members)
        return tuple(sorted({site.layer for site in sites if site is not None}))

    def misfits(self, model: ModelShape) -> dict[str, ModelError]:
        """Why steerers cannot steer this model, by their names."""
        reasons = ((name, _misfit(each, model)) for name, each in self.items())
        return {name: reason for name, reason in reasons if reason is not None}

    def check(self, text: Text, model: ModelShape) -> None:
        """Raise `InvalidInputError` or `ModelError` for what cannot be applied to ``model``."""
        for asked in _read(text):
            misfit = _misfit(self[asked.name], model)
            if misfit is not None:
                raise ModelError(f"steerer {asked.name!r}: {misfit}")
        self.steering(text)

    def probe(self, model: ModelShape) -> Steering:
        """Every steerer that fits, by an amount that most activations are moved by."""
        return Steering(
            tuple(
                self._applied(member, _moving(member))
                for each in self.values()
                if _misfit(each, model) is None
                for member in each.members
            )
        )

    def _steering(self, text: Text) -> Steering:
        """What a request's text asks for. Raises `InvalidInputError` for other text."""
        applied = []
        for asked in _read(text):
            found = self[asked.name]
            amount = asked.amount_of(found)
            for member in found.members:
                own = member.method.default_amount if amount is None else amount
                barrier = getattr(member.method, "barrier", None)
                if own.quantity == "level" and barrier is not None:
                    barrier.threshold(own.value)  # raises for a level without a meaning
                applied.append(self._applied(member, own))
        return Steering(tuple(applied))

    def _applied(self, steerer: Steerer, amount: Amount) -> Applied:
        if steerer.site is None:
            raise ModelError("this steerer is not bound to a layer of a model.")
        digest = f"{self._digests[id(steerer)]}@{amount.quantity}={float(amount.value)!r}"
        return Applied(steerer, steerer.site, amount, digest)


@lru_cache(maxsize=1)
def catalogue() -> Catalogue:
    """The steerers of this process, as its environment names them."""
    return Catalogue.from_words(os.environ.get(VARIABLE, ""))


def wanted(params: object) -> Text | None:
    """What a request's parameters ask for; None if they ask for nothing.

    Raises `InvalidInputError` for what is no text.
    """
    arguments = getattr(params, "extra_args", None) or {}
    if "odesteer" not in arguments:
        return None
    text = arguments["odesteer"]
    if isinstance(text, (list, tuple)) and text and all(isinstance(each, str) for each in text):
        return tuple(text)
    if isinstance(text, str):
        return text
    raise InvalidInputError(
        f"odesteer={text!r:.80} does not ask for steerers; write a text such as 'truthful@1.5', or"
        " a list of them."
    )


def _read(text: Text) -> tuple[Asked, ...]:
    texts = (text,) if isinstance(text, str) else text
    return tuple(asked for each in texts for asked in read_asked(each))


def _paths(words: str) -> dict[str, str]:
    if not words:
        return {}
    folder = Path(words)
    if folder.is_dir():
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise InvalidInputError(f"{VARIABLE}={words}: no *.safetensors in this folder.")
        return {file.stem: str(file) for file in files}
    paths: dict[str, str] = {}
    for word in words.split(","):
        name, equals, path = (part.strip() for part in word.partition("="))
        if not (name and equals and path) or name in paths:
            raise InvalidInputError(
                f"{VARIABLE}={words!r:.200} must be a folder of steerers, or NAME=PATH with commas"
                f" between several and each name once; {word!r:.80} is not."
            )
        paths[name] = path
    return paths


def _misfit(steerer: Steerer | SteererSet, model: ModelShape) -> ModelError | None:
    """Why it cannot steer this model on vLLM."""
    for member in steerer.members:
        site = member.site
        if site is None:
            return ModelError("it is not bound to a layer; save a Steerer with a Site.")
        if site.part != "residual" or member.gate is not None:
            what = "attention heads" if member.gate is None else "a condition on the prompt"
            return ModelError(
                f"it has {what}, which the plugin does not serve; odesteer serve does."
            )
        if site.layer >= model.n_layers:
            return ModelError(
                f"it acts on layer {site.layer}, and the model has {model.n_layers} decoder layers,"
                " counted from zero."
            )
        try:
            member.check_width(model.width)
        except ModelError as error:
            return error
    return None


def _moving(steerer: Steerer) -> Amount:
    """An amount that does not depend on what a barrier says, where there is one."""
    if "interpolation" in steerer.quantities:
        return Amount("interpolation", 1.0)
    if "strength" in steerer.quantities:
        return Amount("strength", 0.5)
    return steerer.method.default_amount
