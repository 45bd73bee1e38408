"""SubspaceMap: an affine edit in a low-rank subspace, the form of LoReFT (arXiv 2404.03592)."""

from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from odesteer.barriers import Contrast
from odesteer.barriers.gaussian import Gaussian
from odesteer.errors import InvalidInputError
from odesteer.flows import Solution
from odesteer.methods.amount import Amount
from odesteer.methods.base import Method
from odesteer.methods.mimic import transport
from odesteer.untrusted import is_integer


class SubspaceMap(Method):
    """a + λ·Rᵀ(Wa + b - Ra): edits the coordinates of a in the row space of R, and nothing else.

    The form of LoReFT, whose R, W and b are trained through the model; `from_edit` takes them as
    they are. `fit` finds them in closed form: R are the first ``rank`` principal components of the
    activations' differences from the mean of the other class, and W and b are the optimal transport
    of the negatives' mean and covariance onto the positives' within that subspace, `MiMiC` there.

    ``interpolation`` is λ; a negative one moves the other way along the same displacement.

    Parameters:
        rank: number of rows of R.
        shrinkage: of each covariance, as in `MiMiC`.
        amount: default; a number is an interpolation, λ.

    Learned: ``rotation_`` R `[rank, d]` with orthonormal rows, ``source_`` W `[rank, d]` and
    ``bias_`` b `[rank]`.
    """

    quantities: ClassVar[tuple[str, ...]] = ("interpolation",)
    dynamics: ClassVar[str] = "affine map in a subspace, a' = a + λRᵀ(Wa + b - Ra)"
    may_be_given: ClassVar[bool] = True
    cost: ClassVar[str] = "O(rd)"
    reference: ClassVar[str] = "Wu et al., NeurIPS 2024, arXiv 2404.03592"

    size_parameters = ("rank",)

    rotation_: Tensor
    source_: Tensor
    bias_: Tensor

    def __init__(
        self, rank: int = 4, shrinkage: float | None = None, amount: Amount | float = 1.0
    ) -> None:
        self.rank = rank
        self.shrinkage = shrinkage
        self.amount = amount

    @classmethod
    def from_edit(
        cls, rotation: Tensor, source: Tensor, bias: Tensor, amount: Amount | float = 1.0
    ) -> Self:
        """The edit with a given R `[r, d]`, W `[r, d]` and b `[r]`, as LoReFT learns them.

        Raises `InvalidInputError` for shapes that do not go together, and values that are not
        finite.
        """
        shapes = tuple(map(tuple, (t.shape for t in (rotation, source, bias))))
        if rotation.ndim != 2 or source.shape != rotation.shape or bias.shape != rotation.shape[:1]:
            raise InvalidInputError(
                f"an edit has R [r, d], W [r, d] and b [r], not the shapes {shapes}."
            )
        for name, tensor in (("R", rotation), ("W", source), ("b", bias)):
            if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
                raise InvalidInputError(f"{name} of the edit holds what is no finite number.")
        method = cls(rank=len(rotation), amount=amount)
        method.check_amount(method.default_amount)
        method.width_ = rotation.shape[1]
        method.mean_norm_ = float("nan")
        method.strength_unit_ = 1.0
        method.rotation_, method.source_, method.bias_ = (
            t.detach().to("cpu", torch.float32, copy=True).contiguous()
            for t in (rotation, source, bias)
        )
        return method

    def _fit(self, contrast: Contrast) -> None:
        limit = min(contrast.width, len(contrast.positive) + len(contrast.negative))
        if not is_integer(self.rank, 1) or self.rank > limit:
            raise InvalidInputError(
                f"rank must be an integer from 1 to {limit}, the smaller of the width and the"
                f" number of examples, not {self.rank!r}."
            )
        sides = contrast.positive.double(), contrast.negative.double()
        means = [side.mean(dim=0) for side in sides]
        differences = torch.cat([sides[0] - means[1], sides[1] - means[0]])
        scale = differences.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
        rotation = torch.linalg.svd(differences / scale, full_matrices=False)[2][: self.rank]
        positive, negative = (
            Gaussian.of((side @ rotation.T).to(contrast.positive), self.shrinkage, 0.0)
            for side in sides
        )
        axes, stretch = transport(negative, positive)
        matrix = (axes * stretch) @ axes.T
        centre = matrix @ (rotation @ means[1])
        dtype = contrast.positive.dtype
        self.rotation_ = rotation.to(dtype)
        self.source_ = (matrix @ rotation).to(dtype)
        self.bias_ = (rotation @ means[0] - centre).to(dtype)

    def _solve(self, a: Tensor, amount: Amount) -> Solution:
        value = torch.as_tensor(amount.value, dtype=a.dtype, device=a.device)
        value = value.expand(a.shape[:-1])[..., None]
        rotation = self.rotation_.to(a)
        # R and W apart, as LoReFT computes it: W - R would round differently.
        edit = a @ self.source_.to(a).T + self.bias_.to(a) - a @ rotation.T
        displacement = value * (edit @ rotation)
        state = torch.where(value == 0, a, a + displacement)
        return Solution(state, displacement.norm(dim=-1))
