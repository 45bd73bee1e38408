"""One network on a projection that several layers share: steering vector fields over layers."""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from odesteer.barriers.composed import ComposedBarrier, Function
from odesteer.barriers.contrast import Contrast, FitArguments, check_contrast
from odesteer.barriers.fitting import Fitting
from odesteer.barriers.held_out import check_folds, group_folds
from odesteer.barriers.inputs import Centred, Inputs
from odesteer.barriers.logistic import class_weights
from odesteer.barriers.neural import Perceptron
from odesteer.barriers.training import Training, check_network
from odesteer.errors import InvalidInputError
from odesteer.untrusted import is_integer


class SharedProjectionBarrier(ComposedBarrier):
    """h_l(a) = f(s_l⊙Rx_l(a) + t_l): one network f on one projection R, read at each layer l.

    R maps to a few coordinates that all layers share, and each layer has its own inputs x_l, scale
    s_l and shift t_l there. Fitted at several layers (`SteeredModel.fit` with a list of layers, or
    `fit_layers`) everything is trained at once, by the sum of the layers' log losses, so that a
    layer with little signal borrows from the others; fitted at one layer it is a network of low
    rank. This is the idea of steering vector fields (SVF, arXiv 2602.01654), whose fields are
    ∇h/‖∇h‖; its code was not at hand, so widths and training are ours. Hidden layers are smooth
    (SiLU), where flows follow the gradient. A value takes O(r d).

    Parameters:
        rank: r, the number of shared coordinates.
        hidden: widths of the hidden layers of f.
        training: see `Training`.
        inputs: what is projected, see `NeuralBarrier`; each layer fits its own.
        fitting: see `Fitting`; the seed also draws first weights, batches and held-out groups.

    Learned: ``n_epochs_``, the epochs behind the weights; ``n_layers_``, how many layers were
    fitted together.
    """

    size_parameters: ClassVar[tuple[str, ...]] = ("rank",)
    fits_jointly: ClassVar[bool] = True

    n_epochs_: int
    n_layers_: int

    def __init__(
        self,
        rank: int = 16,
        hidden: Sequence[int] = (64,),
        training: Training = Training(max_epochs=200, tolerance=0.0, keep_best=True),
        inputs: Inputs = Centred(),
        fitting: Fitting = Fitting(),
    ) -> None:
        self.rank = rank
        self.hidden = hidden
        self.training = training
        self.inputs = inputs
        self.fitting = fitting

    def fit_layers(self, sides: Sequence[FitArguments]) -> list[Self]:
        """Fitted copies, one for each layer, that share R and f.

        ``sides`` are of the same examples at each layer. Raises `InvalidInputError` as `fit` does,
        and where the layers' examples differ.
        """
        check_folds(self.folds)
        contrasts = [check_contrast(*side) for side in sides]
        if not contrasts:
            raise InvalidInputError("give the activations of one layer at least.")
        first = contrasts[0]
        for contrast in contrasts[1:]:
            if contrast.width != first.width or not (
                torch.equal(contrast.groups, first.groups)
                and torch.equal(contrast.labels, first.labels)
            ):
                raise InvalidInputError(
                    "a shared projection needs the same examples, in the same groups, at every"
                    f" layer; got {len(first.labels)} of width {first.width} and"
                    f" {len(contrast.labels)} of width {contrast.width}."
                )
        with torch.inference_mode(False), torch.no_grad():
            fitted = self._together(contrasts)
            values = self._values_without_groups(contrasts)
            for number, (barrier, contrast) in enumerate(zip(fitted, contrasts, strict=True)):
                held_out = None if values is None else (values[0][number], values[1])
                barrier._count_levels(contrast, held_out)
        return fitted

    def _is_log_ratio(self) -> bool:
        return True

    def _fit(self, contrast: Contrast) -> None:
        (fitted,) = self._together([contrast])
        for name, value in fitted.learned().items():
            setattr(self, name, value)

    def _values_without_groups(
        self, contrasts: Sequence[Contrast]
    ) -> tuple[list[Tensor], Tensor] | None:
        """As `_held_out_values`, for each layer."""
        first = contrasts[0]
        values = [torch.zeros(len(first.labels), dtype=torch.float64) for _ in contrasts]
        rated = torch.zeros(len(first.labels), dtype=torch.bool)
        for mask in group_folds(first.groups, first.labels, self.folds, self.seed):
            parts = [check_contrast(*contrast.split(~mask)) for contrast in contrasts]
            for own, fold, contrast in zip(values, self._together(parts), contrasts, strict=True):
                own[mask] = fold.value(contrast.examples[mask]).double().cpu()
            rated |= mask
        return (values, rated) if bool(rated.any()) else None

    def _together(self, contrasts: Sequence[Contrast]) -> list[Self]:
        """A copy for each layer with what is learned, but for calibration and levels."""
        check_network(self.hidden, self.training)
        if not is_integer(self.rank, 1):
            raise InvalidInputError(f"rank must be a whole number ≥ 1, not {self.rank!r}.")
        first = contrasts[0]
        held_out = self.training.held_out(first.groups, first.labels, self.seed)
        fitted = [self.with_params() for _ in contrasts]
        # The caller may be in inference mode, whose tensors take part in no gradient.
        with torch.inference_mode(False), torch.enable_grad():
            x = torch.stack(
                [
                    barrier._prepare(contrast).detach().clone()
                    for barrier, contrast in zip(fitted, contrasts, strict=True)
                ]
            )
            y = first.labels.to(x)
            weights = torch.ones_like(y)
            for part in (held_out, ~held_out):
                balance = class_weights(first.labels[part]) if bool(part.any()) else None
                if balance is not None:
                    weights[part.to(x.device)] = balance.to(x)
            generator = torch.Generator().manual_seed(self.seed)
            network = _SharedNetwork(self.rank, self.hidden, x, generator)
            stopping = (
                (held_out if bool(held_out.any()) else ~held_out).nonzero()[:, 0].to(x.device)
            )

            def loss(rows: Tensor) -> Tensor:
                f = network.values(x[:, rows])
                log_loss = torch.nn.functional.softplus(f) - y[rows] * f
                return (weights[rows] * log_loss).mean()

            n_epochs = self.training.run(
                network,
                loss,
                lambda: float(loss(stopping)),
                held_out,
                generator,
                name="a barrier on a shared projection",
            )
        for number, (barrier, contrast) in enumerate(zip(fitted, contrasts, strict=True)):
            barrier.width_, barrier.n_epochs_ = contrast.width, n_epochs
            barrier.n_layers_ = len(contrasts)
            barrier.function_ = network.at(number)
        return fitted


class _SharedNetwork:
    """What is trained: R, f, and for each layer a scale and a shift.

    Scales and shifts are among the ``biases_``, which do not decay; scales count from 1.
    """

    def __init__(
        self, rank: int, hidden: Sequence[int], x: Tensor, generator: torch.Generator
    ) -> None:
        layers, _, width = x.shape
        inner = Perceptron.drawn((rank, *hidden, 1), generator, x)
        drawn = torch.randn(rank, width, generator=generator, dtype=torch.float64)
        projection = (drawn / math.sqrt(width)).to(x).requires_grad_()
        per_layer = [x.new_zeros(layers, rank).requires_grad_() for _ in range(2)]
        self.weights_ = [projection, *inner.weights_]
        self.biases_ = [*per_layer, *inner.biases_]

    def values(self, x: Tensor) -> Tensor:
        """f `[layers, n]` of inputs `[layers, n, d]`."""
        scales, shifts, *_ = self.biases_
        z = math.sqrt(x.shape[-1]) * x @ self.weights_[0].T
        z = (1 + scales[:, None]) * z + shifts[:, None]
        return self._inner().value(z / math.sqrt(z.shape[-1]))

    def at(self, layer: int) -> "ModulatedPerceptron":
        """The function of one layer, of plain tensors."""
        function = ModulatedPerceptron()
        function.projection_ = self.weights_[0].detach().clone()
        function.scale_ = 1 + self.biases_[0][layer].detach()
        function.shift_ = self.biases_[1][layer].detach().clone()
        function.network_ = self._inner().scaled(1.0)
        return function

    def _inner(self) -> Perceptron:
        network = Perceptron()
        network.weights_, network.biases_ = self.weights_[1:], self.biases_[2:]
        network.offset_ = 0.0
        return network


class ModulatedPerceptron(Function):
    """f(x) = g(s⊙(√d Rx) + t), g a multilayer perceptron.

    Learned: ``projection_`` R `[r, d]`, ``scale_`` s and ``shift_`` t `[r]`, ``network_`` g.
    """

    projection_: Tensor
    scale_: Tensor
    shift_: Tensor
    network_: Perceptron

    def scaled(self, factor: float) -> "ModulatedPerceptron":
        scaled = ModulatedPerceptron()
        scaled.projection_, scaled.scale_, scaled.shift_ = (
            self.projection_,
            self.scale_,
            self.shift_,
        )
        scaled.network_ = self.network_.scaled(factor)
        return scaled

    def value(self, x: Tensor) -> Tensor:
        return self.value_and_gradient(x)[0]

    def gradient(self, x: Tensor) -> Tensor:
        return self.value_and_gradient(x)[1]

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        projection, scale = self.projection_.to(x), self.scale_.to(x)
        r, d = projection.shape
        z = (math.sqrt(d) * (x @ projection.T) * scale + self.shift_.to(x)) / math.sqrt(r)
        value, gradient = self.network_.value_and_gradient(z)
        return value, (math.sqrt(d / r) * scale * gradient) @ projection
