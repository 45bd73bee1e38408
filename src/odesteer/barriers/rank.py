"""How many eigenvectors a quadratic barrier needs."""

import torch
from torch import Tensor

from odesteer.barriers.inputs import Inputs
from odesteer.barriers.quadratic import QuadraticFunction, truncate

_SAMPLE = 64
_STEPS = 4
_STRENGTH = 0.5
_MARGIN = 2.0


def choose_rank(function: QuadraticFunction, inputs: Inputs, a: Tensor, tolerance: float) -> int:
    """The smallest rank whose flow displaces activations with relative error ≤ ``tolerance``.

    Measured on up to 64 of the training activations ``a`` `[n, d]`, spread evenly, moved along
    the unit gradient by half their mean norm in four Euler steps; the largest error counts, and
    twice, since activations outside the sample err up to one and a half times as much.
    """
    if tolerance == 0 or function.rank <= 1:
        return function.rank
    rows = torch.linspace(0, len(a) - 1, min(len(a), _SAMPLE), dtype=torch.float64).long()
    sample = a[rows.to(a.device)].double()
    exact = _displacement(function, inputs, sample)
    length = exact.norm(dim=1).clamp_min(torch.finfo(torch.float64).tiny)

    def error(rank: int) -> float:
        moved = _displacement(truncate(function, rank), inputs, sample)
        return _MARGIN * float(((moved - exact).norm(dim=1) / length).max())

    low, high = 0, function.rank
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if error(middle) <= tolerance else (middle, high)
    return high


def _displacement(function: QuadraticFunction, inputs: Inputs, a: Tensor) -> Tensor:
    step = _STRENGTH * a.norm(dim=1).mean() / _STEPS
    moved = a
    for _ in range(_STEPS):
        x = inputs(moved)
        gradient = inputs.pull_back(moved, x, function.gradient(x))
        moved = moved + step * torch.nn.functional.normalize(gradient, dim=1, eps=1e-300)
    return moved - a
