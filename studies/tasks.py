"""Tasks for the bundled model: what to steer towards, the data and the exact judge."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from odesteer import ContrastData, SteeredModel
from odesteer.errors import InvalidInputError
from odesteer.models.tokens.capture_positions import CapturePosition
from odesteer.terrarium import CivilityWorld, Split, Verdict, World, worlds

N_PAIRS = 300


@dataclass(frozen=True)
class Activations:
    """What a steerer is fitted to at one layer: `[n₊, d]`, `[n₋, d]` and group labels."""

    positive: Tensor
    negative: Tensor
    groups: tuple[list[str], list[str]] | None


def capture(
    lm: SteeredModel,
    data: ContrastData,
    layers: tuple[int, ...],
    position: CapturePosition,
    seed: int = 0,
    part: str = "residual",
) -> dict[int, Activations]:
    """Activations of contrastive data at several layers, as `SteeredModel.fit` takes them."""
    examples = (*data.positive, *data.negative)
    captured = lm.capture(examples, layers, position, part=part, seed=seed)
    labels = (*data.groups_positive, *data.groups_negative)
    wanted = captured.example < len(data.positive)
    groups = tuple([labels[i] for i in captured.example[m].tolist()] for m in (wanted, ~wanted))
    return {
        layer: Activations(states[wanted], states[~wanted], (groups[0], groups[1]))
        for layer, states in captured.states.items()
    }


def _evenly(states: Tensor, n: int) -> Tensor:
    """``n`` of the states, at equal distances."""
    return states[torch.linspace(0, len(states) - 1, n).long()]


class Task(Protocol):
    """A behaviour to bring about."""

    name: str
    layer: int
    position: CapturePosition | None
    """Where activations are captured untuned; None: where each world says."""
    max_new_tokens: int

    def activations(
        self, lm: SteeredModel, layers: tuple[int, ...], position: CapturePosition | None, seed: int
    ) -> dict[int, Activations]:
        """Activations of examples of the fit split, at several layers."""

    def prompts(self, split: Split, seed: int, n: int) -> tuple[str, ...]:
        """Prompts that leave the behaviour open."""

    def judge(self, prompt: str, completion: str) -> Verdict:
        """Attribute True if the completion behaves as desired."""


@dataclass(frozen=True)
class WorldTask:
    """One world of the terrarium, towards its positive side."""

    world: World

    @property
    def name(self) -> str:
        return self.world.name

    @property
    def layer(self) -> int:
        return self.world.layer

    @property
    def position(self) -> CapturePosition:
        return self.world.position

    @property
    def max_new_tokens(self) -> int:
        return self.world.max_new_tokens

    def activations(
        self, lm: SteeredModel, layers: tuple[int, ...], position: CapturePosition | None, seed: int
    ) -> dict[int, Activations]:
        data = self.world.contrast("fit", seed=seed, n=N_PAIRS)
        return capture(lm, data, layers, position or self.position, seed)

    def prompts(self, split: Split, seed: int, n: int) -> tuple[str, ...]:
        return self.world.prompts(split, seed=seed, n=n)

    def judge(self, prompt: str, completion: str) -> Verdict:
        return self.world.judge(prompt, completion)


class RolesTask:
    """Polite to customers and guests, rude to colleagues and neighbors, from one fit.

    Whether politeness is desired depends on who asks, so the mean difference between desired and
    undesired replies has no component along politeness: an exclusive or of two attributes.
    """

    name = "roles"
    polite_to = ("Customer", "Guest")
    rude_to = ("Colleague", "Neighbor")

    def __init__(self) -> None:
        self.world = CivilityWorld()
        self.layer = self.world.layer
        self.position = self.world.position
        self.max_new_tokens = self.world.max_new_tokens

    def contrast(self, seed: int) -> ContrastData:
        """Replies as desired and not, a group for each scene."""
        # The five kinds of scene come up equally often and one of them is left out.
        data = self.world.contrast("fit", seed=seed, n=N_PAIRS * 5 // 4)
        desired, undesired, groups = [], [], []
        for polite, rude, group in zip(
            data.positive, data.negative, data.groups_positive, strict=True
        ):
            asker = self.asker(str(polite.prompt))
            if asker in self.polite_to + self.rude_to:
                pair = (polite, rude) if asker in self.polite_to else (rude, polite)
                desired.append(pair[0])
                undesired.append(pair[1])
                groups.append(group)
        return ContrastData(tuple(desired), tuple(undesired), tuple(groups), tuple(groups))

    def activations(
        self, lm: SteeredModel, layers: tuple[int, ...], position: CapturePosition | None, seed: int
    ) -> dict[int, Activations]:
        return capture(lm, self.contrast(seed), layers, position or self.position, seed)

    def prompts(self, split: Split, seed: int, n: int) -> tuple[str, ...]:
        drawn = self.world.prompts(split, seed=seed, n=2 * n)
        return tuple(p for p in drawn if self.asker(p) in self.polite_to + self.rude_to)[:n]

    def judge(self, prompt: str, completion: str) -> Verdict:
        verdict = self.world.judge(prompt, completion)
        if verdict.attribute is None:
            return verdict
        polite = self.asker(prompt) in self.polite_to
        return Verdict(attribute=verdict.attribute is polite, valid=verdict.valid)

    def asker(self, prompt: str) -> str:
        """The speaker of a prompt."""
        return self.world.scene_and_item(prompt)[0].asker


class EveryTask:
    """Truthful, polite and happy, from one fit over the examples of all three worlds."""

    name = "all three"
    layer = 4
    position = None
    max_new_tokens = max(world.max_new_tokens for world in worlds())

    def activations(
        self, lm: SteeredModel, layers: tuple[int, ...], position: CapturePosition | None, seed: int
    ) -> dict[int, Activations]:
        parts = []
        for world in worlds():
            data = world.contrast("fit", seed=seed, n=N_PAIRS // 3)
            parts.append(capture(lm, data, layers, position or world.position, seed))
        least = min(len(part[layers[0]].positive) for part in parts)
        # As many activations from each world, whatever its position gives.
        return {
            layer: Activations(
                torch.cat([_evenly(part[layer].positive, least) for part in parts]),
                torch.cat([_evenly(part[layer].negative, least) for part in parts]),
                None,
            )
            for layer in layers
        }

    def prompts(self, split: Split, seed: int, n: int) -> tuple[str, ...]:
        return tuple(
            prompt for world in worlds() for prompt in world.prompts(split, seed=seed, n=n // 3)
        )

    def judge(self, prompt: str, completion: str) -> Verdict:
        for world in worlds():
            try:
                return world.judge(prompt, completion)
            except InvalidInputError:  # a prompt of another world
                continue
        raise InvalidInputError(f"no world knows the prompt {prompt!r}.")
