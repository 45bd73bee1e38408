"""Potentials: barriers with parameters that are learned end to end through a language model."""

import math
from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from odesteer.barriers.composed import ComposedBarrier, Function
from odesteer.barriers.contrast import Contrast
from odesteer.barriers.held_out import HeldOutValues
from odesteer.barriers.inputs import Centred
from odesteer.errors import InvalidInputError
from odesteer.untrusted import is_integer


class PotentialFunction(Function):
    """A function φ(x) that starts flat, with tensors that are trained.

    Learned: ``weight_`` w `[d]`, with which all kinds are at least linear, and ``offset_``.
    """

    # The leaves that φ is proportional to, all of them together.
    amplitudes: ClassVar[tuple[str, ...]] = ("weight_",)

    weight_: Tensor
    offset_: float

    @abstractmethod
    def leaves(self) -> dict[str, Tensor]:
        """The tensors that are trained, by attribute."""

    def scaled(self, factor: float) -> Self:
        scaled = type(self)()
        for name, value in self.learned().items():
            setattr(scaled, name, value)
        scaled._multiply(factor)
        return scaled

    def _multiply(self, factor: float) -> None:
        for name in self.amplitudes:
            setattr(self, name, factor * getattr(self, name))
        self.offset_ = factor * self.offset_

    def value(self, x: Tensor) -> Tensor:
        return self.value_and_gradient(x)[0]

    def gradient(self, x: Tensor) -> Tensor:
        return self.value_and_gradient(x)[1]


class LinearFunction(PotentialFunction):
    """φ(x) = w·x."""

    def leaves(self) -> dict[str, Tensor]:
        return {"weight_": self.weight_}

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weight = self.weight_.to(x)
        return x @ weight + self.offset_, weight.expand_as(x)


class GatedFunction(PotentialFunction):
    """φ(x) = w·x σ(√d g·x + b).

    Learned: ``gate_`` g `[d]`, ``threshold_`` b `[1]`.
    """

    gate_: Tensor
    threshold_: Tensor

    def leaves(self) -> dict[str, Tensor]:
        return {"weight_": self.weight_, "gate_": self.gate_, "threshold_": self.threshold_}

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weight, gate = self.weight_.to(x), math.sqrt(x.shape[-1]) * self.gate_.to(x)
        along = x @ weight
        opened = torch.sigmoid(x @ gate + self.threshold_.to(x)[0])
        slope = along * opened * (1 - opened)
        gradient = opened[..., None] * weight + slope[..., None] * gate
        return along * opened + self.offset_, gradient


class LowRankFunction(PotentialFunction):
    """φ(x) = w·x + ½ Σₖ cₖ (√d uₖ·x)².

    Learned: ``directions_`` `[rank, d]`, ``curvatures_`` c `[rank]`.
    """

    amplitudes: ClassVar[tuple[str, ...]] = ("weight_", "curvatures_")

    directions_: Tensor
    curvatures_: Tensor

    def leaves(self) -> dict[str, Tensor]:
        names = ("weight_", "directions_", "curvatures_")
        return {name: getattr(self, name) for name in names}

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weight = self.weight_.to(x)
        directions = math.sqrt(x.shape[-1]) * self.directions_.to(x)
        z = x @ directions.T
        bent = z * self.curvatures_.to(x)
        value = x @ weight + (z * bent).sum(-1) / 2 + self.offset_
        return value, weight + bent @ directions


class SoftplusFunction(PotentialFunction):
    """φ(x) = w·x + Σₖ cₖ log(1 + exp(√d uₖ·x + bₖ)): one hidden layer beside a linear part.

    Learned: ``directions_`` `[hidden, d]`, ``biases_`` b and ``heights_`` c `[hidden]`.
    """

    amplitudes: ClassVar[tuple[str, ...]] = ("weight_", "heights_")

    directions_: Tensor
    biases_: Tensor
    heights_: Tensor

    def leaves(self) -> dict[str, Tensor]:
        names = ("weight_", "directions_", "biases_", "heights_")
        return {name: getattr(self, name) for name in names}

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weight, heights = self.weight_.to(x), self.heights_.to(x)
        directions = math.sqrt(x.shape[-1]) * self.directions_.to(x)
        z = x @ directions.T + self.biases_.to(x)
        value = x @ weight + torch.nn.functional.softplus(z) @ heights + self.offset_
        return value, weight + (torch.sigmoid(z) * heights) @ directions


class Potential(ComposedBarrier):
    """A barrier h = φ((a - μ)/s) whose parameters are trained through the model that it steers.

    It is not fitted to activations: `EndToEnd` trains it, by what its flow does to the outputs of
    the model.  ``s`` is √d times the median
    over coordinates of their deviation, so that a few massive coordinates do not set the unit.

    `adopt` and `calibrate` belong to that training.
    """

    folds: ClassVar[int] = 0  # type: ignore[misc]
    function_: PotentialFunction

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    @property
    def inputs(self) -> Centred:  # type: ignore[override]
        """The map a -> (a - μ)/s."""
        fitted: Centred = vars(self).get("inputs_") or Centred()
        return fitted

    def _fit(self, contrast: Contrast) -> HeldOutValues | None:
        raise InvalidInputError(
            f"{type(self).__name__} is learned through a language model, not from activations;"
            f" call lm.fit(odesteer.EndToEnd({type(self).__name__}()), data, layer=...)."
        )

    @abstractmethod
    def _draw(self, width: int, generator: torch.Generator) -> PotentialFunction:
        """The function that training starts from, in float32; its gradient is all but zero."""

    @property
    def is_linear(self) -> bool:
        """Whether the gradient is the same everywhere."""
        return isinstance(vars(self).get("function_"), LinearFunction)

    def begun(self, activations: Tensor) -> Self:
        """A copy that is all but flat, in the units of ``activations`` `[n, d]`, to be trained.

        Raises `InvalidInputError` where they do not vary.
        """
        begun = self.clone()
        begun.width_ = activations.shape[1]
        mean = activations.double().mean(dim=0)
        deviation = (activations.double() - mean).square().mean(dim=0).sqrt()
        inputs = Centred()
        inputs.mean_ = mean.float()
        inputs.scale_ = math.sqrt(begun.width_) * float(deviation.median())
        if not inputs.scale_ > 0:
            raise InvalidInputError("the activations do not vary; there is nothing to learn.")
        begun.inputs_ = inputs
        generator = torch.Generator().manual_seed(self.seed)
        begun.function_ = begun._draw(begun.width_, generator)
        begun.function_.offset_ = 0.0
        begun.held_out_, begun.calibration_ = None, 1.0
        begun.upper_ = begun.lower_ = math.nan
        return begun

    def adopt(self, leaves: dict[str, Tensor]) -> Self:
        """A copy whose function has other tensors (`PotentialFunction.leaves`)."""
        adopted = self.clone()
        for name, value in self.learned().items():
            setattr(adopted, name, value)
        adopted.function_ = self.function_.scaled(1.0)
        for name, tensor in leaves.items():
            setattr(adopted.function_, name, tensor)
        return adopted

    def calibrate(self, factor: float, offset: float, level: float) -> None:
        """Make h = ``factor``·φ + ``offset``, so that it is in nats; level ±1 is h = ±``level``."""
        self.function_ = self.function_.scaled(factor)
        self.function_.offset_ += offset
        self.calibration_ = factor
        self.upper_, self.lower_ = level, -level


class LinearPotential(Potential):
    """h linear: its field is the same everywhere, a steering vector.

    Trained on preferences it is the vector of BiPO (Cao et al., NeurIPS 2024, arXiv 2406.00045).
    """

    def _draw(self, width: int, generator: torch.Generator) -> PotentialFunction:
        function = LinearFunction()
        function.weight_ = torch.zeros(width)
        return function


class GatedPotential(Potential):
    """h = w·x σ(√d g·x + b): a field along w that acts where a linear gate is open."""

    def _draw(self, width: int, generator: torch.Generator) -> PotentialFunction:
        function = GatedFunction()
        function.weight_, function.gate_ = _nearly_zero(width, generator), torch.zeros(width)
        function.threshold_ = torch.ones(1)
        return function


class QuadraticPotential(Potential):
    """h = w·x + ½ Σₖ cₖ (√d uₖ·x)²: a linear field with a part of low rank.

    Parameters:
        rank: number of directions uₖ.
        seed: of their first values.
    """

    size_parameters: ClassVar[tuple[str, ...]] = ("rank",)

    def __init__(self, rank: int = 8, seed: int = 0) -> None:
        self.rank = rank
        self.seed = seed

    def _draw(self, width: int, generator: torch.Generator) -> PotentialFunction:
        _check_size("rank", self.rank)
        function = LowRankFunction()
        function.weight_ = _nearly_zero(width, generator)
        function.curvatures_ = torch.zeros(self.rank)
        function.directions_ = _unit_rows(self.rank, width, generator)
        return function


class NeuralPotential(Potential):
    """h = w·x + Σₖ cₖ softplus(√d uₖ·x + bₖ): a multilayer perceptron beside a linear part.

    Parameters:
        hidden: number of units.
        seed: of their first directions.
    """

    size_parameters: ClassVar[tuple[str, ...]] = ("hidden",)

    def __init__(self, hidden: int = 64, seed: int = 0) -> None:
        self.hidden = hidden
        self.seed = seed

    def _draw(self, width: int, generator: torch.Generator) -> PotentialFunction:
        _check_size("hidden", self.hidden)
        function = SoftplusFunction()
        function.weight_ = _nearly_zero(width, generator)
        function.heights_ = torch.zeros(self.hidden)
        function.directions_ = _unit_rows(self.hidden, width, generator)
        function.biases_ = torch.zeros(self.hidden)
        return function


def _nearly_zero(width: int, generator: torch.Generator) -> Tensor:
    """Where a field is zero no time passes, and nothing can be learned from it."""
    return 1e-6 * torch.randn(width, generator=generator) / math.sqrt(width)


def _unit_rows(n: int, width: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, width, generator=generator) / math.sqrt(width)


def _check_size(name: str, value: int) -> None:
    if not is_integer(value, 1):
        raise InvalidInputError(f"{name} must be a positive integer, not {value!r}.")
