"""Training small networks, and when to stop."""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from odesteer.barriers.held_out import group_folds
from odesteer.errors import ConvergenceError, InvalidInputError
from odesteer.untrusted import is_integer

# Training has converged when the held-out loss wins less than this share of its first value.
TOLERANCE = 1e-3


class Trainee(Protocol):
    """The parameters of everything that trains a network.

    Attributes:
        hidden: widths of the hidden layers.
        learning_rate, weight_decay: of AdamW (Loshchilov and Hutter, ICLR 2019); biases do not
            decay.
        batch_size: examples in a step.
        max_epochs: most passes over the examples.
        patience: epochs without a new least loss after which training stops.
        validation: share of the examples that is held out for stopping; 0 for none.
        seed: of first weights, batches and held-out groups.
    """

    hidden: Sequence[int]
    learning_rate: float
    weight_decay: float
    batch_size: int
    max_epochs: int
    patience: int
    validation: float
    seed: int


class Network(Protocol):
    """What is trained: the weights `[out, in]` and biases `[out]` of the layers."""

    weights_: list[Tensor]
    biases_: list[Tensor]


def check_training(trainee: Trainee) -> None:
    """Raise `InvalidInputError` for parameters with which nothing can be trained."""
    counts = {
        "batch_size": trainee.batch_size,
        "max_epochs": trainee.max_epochs,
        "patience": trainee.patience,
        **{f"hidden[{i}]": width for i, width in enumerate(trainee.hidden)},
    }
    for name, count in counts.items():
        if not is_integer(count, 1):
            raise InvalidInputError(f"{name} must be a positive integer, not {count!r}.")
    if not 0 < trainee.learning_rate < math.inf or not 0 <= trainee.weight_decay < math.inf:
        raise InvalidInputError(
            "training a network needs learning_rate > 0 and weight_decay >= 0, not"
            f" {trainee.learning_rate} and {trainee.weight_decay}."
        )
    if not 0 <= trainee.validation <= 0.5:
        raise InvalidInputError(f"validation must be in [0, 0.5], not {trainee.validation}.")


def held_out_part(trainee: Trainee, groups: Tensor, labels: Tensor) -> Tensor:
    """Which examples `[n]` training does not see; none where there are too few groups."""
    none = torch.zeros(len(groups), dtype=torch.bool)
    if trainee.validation == 0:
        return none
    return next(group_folds(groups, labels, round(1 / trainee.validation), trainee.seed), none)


def held_out_pairs(trainee: Trainee, groups: Tensor) -> Tensor:
    """The same for pairs `[n]` of a positive and a negative that share a group."""
    n = len(groups)
    labels = torch.arange(2 * n) < n
    return held_out_part(trainee, torch.cat([groups, groups]), labels)[:n]


def train(
    trainee: Trainee,
    network: Network,
    loss: Callable[[Tensor], Tensor],
    judge: Callable[[], float],
    held_out: Tensor,
    generator: torch.Generator,
    *,
    what: str,
    least: float = math.inf,
    tolerance: float = 0.0,
    keep_best: bool = True,
) -> int:
    """Train a network in place; the number of epochs behind the weights it is left with.

    Args:
        trainee: how.
        network: trainable leaves, left as plain tensors.
        loss: of the examples whose indices `[m]` it is given.
        judge: the loss by which training stops, of the held-out examples where there are any.
        held_out: `[n]` bool; without any the whole of ``max_epochs`` is run and the last weights
            are kept.
        generator: draws the batches.
        what: is trained, for messages.
        least: the judged loss to beat.
        tolerance: training stops when ``patience`` epochs win less than this share of the first
            judged loss.
        keep_best: where ``max_epochs`` ends training before that, keep the best weights so far
            rather than raise.

    Raises `ConvergenceError` where the judged loss is not finite, or still falls at the end.
    """
    rows = (~held_out).nonzero()[:, 0]
    stops = bool(held_out.any())
    weights, biases = network.weights_, network.biases_
    parameters = [*weights, *biases]
    optimiser = torch.optim.AdamW(
        [
            {"params": weights, "weight_decay": trainee.weight_decay},
            {"params": biases, "weight_decay": 0.0},
        ],
        lr=trainee.learning_rate,
    )
    margin = 0.0
    if tolerance:
        with torch.no_grad():
            margin = tolerance * judge()
    best, best_epoch = [p.detach().clone() for p in parameters], 0
    mark, mark_epoch, converged = least, 0, not stops
    for epoch in range(1, trainee.max_epochs + 1):
        order = rows[torch.randperm(len(rows), generator=generator)].to(weights[0].device)
        for batch in torch.split(order, trainee.batch_size):
            optimiser.zero_grad()
            loss(batch).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        with torch.no_grad():
            judged = judge()
        if not math.isfinite(judged):
            raise ConvergenceError(
                f"training {what} diverged in epoch {epoch}; use a learning_rate below"
                f" {trainee.learning_rate}, or inputs of unit scale."
            )
        if judged < least or not stops:
            best, least, best_epoch = [p.detach().clone() for p in parameters], judged, epoch
        if judged < mark - margin or not stops:
            mark, mark_epoch = judged, epoch
        if epoch - mark_epoch >= trainee.patience:
            converged = True
            break
    if not (converged or keep_best):
        raise ConvergenceError(
            f"training {what} did not converge: the held-out loss still fell in the last of"
            f" {trainee.max_epochs} epochs, to {least:.4g}. Raise max_epochs or learning_rate, or"
            " set keep_best=True to keep the best weights so far."
        )
    n = len(weights)
    network.weights_, network.biases_ = best[:n], best[n:]
    return best_epoch
