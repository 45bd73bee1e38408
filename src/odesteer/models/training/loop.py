"""The training loop: gradient steps at a held cost, held-out figures, checkpoints, interrupts."""

import io
import json
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from odesteer.errors import ConvergenceError, InvalidInputError, WeakSignalWarning
from odesteer.files import replace_file
from odesteer.methods import Amount, EndToEnd
from odesteer.models.architecture.sites import SiteModule
from odesteer.models.training.coordinates import Coordinates
from odesteer.models.training.replay import Move, check_differentiable
from odesteer.models.training.tasks import Moves, NeutralCost, Sampler, TrainingTask

Methods = dict[SiteModule, EndToEnd]
Report = Callable[[str], None]

_MEMORY = 0.9  # of the running mean that sets the multiplier of the cost
# The learning rate falls to this share of itself.
_LAST_RATE = 0.1
# A flow is scaled up by this at most, to use a cost that training left unused.
_MOST_SCALE = 2.0
_TOLERANCE = 0.02  # of the cost asked for


@dataclass
class Evaluation:
    """Held-out figures.

    Attributes:
        loss: of the objective.
        gains: of each held-out item, see `TrainingTask`.
        kl: cost on the validation texts, nats a token.
        kl_per_text: the same by text.
    """

    loss: float
    gains: Tensor
    kl: float
    kl_per_text: Tensor


@dataclass
class TrainingState:
    """What a checkpoint holds.

    Attributes:
        epoch: epochs that are complete.
        steps: gradient steps that are complete.
        pull: a running sum of what the loss falls by where the amount grows, ``steps`` of them.
        leaves: what the optimiser moves at each site, by name (`Coordinates`).
        best: the tensors of each site's barrier at the best epoch, by name.
        best_loss: held-out loss at the best epoch, within the cost asked for.
        most_scale: what its amount may be multiplied by; 1 where more did not help.
        best_epoch: that epoch; 0 before the first.
    """

    epoch: int = 0
    steps: int = 0
    pull: float = 0.0
    leaves: list[dict[str, Tensor]] = field(default_factory=list)
    best: list[dict[str, Tensor]] = field(default_factory=list)
    best_loss: float = math.inf
    most_scale: float = 1.0
    best_epoch: int = 0
    optimiser: dict[str, Any] = field(default_factory=dict)


class TrainingLoop:
    """Trains the barriers of one or several sites jointly.

    Args:
        methods: the method at each site, begun but flat (`EndToEnd.begun`); they share parameters.
        task: what they are trained for.
        coordinates: of each site.
        cost, check: the cost on neutral texts to train with, and on held-out ones.
        sample: samples answers of the steered model, given the methods and the epoch.
        report: called with a line of progress.
        checkpoint: file that training resumes from, if it has the same ``content``.

    Attributes:
        interrupted: whether an interrupt ended `run`.
    """

    def __init__(
        self,
        methods: Methods,
        coordinates: Mapping[SiteModule, Coordinates],
        task: TrainingTask,
        cost: NeutralCost,
        check: NeutralCost,
        sample: Callable[[Methods, int], Sampler],
        report: Report,
        checkpoint: Path | None = None,
        content: str = "",
    ) -> None:
        self.methods, self.coordinates = methods, coordinates
        self.task, self.cost, self.check = task, cost, check
        self.sample, self.report = sample, report
        self.checkpoint, self.content = checkpoint, content
        first = next(iter(methods.values()))
        self.interrupted = False
        self.kl, self.training, self.seed = float(first.kl), first.training, first.seed

    def run(self) -> tuple[Methods, Evaluation, int]:
        """The methods at the cost asked for, their held-out figures, and the epochs behind them.

        Raises `ConvergenceError` where training diverges or the cost cannot be held. An interrupt
        (Ctrl-C) ends training with the best so far, if there is one and ``keep_best`` is set.
        """
        state = self._loaded() or self._first()
        try:
            self._train(state)
        except KeyboardInterrupt:
            if not (self.training.keep_best and state.best_epoch):
                raise
            self.interrupted = True
            self.report(f"interrupted; epoch {state.best_epoch} is kept")
        methods = self._scaled(self._adopting(state.best), state.most_scale)
        return methods, self.evaluate(methods), state.best_epoch

    def _first(self) -> TrainingState:
        leaves = [
            self.coordinates[site].moved(method.barrier_.function_.leaves())
            for site, method in self.methods.items()
        ]
        return TrainingState(leaves=leaves)

    def _train(self, state: TrainingState) -> None:
        for leaves in state.leaves:
            for tensor in leaves.values():
                tensor.requires_grad_()
        flat = [tensor for leaves in state.leaves for tensor in leaves.values()]
        optimiser = torch.optim.AdamW(
            flat, lr=self.training.learning_rate, weight_decay=self.training.weight_decay
        )
        if state.optimiser:
            optimiser.load_state_dict(state.optimiser)
        while state.epoch < self.training.max_epochs:
            if state.best_epoch and state.epoch - state.best_epoch >= self.training.patience:
                break
            try:
                self._epoch(state, optimiser, flat)
                evaluation = self._evaluated(state)
            except _DivergenceError:
                if not (self.training.keep_best and state.best_epoch):
                    raise ConvergenceError(
                        f"training a barrier end to end diverged in epoch {state.epoch + 1}: the"
                        " loss is not finite. Use a learning_rate below"
                        f" {self.training.learning_rate}, or another layer."
                    ) from None
                self.report(f"diverged; epoch {state.best_epoch} is kept")
                break
            self.report(
                f"epoch {state.epoch}/{self.training.max_epochs}: held-out"
                f" {self.task.gain_name} {float(evaluation.gains.mean()):+.3f}, loss"
                f" {evaluation.loss:.4f}, cost {evaluation.kl:.3f} nats a token"
            )
            state.optimiser = optimiser.state_dict()
            self._save(state)

    def _epoch(
        self, state: TrainingState, optimiser: torch.optim.Optimizer, flat: list[Tensor]
    ) -> None:
        generator = torch.Generator().manual_seed(_mixed(self.seed, state.epoch))
        self.task.begin_epoch(self.sample(self._with(_detached(state.leaves)), state.epoch))
        neutral = self.cost.forever(generator)
        order = torch.randperm(len(self.task.train), generator=generator).tolist()
        for i, number in enumerate(order):
            done = (state.epoch + i / len(order)) / self.training.max_epochs
            for group in optimiser.param_groups:
                group["lr"] = self.training.learning_rate * (1 - (1 - _LAST_RATE) * done)
            batch = self.task.train[number]
            outcomes = self.task.outcomes(batch, moves_of(self._with(state.leaves)))
            loss, gradients = _gradients(self.task.loss(batch, outcomes), flat)
            moves = moves_of(self._with(state.leaves))
            cost, of_cost = _gradients(self.cost.loss(next(neutral), moves), flat)
            if not (math.isfinite(loss) and math.isfinite(cost)):
                raise _DivergenceError
            multiplier = self._multiplier(state, flat, gradients)
            for tensor, a, b in zip(flat, gradients, of_cost, strict=True):
                tensor.grad = a + multiplier * b
            optimiser.step()
        state.epoch += 1

    def _multiplier(
        self, state: TrainingState, flat: list[Tensor], gradients: list[Tensor]
    ) -> float:
        """λ, the weight of the cost in the loss.

        Where the amount s grows, the loss changes by s dL/ds, and the cost, which is about
        quadratic, by twice itself. With λ = -(s dL/ds)/(2 kl) the two balance where the cost is
        ``kl``: below it the amount grows, above it falls, and it never lags behind.
        """
        is_amplitude = [
            name in method.barrier_.function_.amplitudes
            for method, own in zip(self.methods.values(), state.leaves, strict=True)
            for name in own
        ]
        pull = -sum(
            float((tensor.detach() * gradient).sum())
            for tensor, gradient, counts in zip(flat, gradients, is_amplitude, strict=True)
            if counts
        )
        state.steps += 1
        state.pull = _MEMORY * state.pull + (1 - _MEMORY) * pull
        mean = state.pull / (1 - _MEMORY**state.steps)
        return max(0.0, mean / (2 * self.kl))

    def _evaluated(self, state: TrainingState) -> Evaluation:
        """Held-out figures of the present leaves; keeps them where they are best.

        They are judged at the amount at which they cost about what was asked for, and also as they
        are where they cost less.
        """
        methods = self._with(_detached(state.leaves))
        kl, _ = self._cost(methods)
        if not math.isfinite(kl):
            raise _DivergenceError
        full = min(_MOST_SCALE, math.sqrt(self.kl / kl)) if kl > 0 else _MOST_SCALE
        judged = []
        for scale in (full, 1.0) if full > 1 else (full,):
            scaled = scaled_methods(methods, scale)
            loss, gains = self._held_out(scaled)
            if not math.isfinite(loss):
                raise _DivergenceError
            judged.append((loss, scale, gains, scaled))
        loss, scale, gains, scaled = min(judged, key=lambda one: one[0])
        if loss < state.best_loss:
            state.best_loss, state.best_epoch = loss, state.epoch
            state.most_scale = _MOST_SCALE / full if scale == full else 1.0
            state.best = [
                {name: tensor.clone() for name, tensor in own.barrier_.function_.leaves().items()}
                for own in scaled.values()
            ]
        return Evaluation(loss, gains, kl, torch.empty(0))

    def evaluate(self, methods: Methods) -> Evaluation:
        """Held-out figures at T = 1."""
        kl, per_text = self._cost(methods)
        loss, gains = self._held_out(methods)
        return Evaluation(loss, gains, kl, per_text)

    def _held_out(self, methods: Methods) -> tuple[float, Tensor]:
        moves, losses, gains, n = moves_of(methods), 0.0, [], 0
        with torch.no_grad():
            for batch in self.task.held_out:
                rows = len(batch.states.texts)
                outcomes = self.task.outcomes(batch, moves)
                losses += rows * float(self.task.loss(batch, outcomes))
                gains.append(self.task.gains(batch, outcomes).double().cpu())
                n += rows
        return losses / n, torch.cat(gains)

    def _cost(self, methods: Methods) -> tuple[float, Tensor]:
        moves, each, tokens = moves_of(methods), [], []
        with torch.no_grad():
            for batch in self.check.batches:
                each.append(self.check.of_texts(batch, moves).double().cpu())
                tokens.append(batch.n_tokens)
        per_text, n = torch.cat(each), torch.cat(tokens)
        return float((per_text * n).sum() / n.sum()), per_text

    def _scaled(self, methods: Methods, most: float) -> Methods:
        """The methods whose T = 1 costs what was asked for, on held-out texts.

        Scaled up at most by ``most``. Raises `ConvergenceError` where the cost cannot be held.
        """
        scale, tried = 1.0, []
        for _ in range(8):
            kl, _ = self._cost(scaled_methods(methods, scale))
            tried.append((scale, kl))
            within = kl <= self.kl * (1 + _TOLERANCE)
            if within and (kl >= self.kl * (1 - 3 * _TOLERANCE) or scale == most):
                break
            # Costs grow about as the square of the amount.
            guess = scale * math.sqrt(self.kl / kl) if kl > 0 else most
            low = max((s for s, k in tried if k <= self.kl), default=0.0)
            high = min((s for s, k in tried if k > self.kl), default=math.inf)
            if not low < guess < high:
                guess = (low + high) / 2
            scale = min(guess, most)
        held = [s for s, k in tried if k <= self.kl * (1 + _TOLERANCE)]
        if not held or max(held) < 1e-3:
            raise ConvergenceError(
                f"a cost of kl={self.kl:g} nats a token cannot be held: an amount of"
                f" {tried[-1][0]:.2g} of what was trained costs {tried[-1][1]:.3g}. Ask for a"
                " larger kl, or train on another layer."
            )
        return scaled_methods(methods, max(held))

    def _with(self, leaves: list[dict[str, Tensor]]) -> Methods:
        return self._adopting(
            [
                self.coordinates[site].leaves(own)
                for site, own in zip(self.methods, leaves, strict=True)
            ]
        )

    def _adopting(self, leaves: list[dict[str, Tensor]]) -> Methods:
        return {
            site: method.with_leaves(own)
            for (site, method), own in zip(self.methods.items(), leaves, strict=True)
        }

    def _save(self, state: TrainingState) -> None:
        if self.checkpoint is None:
            return
        stored = {**vars(state), "leaves": _detached(state.leaves), "content": self.content}
        buffer = io.BytesIO()
        torch.save(stored, buffer)
        replace_file(self.checkpoint, buffer.getvalue())

    def _loaded(self) -> TrainingState | None:
        if self.checkpoint is None or not self.checkpoint.exists():
            return None
        stored = torch.load(self.checkpoint, weights_only=True)
        if stored.pop("content", None) != self.content:
            raise InvalidInputError(
                f"{self.checkpoint} is the checkpoint of another training: other data, parameters,"
                " weights or layers. Give another folder, or remove it."
            )
        self.report(f"resumed after epoch {stored['epoch']}")
        return TrainingState(**stored)


class _DivergenceError(Exception):
    """The loss or the cost is not finite."""


def moves_of(methods: Methods) -> Moves:
    """What each method does at T = 1."""

    def move(method: EndToEnd) -> Move:
        return lambda a: method.solve(a, Amount("T", 1.0)).state

    return {site: move(method) for site, method in methods.items()}


def scaled_methods(methods: Mapping[SiteModule, EndToEnd], factor: float) -> Methods:
    """The methods whose T = 1 is T = ``factor`` of these."""
    return {
        site: method.with_leaves(method.barrier_.function_.scaled(factor).leaves())
        for site, method in methods.items()
    }


def warn_of_no_gain(gains: Tensor, name: str) -> None:
    """Warn where held-out items gain nothing."""
    error = float(gains.std()) / math.sqrt(len(gains)) if len(gains) > 1 else math.inf
    mean = float(gains.mean())
    if mean < 2 * error:
        warnings.warn(
            f"on {len(gains)} held-out items the {name}, is {mean:.3g} ± {error:.2g}, no more than"
            " chance: what was learned does not carry over. Use more examples, another layer, or a"
            " larger kl.",
            WeakSignalWarning,
            stacklevel=4,
        )


def _detached(leaves: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    return [{name: tensor.detach() for name, tensor in own.items()} for own in leaves]


def _gradients(loss: Tensor, leaves: list[Tensor]) -> tuple[float, list[Tensor]]:
    """The loss and its gradients. Raises `ModelError` for a model that gives no gradients."""
    check_differentiable(loss)
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    gradients = [
        torch.zeros_like(t) if g is None else g for t, g in zip(leaves, found, strict=True)
    ]
    return float(loss.detach()), gradients


def _mixed(seed: int, epoch: int) -> int:
    return (seed * 1_000_003 + epoch) % (1 << 63)


def content_digest(parts: object) -> str:
    """A JSON text of what identifies a training."""
    return json.dumps(parts, sort_keys=True, default=repr)
