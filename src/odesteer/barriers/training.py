"""Training of small networks: AdamW on minibatches, early stopping on held-out groups."""

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from odesteer.barriers.held_out import group_folds
from odesteer.errors import ConvergenceError, InvalidInputError
from odesteer.estimator import Parametrised
from odesteer.untrusted import is_integer


class Network(Protocol):
    """What is trained: the weights `[out, in]` and biases `[out]` of the layers."""

    weights_: list[Tensor]
    biases_: list[Tensor]


class Training(Parametrised):
    """How a network is trained: AdamW on minibatches, stopped by the loss on held-out groups.

    The weights after the epoch of least held-out loss are kept; where there are too few groups to
    hold any out, those after the last epoch.

    Parameters:
        learning_rate, weight_decay: of AdamW (Loshchilov and Hutter, ICLR 2019); biases do not
            decay.
        batch_size: examples in a step.
        max_epochs: most passes over the examples.
        patience: training stops after this many epochs without progress.
        tolerance: what counts as progress: a loss lower by this fraction of the first one; with 0
            any new least loss.
        validation: fraction of the groups that is held out for stopping; 0 for none, then all of
            ``max_epochs`` are run.
        keep_best: whether training that still makes progress after ``max_epochs`` keeps its best
            weights so far; otherwise that is a `ConvergenceError`.
    """

    family: ClassVar[str] = "training"

    def __init__(
        self,
        learning_rate: float = 2e-3,
        weight_decay: float = 0.1,
        batch_size: int = 128,
        max_epochs: int = 1000,
        patience: int = 20,
        tolerance: float = 1e-3,
        validation: float = 0.2,
        keep_best: bool = False,
    ) -> None:
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.patience = patience
        self.tolerance = tolerance
        self.validation = validation
        self.keep_best = keep_best

    def check(self) -> None:
        """Raise `InvalidInputError` for parameters with which nothing can be trained."""
        _check_counts(
            {
                "batch_size": self.batch_size,
                "max_epochs": self.max_epochs,
                "patience": self.patience,
            }
        )
        if not 0 < self.learning_rate < math.inf or not 0 <= self.weight_decay < math.inf:
            raise InvalidInputError(
                "training a network needs learning_rate > 0 and weight_decay >= 0, not"
                f" {self.learning_rate} and {self.weight_decay}."
            )
        if not 0 <= self.tolerance < 1:
            raise InvalidInputError(f"tolerance must be in [0, 1), not {self.tolerance}.")
        if not 0 <= self.validation <= 0.5:
            raise InvalidInputError(f"validation must be in [0, 0.5], not {self.validation}.")

    def held_out(self, groups: Tensor, labels: Tensor, seed: int) -> Tensor:
        """Mask `[n]` of the examples held out for stopping; empty where groups are too few."""
        none = torch.zeros(len(groups), dtype=torch.bool)
        if self.validation == 0:
            return none
        return next(group_folds(groups, labels, round(1 / self.validation), seed), none)

    def held_out_pairs(self, groups: Tensor, seed: int) -> Tensor:
        """The same for pairs `[n]` of a positive and a negative that share a group."""
        n = len(groups)
        labels = torch.arange(2 * n) < n
        return self.held_out(torch.cat([groups, groups]), labels, seed)[:n]

    def run(
        self,
        network: Network,
        loss: Callable[[Tensor], Tensor],
        stopping_loss: Callable[[], float],
        held_out: Tensor,
        generator: torch.Generator,
        *,
        name: str,
        least: float = math.inf,
    ) -> int:
        """Train a network in place; the number of epochs behind the weights it is left with.

        Args:
            network: trainable leaves, left as plain tensors.
            loss: of the examples whose indices `[m]` it is given.
            stopping_loss: the loss of the held-out examples, of all where none are held out.
            held_out: `[n]` bool; without any the last weights are kept.
            generator: draws the batches.
            name: of what is trained, for messages.
            least: the stopping loss to beat; the first weights stay where nothing beats it.

        Raises `ConvergenceError` where the stopping loss is not finite, or still falls at the end
        and ``keep_best`` is not set.
        """
        rows = (~held_out).nonzero()[:, 0]
        stops = bool(held_out.any())
        weights, biases = network.weights_, network.biases_
        parameters = [*weights, *biases]
        optimiser = torch.optim.AdamW(
            [
                {"params": weights, "weight_decay": self.weight_decay},
                {"params": biases, "weight_decay": 0.0},
            ],
            lr=self.learning_rate,
        )
        margin = 0.0
        if self.tolerance:
            with torch.no_grad():
                margin = self.tolerance * stopping_loss()
        best, best_epoch = [p.detach().clone() for p in parameters], 0
        mark, mark_epoch, converged = least, 0, not stops
        for epoch in range(1, self.max_epochs + 1):
            order = rows[torch.randperm(len(rows), generator=generator)].to(weights[0].device)
            for batch in torch.split(order, self.batch_size):
                optimiser.zero_grad()
                loss(batch).backward()  # type: ignore[no-untyped-call]
                optimiser.step()
            with torch.no_grad():
                current = stopping_loss()
            if not math.isfinite(current):
                raise ConvergenceError(
                    f"training {name} diverged in epoch {epoch}; use a learning_rate below"
                    f" {self.learning_rate}, or inputs of unit scale."
                )
            if current < least or not stops:
                best, least, best_epoch = [p.detach().clone() for p in parameters], current, epoch
            if current < mark - margin or not stops:
                mark, mark_epoch = current, epoch
            if epoch - mark_epoch >= self.patience:
                converged = True
                break
        if not (converged or self.keep_best):
            raise ConvergenceError(
                f"training {name} did not converge: the held-out loss still fell in the last of"
                f" {self.max_epochs} epochs, to {least:.4g}. Raise max_epochs or learning_rate, or"
                " set keep_best=True to keep the best weights so far."
            )
        n = len(weights)
        network.weights_, network.biases_ = best[:n], best[n:]
        return best_epoch


# Parameters of earlier versions that a `Training` holds now, see `Parametrised`.
MOVED_TO_TRAINING = dict.fromkeys(
    (
        "learning_rate",
        "weight_decay",
        "batch_size",
        "max_epochs",
        "patience",
        "validation",
        "keep_best",
    ),
    "training",
)


def check_network(hidden: Sequence[int], training: Training) -> None:
    """Raise `InvalidInputError` for widths of hidden layers or a training that cannot be used."""
    _check_counts({f"hidden[{i}]": width for i, width in enumerate(hidden)})
    if not isinstance(training, Training):
        raise InvalidInputError(f"training must be a Training(...), not {training!r:.80}.")
    training.check()


def _check_counts(counts: dict[str, int]) -> None:
    for name, count in counts.items():
        if not is_integer(count, 1):
            raise InvalidInputError(f"{name} must be a positive integer, not {count!r}.")
