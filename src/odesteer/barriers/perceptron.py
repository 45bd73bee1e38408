"""Multilayer perceptrons as stored tensors."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from odesteer.barriers.composed import Function


class Perceptron(Function):
    """f(x) = a multilayer perceptron of √d·x with SiLU hidden layers, plus a constant.

    As a function it is its first output; `outputs` gives all of them, without the constant.

    Learned: ``weights_`` (each `[out, in]`), ``biases_`` (each `[out]`), ``offset_``.
    """

    weights_: list[Tensor]
    biases_: list[Tensor]
    offset_: float

    @classmethod
    def drawn(
        cls,
        widths: Sequence[int],
        generator: torch.Generator,
        like: Tensor,
        *,
        flat: bool = False,
    ) -> "Perceptron":
        """First weights, normal with variance 1/in (LeCun et al., 1998), as trainable leaves.

        With ``flat`` the last layer is zero, so that training starts from a constant and has no
        random function to unlearn, which takes long where there are many inputs.
        """
        network = cls()
        network.weights_, network.biases_, network.offset_ = [], [], 0.0
        for wide, narrow in pairwise(widths):
            weight = torch.randn(narrow, wide, generator=generator, dtype=torch.float64)
            network.weights_.append((weight / math.sqrt(wide)).to(like).requires_grad_())
            network.biases_.append(like.new_zeros(narrow).requires_grad_())
        if flat:
            network.weights_[-1] = torch.zeros_like(network.weights_[-1]).requires_grad_()
        return network

    def outputs(self, x: Tensor) -> Tensor:
        """The last layer, `[..., d] -> [..., out]`."""
        z = math.sqrt(x.shape[-1]) * x
        for i, (weight, bias) in enumerate(zip(self.weights_, self.biases_, strict=True)):
            z = torch.nn.functional.linear(z if i == 0 else _silu(z), weight.to(x), bias.to(x))
        return z

    def value(self, x: Tensor) -> Tensor:
        return self.outputs(x)[..., 0] + self.offset_

    def gradient(self, x: Tensor) -> Tensor:
        return self.value_and_gradient(x)[1]

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """By the chain rule written out: half the time of automatic differentiation.

        Where the caller records gradients of ``x``, so are those of the result.
        """
        recorded = torch.is_grad_enabled() and x.requires_grad
        network = self._plain() if recorded else self
        root = math.sqrt(x.shape[-1])
        weights = [weight.to(x) for weight in network.weights_]
        z, slopes = root * x, []
        for i, (weight, bias) in enumerate(zip(weights, network.biases_, strict=True)):
            if i > 0:
                share = torch.sigmoid(z)
                slopes.append(share * (1 + z * (1 - share)))  # the derivative of SiLU
                z = _silu(z)
            z = torch.nn.functional.linear(z, weight, bias.to(x))
        gradient = weights[-1][0]
        for weight, slope in zip(reversed(weights[:-1]), reversed(slopes), strict=True):
            gradient = (gradient * slope) @ weight
        return z[..., 0] + self.offset_, (root * gradient).expand_as(x)

    def _plain(self) -> "Perceptron":
        """Itself, or a copy if its tensors were made in inference mode (loaded or moved there)."""
        if not any(tensor.is_inference() for tensor in (*self.weights_, *self.biases_)):
            return self
        plain = Perceptron()
        plain.weights_ = [tensor.clone() for tensor in self.weights_]
        plain.biases_ = [tensor.clone() for tensor in self.biases_]
        plain.offset_ = self.offset_
        return plain


_silu = torch.nn.functional.silu
