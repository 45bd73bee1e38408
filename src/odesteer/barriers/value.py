"""Value networks: a multilayer perceptron that regresses rewards."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from odesteer.barriers.composed import ComposedBarrier
from odesteer.barriers.contrast import Contrast, check_contrast
from odesteer.barriers.fitting import Fitting
from odesteer.barriers.held_out import HeldOutValues, check_folds, group_folds
from odesteer.barriers.inputs import Centred, Inputs
from odesteer.barriers.neural import Perceptron
from odesteer.barriers.training import MOVED_TO_TRAINING, Training, check_network
from odesteer.errors import InvalidInputError
from odesteer.untrusted import is_number


@dataclass(frozen=True, kw_only=True)
class Rewarded(Contrast):
    """Activations with rewards; those above ``middle`` are the positives.

    Attributes:
        rewards: `[n]` float64 on the CPU, in the order of ``examples``.
        weights: `[n]` float64, how much each counts, likewise.
        middle: the reward at the decision boundary.
    """

    rewards: Tensor
    weights: Tensor
    middle: float

    def part(self, mask: Tensor) -> "Rewarded":
        """The masked examples, with the same middle."""
        positive, negative, _ = self.split(mask)
        return Rewarded(
            positive,
            negative,
            self.groups[mask],
            rewards=self.rewards[mask],
            weights=self.weights[mask],
            middle=self.middle,
        )


class ValueBarrier(ComposedBarrier):
    """h(a) = V(a) - r₀ with a value network V that regresses rewards (Kong et al., NeurIPS 2024).

    `fit` regresses labels, 1 for positives and 0 for negatives, with both classes counting
    alike, and r₀ = 1/2; `fit_rewards` regresses real-valued rewards, r₀ is their mean, and the
    examples above it are the positives of levels and quality. The value is in units of reward,
    not nats. The loss is the squared error. Trained in float32.

    The published loss has one more term, Σ_t (V_t - V_{t+1})² over consecutive tokens of a text:
    ``consistency`` is its weight. Rows of one group and one side, in the order given, count as the
    tokens of a text.

    Parameters:
        hidden: widths of the hidden layers, which are smooth (SiLU).
        training: see `Training`; its parameters are also accepted as arguments of their own.
        inputs: what the network sees, see `NeuralBarrier`.
        fitting: see `Fitting`; the seed also draws first weights, batches and held-out groups.
        consistency: weight of the squared difference of values of consecutive tokens; 0 for none.

    Learned: ``middle_`` r₀; ``n_epochs_``, the epochs behind the weights; ``explained_``, the
    share of the variance of held-out rewards that V explains (R²), None without folds.
    """

    moved_parameters: ClassVar[Mapping[str, str]] = MOVED_TO_TRAINING
    added_parameters: ClassVar[Mapping[str, Any]] = {"consistency": 0.0}

    middle_: float
    n_epochs_: int
    explained_: float | None

    def __init__(
        self,
        hidden: Sequence[int] = (64,),
        training: Training = Training(),
        inputs: Inputs = Centred(),
        fitting: Fitting = Fitting(),
        consistency: float = 0.0,
    ) -> None:
        self.hidden = hidden
        self.training = training
        self.inputs = inputs
        self.fitting = fitting
        self.consistency = consistency

    def fit_rewards(
        self,
        activations: Tensor,
        rewards: Tensor | Sequence[float],
        groups: Sequence[Hashable] | Tensor | None = None,
    ) -> Self:
        """Fit to activations `[n, d]` and their rewards `[n]`, real numbers of any unit.

        Examples that share a label of ``groups`` `[n]` are never split between folds. Raises
        `InvalidInputError` as `fit` does, and for rewards that are not finite or do not vary.
        """
        contrast = check_rewards(activations, rewards, groups)
        check_folds(self.folds)
        self.forget()
        try:
            self._learn(contrast)
        except BaseException:
            self.forget()  # leave nothing half fitted
            raise
        return self

    def _fit(self, contrast: Contrast) -> HeldOutValues | None:
        check_network(self.hidden, self.training)
        if not is_number(self.consistency) or self.consistency < 0:
            raise InvalidInputError(
                f"consistency must be a number of at least 0, not {self.consistency!r}."
            )
        data = contrast if isinstance(contrast, Rewarded) else _labelled(contrast)
        self.middle_ = data.middle
        self.function_ = self._trained(data)
        values = self._held_out_values(data)
        self.explained_ = None
        if values is not None:
            h, rated = values
            truth, weights = data.rewards[rated] - data.middle, data.weights[rated]
            spread = truth - (weights * truth).sum() / weights.sum()
            error = (weights * (h[rated] - truth).square()).sum()
            self.explained_ = 1 - float(error / (weights * spread.square()).sum())
        return values

    def _held_out_values(self, contrast: Contrast) -> HeldOutValues | None:
        if not isinstance(contrast, Rewarded):
            return None  # `_fit` has computed them
        values = torch.zeros(len(contrast.rewards), dtype=torch.float64)
        rated = torch.zeros(len(contrast.rewards), dtype=torch.bool)
        for mask in group_folds(contrast.groups, contrast.labels, self.folds, self.seed):
            fold = self.with_params(folds=0)
            fold._learn(contrast.part(~mask))
            values[mask] = fold.value(contrast.examples[mask]).double().cpu()
            rated |= mask
        return (values, rated) if bool(rated.any()) else None

    def _trained(self, data: Rewarded) -> Perceptron:
        held_out = self.training.held_out(data.groups, data.labels, self.seed)
        centred = data.rewards - data.middle
        # The network learns targets of unit scale; its last layer takes the scale over.
        scale = float(centred.square().mean().sqrt())
        with torch.inference_mode(False), torch.enable_grad():
            x = self._prepare(data).detach().clone().float()
            target, weight = (centred / scale).to(x), data.weights.to(x)
            generator = torch.Generator().manual_seed(self.seed)
            network = Perceptron.drawn((data.width, *self.hidden, 1), generator, x, flat=True)
            stopping = (
                (held_out if bool(held_out.any()) else ~held_out).nonzero()[:, 0].to(x.device)
            )

            following = _following(data).to(x.device)

            def loss(rows: Tensor) -> Tensor:
                values = network.value(x[rows])
                error = (weight[rows] * (values - target[rows]).square()).sum()
                if self.consistency:
                    change = network.value(x[following[rows]]) - values
                    error = error + self.consistency * (weight[rows] * change.square()).sum()
                return error / weight[rows].sum()

            self.n_epochs_ = self.training.run(
                network,
                loss,
                lambda: float(loss(stopping)),
                held_out,
                generator,
                name="a value network",
            )
            network.weights_[-1] = scale * network.weights_[-1]
            network.biases_[-1] = scale * network.biases_[-1]
        return network.to(dtype=data.positive.dtype)


def _following(data: Rewarded) -> Tensor:
    """`[n]`, the next row of the same group and side; a row itself where there is none."""
    last: dict[tuple[int, float], int] = {}
    following = torch.arange(len(data.groups))
    for row, key in enumerate(zip(data.groups.tolist(), data.labels.tolist(), strict=True)):
        if key in last:
            following[last[key]] = row
        last[key] = row
    return following


def check_rewards(
    activations: Tensor,
    rewards: Tensor | Sequence[float],
    groups: Sequence[Hashable] | Tensor | None = None,
) -> Rewarded:
    """Validate the input of `fit_rewards`; the examples above the mean reward come first.

    Raises `InvalidInputError`.
    """
    values = torch.as_tensor(rewards).detach().cpu()
    if not isinstance(activations, Tensor) or activations.ndim != 2:
        found = tuple(activations.shape) if isinstance(activations, Tensor) else activations
        raise InvalidInputError(f"activations must be a float tensor [n, d], not {found}.")
    if values.is_complex() or values.shape != activations.shape[:1]:
        raise InvalidInputError(
            f"rewards must be {len(activations)} real numbers, one for each activation, not"
            f" {values.dtype} of shape {tuple(values.shape)}."
        )
    values = values.double()
    if not bool(torch.isfinite(values).all()):
        bad = int((~torch.isfinite(values)).sum())
        raise InvalidInputError(f"{bad} of {len(values)} rewards are not finite; drop them.")
    middle = float(values.mean()) if len(values) else 0.0
    above = values > middle
    if min(int(above.sum()), int((~above).sum())) < 2:
        raise InvalidInputError(
            f"{int(above.sum())} of {len(values)} rewards are above their mean {middle:.6g}; at"
            " least 2 on either side are needed for a barrier between them."
        )
    labels = range(len(values)) if groups is None else groups
    listed = labels.tolist() if isinstance(labels, Tensor) else list(labels)
    if len(listed) != len(values):
        raise InvalidInputError(f"groups has {len(listed)} labels for {len(values)} activations.")
    high, low = above.nonzero()[:, 0].tolist(), (~above).nonzero()[:, 0].tolist()
    owners = [listed[i] for i in high], [listed[i] for i in low]
    checked = check_contrast(activations[high], activations[low], owners)
    return Rewarded(
        checked.positive,
        checked.negative,
        checked.groups,
        rewards=torch.cat([values[above], values[~above]]),
        weights=torch.ones_like(values),
        middle=middle,
    )


def _labelled(contrast: Contrast) -> Rewarded:
    """Labels as rewards, with weights that make the classes count alike."""
    y = contrast.labels
    share = float(y.mean())
    weights = torch.where(y == 1, 0.5 / share, 0.5 / (1 - share))
    return Rewarded(
        contrast.positive,
        contrast.negative,
        contrast.groups,
        rewards=y,
        weights=weights,
        middle=0.5,
    )
