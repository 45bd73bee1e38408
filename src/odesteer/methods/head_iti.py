"""ITI on attention heads (inference-time intervention, Li et al., NeurIPS 2023)."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from odesteer.barriers import (
    Barrier,
    Contrast,
    Fitting,
    Groups,
    HeadBarrier,
    LinearBarrier,
    check_contrast,
)
from odesteer.barriers.heads import check_heads, fit_probe
from odesteer.barriers.held_out import group_folds
from odesteer.errors import InvalidInputError
from odesteer.methods.amount import Amount, check_max_strength
from odesteer.methods.constant import ConstantMethod
from odesteer.untrusted import is_integer


class HeadITI(ConstantMethod):
    """a_h + T·σ_h·θ_h for the heads h whose probes are most accurate: ITI as published.

    Activations are the outputs of all attention heads of a layer side by side, before the output
    projection, `[..., n_heads * head_width]`. A linear probe is fitted to the outputs of each head,
    heads are ranked by the accuracy of their probes on held-out groups, and the best are shifted
    along the unit normal θ_h of the probe, refitted to all examples. σ_h is the standard deviation
    of θ_h·a_h over the examples, so that T, the paper's α, counts in deviations; other heads stay.
    ``strength`` is the length of the whole displacement in class deviations of
    all heads together; ``level`` clamps the sum of the heads' projections in closed form.

    To choose among the heads of several layers, compare `head_accuracies` of each and fit each
    layer with the ``heads`` chosen for it.

    Parameters:
        n_heads: number of attention heads; must be set before `fit`.
        top_k: how many heads to shift; a quarter of them, at least one, when None.
        heads: the heads to shift, from zero, instead of ranking them; excludes ``top_k``.
        amount: default; a number is a strength. The paper's α = 15 is ``T=15``, in deviations; it
            is for some 48 heads over all layers, and far for a quarter of the heads of a layer.
        probe: a linear barrier, fitted to each head. `MeanDifferenceBarrier` is the mass mean
            shift of the paper.
        max_strength: the longest step to a level, in class deviations; None for
            no cap.
        validation: fraction of the groups on which probes are ranked.
        fitting: of the quantiles that levels count in, see `Fitting`; the seed also
            draws the groups held out for ranking.

    Learned: ``accuracies_`` `[n_heads]` as `head_accuracies` gives them, or None where ``heads``
    are given; ``heads_``, the heads that are shifted, in order; ``direction_``, σ_h·θ_h in the
    places of these heads and zero elsewhere `[d]`; ``barrier_``, whose ``normals_`` and
    ``deviations_`` are θ and σ.
    """

    dynamics: ClassVar[str] = "constant, a_h' = a_h + Tσ_hθ_h for the k best heads h"
    barrier_summary: ClassVar[str] = "Σ_h σ_hθ_h·(a_h - m_h), m_h between the class means"
    reference: ClassVar[str] = "Li et al., NeurIPS 2023, arXiv 2306.03341"

    barrier_: HeadBarrier
    accuracies_: Tensor | None
    heads_: list[int]

    amount_words: ClassVar[tuple[str, ...]] = ("T",)

    def __init__(
        self,
        n_heads: int | None = None,
        top_k: int | None = None,
        heads: Sequence[int] | None = None,
        amount: Amount | float = 1.5,
        probe: Barrier = LinearBarrier(),
        max_strength: float | None = 10.0,
        validation: float = 0.2,
        fitting: Fitting = Fitting(),
    ) -> None:
        self.n_heads = n_heads
        self.top_k = top_k
        self.heads = heads
        self.amount = amount
        self.probe = probe
        self.max_strength = max_strength
        self.validation = validation
        self.fitting = fitting

    def head_accuracies(
        self, positive: Tensor, negative: Tensor, groups: Groups | None = None
    ) -> Tensor:
        """Accuracy of the probe of each head on held-out groups, `[n_heads]` float64 on the CPU.

        Both classes count alike, so that 0.5 is chance for any class sizes. Needs no `fit` and
        changes nothing. Which groups are held out depends on the groups, the validation share and
        the seed alone, so that accuracies of several layers compare. Raises `InvalidInputError`
        for activations that cannot be fitted to, and for too few groups.
        """
        return self._accuracies(check_contrast(positive, negative, groups))

    def _fit(self, contrast: Contrast) -> None:
        check_max_strength(self.max_strength)
        n_heads, _ = check_heads(self.n_heads, contrast.width)
        heads, self.accuracies_ = self.heads, None
        if heads is None:
            top_k = self._top_k(n_heads)
            self.accuracies_ = self._accuracies(contrast)
            order = self.accuracies_.argsort(descending=True, stable=True)
            heads = [int(head) for head in order[:top_k]]
        elif self.top_k is not None:
            raise InvalidInputError(
                f"give top_k={self.top_k} to have the best heads, or heads={heads!r} to name"
                " them, not both."
            )
        barrier = HeadBarrier(n_heads, heads, self.probe, fitting=self.fitting)
        self.barrier_ = barrier.fit(contrast.positive, contrast.negative, contrast.group_pair)
        self.heads_ = self.barrier_.heads_
        self.direction_ = self.barrier_.direction()

    def _top_k(self, n_heads: int) -> int:
        k = max(1, n_heads // 4) if self.top_k is None else self.top_k
        if not is_integer(k) or not 1 <= k <= n_heads:
            raise InvalidInputError(f"top_k must be an integer from 1 to {n_heads}, not {k!r}.")
        return k

    def _accuracies(self, contrast: Contrast) -> Tensor:
        n_heads, head_width = check_heads(self.n_heads, contrast.width)
        held_out = self._held_out(contrast)
        positive, negative, groups = contrast.split(~held_out)
        by_head = contrast.examples[held_out].reshape(-1, n_heads, head_width)
        label = contrast.labels[held_out].bool()
        accuracies = torch.full((n_heads,), 0.5, dtype=torch.float64)
        for head in range(n_heads):
            part = slice(head * head_width, (head + 1) * head_width)
            probe = fit_probe(self.probe, positive[:, part], negative[:, part], groups)
            if probe is not None:
                h = probe.value(by_head[:, head]).cpu()
                right = (h > 0).double()
                accuracies[head] = (right[label].mean() + 1 - right[~label].mean()) / 2
        return accuracies

    def _held_out(self, contrast: Contrast) -> Tensor:
        """The examples `[n]` on which probes are ranked; of both classes, groups whole."""
        if not 0 < self.validation <= 0.5:
            raise InvalidInputError(
                f"validation must be above 0 and at most 0.5, not {self.validation!r}; name the"
                " heads if none shall be held out to rank them."
            )
        n_folds = round(1 / self.validation)
        for mask in group_folds(contrast.groups, contrast.labels, n_folds, self.fitting.seed):
            label = contrast.labels[mask].bool()
            if bool(label.any()) and not bool(label.all()):
                return mask
        n_groups = len(torch.unique(contrast.groups))
        raise InvalidInputError(
            f"{n_groups} groups are too few to hold out {self.validation:g} of them with examples"
            " of both classes; use more groups, a larger validation share, or name the heads."
        )
