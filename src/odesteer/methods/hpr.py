"""Householder pseudo-rotation (Pham and Nguyen, EMNLP 2024, arXiv 2409.10053)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from odesteer.barriers import Centred, Contrast, Fitting, HomogeneousBarrier
from odesteer.barriers.neural import Perceptron
from odesteer.barriers.pairing import counterparts
from odesteer.barriers.quadratic import QuadraticFunction
from odesteer.barriers.training import MOVED_TO_TRAINING, Training, check_network
from odesteer.errors import InvalidInputError
from odesteer.flows import Solution
from odesteer.methods.amount import Amount
from odesteer.methods.base import Method
from odesteer.methods.rotation import Rotation
from odesteer.untrusted import is_integer

Learners = Literal["negative", "both"]


class HPR(Method):
    """Rotates tokens on the negative side of a probe, by a predicted angle; keeps the norm exactly.

    With θ the unit normal of a linear probe through the origin, the Householder matrix I - 2θθᵀ
    reflects an activation to the other side. An activation with θ·a < 0 is turned in the plane of
    a and its reflection, towards the reflection, by the angle γ(a) that a small network predicts:
    a' = cos γ·a + sin γ·‖a‖·t with the unit tangent t of that plane. Activations on the positive
    side stay to the bit, and so do those along θ itself, for which there is no plane.

    The network is trained on the negatives alone by default: its target is the angle between a
    negative and its positive counterpart, arccos(a₋·a₊/‖a₋‖‖a₊‖), its loss the squared error in
    radians². The counterparts are the pairs by group, see `counterparts`. Training starts from the
    mean angle and stops by the loss on pairs of held-out groups; where no weights beat the mean
    angle there, the mean angle is kept (``n_epochs_`` is 0). The angle of a pair includes every
    difference of the two, not only that along θ, and in many dimensions the whole angle goes far
    beyond the positives; a fraction of it, or a level, does not.

    ``interpolation`` multiplies γ. ``level`` turns in the same plane, also on the positive side
    and, for negative levels, the other way, until the logit of the probe has the value, in closed
    form: h = ‖w‖cos φ with φ the angle between a and θ. Turns to a level end at ``max_angle`` or
    at ±θ, where h is extreme; activations that end there count as not reached.

    Parameters:
        amount: default; a number is an interpolation, the fraction of the predicted angle.
        max_angle: the largest turn to a level, radians.
        C: inverse strength of the probe's regularisation, see `HomogeneousBarrier`.
        hidden: widths of the network's hidden layers, which are smooth (SiLU).
        training: of the network, see `Training`; its examples are pairs.
        fitting: of the quantiles that levels count in, see `Fitting`; the seed also
            draws first weights, batches and held-out pairs.
        learners: the examples that the network learns from: ``negative``, or ``both`` as published,
            where the target of a positive is the angle 0, so that γ is about the probability of a
            negative times its angle, and turns tokens near the boundary less.

    Learned: ``barrier_``, the logit of the probe w·a/‖a‖, nats; ``angle_inputs_`` and ``angle_``,
    the network; ``angle_error_``, the root mean squared error on held-out pairs in radians (on
    all pairs where none are held out); ``n_epochs_``, the epochs behind the network's weights.
    """

    quantities: ClassVar[tuple[str, ...]] = ("interpolation", "level")
    dynamics: ClassVar[str] = "rotation towards the reflection of a, by a learned angle γ(a)"
    barrier_summary: ClassVar[str] = "w·a/‖a‖, the logit of a probe through the origin"
    keeps_norm: ClassVar[bool] = True
    cost: ClassVar[str] = "O(d m), m the width of the first hidden layer"
    reference: ClassVar[str] = "Pham and Nguyen, EMNLP 2024, arXiv 2409.10053"

    moved_parameters: ClassVar[Mapping[str, str]] = MOVED_TO_TRAINING

    barrier_: HomogeneousBarrier
    angle_inputs_: Centred
    angle_: Perceptron
    angle_error_: float
    n_epochs_: int

    amount_words: ClassVar[tuple[str, ...]] = ("interpolation",)
    added_parameters: ClassVar[Mapping[str, Any]] = {"learners": "negative"}

    def __init__(
        self,
        amount: Amount | float = 1.0,
        max_angle: float = math.pi / 2,
        C: float = 1.0,
        hidden: Sequence[int] = (64,),
        training: Training = Training(),
        fitting: Fitting = Fitting(),
        learners: Learners = "negative",
    ) -> None:
        self.learners = learners
        self.amount = amount
        self.max_angle = max_angle
        self.C = C
        self.hidden = hidden
        self.training = training
        self.fitting = fitting

    @classmethod
    def paper(cls, width: int) -> "HPR":
        """The published form for activations of a width: learners, widths of the network, training.

        With `odesteer.models.fit_aligned` it also has the published pairs, right and wrong answers
        token by token, and layers, the five with the best probes. Its probe is regularised, and its
        network smooth in another way (SiLU for GELU). Raises `InvalidInputError` for a width below
        8.
        """
        if not is_integer(width, 8):
            raise InvalidInputError(f"width must be an integer of at least 8, not {width!r}.")
        training = Training(5e-4, weight_decay=0.0, batch_size=16, max_epochs=5, keep_best=True)
        hidden = (width // 2, width // 4, width // 8)
        return cls(hidden=hidden, training=training, learners="both")

    @property
    def barrier(self) -> HomogeneousBarrier:
        """The fitted probe; its logit is the barrier."""
        self.check_fitted()
        return self.barrier_

    def angle(self, a: Tensor) -> Tensor:
        """The predicted angle γ in radians, `[..., d] -> [...]`, for tokens of either side."""
        self.check_fitted()
        return math.pi * torch.sigmoid(self.angle_.value(self.angle_inputs_(a)))

    def _fit(self, contrast: Contrast) -> None:
        check_network(self.hidden, self.training)
        if self.learners not in get_args(Learners):
            raise InvalidInputError(f"learners must be negative or both, not {self.learners!r}.")
        if not 0 < self.max_angle <= math.pi:
            raise InvalidInputError(f"max_angle must be in (0, π] radians, not {self.max_angle}.")
        barrier = HomogeneousBarrier(C=self.C, fitting=self.fitting)
        self.barrier_ = barrier.fit(contrast.positive, contrast.negative, contrast.group_pair)
        if not float(self._normal_and_length()[1]) > 0:
            raise InvalidInputError(
                "the probe found no direction between the classes; its weights are zero."
            )
        self._fit_angle(contrast)

    def _fit_angle(self, contrast: Contrast) -> None:
        negative, positive, groups = counterparts(contrast)
        target = _angle_between(negative, positive)
        held_out = self.training.held_out_pairs(groups, self.fitting.seed)
        if self.learners == "both":
            target = torch.cat([target, torch.zeros_like(target)])
            negative, held_out = torch.cat([negative, positive]), held_out.repeat(2)
        with torch.inference_mode(False), torch.enable_grad():
            negative, target = negative.detach().clone(), target.detach().clone()
            self.angle_inputs_ = Centred().fit(negative)
            x = self.angle_inputs_(negative)
            generator = torch.Generator().manual_seed(self.fitting.seed)
            network = Perceptron.drawn((contrast.width, *self.hidden, 1), generator, x, flat=True)
            mean = float(target.double().mean()) / math.pi
            network.offset_ = math.log(max(mean, 1e-6) / max(1 - mean, 1e-6))
            self.angle_ = network
            judged = (held_out if bool(held_out.any()) else ~held_out).nonzero()[:, 0].to(x.device)

            def loss(rows: Tensor) -> Tensor:
                angle = math.pi * torch.sigmoid(network.value(x[rows]))
                return (angle - target[rows]).square().mean()

            with torch.no_grad():
                least = float(loss(judged))
            self.n_epochs_ = self.training.run(
                network,
                loss,
                lambda: float(loss(judged)),
                held_out,
                generator,
                name="the angles of HPR",
                least=least,
            )
            with torch.no_grad():
                self.angle_error_ = math.sqrt(float(loss(judged)))

    def _solve(self, a: Tensor, amount: Amount) -> Solution:
        normal, length = self._normal_and_length()
        rotation = Rotation.towards(normal.to(a), a)
        angle = rotation.angle
        value = torch.as_tensor(amount.value, dtype=a.dtype, device=a.device)
        value = value.expand(a.shape[:-1])[..., None]
        reached = None
        if amount.quantity == "level":
            # h = length·cos φ; turning by t towards θ makes it length·cos(φ - t).
            goal = torch.as_tensor(self.barrier_.threshold(value)).to(a) / length
            wanted = angle - torch.arccos(goal.clamp(-1, 1))
            wanted = torch.where(value >= 0, wanted.clamp_min(0), wanted.clamp_max(0))
            h = self.barrier_.value(a)[..., None] / length
            satisfied = torch.where(value >= 0, h >= goal, h <= goal)
            turn = torch.where(satisfied, 0.0, wanted.clamp(-self.max_angle, self.max_angle))
            turn = torch.where(rotation.has_plane, turn, 0.0)
            reached = (satisfied | ((goal.abs() <= 1) & (turn == wanted)))[..., 0]
        else:
            turn = value * self.angle(a)[..., None]
            turn = torch.where((angle > math.pi / 2) & rotation.has_plane, turn, 0.0)
        arc = (turn.abs() * rotation.norm)[..., 0]
        return Solution(rotation.turned(turn), arc, reached=reached)

    def _normal_and_length(self) -> tuple[Tensor, Tensor]:
        """θ `[d]` and ‖w‖, of the probe's weights w = ‖w‖θ."""
        function = self.barrier_.function_
        assert isinstance(function, QuadraticFunction)
        assert function.basis_ is not None  # a linear function has one
        return function.basis_[:, 0], 2 * function.slope_[0]


def _angle_between(a: Tensor, b: Tensor) -> Tensor:
    """`[..., d]`, `[..., d]` -> `[...]` radians in [0, π], accurate at both ends (Kahan)."""
    a, b = (torch.nn.functional.normalize(side.double(), dim=-1) for side in (a, b))
    return (2 * torch.atan2((a - b).norm(dim=-1), (a + b).norm(dim=-1))).float()
