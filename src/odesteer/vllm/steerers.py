"""The steerers of an engine, by name: loading, compatibility with the model, lookup."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from odesteer.artifact import Applied, Steerer, SteererSet, check_name, from_pretrained
from odesteer.artifact.positions import parse_position
from odesteer.errors import InvalidInputError, ModelError, OdesteerError, UnknownNameError
from odesteer.methods import Amount
from odesteer.vllm.request_steering import (
    LayerSteering,
    RequestSteering,
    SteeringText,
    parse_steering,
)

ENV_VARIABLE = "ODESTEER_STEERERS"


@dataclass(frozen=True)
class ModelShape:
    """What a steerer must fit.

    Attributes:
        width: of the residual stream.
        n_layers: number of decoder layers.
        has_texts: whether the engine knows the text of every request.
    """

    width: int
    n_layers: int
    has_texts: bool = True


class PluginSteerers(Mapping[str, Steerer | SteererSet]):
    """Steerers by name, and the steering of requests."""

    def __init__(self, steerers: Mapping[str, Steerer | SteererSet]) -> None:
        for name in steerers:
            check_name(name)
        self._steerers = dict(steerers)
        self._digests = {
            id(member): member.digest() for each in steerers.values() for member in each.members
        }
        self.steering = lru_cache(maxsize=4096)(self._steering)

    @classmethod
    def from_environment(cls, value: str) -> "PluginSteerers":
        """The steerers in ``name=path,name=path`` or in a folder, named after their files.

        A path is a file, a folder with a saved steerer, or a repository on the Hugging Face hub.
        Raises `InvalidInputError` for another form, `ArtifactError` for what is no steerer.
        """
        return cls({name: from_pretrained(path) for name, path in _paths(value.strip()).items()})

    def __getitem__(self, name: str) -> Steerer | SteererSet:
        try:
            return self._steerers[name]
        except KeyError:
            known = ", ".join(self._steerers) or f"none; name them in {ENV_VARIABLE}"
            raise UnknownNameError(
                f"there is no steerer {name!r:.80}; this engine has {known}."
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._steerers)

    def __len__(self) -> int:
        return len(self._steerers)

    def layers(self, model: ModelShape | None = None) -> tuple[int, ...]:
        """The layers that steerers act on; with ``model``, of those that fit it."""
        fitting = (
            each for each in self.values() if model is None or _incompatibility(each, model) is None
        )
        sites = (member.site for each in fitting for member in each.members)
        return tuple(sorted({site.layer for site in sites if site is not None}))

    def incompatible(self, model: ModelShape) -> dict[str, ModelError]:
        """The steerers that cannot steer this model, and why."""
        reasons = ((name, _incompatibility(each, model)) for name, each in self.items())
        return {name: reason for name, reason in reasons if reason is not None}

    def usable_names(self) -> list[str]:
        """The steerers that can steer by their default amounts, whatever the model."""
        names = []
        for name in self:
            try:
                self.steering(name)
            except OdesteerError:
                continue
            names.append(name)
        return names

    def check(self, text: SteeringText, model: ModelShape) -> None:
        """Raise `InvalidInputError` or `ModelError` for what cannot be applied to ``model``."""
        for request in parse_steering(text):
            reason = _incompatibility(self[request.name], model)
            if reason is not None:
                raise ModelError(f"steerer {request.name!r}: {reason}")
        self.steering(text)

    def all_steering(self, model: ModelShape) -> RequestSteering:
        """Every steerer that fits, by an amount that moves most activations; for the self-test."""
        return RequestSteering(
            tuple(
                self._layer_steering(member, _moving_amount(member))
                for each in self.values()
                if _incompatibility(each, model) is None
                for member in each.members
            )
        )

    def _steering(self, text: SteeringText) -> RequestSteering:
        """The steering that a text asks for. Raises `InvalidInputError`."""
        applied = []
        for request in parse_steering(text):
            steerer = self[request.name]
            whole = Applied(steerer, request.amount_of(steerer))
            whole.check_levels()
            for member in steerer.members:
                amount = whole.amount or member.method.default_amount
                applied.append(self._layer_steering(member, amount))
        return RequestSteering(tuple(applied))

    def _layer_steering(self, steerer: Steerer, amount: Amount) -> LayerSteering:
        if steerer.site is None:
            raise ModelError("this steerer is not bound to a layer of a model.")
        digest = f"{self._digests[id(steerer)]}@{amount.quantity}={float(amount.value)!r}"
        return LayerSteering(steerer, steerer.site, amount, digest)


@lru_cache(maxsize=1)
def plugin_steerers() -> PluginSteerers:
    """The steerers of this process, as its environment names them."""
    return PluginSteerers.from_environment(os.environ.get(ENV_VARIABLE, ""))


def _paths(value: str) -> dict[str, str]:
    if not value:
        return {}
    folder = Path(value)
    if folder.is_dir():
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise InvalidInputError(f"{ENV_VARIABLE}={value}: no *.safetensors in this folder.")
        return {file.stem: str(file) for file in files}
    paths: dict[str, str] = {}
    for item in value.split(","):
        name, equals, path = (part.strip() for part in item.partition("="))
        if not (name and equals and path) or name in paths:
            raise InvalidInputError(
                f"{ENV_VARIABLE}={value!r:.200} must be a folder of steerers, or NAME=PATH with"
                f" commas between several and each name once; {item!r:.80} is not."
            )
        paths[name] = path
    return paths


def _incompatibility(steerer: Steerer | SteererSet, model: ModelShape) -> ModelError | None:
    """Why a steerer cannot steer this model on vLLM; None if it can."""
    for member in steerer.members:
        site = member.site
        if site is None:
            return ModelError("it is not bound to a layer; save a Steerer with a Site.")
        if site.part != "residual" or member.gate is not None:
            what = "a condition on the prompt"
            if member.gate is None:
                what = "attention heads" if site.part == "heads" else "the states behind the norm"
            return ModelError(
                f"it has {what}, which the plugin does not serve; odesteer serve does."
            )
        if parse_position(site.position).phase is not None and not model.has_texts:
            return ModelError(
                f"position {site.position!r} depends on the text, which this engine does not have;"
                " start it without --skip-tokenizer-init and --enable-prompt-embeds."
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


def _moving_amount(steerer: Steerer) -> Amount:
    """An amount whose effect depends on no barrier, if the method has one."""
    if "interpolation" in steerer.quantities:
        return Amount("interpolation", 1.0)
    if "strength" in steerer.quantities:
        return Amount("strength", 0.5)
    return steerer.method.default_amount
