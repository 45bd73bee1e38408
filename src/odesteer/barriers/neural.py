"""Neural barriers: a multilayer perceptron as the logit."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from odesteer.barriers.composed import ComposedBarrier, Function
from odesteer.barriers.contrast import Contrast
from odesteer.barriers.fitting import Fitting
from odesteer.barriers.inputs import Centred, Inputs
from odesteer.barriers.logistic import class_weights
from odesteer.barriers.training import MOVED_TO_TRAINING, Training, check_network


class NeuralBarrier(ComposedBarrier):
    """A logistic classifier that is a multilayer perceptron, trained end to end.

    What arXiv 2602.17560 leaves to future work. The loss is the log loss with both
    classes counting alike. The hidden layers are smooth (SiLU), since
    flows follow the direction of the gradient.

    Parameters:
        hidden: widths of the hidden layers.
        training: see `Training`; its parameters are also accepted as arguments of their own.
        inputs: what the network sees. Inside they are multiplied by √d, which brings inputs of
            unit length, such as `Centred` ones, to unit scale in each coordinate.
        fitting: see `Fitting`; the seed also draws first weights, batches and held-out groups.

    Learned: ``n_epochs_``, the epochs behind the weights.
    """

    moved_parameters: ClassVar[Mapping[str, str]] = {
        name: target for name, target in MOVED_TO_TRAINING.items() if name != "keep_best"
    }

    n_epochs_: int

    def __init__(
        self,
        hidden: Sequence[int] = (64,),
        training: Training = Training(max_epochs=200, tolerance=0.0, keep_best=True),
        inputs: Inputs = Centred(),
        fitting: Fitting = Fitting(),
    ) -> None:
        self.hidden = hidden
        self.training = training
        self.inputs = inputs
        self.fitting = fitting

    def _is_log_ratio(self) -> bool:
        return True

    def _fit(self, contrast: Contrast) -> None:
        check_network(self.hidden, self.training)
        held_out = self.training.held_out(contrast.groups, contrast.labels, self.seed)
        # The caller may be in inference mode, whose tensors take part in no gradient.
        with torch.inference_mode(False), torch.enable_grad():
            x = self._prepare(contrast).detach().clone()
            y = contrast.labels.to(x)
            generator = torch.Generator().manual_seed(self.seed)
            network = Perceptron.drawn((contrast.width, *self.hidden, 1), generator, x)
            stopping = (held_out if bool(held_out.any()) else ~held_out).to(x.device)
            stopping_x, stopping_y = x[stopping], y[stopping]
            weights = torch.ones_like(y)
            for part in (held_out, ~held_out):
                balance = class_weights(contrast.labels[part]) if bool(part.any()) else None
                if balance is not None:
                    weights[part.to(x.device)] = balance.to(x)
            stopping_weights = weights[stopping]
            self.n_epochs_ = self.training.run(
                network,
                lambda batch: _log_loss(network.value(x[batch]), y[batch], weights[batch]),
                lambda: float(_log_loss(network.value(stopping_x), stopping_y, stopping_weights)),
                held_out,
                generator,
                name="a neural barrier",
            )
        self.function_ = network


def _log_loss(f: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    return (weights * (torch.nn.functional.softplus(f) - y * f)).mean()


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

    def scaled(self, factor: float) -> "Perceptron":
        network = Perceptron()
        network.weights_ = [*self.weights_[:-1], factor * self.weights_[-1]]
        network.biases_ = [*self.biases_[:-1], factor * self.biases_[-1]]
        network.offset_ = factor * self.offset_
        return network

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
                sigmoid = torch.sigmoid(z)
                slopes.append(sigmoid * (1 + z * (1 - sigmoid)))  # the derivative of SiLU
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
