"""Fitting `EndToEnd` on a model: capture, training, calibration, provenance."""

import hashlib
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from odesteer.artifact import Provenance, Site, Steerer, SteererSet
from odesteer.data import ContrastData
from odesteer.errors import InvalidInputError, WeakSignalWarning
from odesteer.methods import Amount, EndToEnd, Likelihood, Preference, Reward
from odesteer.models.architecture.sites import SiteModule
from odesteer.models.divergence import NeutralTexts, Split
from odesteer.models.observed_model import ObservedModel
from odesteer.models.provenance_check import template_hash
from odesteer.models.tokens.encoding import Prompt
from odesteer.models.training.examples import prompts_of
from odesteer.models.training.kept import TensorKeeper
from odesteer.models.training.loop import (
    Evaluation,
    Methods,
    TrainingLoop,
    content_digest,
    warn_of_no_gain,
)
from odesteer.models.training.replay import Replay
from odesteer.models.training.tasks import (
    NeutralCost,
    Sampler,
    TrainingTask,
    activations_of,
    make_task,
)
from odesteer.version import __version__

_CHECKPOINT = "training.pt"
# Neutral texts in a step, and at a time where the cost is measured.
_NEUTRAL_STEP, _NEUTRAL_CHECK = 4, 8
_MOST_FALLS = 0.01  # share of activations on which h may fall


def fit_end_to_end(
    lm: ObservedModel,
    method: EndToEnd,
    data: ContrastData | Sequence[Prompt],
    sites: dict[Site, SiteModule],
    neutral: Callable[[Split], NeutralTexts],
    generate: Callable[..., list[str]],
    provenance: dict[str, Any],
    *,
    batch_size: int | None = None,
    checkpointing: bool = False,
    folder: str | Path | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> list[Steerer]:
    """Train copies of ``method`` at the ``sites`` jointly; a steerer for each.

    Args:
        neutral: gives the neutral texts of a split.
        generate: `SteeredModel.generate`.
        provenance: entries about the model.
        batch_size: pairs, or prompts, in a step; by default as the method's training says.
        checkpointing: see `Replay`.
        folder: where training leaves a checkpoint after each epoch, and resumes from; states that
            would fill half of the free memory go there too, until training ends.
        report: called with lines of progress.
    """
    method.check()
    if method.training.validation == 0:
        raise InvalidInputError(
            "training end to end holds groups out, for early stopping and calibration; set"
            " validation above 0."
        )
    lm.check_evaluating()
    texts = neutral("train"), neutral("validation")
    seed, size = method.seed, batch_size or method.training.batch_size
    modules = list(sites.values())
    (position,) = {site.position for site in sites}
    # Inside inference mode nothing could be differentiated.
    with torch.inference_mode(False), torch.enable_grad(), _frozen(lm.model):
        if folder is not None:
            Path(folder).mkdir(parents=True, exist_ok=True)
        replay = Replay(lm, modules, position, checkpointing, TensorKeeper(folder))
        task = make_task(replay, method.objective, data, size, method.training.validation, seed)
        report("hidden states captured")
        cost = NeutralCost(replay, texts[0], _NEUTRAL_STEP)
        check = NeutralCost(replay, texts[1], _NEUTRAL_CHECK)
        units = _units(replay, task, cost)
        if not all(map(len, units.values())):
            raise InvalidInputError(
                f"steer_position={position!r} moves no token that decides about one of these"
                " texts; give longer answers, or another position."
            )
        begun: Methods = {module: method.begun(units[module]) for module in modules}
        content = content_digest(
            {
                "method": repr(method.with_params(objective=method.objective.stored())),
                "sites": [str(site) for site in sites],
                "data": _digest(data),
                "model": lm.content([], []),
            }
        )
        checkpoint = None
        if folder is not None:
            checkpoint = Path(folder) / _CHECKPOINT
        loop = TrainingLoop(
            begun,
            task,
            cost,
            check,
            _sampler(method, list(sites), generate),
            report,
            checkpoint,
            content,
        )
        methods, evaluation, n_epochs = loop.run()
        calibrated = {
            module: _calibrated(own, module, task, float(evaluation.gains.mean()))
            for module, own in methods.items()
        }
    warn_of_no_gain(evaluation.gains, task.gain_name)
    origin = Provenance(
        **provenance,
        **_origin(lm, data, method),
        held_out=_figures(method, evaluation, n_epochs),
    )
    return [Steerer(calibrated[module], site, origin) for site, module in sites.items()]


@contextmanager
def _frozen(model: torch.nn.Module) -> Iterator[None]:
    """No weight of the model takes part in a gradient meanwhile."""
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    try:
        for weight in trainable:
            weight.requires_grad_(False)
        yield
    finally:
        for weight in trainable:
            weight.requires_grad_(True)


def _units(replay: Replay, task: TrainingTask, cost: NeutralCost) -> dict[SiteModule, Tensor]:
    """Activations that set the units of each site: of the task, or of neutral texts."""
    return activations_of(task.train or cost.batches, replay.sites)


def _calibrated(method: EndToEnd, module: SiteModule, task: TrainingTask, gain: float) -> EndToEnd:
    """h in nats, from the rise of φ over T = 1 at the held-out answers."""
    states = activations_of(task.held_out, [module])[module]
    with torch.no_grad():
        before = method.barrier_.value(states).double()
        after = method.barrier_.value(method.solve(states, Amount("T", 1.0)).state).double()
    falls = float((after < before).double().mean()) if len(before) else 0.0
    if falls > _MOST_FALLS:
        warnings.warn(
            f"h falls on {falls:.0%} of the held-out activations {module.where}: the solver's steps"
            f" overshoot the flow, along which it never does. Use more of them than"
            f" {method.solver!r}, or a linear barrier.",
            WeakSignalWarning,
            stacklevel=3,
        )
    return method.calibrated(gain, float((after - before).mean()), float(before.mean()))


def _figures(method: EndToEnd, evaluation: Evaluation, n_epochs: int) -> dict[str, float]:
    gains, per_text = evaluation.gains, evaluation.kl_per_text
    figures = {
        "gain": float(gains.mean()),
        "items": float(len(gains)),
        "loss": evaluation.loss,
        "kl": evaluation.kl,
        "kl_asked_for": float(method.kl),
        "epochs": float(n_epochs),
    }
    if len(gains) > 1:
        figures["gain_error"] = float(gains.std()) / math.sqrt(len(gains))
    if len(per_text) > 1:
        figures["kl_error"] = float(per_text.std()) / math.sqrt(len(per_text))
    return figures


def _origin(
    lm: ObservedModel, data: ContrastData | Sequence[Prompt], method: EndToEnd
) -> dict[str, Any]:
    shared = {
        "data_digest": _digest(data),
        "seed": method.seed,
        "odesteer_version": __version__,
    }
    if isinstance(data, ContrastData) and isinstance(method.objective, (Preference, Likelihood)):
        chats = any(example.is_chat for example in (*data.positive, *data.negative))
        n_negative = len(data.negative) if isinstance(method.objective, Preference) else 0
        counts = len(data.positive), n_negative
    else:
        chats = bool(getattr(lm.tokenizer, "chat_template", None))
        counts = len(prompts_of(data)), 0
    return {
        **shared,
        "chat_template_hash": template_hash(lm.tokenizer) if chats else None,
        "n_positive": counts[0],
        "n_negative": counts[1],
    }


def _digest(data: ContrastData | Sequence[Prompt]) -> str:
    if isinstance(data, ContrastData):
        return data.digest()
    return hashlib.sha256(repr(list(data)).encode()).hexdigest()


def _sampler(
    method: EndToEnd, sites: list[Site], generate: Callable[..., list[str]]
) -> Callable[[Methods, int], Sampler]:
    """Samples answers under steering, for `Reward`."""

    def of(methods: Methods, epoch: int) -> Sampler:
        def sample(prompts: list[Prompt]) -> list[list[str]]:
            objective = method.objective
            assert isinstance(objective, Reward)
            steerers = SteererSet(
                [Steerer(own, site) for site, own in zip(sites, methods.values(), strict=True)]
            )
            with torch.no_grad():
                texts = generate(
                    prompts,
                    steerers,
                    T=1.0,
                    max_new_tokens=objective.max_new_tokens,
                    do_sample=True,
                    temperature=objective.temperature,
                    num_return_sequences=objective.samples,
                    seed=method.seed + epoch,
                )
            n = objective.samples
            return [texts[i : i + n] for i in range(0, len(texts), n)]

        return sample

    return of
