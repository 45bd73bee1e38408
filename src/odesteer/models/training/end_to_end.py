"""Fitting `EndToEnd` on a model: capture, training, calibration, provenance."""

import hashlib
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from odesteer.artifact import Provenance, Site, Steerer, SteererSet
from odesteer.data import ContrastData
from odesteer.errors import ConvergenceError, InvalidInputError, WeakSignalWarning
from odesteer.methods import Amount, EndToEnd, Likelihood, Preference, Reward
from odesteer.models.architecture.sites import SiteModule
from odesteer.models.divergence import NeutralTexts, Split
from odesteer.models.observed_model import ObservedModel
from odesteer.models.provenance_check import template_hash
from odesteer.models.tokens.encoding import Prompt
from odesteer.models.training.coordinates import (
    Coordinates,
    natural_coordinates,
    output_information,
)
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
    choose: bool = False,
    folder: str | Path | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> list[Steerer]:
    """Train copies of ``method`` at the ``sites`` jointly; a steerer for each.

    With ``choose`` each site is trained alone, from one capture; the steerer with the lowest
    held-out loss at the cost asked for is returned.

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
        replay = Replay(lm, modules, position, checkpointing, TensorKeeper(folder), choose)
        task = make_task(replay, method.objective, data, size, method.training.validation, seed)
        cost = NeutralCost(replay, texts[0], _NEUTRAL_STEP)
        check = NeutralCost(replay, texts[1], _NEUTRAL_CHECK)
        report(f"hidden states captured: {replay.keep.kept / 2**30:.2f} GB")
        units = _units(replay, task, cost)
        if not all(map(len, units.values())):
            raise InvalidInputError(
                f"steer_position={position!r} moves no token that decides about one of these"
                " texts; give longer answers, or another position."
            )
        coordinates = _coordinates(replay, cost, method, units)
        digest = _digest(data)

        def loop_at(chosen: dict[Site, SiteModule]) -> TrainingLoop:
            begun: Methods = {own: method.begun(units[own]) for own in chosen.values()}
            content = content_digest(
                {
                    "form": "natural coordinates",
                    "method": repr(method.with_params(objective=method.objective.stored())),
                    "sites": [str(site) for site in chosen],
                    "data": digest,
                    "model": lm.content([], []),
                }
            )
            file = None if folder is None else Path(folder) / _checkpoint(chosen, choose)
            sampler = _sampler(method, list(chosen), generate)
            own = {site: coordinates[site] for site in begun}
            return TrainingLoop(begun, own, task, cost, check, sampler, report, file, content)

        if choose:
            best = _best_of([{site: own} for site, own in sites.items()], loop_at, report)
        else:
            best = _Trained(sites, *loop_at(sites).run())
        evaluation = best.evaluation
        calibrated = {
            own: _calibrated(learned, own, task, float(evaluation.gains.mean()))
            for own, learned in best.methods.items()
        }
    warn_of_no_gain(evaluation.gains, task.gain_name)
    origin = Provenance(
        **provenance,
        **_origin(lm, data, method),
        held_out=_figures(method, evaluation, best.n_epochs),
    )
    return [Steerer(calibrated[module], site, origin) for site, module in best.sites.items()]


@dataclass(frozen=True)
class _Trained:
    """What a training loop found at some sites."""

    sites: dict[Site, SiteModule]
    methods: Methods
    evaluation: Evaluation
    n_epochs: int


def _best_of(
    several: Sequence[dict[Site, SiteModule]],
    loop_at: Callable[[dict[Site, SiteModule]], TrainingLoop],
    report: Callable[[str], None],
) -> _Trained:
    """The training with the lowest held-out loss; those that fail are left out.

    An interrupt ends the search with the best so far, if there is one. Raises `ConvergenceError`
    where every training fails.
    """
    trained: list[_Trained] = []
    failure: ConvergenceError | None = None
    for sites in several:
        where = ", ".join(map(str, sites))
        report(f"training at {where}")
        loop = loop_at(sites)
        try:
            trained.append(_Trained(sites, *loop.run()))
        except ConvergenceError as error:
            report(f"{where} is left out: {error}")
            failure = error
            continue
        except KeyboardInterrupt:
            if not trained:
                raise
            report("interrupted; the best so far is kept")
            break
        loss = trained[-1].evaluation.loss
        report(f"{where}: held-out loss {loss:.4f} at the cost asked for")
        if loop.interrupted:
            break
    if not trained:
        assert failure is not None
        raise failure
    return min(trained, key=lambda one: one.evaluation.loss)


def _checkpoint(sites: Iterable[Site], choose: bool) -> str:
    """The name of the file that training at these sites resumes from."""
    return f"training-{'-'.join(str(site.layer) for site in sites)}.pt" if choose else _CHECKPOINT


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


def _coordinates(
    replay: Replay, cost: NeutralCost, method: EndToEnd, units: dict[SiteModule, Tensor]
) -> dict[SiteModule, Coordinates]:
    """The coordinates that each site is trained in, from the neutral texts of training."""
    scales = {site: method.begun(a).barrier_.inputs.scale_ for site, a in units.items()}
    found = output_information(replay, cost.batches, scales, method.seed)
    return {site: natural_coordinates(own, float(method.kl)) for site, own in found.items()}


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
