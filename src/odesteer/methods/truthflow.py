"""TruthFlow: correction by flow matching (Wang et al., ICML 2025, arXiv 2502.04556)."""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from odesteer.barriers import Centred, Contrast
from odesteer.barriers.neural import Perceptron
from odesteer.barriers.pairing import counterparts
from odesteer.barriers.training import MOVED_TO_TRAINING, Training, check_network
from odesteer.errors import InvalidInputError
from odesteer.flows import EmbeddedPair, Euler, FixedStep, Solution, Solver, VectorField, solve
from odesteer.methods.amount import Amount
from odesteer.methods.base import Method
from odesteer.untrusted import is_integer

# Fourier features of the time: cos and sin of πkt for k up to this.
_WAVES = 4


class TruthFlow(Method):
    """Carries an activation towards its positive counterpart by a learned flow.

    A network u(x, t | a) is trained on pairs of a negative a₋ and its positive counterpart a₊,
    the pairs by group of `counterparts`, with the rectified-flow objective: the mean over pairs
    and uniform t of ‖u(x_t, t | a₋) - (a₊ - a₋)‖², x_t = (1 - t)a₋ + t·a₊. Steering solves
    dx/dt = u(x, t | a) from x(0) = a to t = 1 and projects the displacement on the k leading
    right singular vectors V_k of the training differences a₊ - a₋ (not centred):
    a' = a + α·V_kV_kᵀ(x(1) - a), where ``interpolation`` is α.

    The network starts as the mean difference and so at the mean shift. Training stops by the
    error of the end points ‖x(1) - a₊‖² on held-out pairs, since the objective itself can be
    lowered by reading a₊ off x_t; where no weights beat the mean shift there, the mean shift is
    kept (``n_epochs_`` is 0).

    Parameters:
        amount: default; a number is an interpolation, α.
        rank: k; all singular vectors where there are fewer.
        solver: for t from 0 to 1; the network is evaluated once for each stage of each step.
        hidden: widths of the network's hidden layers, which are smooth (SiLU).
        training: of the network, see `Training`; its examples are pairs.
        seed: of first weights, batches, times and held-out pairs.

    Learned: ``basis_`` V_k `[d, k]`; ``shift_``, the mean difference `[d]`; ``scale_``, the root
    mean square length of differences, activation units; ``inputs_`` and ``velocity_``, the
    network; ``error_``, the root mean square distance of end points from held-out positives (of
    all where none are held out) over ``scale_``; ``n_epochs_``.
    """

    quantities: ClassVar[tuple[str, ...]] = ("interpolation",)
    dynamics: ClassVar[str] = "learned velocity u(x, t | a); a' = a + αP(x(1) - a)"
    solver_summary: ClassVar[str] = "explicit Euler, 10 steps (a parameter)"
    cost: ClassVar[str] = "O(d m n), m the width of the hidden layers, n steps"
    reference: ClassVar[str] = "Wang et al., ICML 2025, arXiv 2502.04556"

    moved_parameters: ClassVar[Mapping[str, str]] = MOVED_TO_TRAINING

    basis_: Tensor
    shift_: Tensor
    scale_: float
    inputs_: Centred
    velocity_: Perceptron
    error_: float
    n_epochs_: int

    amount_words: ClassVar[tuple[str, ...]] = ("interpolation",)

    def __init__(
        self,
        amount: Amount | float = 1.0,
        rank: int = 20,
        solver: Solver = Euler(),
        hidden: Sequence[int] = (256,),
        training: Training = Training(learning_rate=1e-3, max_epochs=500),
        seed: int = 0,
    ) -> None:
        self.amount = amount
        self.rank = rank
        self.solver = solver
        self.hidden = hidden
        self.training = training
        self.seed = seed

    def _fit(self, contrast: Contrast) -> None:
        self._check_parameters()
        negative, positive, groups = counterparts(contrast)
        held_out = self.training.held_out_pairs(groups, self.seed)
        with torch.inference_mode(False), torch.enable_grad():
            negative, positive = negative.detach().clone(), positive.detach().clone()
            difference = positive - negative
            self.basis_ = leading_directions(difference, self.rank)
            self.shift_ = difference.mean(dim=0)
            self.scale_ = float(difference.double().square().sum(dim=1).mean().sqrt())
            if not self.scale_ > 0:
                raise InvalidInputError(
                    "every negative equals its positive counterpart; there is nowhere to flow."
                )
            self.inputs_ = Centred().fit(negative)
            n_inputs = 2 * negative.shape[1] + 2 * _WAVES
            self._train(negative, positive, held_out, n_inputs=n_inputs, unit=self.scale_**2)

    def _train(
        self,
        first: Tensor,
        last: Tensor,
        held_out: Tensor,
        *,
        n_inputs: int,
        unit: float,
        constant: Tensor | None = None,
    ) -> None:
        """Learn ``velocity_`` by rectified flow from rows of ``first`` to those of ``last``.

        ``n_inputs`` is what the network sees, ``unit`` the square that losses count in. Weights
        have to bring end points nearer to held-out ones than ``constant`` is, by default than the
        flow without a network does.
        """
        generator = torch.Generator().manual_seed(self.seed)
        widths = (n_inputs, *self.hidden, first.shape[1])
        self.velocity_ = network = Perceptron.drawn(widths, generator, first, flat=True)
        judged = held_out if bool(held_out.any()) else ~held_out
        judged = judged.to(first.device)

        def loss(rows: Tensor) -> Tensor:
            start, end = first[rows], last[rows]
            t = torch.rand(len(rows), 1, generator=generator).to(start)
            error = self._velocity(start + t * (end - start), t, start) - (end - start)
            return error.square().sum(dim=1).mean() / unit

        def distance(ends: Tensor) -> float:
            return float((ends - last[judged]).square().sum(dim=1).mean()) / self.scale_**2

        def judge() -> float:
            return distance(self._transported(first[judged]))

        with torch.no_grad():
            least = judge() if constant is None else distance(constant)
        self.n_epochs_ = self.training.run(
            network,
            loss,
            judge,
            held_out,
            generator,
            name=f"the velocity of {type(self).__name__}",
            least=least,
        )
        with torch.no_grad():
            self.error_ = math.sqrt(judge() if self.n_epochs_ else least)

    def _solve(self, a: Tensor, amount: Amount) -> Solution:
        value = torch.as_tensor(amount.value, dtype=a.dtype, device=a.device)
        value = value.expand(a.shape[:-1])[..., None]
        basis = self.basis_.to(a)
        change = value * (((self._transported(a) - a) @ basis) @ basis.T)
        return Solution(torch.where(value == 0, a, a + change), change.norm(dim=-1))

    def _transported(self, a: Tensor) -> Tensor:
        """x(1) from x(0) = a, `[..., d] -> [..., d]`."""
        flat = a.reshape(-1, a.shape[-1])
        # The time is one more coordinate, which makes the field autonomous.
        state = torch.cat([flat, torch.zeros_like(flat[:, :1])], dim=-1)
        end = solve(_Transport(self, flat), state, 1.0, self.solver).state
        return end[:, :-1].reshape(a.shape)

    def _velocity(self, x: Tensor, t: Tensor, start: Tensor) -> Tensor:
        """u(x, t | a), `[n, d]`, from x `[n, d]`, t `[n, 1]` and the start a `[n, d]`."""
        time = time_features(t)
        seen = torch.cat([self.inputs_(start), (x - start) / self.scale_, time], dim=-1)
        # Inputs and outputs of the network have unit scale.
        scale = self.scale_ / math.sqrt(x.shape[-1])
        return self.shift_.to(x) + scale * self.velocity_.outputs(seen)

    def _check_parameters(self) -> None:
        check_network(self.hidden, self.training)
        if not is_integer(self.rank, 1):
            raise InvalidInputError(f"rank must be a positive integer, not {self.rank!r}.")
        if not isinstance(self.solver, (FixedStep, EmbeddedPair)) or self.solver.spherical:
            raise InvalidInputError(
                f"TruthFlow cannot be solved by {self.solver!r}, which is for gradient flows or on"
                " a sphere; use Euler, Midpoint, RK4 or BogackiShampine."
            )
        self.solver.check()


def time_features(t: Tensor) -> Tensor:
    """cos and sin of πkt, of length one together, `[n, 1] -> [n, 2·waves]`."""
    waves = math.pi * t * torch.arange(1, _WAVES + 1).to(t)
    return torch.cat([torch.cos(waves), torch.sin(waves)], dim=-1) / math.sqrt(_WAVES)


class _Transport(VectorField):
    """(u(x, t | a), 1) for the state (x, t), `[n, d + 1]`, from starts a `[n, d]`."""

    def __init__(self, method: TruthFlow, start: Tensor) -> None:
        self.method = method
        self.start = start

    def __call__(self, a: Tensor) -> Tensor:
        x, t = a[:, :-1], a[:, -1:]
        return torch.cat([self.method._velocity(x, t, self.start), torch.ones_like(t)], dim=-1)


def leading_directions(difference: Tensor, rank: int) -> Tensor:
    """The ``rank`` leading right singular vectors `[d, k]` of `[m, d]`.

    Fewer where fewer singular values are above rounding. From the smaller Gram matrix.
    """
    m, d = difference.shape
    rows = difference.double() / difference.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    square, vectors = torch.linalg.eigh(rows @ rows.T if m < d else rows.T @ rows)
    kept = square > square[-1] * max(m, d) * torch.finfo(torch.float64).eps
    vectors = vectors[:, kept][:, -rank:]
    if m < d:
        # Orthonormal but for rounding, which QR takes off; it changes signs at most.
        vectors = torch.linalg.qr(rows.T @ vectors)[0]
    leading: Tensor = vectors.flip(1).to(difference)
    return leading
