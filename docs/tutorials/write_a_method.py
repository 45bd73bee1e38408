# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Write a method in 40 lines
#
# A method is fitted to two sets of activations and moves activations. This one removes the direction between the class means and adds it back at the
# mean of the desirable class: a projection, closed form, no solver.

# %%
import torch
from torch import Tensor

import odesteer
from odesteer.barriers import Contrast
from odesteer.flows import Solution
from odesteer.methods import Amount, Method, registry


class SetComponent(Method):
    """Sets the component along the mean difference to that of the desirable class.

    Parameters:
        amount: default; a number is an interpolation from 0 (nothing) to 1.
    """

    quantities = ("interpolation",)
    dynamics = "a + s (μ₊ − a·v) v"

    def __init__(self, amount: Amount | float = 1.0) -> None:
        self.amount = amount

    def _fit(self, contrast: Contrast) -> None:
        difference = contrast.positive.mean(dim=0) - contrast.negative.mean(dim=0)
        self.direction_ = torch.nn.functional.normalize(difference, dim=0)
        self.target_ = contrast.positive.mean(dim=0) @ self.direction_

    def _solve(self, a: Tensor, amount: Amount) -> Solution:
        v = self.direction_.to(a)
        missing = amount.value * (self.target_.to(a) - a @ v)
        return Solution(a + missing[..., None] * v, time=missing.abs())


# %% [markdown]
# ## Use it
#
# Registered under a name, it is found by commands and in files like the built-in ones. A package of yours registers it by an entry point of the group
# `odesteer.methods`.

# %%
registry.register("set-component", f"{__name__}:SetComponent")
torch.manual_seed(0)
positive, negative = torch.randn(100, 8) + 1, torch.randn(100, 8) - 1
method = SetComponent().fit(positive, negative)
steered = method.steer(negative)
print((steered @ method.direction_)[:3], method.target_)

odesteer.save(method, "set-component.safetensors")
print(odesteer.load("set-component.safetensors"))
