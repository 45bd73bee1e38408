"""Neural barriers: a multilayer perceptron as the logit."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from odesteer.barriers.composed import ComposedBarrier, Function
from odesteer.barriers.contrast import Contrast
from odesteer.barriers.inputs import Centred, Inputs
from odesteer.barriers.training import check_training, held_out_part, train


class NeuralBarrier(ComposedBarrier):
    """A logistic classifier that is a multilayer perceptron, trained end to end.

    What arXiv 2602.17560 leaves to future work. The optimiser is AdamW (Loshchilov and Hutter,
    ICLR 2019) on the unweighted log loss of minibatches; class frequencies enter by the prior
    correction alone. A part of the groups is held out, and the weights after the epoch of least
    log loss there are kept; where the groups are too few for that, those after the last epoch.
    The hidden layers are smooth (SiLU), since flows follow the direction of the gradient.

    Parameters:
        hidden: widths of the hidden layers.
        learning_rate, weight_decay: of AdamW; biases do not decay.
        batch_size: examples in a step.
        max_epochs: most passes over the examples.
        patience: epochs without a new least loss after which training stops.
        validation: share of the examples that is held out for stopping; 0 for none.
        inputs: what the network sees. Inside they are multiplied by √d, which brings inputs of
            unit length, such as `Centred` ones, to unit scale in each coordinate.
        folds, seed: see `Barrier`; the seed also draws first weights, batches and held-out groups.

    Learned: ``n_epochs_``, the epochs behind the weights.
    """

    n_epochs_: int

    def __init__(
        self,
        hidden: Sequence[int] = (64,),
        learning_rate: float = 2e-3,
        weight_decay: float = 0.1,
        batch_size: int = 128,
        max_epochs: int = 200,
        patience: int = 20,
        validation: float = 0.2,
        inputs: Inputs = Centred(),
        folds: int = 5,
        seed: int = 0,
    ) -> None:
        self.hidden = hidden
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.patience = patience
        self.validation = validation
        self.inputs = inputs
        self.folds = folds
        self.seed = seed

    def _fit(self, contrast: Contrast) -> None:
        check_training(self)
        held_out = held_out_part(self, contrast.groups, contrast.labels)
        # The caller may be in inference mode, whose tensors take part in no gradient.
        with torch.inference_mode(False), torch.enable_grad():
            x = self._prepare(contrast).detach().clone()
            y = contrast.labels.to(x)
            generator = torch.Generator().manual_seed(self.seed)
            network = Perceptron.drawn((contrast.width, *self.hidden, 1), generator, x)
            judged = held_out if bool(held_out.any()) else ~held_out
            judged_x, judged_y = x[judged.to(x.device)], y[judged.to(x.device)]
            self.n_epochs_ = train(
                self,
                network,
                lambda batch: _log_loss(network.value(x[batch]), y[batch]),
                lambda: float(_log_loss(network.value(judged_x), judged_y)),
                held_out,
                generator,
                what="a neural barrier",
            )
        network.offset_ = contrast.prior_of(~held_out)
        self.function_ = network


def _log_loss(f: Tensor, y: Tensor) -> Tensor:
    return (torch.nn.functional.softplus(f) - y * f).mean()


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
