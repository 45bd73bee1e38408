"""Methods for the tests of artifacts."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from odesteer.barriers import Contrast, LinearBarrier
from odesteer.flows import Euler, Solution
from odesteer.methods import Amount, Method

WIDTH = 12


def clouds(width: int = WIDTH) -> tuple[Tensor, Tensor]:
    """Two overlapping sets of activations."""
    generator = torch.Generator().manual_seed(width)
    positive = torch.randn(30, width, generator=generator) + 0.5
    return positive, torch.randn(25, width, generator=generator)


class Collector(Method):
    """A method whose parameters and learned attributes are of every kind that can be saved."""

    quantities: ClassVar[tuple[str, ...]] = ("strength",)

    def __init__(self, option: Any = None, barrier: Any = None, solver: Any = None) -> None:
        self.option = option
        self.barrier = barrier
        self.solver = solver

    @property
    def default_amount(self) -> Amount:
        return Amount("strength", 1.0)

    def _fit(self, contrast: Contrast) -> None:
        sides = contrast.positive, contrast.negative
        self.barrier = LinearBarrier(folds=0).fit(*sides)
        self.solver = Euler(3)
        self.direction_ = sides[0].mean(0) - sides[1].mean(0)
        self.columns_ = torch.arange(6.0).reshape(2, 3).T
        self.permuted_ = torch.arange(24, dtype=torch.float64).reshape(2, 3, 4).permute(2, 0, 1)
        self.scalar_ = torch.tensor(2.5, dtype=torch.bfloat16)
        self.empty_ = torch.zeros(0, 3)
        self.half_ = torch.ones(2, dtype=torch.float16)
        self.flags_ = torch.tensor([True, False])
        self.counts_ = torch.arange(3)
        self.tiny_ = 5e-324
        self.negative_zero_ = -0.0
        self.name_ = 'quoted "√" \n'
        self.nothing_ = None
        self.table_ = {"b.c": torch.ones(1), "b": {"c": torch.zeros(1)}, "n": [1, (2.0, "x")]}
        self.parts_ = [LinearBarrier(folds=0).fit(*sides), Euler(7)]

    def _solve(self, a: Tensor, amount: Amount) -> Solution:
        step = amount.value * self.direction_.to(a)
        return Solution(a + step, step.norm().expand(a.shape[:-1]))
