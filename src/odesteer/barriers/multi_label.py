"""Barrier of several attributes: targets to have and others to avoid, from one classifier."""

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from odesteer.barriers.composed import ComposedBarrier
from odesteer.barriers.contrast import Contrast, check_contrast
from odesteer.barriers.fitting import Fitting
from odesteer.barriers.held_out import HeldOutValues, check_folds, group_folds
from odesteer.barriers.inputs import Centred, Inputs
from odesteer.barriers.neural import Perceptron
from odesteer.barriers.training import Training, check_network
from odesteer.errors import InvalidInputError


@dataclass(frozen=True, kw_only=True)
class LabelledContrast(Contrast):
    """Activations with labels; those of the wanted kind come first.

    Attributes:
        marks: `[n, K]` float64 on the CPU, 1 where an example has a label.
        names: the K labels, sorted.
    """

    marks: Tensor
    names: tuple[str, ...]

    def part(self, mask: Tensor) -> "LabelledContrast":
        """The masked examples."""
        positive, negative, _ = self.split(mask)
        return LabelledContrast(
            positive, negative, self.groups[mask], marks=self.marks[mask], names=self.names
        )


class MultiLabelBarrier(ComposedBarrier):
    """h(a) = mean of z_k(a) over targets - mean of z_k(a) over avoidances, logits of one network.

    The network tells for each label whether an example has it (sigmoids, each label balanced), so
    labels may go together. Once fitted, h is a network with one output: the last layer is linear,
    and the labels are combined in it. With no hidden layers it is linear. In K-Steering (arXiv
    2505.24535) activations descend -h by steps that are not normalised; here h has unit fields
    and levels as any other barrier.

    `fit_labels` takes labels; `fit` takes two sets, with the labels ``positive`` and ``negative``.
    Levels count over examples that have all targets and no avoidance on one side, and over the rest
    on the other. Where labels exclude each other, so that no example has all targets, one of them
    is enough.

    Parameters:
        targets: the labels to have.
        avoidances: the labels not to have; may be empty.
        hidden: widths of the hidden layers, which are smooth (SiLU).
        training: see `Training`.
        inputs: what the network sees, see `NeuralBarrier`.
        fitting: see `Fitting`; the seed also draws first weights, batches and held-out groups.

    Learned: ``labels_``, the labels that were told apart; ``n_epochs_``.
    """

    size_parameters: ClassVar[tuple[str, ...]] = ()

    labels_: list[str]
    n_epochs_: int

    def __init__(
        self,
        targets: Sequence[str] = ("positive",),
        avoidances: Sequence[str] = ("negative",),
        hidden: Sequence[int] = (64,),
        training: Training = Training(max_epochs=200, tolerance=0.0, keep_best=True),
        inputs: Inputs = Centred(),
        fitting: Fitting = Fitting(),
    ) -> None:
        self.targets = targets
        self.avoidances = avoidances
        self.hidden = hidden
        self.training = training
        self.inputs = inputs
        self.fitting = fitting

    def fit_labels(
        self,
        activations: Tensor,
        labels: Sequence[str | Collection[str]],
        groups: Sequence[Hashable] | Tensor | None = None,
    ) -> Self:
        """Fit to activations `[n, d]`, each with one label or a collection of them.

        Examples that share a label of ``groups`` `[n]` are never split between folds. Raises
        `InvalidInputError` as `fit` does, for targets and avoidances that no example has, and where
        fewer than two examples are on either side of h = 0.
        """
        check_folds(self.folds)
        data = self._labelled(activations, labels, groups)
        self.forget()
        try:
            self._learn(data)
        except BaseException:
            self.forget()  # leave nothing half fitted
            raise
        return self

    def _is_log_ratio(self) -> bool:
        return True

    def _labelled(
        self,
        activations: Tensor,
        labels: Sequence[str | Collection[str]],
        groups: Sequence[Hashable] | Tensor | None,
    ) -> LabelledContrast:
        if not isinstance(activations, Tensor) or activations.ndim != 2:
            found = tuple(activations.shape) if isinstance(activations, Tensor) else activations
            raise InvalidInputError(f"activations must be a float tensor [n, d], not {found}.")
        owned = [{label} if isinstance(label, str) else set(label) for label in labels]
        owners = list(range(len(owned)) if groups is None else groups)
        if not len(owned) == len(owners) == len(activations):
            raise InvalidInputError(
                f"{len(activations)} activations have {len(owned)} labels and {len(owners)}"
                " groups; give one of each to every activation."
            )
        names = tuple(sorted(set[str]().union(*owned)))
        self._check(names)
        targets, avoidances = set(self.targets), set(self.avoidances)
        wanted = torch.tensor([targets <= own and not avoidances & own for own in owned])
        enough = "all targets"
        if targets and not bool(wanted.any()):
            enough = "a target"
            wanted = torch.tensor([bool(targets & own) and not avoidances & own for own in owned])
        rows = [wanted.nonzero()[:, 0].tolist(), (~wanted).nonzero()[:, 0].tolist()]
        if min(map(len, rows)) < 2:
            raise InvalidInputError(
                f"{len(rows[0])} examples have {enough} of {sorted(targets)} and no avoidance of"
                f" {sorted(avoidances)}, and {len(rows[1])} do not; at least 2 of each are needed."
            )
        marks = torch.tensor([[float(name in own) for name in names] for own in owned])
        checked = check_contrast(
            activations[rows[0]],
            activations[rows[1]],
            ([owners[i] for i in rows[0]], [owners[i] for i in rows[1]]),
        )
        return LabelledContrast(
            checked.positive,
            checked.negative,
            checked.groups,
            marks=marks[rows[0] + rows[1]].double(),
            names=names,
        )

    def _check(self, names: Sequence[str]) -> None:
        check_network(self.hidden, self.training)
        for name, value in (("targets", self.targets), ("avoidances", self.avoidances)):
            if isinstance(value, str) or not all(isinstance(label, str) for label in value):
                raise InvalidInputError(f"{name} are labels, as in ('formal',), not {value!r:.80}.")
        if not self.targets and not self.avoidances:
            raise InvalidInputError("give a target or an avoidance; there is nothing to steer to.")
        unknown = sorted({*self.targets, *self.avoidances} - set(names))
        both = sorted(set(self.targets) & set(self.avoidances))
        if unknown:
            raise InvalidInputError(f"no example has the label {unknown[0]!r}; labels: {names}.")
        if both:
            raise InvalidInputError(f"the label {both[0]!r} is a target and to be avoided.")

    def _fit(self, contrast: Contrast) -> HeldOutValues | None:
        if isinstance(contrast, LabelledContrast):
            data = contrast
        else:
            y = contrast.labels.double()
            data = LabelledContrast(
                contrast.positive,
                contrast.negative,
                contrast.groups,
                marks=torch.stack([1 - y, y], dim=1),
                names=("negative", "positive"),
            )
            self._check(data.names)
        self.labels_ = list(data.names)
        self.function_ = self._combined(self._trained(data), data.names)
        return self._held_out_values(data)

    def _held_out_values(self, contrast: Contrast) -> HeldOutValues | None:
        if not isinstance(contrast, LabelledContrast):
            return None  # `_fit` has computed them
        values = torch.zeros(len(contrast.marks), dtype=torch.float64)
        rated = torch.zeros(len(contrast.marks), dtype=torch.bool)
        for mask in group_folds(contrast.groups, contrast.labels, self.folds, self.seed):
            seen = contrast.marks[~mask]
            if not bool((seen.amin(dim=0) < seen.amax(dim=0)).all()):
                continue  # a label that all or none of the rest have
            fold = self.with_params(folds=0)
            fold._learn(contrast.part(~mask))
            values[mask] = fold.value(contrast.examples[mask]).double().cpu()
            rated |= mask
        return (values, rated) if bool(rated.any()) else None

    def _trained(self, data: LabelledContrast) -> Perceptron:
        held_out = self.training.held_out(data.groups, data.labels, self.seed)
        share = data.marks.mean(dim=0).clamp(1e-6, 1 - 1e-6)
        with torch.inference_mode(False), torch.enable_grad():
            x = self._prepare(data).detach().clone()
            marks = data.marks.to(x)
            weights = torch.where(data.marks == 1, 0.5 / share, 0.5 / (1 - share)).to(x)
            generator = torch.Generator().manual_seed(self.seed)
            widths = (data.width, *self.hidden, len(data.names))
            network = Perceptron.drawn(widths, generator, x, flat=True)
            stopping = (
                (held_out if bool(held_out.any()) else ~held_out).nonzero()[:, 0].to(x.device)
            )

            def loss(rows: Tensor) -> Tensor:
                z = network.outputs(x[rows])
                return (weights[rows] * (torch.nn.functional.softplus(z) - marks[rows] * z)).mean()

            self.n_epochs_ = self.training.run(
                network,
                loss,
                lambda: float(loss(stopping)),
                held_out,
                generator,
                name="a multi-label barrier",
            )
        return network

    def _combined(self, network: Perceptron, names: Sequence[str]) -> Perceptron:
        """The network whose one output is the combination of the labels' outputs."""
        last, bias = network.weights_[-1], network.biases_[-1]
        shares = torch.zeros(len(names), dtype=last.dtype)
        for labels, sign in ((self.targets, 1.0), (self.avoidances, -1.0)):
            for label in labels:
                shares[names.index(label)] = sign / len(labels)
        shares = shares.to(last)
        network.weights_[-1] = (shares @ last)[None]
        network.biases_[-1] = (shares @ bias)[None]
        return network
