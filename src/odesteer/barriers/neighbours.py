"""Barrier of the distance to the k-th nearest example: an out-of-distribution gate."""

import math
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor
from typing_extensions import Self

from odesteer.barriers.base import Restriction
from odesteer.barriers.composed import ComposedBarrier, Function
from odesteer.barriers.contrast import Contrast
from odesteer.barriers.fitting import Fitting
from odesteer.barriers.inputs import Inputs, UnitSphere
from odesteer.errors import InvalidInputError
from odesteer.untrusted import is_integer, is_number

Which = Literal["negative", "all"]


class NeighbourBarrier(ComposedBarrier):
    """h(a) = ρ(a)/ρ₀ - 1, with ρ the distance of x(a) to the k-th nearest example.

    A one-class barrier: below 0 where an activation lies among the examples, above 0 where it does
    not. ρ₀ is the ``share`` quantile of ρ over the examples themselves, each without itself. As the
    gate of `Conditional`, or as a condition of `Steerer.when` with ``below=0``, it leaves alone
    what is unlike anything that the method was fitted to. Fit it where it is applied: activations
    of prompts and of answers lie apart, so `fit_queries` takes queries alone.

    On the sphere the distance is the chord 2 sin(θ/2), which orders activations as the angle θ
    does, the geodesic distance of COBRAS. Its gate 1/(1 + (θ/θ₀)^s) is that of level 0 for large s.

    Level 0 is ρ₀, level 1 is 2ρ₀, level -1 the 10 % quantile of h over the examples. There are no
    held-out figures, since no classes are told apart. A value takes O(n d), n the examples kept.

    Parameters:
        n_neighbours: k; at most one less than there are examples.
        share: the share of the examples with h ≤ 0, above 0 and at most 1.
        which: whose neighbours `fit` takes: those of ``negative`` examples, which methods move, or
            of ``all``.
        max_examples: n, a subset drawn by ``seed`` where there are more.
        inputs: what distances are taken of; directions by default, which see neither how long an
            activation is nor, where a few coordinates hold most of it, the others. `Standardized`
            sees all of them.
        fitting: see `Fitting`; there are no folds, and the seed draws the subset.
    """

    size_parameters: ClassVar[tuple[str, ...]] = ("max_examples", "n_neighbours")

    def __init__(
        self,
        n_neighbours: int = 32,
        share: float = 0.98,
        which: Which = "negative",
        max_examples: int = 1024,
        inputs: Inputs = UnitSphere(),
        fitting: Fitting = Fitting(folds=0),
    ) -> None:
        self.n_neighbours = n_neighbours
        self.share = share
        self.which = which
        self.max_examples = max_examples
        self.inputs = inputs
        self.fitting = fitting

    def fit_queries(self, activations: Tensor) -> Self:
        """Fit to activations `[n, d]` of one class, such as the prompts that come in.

        Raises `InvalidInputError` for activations that are no finite `[n, d]` with n ≥ 3.
        """
        if not isinstance(activations, Tensor) or activations.ndim != 2 or len(activations) < 3:
            found = tuple(activations.shape) if isinstance(activations, Tensor) else activations
            raise InvalidInputError(f"queries are activations [n, d] with n ≥ 3, not {found}.")
        if not activations.is_floating_point() or not bool(torch.isfinite(activations).all()):
            raise InvalidInputError("queries hold NaN or infinities, or are no floats; drop them.")
        double = activations.dtype == torch.float64
        self.forget()
        try:
            self._learn_from(activations if double else activations.float())
        except BaseException:
            self.forget()
            raise
        return self

    def _learn(self, contrast: Contrast) -> None:
        if self.which not in get_args(Which):
            raise InvalidInputError(f"which must be negative or all, not {self.which!r}.")
        self._learn_from(contrast.negative if self.which == "negative" else contrast.examples)

    def _fit(self, contrast: Contrast) -> None:
        raise NotImplementedError  # `_learn` does all

    def _learn_from(self, examples: Tensor) -> None:
        self._check()
        self.width_ = examples.shape[1]
        self.inputs_ = self.inputs.clone()
        self.inputs_.fit(examples)
        x = self.inputs_(examples)
        if len(x) > self.max_examples:
            generator = torch.Generator().manual_seed(self.seed)
            chosen = torch.randperm(len(x), generator=generator)[: self.max_examples]
            x = x[chosen.sort().values]
        k = min(self.n_neighbours, len(x) - 1)
        # Each example is its own nearest one, at the distance 0.
        distances = NeighbourDistance.of(x, k + 1, 1.0).value(x) + 1
        reference = float(distances.double().quantile(self.share))
        if not reference > 16 * torch.finfo(x.dtype).eps * float(x.norm(dim=1).max()):
            raise InvalidInputError(
                f"the examples do not vary: their distances to the neighbour {k} are 0."
            )
        self.function_ = NeighbourDistance.of(x, k, reference)
        self.held_out_, self.calibration_ = None, 1.0
        self.upper_ = 1.0
        self.lower_ = float((distances / reference - 1).double().quantile(0.1))

    def _check(self) -> None:
        for name, least in (("n_neighbours", 1), ("max_examples", 3)):
            if not is_integer(getattr(self, name), least):
                raise InvalidInputError(
                    f"{name} must be a whole number ≥ {least}, not {getattr(self, name)!r}."
                )
        if not is_number(self.share) or not 0 < self.share <= 1:
            raise InvalidInputError(
                f"share must be a number above 0 and at most 1, not {self.share!r}."
            )

    def restrict(self, a: Tensor, *, radial: bool = False) -> Restriction | None:
        self._input(a)
        return None


class NeighbourDistance(Function):
    """f(x) = ‖x - x_k‖/ρ₀ - 1 with x_k the k-th nearest of the examples.

    Learned: ``examples_`` `[n, d]`, ``n_neighbours_`` k, ``reference_`` ρ₀.
    """

    examples_: Tensor
    n_neighbours_: int
    reference_: float

    @classmethod
    def of(cls, examples: Tensor, n_neighbours: int, reference: float) -> "NeighbourDistance":
        """The function with examples `[n, d]`."""
        function = cls()
        function.examples_ = examples
        function.n_neighbours_, function.reference_ = n_neighbours, reference
        return function

    def _nearest(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Distance to the k-th nearest example `[...]` and x - x_k `[..., d]`."""
        rows, examples = x.reshape(-1, x.shape[-1]), self.examples_.to(x)
        # By differences: products cancel where activations lie close together.
        distances = torch.cdist(rows, examples, compute_mode="donot_use_mm_for_euclid_dist")
        found = distances.detach().kthvalue(self.n_neighbours_, dim=1).indices
        apart = (rows - examples[found]).reshape(x.shape)
        return apart.norm(dim=-1), apart

    def value(self, x: Tensor) -> Tensor:
        return self._nearest(x)[0] / self.reference_ - 1

    def gradient(self, x: Tensor) -> Tensor:
        return self.value_and_gradient(x)[1]

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        distance, apart = self._nearest(x)
        tiny = math.sqrt(torch.finfo(x.dtype).tiny)
        slope = apart / (self.reference_ * distance.clamp_min(tiny)[..., None])
        return distance / self.reference_ - 1, slope
