"""Control over layers: proportional, integral and derivative sums of constant displacements."""

from dataclasses import replace

import torch

from odesteer.artifact.steerer_set import SteererSet
from odesteer.errors import InvalidInputError
from odesteer.methods import CAA, Amount
from odesteer.untrusted import is_number


def pid(
    steerers: SteererSet, proportional: float = 1.0, integral: float = 0.0, derivative: float = 0.0
) -> SteererSet:
    """The set whose displacements are controlled over its layers (arXiv 2510.04309).

    With r_k the displacement of the k-th site at its default amount, in the order of the forward
    pass, that of the result is

        u_k = K_p r_k + K_i Σ_{j<k} r_j + K_d (r_k - r_{k-1}),

    the derivative of the first site being 0. The integral removes what a proportional term leaves
    at a steady state, the derivative bounds overshoot. The result holds plain vectors at T = 1: it
    costs O(d) a token, and is exported as any constant steerer. r re-estimated with earlier layers
    steered comes from `odesteer.models.fit_in_order`.

    Raises `InvalidInputError` for methods whose displacement is not the same everywhere, for sites
    of different widths, and for gains that are no finite numbers or give a displacement of zero.
    """
    for name, gain in (
        ("proportional", proportional),
        ("integral", integral),
        ("derivative", derivative),
    ):
        if not is_number(gain):
            raise InvalidInputError(f"the {name} gain must be a finite number, not {gain!r}.")
    displacements = []
    for steerer in steerers:
        constant = steerer.method.constant_displacement()
        if constant is None:
            raise InvalidInputError(
                f"{type(steerer.method).__name__} at {steerer.site} does not move all activations"
                " alike, so its displacements do not add up over layers; use CAA, RepE or ITI."
            )
        displacements.append(constant.double())
    if len({len(r) for r in displacements}) > 1:
        raise InvalidInputError("the sites of the set have different widths; use one part.")
    total = torch.zeros_like(displacements[0])
    before = displacements[0]
    controlled = []
    for steerer, r in zip(steerers, displacements, strict=True):
        u = proportional * r + integral * total + derivative * (r - before)
        total, before = total + r, r
        if not bool(u.any()):
            raise InvalidInputError(f"these gains leave no displacement at {steerer.site}.")
        method = CAA.from_direction(
            u.float(), strength_unit=steerer.method.strength_unit, amount=Amount("T", 1.0)
        )
        controlled.append(replace(steerer, method=method))
    return SteererSet(controlled)
