"""Control over layers: sums of constant displacements (PID), linear-quadratic feedback (LQR)."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from odesteer.artifact.steerer_set import SteererSet
from odesteer.errors import InvalidInputError
from odesteer.methods import CAA, Amount, Setpoint
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
    _check_parts(steerers)
    if len({len(r) for r in displacements}) > 1:
        raise InvalidInputError("the sites of the set have different widths; use one model.")
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


def lqr(
    steerers: SteererSet,
    jacobians: Sequence[Tensor],
    *,
    state_cost: float = 0.1,
    control_cost: float = 3.0,
    final_cost: float = 0.1,
) -> SteererSet:
    """The set of `Setpoint` methods whose feedback is linear-quadratic over its layers (A-LQR).

    With A_i the Jacobian from site i to site i + 1, e_i the error at a site and u_i the control,
    Σ q‖e_i‖² + r‖u_i‖², with q_f in place of q at the last site, is least for the gain
    (S_i + rI)⁻¹S_i, where S is solved for backwards,

        S_m = q_f I,    S_i = qI + AᵢᵀSA_i - AᵢᵀS(S + rI)⁻¹SA_i with S = S_{i+1}

    (arXiv 2604.19018). Errors are taken along the mean difference v_i alone, so that the gain is
    one vector, w_i = (S_i + rI)⁻¹S_i v_i, and a token costs O(d). The paper reads a state before a
    block and acts behind it, and predicts the error there by A; here the error is read where the
    control acts.

    Args:
        steerers: at increasing layers, each with a fitted `Setpoint`.
        jacobians: A_i `[d, d]`, one less than there are steerers, see
            `odesteer.models.mean_jacobians`.
        state_cost, control_cost, final_cost: q ≥ 0, r > 0 and q_f ≥ 0, not all costs of states 0;
            the defaults are the paper's for toxicity on Gemma-2-2B.

    Raises `InvalidInputError` for other methods, Jacobians that do not fit, and other costs.
    """
    methods: list[Setpoint] = []
    for steerer in steerers:
        if not isinstance(steerer.method, Setpoint):
            raise InvalidInputError(
                f"{type(steerer.method).__name__} at {steerer.site} has no setpoint; fit Setpoint()"
                " at several layers."
            )
        methods.append(steerer.method)
    _check_parts(steerers)
    width = steerers[0].width
    shapes = [tuple(A.shape) for A in jacobians]
    if shapes != [(width, width)] * (len(methods) - 1):
        raise InvalidInputError(
            f"{len(methods)} sites of width {width} need {len(methods) - 1} Jacobians"
            f" [{width}, {width}], not {shapes}."
        )
    if not all(bool(torch.isfinite(A).all()) for A in jacobians):
        raise InvalidInputError("a Jacobian holds NaN or infinities.")
    costs = {"state_cost": state_cost, "control_cost": control_cost, "final_cost": final_cost}
    for name, cost in costs.items():
        if not is_number(cost) or cost < 0:
            raise InvalidInputError(f"{name} must be a number of at least 0, not {cost!r}.")
    if not control_cost > 0 or not state_cost + final_cost > 0:
        raise InvalidInputError(
            "control_cost must be above 0, and one of state_cost and final_cost too."
        )
    identity = torch.eye(width, dtype=torch.float64)
    S = final_cost * identity
    controlled = []
    for i in range(len(methods) - 1, -1, -1):
        gain = torch.linalg.solve(S + control_cost * identity, S)
        method = methods[i].along(gain @ methods[i].readout_.double())
        controlled.append(replace(steerers[i], method=method))
        if i > 0:
            A = jacobians[i - 1].double()
            S = state_cost * identity + A.T @ (S - S @ gain) @ A
            S = (S + S.T) / 2
    return SteererSet(controlled)


def _check_parts(steerers: SteererSet) -> None:
    """Raise `InvalidInputError` where activations of the sites are of different kinds."""
    parts = {site.part: None for site in steerers.sites}
    if len(parts) > 1:
        raise InvalidInputError(
            f"the sites of the set are of different parts, {' and '.join(parts)}, whose activations"
            " do not add up; use one part."
        )
