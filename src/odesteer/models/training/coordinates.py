"""Natural coordinates of training: every direction costs about the same on neutral text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from odesteer.models.architecture.sites import SiteModule
from odesteer.models.training.replay import Move, Replay, check_differentiable
from odesteer.models.training.tasks import TaskBatch

_SAMPLES = 4  # of the outputs at each token
# Added to the information, as a share of its mean eigenvalue: what few texts leave unmeasured.
_DAMPING = 0.1
# Units of leaves that are no displacement.
_UNIT = 0.1


@dataclass(frozen=True)
class Coordinates:
    """What the optimiser moves, u, and the tensors of a potential that follow from it.

    The cost of a displacement s·w of all tokens is about ½ w·Fw nats a token, F the Fisher
    information of the outputs. Its eigenvalues differ by more than a hundred. With w = P u and P Pᵀ
    = 2 kl/d F⁻¹, a u with d coordinates of ±r costs about r² kl, in any direction, at any layer of
    any model, so that one learning rate serves all of them (natural gradient: Amari, 1998). Other
    tensors are in tenths of their own units.

    Attributes:
        basis: P `[d, d]`.
    """

    basis: Tensor

    def leaves(self, moved: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors at ``moved``, differentiable."""
        return {
            name: self.basis @ u if name == "weight_" else _UNIT * u for name, u in moved.items()
        }

    def moved(self, leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inverse of `leaves`."""
        return {
            name: torch.linalg.solve(self.basis, leaf) if name == "weight_" else leaf / _UNIT
            for name, leaf in leaves.items()
        }


def natural_coordinates(information: Tensor, kl: float) -> Coordinates:
    """Coordinates for a Fisher information F `[d, d]` and a cost, nats a token."""
    d = len(information)
    mean = float(information.diagonal().mean())
    if not mean > 0:
        return Coordinates(_UNIT * torch.eye(d))
    values, vectors = torch.linalg.eigh(information.double())
    lengths = (2 * kl / d / (values.clamp_min(0) + _DAMPING * mean)).sqrt()
    return Coordinates((vectors * lengths).float())


def output_information(
    replay: Replay, batches: Sequence[TaskBatch], units: Mapping[SiteModule, float], seed: int
) -> dict[SiteModule, Tensor]:
    """The Fisher information F `[d, d]` of the outputs about a displacement of each site, in its
    units: ½ w·Fw is KL(unsteered ‖ steered) to second order, nats a token.

    In the mean over the answers' tokens, from outputs that the model itself draws: their scores at
    different tokens are uncorrelated, so those of a text are added before they are squared.
    """
    generator = torch.Generator().manual_seed(seed)
    device = replay.lm.device
    found = {site: torch.zeros(site.width, site.width, dtype=torch.float64) for site in units}
    n_tokens = 0
    for batch in batches:
        rows = batch.states.moved[0].to(device)
        shifts = {
            site: torch.zeros(len(batch.states.texts), site.width, device=device).requires_grad_()
            for site in units
        }
        moves = {site: _shifting(shift, rows, units[site]) for site, shift in shifts.items()}
        log_p = replay.logits(batch.states, moves).log_softmax(-1)
        check_differentiable(log_p)
        drawn = torch.multinomial(
            log_p.detach().exp().cpu(), _SAMPLES, replacement=True, generator=generator
        ).to(device)
        for k in range(_SAMPLES):
            scores = torch.autograd.grad(
                log_p.gather(1, drawn[:, k : k + 1]).sum(),
                list(shifts.values()),
                retain_graph=k < _SAMPLES - 1,
                allow_unused=True,
            )
            for site, score in zip(units, scores, strict=True):
                if score is not None:
                    own = score.double().cpu()
                    found[site] += own.T @ own / _SAMPLES
        n_tokens += len(log_p)
    return {site: total / max(n_tokens, 1) for site, total in found.items()}


def _shifting(shift: Tensor, rows: Tensor, unit: float) -> Move:
    return lambda a: a + unit * shift[rows.to(shift.device)].to(a.device)
