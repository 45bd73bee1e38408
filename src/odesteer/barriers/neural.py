"""Neural barriers: a multilayer perceptron as the logit."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from odesteer.barriers.composed import ComposedBarrier, Function
from odesteer.barriers.contrast import Contrast
from odesteer.barriers.folds import group_folds
from odesteer.barriers.inputs import Centred, Inputs
from odesteer.errors import ConvergenceError, InvalidInputError


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
        self._check_parameters()
        held_out = self._held_out(contrast)
        # The caller may be in inference mode, whose tensors take part in no gradient.
        with torch.inference_mode(False), torch.enable_grad():
            x = self._prepare(contrast).detach().clone()
            generator = torch.Generator().manual_seed(self.seed)
            network = Perceptron.drawn((contrast.width, *self.hidden, 1), generator, x)
            self.n_epochs_ = self._train(network, x, contrast.labels.to(x), held_out, generator)
        network.offset_ = contrast.prior_of(~held_out)
        self.function_ = network

    def _held_out(self, contrast: Contrast) -> Tensor:
        """Which examples `[n]` training does not see; none where there are too few groups."""
        none = torch.zeros(len(contrast.labels), dtype=torch.bool)
        if self.validation == 0:
            return none
        n_folds = round(1 / self.validation)
        return next(group_folds(contrast.groups, contrast.labels, n_folds, self.seed), none)

    def _train(
        self,
        network: "Perceptron",
        x: Tensor,
        y: Tensor,
        held_out: Tensor,
        generator: torch.Generator,
    ) -> int:
        """Train the network in place; the number of epochs behind the weights it is left with."""
        rows = (~held_out).nonzero()[:, 0]
        judged = held_out if bool(held_out.any()) else ~held_out
        judged_x, judged_y = x[judged.to(x.device)], y[judged.to(x.device)]
        parameters = [*network.weights_, *network.biases_]
        optimiser = torch.optim.AdamW(
            [
                {"params": network.weights_, "weight_decay": self.weight_decay},
                {"params": network.biases_, "weight_decay": 0.0},
            ],
            lr=self.learning_rate,
        )
        best, least, best_epoch = [p.detach().clone() for p in parameters], math.inf, 0
        for epoch in range(1, self.max_epochs + 1):
            order = rows[torch.randperm(len(rows), generator=generator)].to(x.device)
            for batch in torch.split(order, self.batch_size):
                optimiser.zero_grad()
                _log_loss(network.value(x[batch]), y[batch]).backward()  # type: ignore[no-untyped-call]
                optimiser.step()
            with torch.no_grad():
                loss = float(_log_loss(network.value(judged_x), judged_y))
            if not math.isfinite(loss):
                raise ConvergenceError(
                    f"training a neural barrier diverged in epoch {epoch}; use a learning_rate"
                    f" below {self.learning_rate}, or inputs of unit scale."
                )
            if loss < least or judged is not held_out:
                best, least, best_epoch = [p.detach().clone() for p in parameters], loss, epoch
            if epoch - best_epoch >= self.patience:
                break
        n = len(network.weights_)
        network.weights_, network.biases_ = best[:n], best[n:]
        return best_epoch

    def _check_parameters(self) -> None:
        counts = {"batch_size": self.batch_size, "max_epochs": self.max_epochs}
        counts |= {"patience": self.patience}
        counts |= {f"hidden[{i}]": width for i, width in enumerate(self.hidden)}
        for name, count in counts.items():
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise InvalidInputError(f"{name} must be a positive integer, not {count!r}.")
        if not 0 < self.learning_rate < math.inf or not 0 <= self.weight_decay < math.inf:
            raise InvalidInputError(
                "a neural barrier needs learning_rate > 0 and weight_decay >= 0, not"
                f" {self.learning_rate} and {self.weight_decay}."
            )
        if not 0 <= self.validation <= 0.5:
            raise InvalidInputError(f"validation must be in [0, 0.5], not {self.validation}.")


class Perceptron(Function):
    """f(x) = a multilayer perceptron of √d·x with SiLU hidden layers, plus a constant.

    Learned: ``weights_`` (each `[out, in]`), ``biases_`` (each `[out]`), ``offset_``.
    """

    weights_: list[Tensor]
    biases_: list[Tensor]
    offset_: float

    @classmethod
    def drawn(cls, widths: Sequence[int], generator: torch.Generator, like: Tensor) -> "Perceptron":
        """First weights, normal with variance 1/in (LeCun et al., 1998), as trainable leaves."""
        network = cls()
        network.weights_, network.biases_, network.offset_ = [], [], 0.0
        for wide, narrow in pairwise(widths):
            weight = torch.randn(narrow, wide, generator=generator, dtype=torch.float64)
            network.weights_.append((weight / math.sqrt(wide)).to(like).requires_grad_())
            network.biases_.append(like.new_zeros(narrow).requires_grad_())
        return network

    def value(self, x: Tensor) -> Tensor:
        z = math.sqrt(x.shape[-1]) * x
        for i, (weight, bias) in enumerate(zip(self.weights_, self.biases_, strict=True)):
            z = torch.nn.functional.linear(z if i == 0 else _silu(z), weight.to(x), bias.to(x))
        return z[..., 0] + self.offset_

    def gradient(self, x: Tensor) -> Tensor:
        return self.value_and_gradient(x)[1]

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """By automatic differentiation, whatever the caller's gradient mode.

        Where the caller records gradients of ``x``, so are those of the result.
        """
        twice = torch.is_grad_enabled() and x.requires_grad
        with torch.inference_mode(False), torch.enable_grad():
            leaf = x if twice else x.detach().clone().requires_grad_()
            value = self._plain().value(leaf)
            (gradient,) = torch.autograd.grad(value.sum(), leaf, create_graph=twice)
        return (value, gradient) if twice else (value.detach(), gradient)

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


def _log_loss(f: Tensor, y: Tensor) -> Tensor:
    return (torch.nn.functional.softplus(f) - y * f).mean()
