"""Generates the completions of a batch, or scores its choices; failures are stored as results."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from odesteer.artifact import Steerer, SteererSet
from odesteer.data import Example
from odesteer.errors import ConvergenceError, InvalidInputError
from odesteer.evaluation.item import Item
from odesteer.evaluation.metrics.prefix_scorer import PrefixScorer
from odesteer.evaluation.runner.plan import CompletionSpec
from odesteer.evaluation.runner.prompt_only import with_instruction
from odesteer.evaluation.runner.sampling import generation_options, seed_of
from odesteer.models import Generation, SteeredModel

FAILURES = (InvalidInputError, ConvergenceError)
"""Raised by a method that cannot be fitted, or that cannot reach an amount."""

Completion = dict[str, Any]
"""The stored fields of a completion, JSON-able; ``failed`` with the reason where there is none."""


@dataclass(frozen=True)
class CompletionBatch:
    """Completions that are generated together.

    Attributes:
        steerers: for each spec the fitted steerer, None for baselines, or the error of its fit.
    """

    specs: Sequence[CompletionSpec]
    steerers: Sequence[Steerer | SteererSet | InvalidInputError | ConvergenceError | None]

    def subset(self, indices: Sequence[int]) -> "CompletionBatch":
        """The specs at some indices, with their steerers."""
        return CompletionBatch(
            [self.specs[i] for i in indices], [self.steerers[i] for i in indices]
        )


BatchExecutor = Callable[[Sequence[CompletionBatch]], Iterator[tuple[list[Completion], float]]]
"""`complete_batch` for many batches in other processes: the completions of each batch, in order,
and the seconds that they took."""


def complete_batch(
    lm: SteeredModel, batch: CompletionBatch, scorer: PrefixScorer | None = None
) -> list[Completion]:
    """The completions of a batch. Failures become results and do not end the run: a batch that
    holds one is split by setting, fold and seed, and the other parts are generated."""
    try:
        steerers: list[Steerer | SteererSet | None] = []
        for steerer in batch.steerers:
            if isinstance(steerer, FAILURES):
                raise steerer
            steerers.append(steerer)
        return generate_completions(lm, batch.specs, steerers, scorer)
    except FAILURES as error:
        groups: dict[tuple[Any, ...], list[int]] = {}
        for i, spec in enumerate(batch.specs):
            key = (spec.contender.name, spec.setting, spec.fold.name, spec.seed)
            groups.setdefault(key, []).append(i)
        if len(groups) == 1:
            if batch.specs[0].setting is None:
                raise
            return [{"failed": str(error)} for _ in batch.specs]
    found: dict[int, Completion] = {}
    for indices in groups.values():
        found.update(zip(indices, complete_batch(lm, batch.subset(indices), scorer), strict=True))
    return [found[i] for i in range(len(batch.specs))]


def generate_completions(
    lm: SteeredModel,
    specs: Sequence[CompletionSpec],
    steerers: Sequence[Steerer | SteererSet | None],
    scorer: PrefixScorer | None = None,
) -> list[Completion]:
    """One completion (or the likelihoods of one item's choices) for each spec, in order.

    All specs are of one task, and steered by one quantity. This is the only place where a
    benchmark calls the model. A ``scorer`` keeps the prompts of choices from call to call.
    """
    task = specs[0].task
    if task.kind == "choice":
        return _score_choices(lm, specs, steerers, scorer)
    fits = partial(_fits, lm, task.max_new_tokens)
    items = [
        with_instruction(task, spec.fold, spec.item, spec.seed, fits)
        if spec.contender.kind == "prompt"
        else spec.item
        for spec in specs
    ]
    seeds = [seed_of(task.name, spec.item.key, spec.seed, spec.sample) for spec in specs]
    options = generation_options(task.decoding, seeds, task.max_new_tokens)
    stops = _stop_tokens(lm, task.stop)
    if stops:
        options["eos_token_id"] = stops
    steered = any(steerer is not None for steerer in steerers)
    generations = lm.generate(
        [item.prompt for item in items],
        list(steerers) if steered else None,
        max_new_tokens=task.max_new_tokens,
        seed=0,
        receipt=True,
        batch_size=len(specs),
        **_amounts(specs),
        **options,
    )
    return [_record(task.cut(generation.text), generation) for generation in generations]


def _amounts(specs: Sequence[CompletionSpec]) -> dict[str, Any]:
    """The amounts as the argument of `SteeredModel.generate` that is named after their quantity."""
    settings = [spec.setting for spec in specs]
    quantities = {setting.amount.quantity for setting in settings if setting is not None}
    if not quantities:
        return {}
    if len(quantities) > 1:
        raise InvalidInputError(f"a batch steers by one quantity, not by {quantities}.")
    return {quantities.pop(): [None if setting is None else setting.value for setting in settings]}


def _fits(lm: SteeredModel, max_new_tokens: int, item: Item) -> bool:
    """Whether a prompt and its completion fit into the model's context."""
    try:
        length = len(lm.encode(item.prompt))
    except InvalidInputError:
        return False
    return lm.context is None or length + max_new_tokens <= lm.context


def _record(text: str, generation: Generation) -> Completion:
    """The stored fields of a generation."""
    barrier_values = [
        (before, after)
        for before, after in zip(generation.before, generation.after, strict=True)
        if before is not None and after is not None
    ]
    record: Completion = {
        "text": text,
        "tokens": len(generation.tokens),
        "capped": generation.capped,
        "unusable": generation.unusable,
    }
    if barrier_values:
        n = len(barrier_values)
        record["before"] = _rounded(math.fsum(before for before, _ in barrier_values) / n)
        record["after"] = _rounded(math.fsum(after for _, after in barrier_values) / n)
    return record


def _rounded(value: float) -> float | None:
    """Nine digits, so that stored values do not depend on rounding; None if not finite."""
    return float(f"{value:.9g}") if math.isfinite(value) else None


def _stop_tokens(lm: SteeredModel, stops: Sequence[str]) -> list[int]:
    """Tokens that end a completion: the model's own, and stop texts that are one token."""
    found: list[int] = []
    for stop in stops:
        ids = lm.tokenizer(stop, add_special_tokens=False)["input_ids"]
        if len(ids) == 1:
            found.append(int(ids[0]))
    own = getattr(getattr(lm.model, "generation_config", None), "eos_token_id", None)
    own = lm.tokenizer.eos_token_id if own is None else own
    if found and own is not None:
        found += [int(token) for token in (own if isinstance(own, (list, tuple)) else [own])]
    return list(dict.fromkeys(found))


def _score_choices(
    lm: SteeredModel,
    specs: Sequence[CompletionSpec],
    steerers: Sequence[Steerer | SteererSet | None],
    scorer: PrefixScorer | None,
) -> list[Completion]:
    """Log-likelihoods of each item's choices, and how many prompt tokens were cut off for them."""
    from odesteer.evaluation.metrics.likelihood import log_likelihoods

    # log_likelihoods takes one steerer and one amount at a time.
    groups: dict[tuple[int, Any], list[int]] = {}
    for i, (spec, steerer) in enumerate(zip(specs, steerers, strict=True)):
        groups.setdefault((id(steerer), spec.setting), []).append(i)
    found: dict[int, Completion] = {}
    for (_, setting), indices in groups.items():
        choices = {i: _choices(specs[i]) for i in indices}
        examples = [Example(specs[i].item.prompt, text) for i in indices for text in choices[i]]
        amount = None if setting is None else setting.amount
        scored = log_likelihoods(
            lm,
            examples,
            steerers[indices[0]],
            amount,
            truncate=True,
            scorer=scorer or PrefixScorer(lm),
        )
        remaining = iter(scored)
        for i in indices:
            each = {text: next(remaining) for text in choices[i]}
            found[i] = {"likelihoods": {text: _rounded(one.total) for text, one in each.items()}}
            n_lost = max(one.n_lost for one in each.values())
            if n_lost:
                found[i]["truncated"] = n_lost
    return [found[i] for i in range(len(specs))]


def _choices(spec: CompletionSpec) -> list[str]:
    """The distinct choices of an item, over its MC1 and MC2 lists."""
    reference = spec.item.reference
    return list(dict.fromkeys(c for kind in ("mc1", "mc2") for c in reference[kind]["choices"]))
