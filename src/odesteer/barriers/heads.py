"""The barrier of shifts to chosen attention heads."""

from collections.abc import Sequence

import torch
from torch import Tensor

from odesteer.barriers.base import Barrier
from odesteer.barriers.composed import ComposedBarrier
from odesteer.barriers.contrast import Contrast, Groups
from odesteer.barriers.fitting import Fitting
from odesteer.barriers.inputs import Inputs, Raw
from odesteer.barriers.linear import LinearBarrier, linear_normal
from odesteer.barriers.quadratic import linear_function
from odesteer.errors import InvalidInputError
from odesteer.untrusted import is_integer


class HeadBarrier(ComposedBarrier):
    """h(x) = Σ_h σ_h θ_h·(x_h - m_h) over chosen attention heads h.

    Activations are the outputs of all heads side by side, `[..., n_heads * head_width]`. θ_h is
    the unit normal of a linear probe on the outputs x_h of head h, σ_h the standard deviation of
    θ_h·x_h over both classes, and m_h the middle between the means of the classes. A head whose
    outputs are the same for both classes has σ_h = 0. Values are in squared input units, not nats.

    Parameters:
        n_heads: number of heads.
        heads: the chosen heads, from zero; all of them when None.
        probe: a linear barrier; fitted to each chosen head.
        inputs: activations as they are by default.
        fitting: see `Fitting`.

    Learned: ``heads_``, the chosen heads in order; ``normals_`` θ `[k, head_width]`;
    ``deviations_`` σ `[k]`.
    """

    heads_: list[int]
    normals_: Tensor
    deviations_: Tensor

    def __init__(
        self,
        n_heads: int | None = None,
        heads: Sequence[int] | None = None,
        probe: Barrier = LinearBarrier(),
        inputs: Inputs = Raw(),
        fitting: Fitting = Fitting(),
    ) -> None:
        self.n_heads = n_heads
        self.heads = heads
        self.probe = probe
        self.inputs = inputs
        self.fitting = fitting

    def _fit(self, contrast: Contrast) -> None:
        n_heads, _ = check_heads(self.n_heads, contrast.width)
        self.heads_ = _chosen(self.heads, n_heads)
        x, n = self._prepare(contrast), len(contrast.positive)
        by_head = x.reshape(len(x), n_heads, -1)
        weight = torch.zeros_like(by_head[0])
        for head in self.heads_:
            sides = by_head[:n, head], by_head[n:, head]
            probe = fit_probe(self.probe, *sides, contrast.group_pair)
            if probe is not None:
                normal = linear_normal(probe).to(x)
                weight[head] = (by_head[:, head] @ normal).std(correction=0) * normal
        chosen = weight[self.heads_]
        self.deviations_ = chosen.norm(dim=1)
        self.normals_ = torch.nn.functional.normalize(chosen, dim=1, eps=torch.finfo(x.dtype).tiny)
        middle = (x[:n].mean(dim=0) + x[n:].mean(dim=0)) / 2
        flat = weight.flatten()
        if not float(flat.abs().max()) > 0:
            raise InvalidInputError(
                f"the outputs of heads {self.heads_} do not tell the classes apart at all; choose"
                " other heads or another layer."
            )
        self.function_ = linear_function(flat, -float(flat @ middle))

    def direction(self) -> Tensor:
        """σ_h·θ_h in the places of the chosen heads, zero elsewhere, `[d]`; the gradient of h."""
        self.check_fitted()
        head_width = self.normals_.shape[1]
        direction = self.normals_.new_zeros(self.width_ // head_width, head_width)
        direction[self.heads_] = self.deviations_[:, None] * self.normals_
        return direction.flatten()


def fit_probe(probe: Barrier, positive: Tensor, negative: Tensor, groups: Groups) -> Barrier | None:
    """A copy of ``probe`` fitted to the outputs of one head, `[n₊, w]` and `[n₋, w]`.

    None where there is nothing to fit: a head may put out the same whatever the example.
    """
    same = positive.shape == negative.shape and torch.equal(positive, negative)
    if same or bool((torch.cat([positive, negative]) == positive[0]).all()):
        return None
    return probe.with_params(folds=0).fit(positive, negative, groups)


def check_heads(n_heads: int | None, width: int) -> tuple[int, int]:
    """Number and width of the heads in activations of this width. Raises `InvalidInputError`."""
    if n_heads is None:
        raise InvalidInputError(
            "n_heads is not set; give the number of attention heads, often"
            " model.config.num_attention_heads."
        )
    if not is_integer(n_heads, 1):
        raise InvalidInputError(f"n_heads must be a positive integer, not {n_heads!r}.")
    if width % n_heads:
        raise InvalidInputError(
            f"activations of width {width} are not the outputs of n_heads={n_heads} heads of"
            " equal width side by side; give the model's own number, and capture the inputs of"
            " the attention's output projection."
        )
    return n_heads, width // n_heads


def _chosen(heads: Sequence[int] | None, n_heads: int) -> list[int]:
    if heads is None:
        return list(range(n_heads))
    for head in heads:
        if not is_integer(head) or not 0 <= head < n_heads:
            raise InvalidInputError(
                f"heads must be integers from 0 to {n_heads - 1}, each the number of a head, not"
                f" {head!r}."
            )
    chosen = sorted(set(heads))
    if not chosen or len(chosen) < len(heads):
        raise InvalidInputError(f"heads must be one head or more, each once, not {heads!r}.")
    return chosen
