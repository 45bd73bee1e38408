"""Measures every method at amounts that cost given KL divergences from the unsteered model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from odesteer.errors import InvalidInputError
from odesteer.evaluation.equal_cost.costs import ANSWER_TOKENS, CostMeter
from odesteer.evaluation.equal_cost.curve import (
    CostCurve,
    CurveSegment,
    ItemKey,
    MeasuredAmount,
    gains,
    mean,
)
from odesteer.evaluation.runner.completions import FAILURES, BatchExecutor
from odesteer.evaluation.runner.contenders import DEFAULT, NONE, TUNED, Contender
from odesteer.evaluation.runner.digests import completion_keys, digest, model_digest
from odesteer.evaluation.runner.gate import JudgeGate, gates_of
from odesteer.evaluation.runner.judge_panel import JudgePanel
from odesteer.evaluation.runner.pipeline import BenchmarkProgress, CompletionPipeline
from odesteer.evaluation.runner.plan import CompletionSpec, FoldItem, Plan
from odesteer.evaluation.runner.result_store import ResultStore
from odesteer.evaluation.runner.results import per_item
from odesteer.evaluation.task import Fold, Task
from odesteer.methods import Amount
from odesteer.models import SteeredModel
from odesteer.tuning import Setting
from odesteer.tuning.cost_search import search_of

COSTS = "costs.jsonl"
_TOLERANCE = 0.15
"""Of the costs that are looked for: effects are interpolated to the exact ones."""


@dataclass(frozen=True)
class _Part:
    """The test items of one fold under one seed, and those to choose a layer by."""

    task: Task
    fold: Fold
    seed: int

    @property
    def test(self) -> list[FoldItem]:
        return [FoldItem(self.fold, self.seed, item) for item in self.fold.test]

    @property
    def validation(self) -> list[FoldItem]:
        return [FoldItem(self.fold, self.seed, item) for item in self.fold.validation]


class EqualCostComparison:
    """Compares the rows of a plan at the same KL divergence from the unsteered model.

    For each fit, amounts are searched that cost about each target on neutral text, and test items
    are measured there. Where several layers are given, each method's is the one with the largest
    effect on validation items at the middle target. Everything measured is stored in the
    folder of the run, from where an interrupted comparison goes on.

    Parameters:
        lm: the model.
        plan: tasks, contenders, seeds and layers.
        judges: of the tasks.
        folder: of the results.
        targets: costs, KL(unsteered ‖ steered), nats a token.
        n_texts: how many neutral prompts the cost is measured on.
        on_note: called with each finished row.
        with_side_effects: whether perplexity of neutral text and unrelated questions are measured.

    Attributes:
        targets: the costs, increasing.
        gates: of the tasks whose headline metric is of judges that may err, once measured.
    """

    def __init__(
        self,
        lm: SteeredModel,
        plan: Plan,
        judges: JudgePanel,
        folder: Path,
        *,
        targets: Sequence[float],
        n_texts: int = 40,
        on_note: Callable[[str], None] = lambda text: None,
        with_side_effects: bool = True,
    ) -> None:
        if not targets or not all(target > 0 for target in targets):
            raise InvalidInputError(f"costs must be positive numbers, not {targets}.")
        self._lm = lm
        self._plan = plan
        self._judges = judges
        self._folder = folder
        self.targets = tuple(sorted(set(targets)))
        self._meter = CostMeter(lm, n_texts)
        self._note = on_note
        self._with_side_effects = with_side_effects
        self._model = model_digest(lm)
        self.gates: dict[str, JudgeGate] = {}
        self._unsteered: dict[tuple[str, str, int], dict[ItemKey, float | None]] = {}

    def measure(
        self,
        batch_size: int = 16,
        on_progress: Callable[[BenchmarkProgress], None] | None = None,
        executor: BatchExecutor | None = None,
    ) -> list[CostCurve]:
        """The curve of every row of every task; only what is not on disk yet is measured."""
        n = sum(map(self._plan.test_completions, self._plan.tasks)) * len(self.targets)
        pipeline = CompletionPipeline(
            self._lm, self._judges, self._folder, batch_size, n, on_progress, executor
        )
        with pipeline:
            return self._curves(pipeline)

    def _curves(self, pipeline: CompletionPipeline) -> list[CostCurve]:
        curves = []
        self.gates = gates_of(self._plan, self._judges, pipeline.stored)
        for name, gate in self.gates.items():
            self._note(f"{name}: {gate.text}")
        with ResultStore(self._folder / COSTS) as self._costs:
            for task in self._plan.tasks:
                contenders = self._plan.contenders_of(task)
                # At a given cost both rows are the same method.
                is_double = any(contender.name == TUNED for contender in contenders)
                for contender in contenders:
                    if contender.name == NONE or (contender.name == DEFAULT and is_double):
                        continue
                    curve = self._curve(pipeline, task, contender)
                    curves.append(curve)
                    self._note(self._line(task, curve))
                pipeline.clear_fits()
        return curves

    def unsteered(self, task: Task) -> list[float | None]:
        """The headline metric of the unsteered model, item by item, once it was measured."""
        found: dict[ItemKey, float | None] = {}
        for (name, _, _), values in self._unsteered.items():
            if name == task.name:
                found |= values
        return list(found.values())

    @cached_property
    def side_effects_unsteered(self) -> dict[str, float]:
        """Perplexity of neutral text and unrelated questions of the unsteered model."""
        return self._meter.side_effects() if self._with_side_effects else {}

    def _parts(self, task: Task) -> list[_Part]:
        return [
            _Part(task, fold, seed)
            for seed in self._plan.seeds
            for fold in self._plan.folds[task.name, seed]
        ]

    def _curve(self, pipeline: CompletionPipeline, task: Task, contender: Contender) -> CostCurve:
        curve = CostCurve(task.name, contender.name, contender.title)
        curve.is_dialled = contender.kind == "method"
        for part in self._parts(task):
            try:
                segment = (
                    self._segment(pipeline, part, contender)
                    if curve.is_dialled
                    else self._prompted(pipeline, part, contender)
                )
            except FAILURES as error:
                curve.failures.append(f"{part.fold.name}: {error}")
                continue
            curve.segments.append(segment)
        return curve

    def _segment(
        self, pipeline: CompletionPipeline, part: _Part, contender: Contender
    ) -> CurveSegment:
        layers = self._plan.layers[part.task.name].first
        layer = layers[0]
        if len(layers) > 1:
            layer = self._best_layer(pipeline, part, contender, layers)
        points = []
        for setting in self._settings(pipeline, part, contender, layer, self.targets):
            kl = self._cost(pipeline, part, contender, setting)
            values = self._values(pipeline, part, contender, setting, part.test)
            points.append(
                MeasuredAmount(
                    str(setting.amount),
                    layer,
                    kl[0],
                    kl[1],
                    values,
                    gains(values, self._base(pipeline, part)),
                    self._effects(pipeline, part, contender, setting),
                )
            )
        return CurveSegment(part.fold.name, part.seed, tuple(points))

    def _prompted(
        self, pipeline: CompletionPipeline, part: _Part, contender: Contender
    ) -> CurveSegment:
        """The single point of a prompt: the instruction's cost, without examples in it."""
        instruction = part.task.instruction
        key = digest([self._model, "system", instruction, *self._texts_key])
        kl = self._stored(key, lambda: self._meter.of_prompt(instruction))
        values = self._values(pipeline, part, contender, None, part.test)
        own = gains(values, self._base(pipeline, part))
        point = MeasuredAmount("the instruction", None, kl["kl"], kl["error"], values, own)
        return CurveSegment(part.fold.name, part.seed, (point,))

    def _best_layer(
        self,
        pipeline: CompletionPipeline,
        part: _Part,
        contender: Contender,
        layers: Sequence[int],
    ) -> int:
        """The layer with the largest effect on validation items at the middle target."""
        target = self.targets[len(self.targets) // 2]
        (none,) = (c for c in self._plan.contenders if c.name == NONE)
        base = self._values(pipeline, part, none, None, part.validation)
        found: dict[int, float] = {}
        for layer in layers:
            points = []
            for setting in self._settings(pipeline, part, contender, layer, [target]):
                kl = self._cost(pipeline, part, contender, setting)
                values = self._values(pipeline, part, contender, setting, part.validation)
                own = gains(values, base)
                points.append(MeasuredAmount("", layer, kl[0], kl[1], values, own))
            segment = CurveSegment("", part.seed, tuple(points))
            effect = mean(list(segment.effect(min(target, segment.most)).values()))
            if effect is not None:
                found[layer] = -effect if self.is_less_better(part.task) else effect
        return max(found, key=lambda layer: found[layer]) if found else layers[0]

    def _settings(
        self,
        pipeline: CompletionPipeline,
        part: _Part,
        contender: Contender,
        layer: int,
        targets: Sequence[float],
    ) -> list[Setting]:
        """Settings that cost about each target; the largest costs at least that, if any does."""
        candidate = contender.candidates[0]
        probe = Setting(0, layer, Amount(candidate.quantity, candidate.values[0]))
        steerer = pipeline.steerer(self._spec(part, contender, probe, part.test[0]))
        if steerer is None:
            raise InvalidInputError(f"the row {contender.name!r} has no steerer.")

        def cost(amount: Amount) -> float:
            return self._cost(pipeline, part, contender, Setting(0, layer, amount))[0]

        quantity, search = search_of(cost, steerer, candidate.quantity, tolerance=_TOLERANCE)
        most = max(targets)
        # The largest is looked for a little beyond, so that effects are never extrapolated.
        wanted = [target / (1 - _TOLERANCE) if target == most else target for target in targets]
        chosen: list[float] = []
        for target in wanted:
            amount = search.find(target)
            if amount is None:  # out of reach: as far as it goes
                known = {a: c for a, c in search.measured.items() if 0 < c < most}
                amount = max(known, key=lambda a: known[a], default=None)
            if amount is not None:
                chosen.append(amount)
        costs = search.measured
        # One amount beyond the largest target, so that nothing is extrapolated.
        if chosen and max(costs[amount] for amount in chosen) < most:
            beyond = [amount for amount, c in costs.items() if most <= c < 2 * most]
            chosen += beyond[:1]
        return [Setting(0, layer, Amount(quantity, amount)) for amount in dict.fromkeys(chosen)]

    def is_less_better(self, task: Task) -> bool:
        """Whether less of the headline metric is better."""
        return task.headline in {*task.lower_is_better, *self._judges.lower_is_better()}

    def _cost(
        self, pipeline: CompletionPipeline, part: _Part, contender: Contender, setting: Setting
    ) -> tuple[float, float]:
        """KL on neutral text and its standard error, nats a token."""
        spec = self._spec(part, contender, setting, part.test[0])

        def measure() -> dict[str, float]:
            steerer = pipeline.steerer(spec)
            assert steerer is not None
            return self._meter.neutral(steerer, setting.amount)

        found = self._stored(self._setting_key(spec, "kl"), measure)
        return found["kl"], found["error"]

    def _effects(
        self, pipeline: CompletionPipeline, part: _Part, contender: Contender, setting: Setting
    ) -> dict[str, float]:
        if not self._with_side_effects:
            return {}
        spec = self._spec(part, contender, setting, part.test[0])

        def measure() -> dict[str, float]:
            return self._meter.side_effects(pipeline.steerer(spec), setting.amount)

        return dict(self._stored(self._setting_key(spec, "side effects"), measure))

    def _base(self, pipeline: CompletionPipeline, part: _Part) -> dict[ItemKey, float | None]:
        """The headline metric of the unsteered model on test items."""
        key = part.task.name, part.fold.name, part.seed
        if key not in self._unsteered:
            (none,) = (c for c in self._plan.contenders if c.name == NONE)
            self._unsteered[key] = self._values(pipeline, part, none, None, part.test)
        return self._unsteered[key]

    def _values(
        self,
        pipeline: CompletionPipeline,
        part: _Part,
        contender: Contender,
        setting: Setting | None,
        items: Sequence[FoldItem],
    ) -> dict[ItemKey, float | None]:
        """The headline metric of every item."""
        results = pipeline.complete(
            self._spec(part, contender, setting, item, sample)
            for item in items
            for sample in range(part.task.samples)
        )
        for result in results:
            if "failed" in result.completion:
                raise InvalidInputError(str(result.completion["failed"]))
        return {
            (f"{part.fold.name}/{r.spec.item.group}", part.seed, r.spec.item.key): scores.get(
                part.task.headline
            )
            for r, scores in per_item(results)
        }

    def _spec(
        self,
        part: _Part,
        contender: Contender,
        setting: Setting | None,
        item: FoldItem,
        sample: int = 0,
    ) -> CompletionSpec:
        return CompletionSpec(part.task, contender, "test", setting, item, sample)

    def _setting_key(self, spec: CompletionSpec, what: str) -> str:
        (key,) = completion_keys(self._model, [spec])
        return f"{key.partition('/')[0]}/{digest([what, *self._texts_key], 12)}"

    @property
    def _texts_key(self) -> list[Any]:
        return [list(self._meter.prompts), ANSWER_TOKENS]

    def _stored(self, key: str, measure: Callable[[], dict[str, float]]) -> Mapping[str, Any]:
        if key not in self._costs:
            self._costs.append([{"key": key, **measure()}])
        return {name: value for name, value in self._costs[key].items() if name != "key"}

    def _line(self, task: Task, curve: CostCurve) -> str:
        """A finished row in a line."""
        if not curve.segments:
            return f"{task.name}, {curve.contender}: {'; '.join(curve.failures)}"
        figures = []
        for target in self.targets:
            effect = mean([one.value for one in curve.observations(target)])
            figures.append("not reached" if effect is None else f"{effect:+.3f} at {target:g}")
        return f"{task.name}, {curve.contender}: {', '.join(figures)}"
