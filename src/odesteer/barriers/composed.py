"""Barriers of the form h(a) = f(x(a)): a function of prepared inputs."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from odesteer.barriers.base import Barrier, Restriction
from odesteer.barriers.contrast import Contrast
from odesteer.barriers.fitting import Fitting
from odesteer.barriers.inputs import Inputs
from odesteer.barriers.logistic import class_weights
from odesteer.barriers.quadratic import QuadraticFunction
from odesteer.estimator import Estimator, FittedPart


class Function(Estimator, ABC):
    """A differentiable function f: R^d -> R with learned tensors."""

    family: ClassVar[str] = "function"

    @abstractmethod
    def value(self, x: Tensor) -> Tensor:
        """f(x): `[..., d] -> [...]`."""

    @abstractmethod
    def gradient(self, x: Tensor) -> Tensor:
        """∇f(x): `[..., d] -> [..., d]`."""

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both at once, for functions where they share work."""
        return self.value(x), self.gradient(x)

    def scaled(self, factor: float) -> "Function | None":
        """The function ``factor``·f, a copy; None where there is none of this kind."""
        return None


class ComposedBarrier(Barrier):
    """h = f∘x. A subclass fits both; after `fit`, ``inputs`` gives the fitted map x.

    Learned: ``function_`` f and ``inputs_`` x.
    Quadratic functions of standardised directions are learned as functions of the directions.
    """

    inputs = FittedPart[Inputs]()
    inputs_: Inputs
    function_: Function | QuadraticFunction

    def _prepare(self, contrast: Contrast, inputs: Inputs | None = None) -> Tensor:
        """Fit the inputs; the prepared examples `[n, d]`, in the order of ``contrast.labels``."""
        self.inputs_ = (self.inputs if inputs is None else inputs).clone()
        self.inputs_.fit(contrast.examples, class_weights(contrast.labels))
        return self.inputs_(contrast.examples)

    def _rescale(self, factor: float) -> None:
        scaled = self.function_.scaled(factor)
        if factor != 1 and scaled is not None:
            self.function_, self.calibration_ = scaled, factor

    def _simplify(self) -> None:
        if isinstance(self.function_, QuadraticFunction):
            self.inputs_, self.function_ = self.inputs_.merged(self.function_)

    def value(self, a: Tensor) -> Tensor:
        a = self._input(a)
        return self.function_.value(self.inputs(a))

    def gradient(self, a: Tensor) -> Tensor:
        return self.value_and_gradient(a)[1]

    def value_and_gradient(self, a: Tensor) -> tuple[Tensor, Tensor]:
        a = self._input(a)
        x = self.inputs(a)
        value, gradient = self.function_.value_and_gradient(x)
        return value, self.inputs.pull_back(a, x, gradient)

    def restrict(self, a: Tensor, *, radial: bool = False) -> Restriction | None:
        """Quadratic functions restrict to their eigenbasis Q.

        With z = Qᵀa, gradients lie in span(Q), plus the direction of ``a`` itself if the inputs
        are radial. There, and with ``radial``, the component ρ of ``a`` orthogonal to Q only
        changes its length, and one more coordinate tracks it exactly. Lifting costs one more
        product with Q.
        """
        a = self._input(a)
        function = self.function_
        if not isinstance(function, QuadraticFunction) or function.basis_ is None:
            return None
        basis = function.basis_.to(a)
        radial = radial or self.inputs.radial
        inputs = self.inputs.restrict(basis, int(radial))
        if inputs is None:
            return None
        z = a @ basis
        if not radial:
            barrier = FixedBarrier.of(inputs, function.diagonal(0))
            return Restriction(barrier, z, lambda moved: a + (moved - z) @ basis.T)
        # ρ² as a difference may cancel to nothing or below when r is close to d. Only the ratio
        # ρ(t)/ρ(0) acts on the activation, and the flow gives it whatever ρ(0) is, so a floor
        # far below ‖a‖ changes nothing but the zero.
        squared = a.square().sum(-1)
        floor = squared * torch.finfo(a.dtype).eps
        rho = (squared - z.square().sum(-1)).clamp_min(floor).sqrt()[..., None]
        barrier = FixedBarrier.of(inputs, function.diagonal(1))

        def lift(moved: Tensor) -> Tensor:
            scale = moved[..., -1:] / rho
            return scale * a + (moved[..., :-1] - scale * z) @ basis.T

        return Restriction(barrier, torch.cat([z, rho], dim=-1), lift)


class FixedBarrier(ComposedBarrier):
    """A given function of given inputs, not fitted to anything.

    Flows make one at each call, also inside `torch.compile`, which cannot copy a default object:
    so ``fitting`` is no parameter here.
    """

    fitting: Fitting = Fitting(folds=0)

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs

    @classmethod
    def of(cls, inputs: Inputs, function: Function | QuadraticFunction) -> "FixedBarrier":
        barrier = cls(inputs)
        barrier.function_ = function
        return barrier

    def _input(self, a: Tensor) -> Tensor:
        return a

    def _fit(self, contrast: Contrast) -> None:
        raise NotImplementedError("a FixedBarrier is given, not fitted.")
