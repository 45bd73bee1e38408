"""What steering gains on real language models for what it costs, by barrier, layer and level.

    python -m studies.effect_at_cost MODEL --data FOLDER --layers 10,15,20
        [--tasks truthfulqa,persona,reviews] [--only TEXT] [--n 100] [--kl .03] [--json FILE]

MODEL is smollm2 or gemma3 (`make llms`), a folder or an id; FOLDER holds the public data sets of
`studies.real_data`. Steerers are fitted on one part of each data set and measured on questions,
statements or reviews that no fit has seen:

truthfulqa   gain in MC2 (share of the probability of all answers that falls on true ones)
persona      gain in the log-odds of the answer that shows the trait against the other one
reviews      gain in the log-odds of praising against panning words after a review's beginning

Cost is the KL divergence to the unsteered model on neutral text, nats a token
(`SteeredModel.divergence`). Errors are standard errors of the mean of paired differences. Steering
begins at the last prompt token, as in generation.
"""

import json
import math
import random
import statistics
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from scripts.llms import located

from odesteer import (
    CAA,
    Ablation,
    Angular,
    Bridge,
    Conditional,
    ContrastData,
    GatedDirection,
    LeastIntervention,
    LinearAcT,
    Method,
    ODESteer,
    Site,
    SphericalSteering,
    SteeredModel,
    Steerer,
    TwoSided,
)
from odesteer.barriers import (
    Centred,
    LinearBarrier,
    MultiLabelBarrier,
    NeighbourBarrier,
    PolynomialBarrier,
    SharedProjectionBarrier,
    Standardized,
    UnitSphere,
)
from odesteer.data import Example
from odesteer.evaluation.metrics import mc2
from odesteer.flows import NullSpace
from odesteer.models import neutral_prompts
from studies.likelihoods import ContinuationScorer, SteeringFactory
from studies.real_data import (
    answer_pairs,
    answered,
    persona_pairs,
    persona_statements,
    questions,
    review_data,
    review_pairs,
)

PRAISE = (" great", " wonderful", " excellent", " brilliant")
PANNING = (" terrible", " awful", " boring", " bad")


@dataclass(frozen=True)
class Result:
    """One setting, measured."""

    task: str
    layer: int
    candidate: str
    quantity: str
    value: float
    gain: float
    error: float
    kl: float
    auc: float | None
    gains: tuple[float, ...]


class Effect:
    """What a task measures on held-out items: one number each."""

    def __init__(
        self,
        data: ContrastData,
        scorer: ContinuationScorer,
        reduce: Callable[[torch.Tensor], list[float]],
    ) -> None:
        self.data = data
        self._scorer, self._reduce = scorer, reduce

    def __call__(self, steering: SteeringFactory) -> list[float]:
        return self._reduce(self._scorer.log_likelihoods(steering))


def truthfulness(lm: SteeredModel, folder: Path, n: int, seed: int) -> Effect:
    """MC2 on questions of one half, answers of the other half to fit on."""
    found = questions(folder)
    random.Random(seed).shuffle(found)
    half = len(found) // 2
    examples, spans = [], []
    for question in found[half : half + n]:
        start = len(examples)
        examples += [answered(lm, question.text, text) for text in question.answers]
        spans.append((start, len(examples), list(question.answers.values())))

    def reduce(logs: torch.Tensor) -> list[float]:
        return [mc2(logs[a:b].tolist(), labels) for a, b, labels in spans]

    return Effect(answer_pairs(lm, found[:half]), ContinuationScorer(lm, examples), reduce)


def persona(lm: SteeredModel, folder: Path, n: int, seed: int) -> Effect:
    """Log-odds of the answer of a risk-averse person on unseen statements."""
    rows = persona_statements(folder)
    random.Random(seed).shuffle(rows)
    fit, test = rows[:400], rows[400 : 400 + n]
    examples = [answered(lm, text, word) for text, _ in test for word in ("Yes", "No")]

    def reduce(logs: torch.Tensor) -> list[float]:
        odds = (logs[0::2] - logs[1::2]).tolist()
        return [x if yes else -x for x, (_, yes) in zip(odds, test, strict=True)]

    return Effect(persona_pairs(lm, fit), ContinuationScorer(lm, examples), reduce)


def sentiment(lm: SteeredModel, folder: Path, n: int, seed: int) -> Effect:
    """Log-odds of praise against panning after the first words of unseen reviews."""
    pairs = [pair for pair in review_pairs(folder) if max(map(len, pair)) <= 1000]
    random.Random(seed).shuffle(pairs)
    fit, test = pairs[:200], pairs[200 : 200 + n]
    beginnings = [
        " ".join(negative.split()[:12]) + " … Overall, this film is" for _, negative in test
    ]
    words = PRAISE + PANNING
    examples = [Example(beginning, word) for beginning in beginnings for word in words]

    def reduce(logs: torch.Tensor) -> list[float]:
        table = logs.view(len(beginnings), len(words))
        praise, panning = table[:, : len(PRAISE)], table[:, len(PRAISE) :]
        return (praise.logsumexp(1) - panning.logsumexp(1)).tolist()

    return Effect(review_data(fit), ContinuationScorer(lm, examples), reduce)


TASKS: dict[str, Callable[[SteeredModel, Path, int, int], Effect]] = {
    "truthfulqa": truthfulness,
    "persona": persona,
    "reviews": sentiment,
}

LEVELS = (1.0, 1.5, 2.5)
CANDIDATES: dict[str, tuple[Callable[[], Method], str, tuple[float, ...]]] = {
    "CAA": (CAA, "strength", (0.5, 1.0, 1.5)),
    "ODESteer()": (ODESteer, "level", LEVELS),
    "LinearBarrier()": (lambda: ODESteer(LinearBarrier()), "level", LEVELS),
    "sphere C=1": (lambda: ODESteer(PolynomialBarrier(inputs=UnitSphere())), "level", LEVELS),
    "sphere C=100": (
        lambda: ODESteer(PolynomialBarrier(C=100.0, inputs=UnitSphere())),
        "level",
        LEVELS,
    ),
    "centred C=10": (
        lambda: ODESteer(PolynomialBarrier(C=10.0, inputs=Centred())),
        "level",
        LEVELS,
    ),
    "damped C=10": (
        lambda: ODESteer(PolynomialBarrier(C=10.0, inputs=Standardized(1.0))),
        "level",
        LEVELS,
    ),
    "standardised C=100": (
        lambda: ODESteer(PolynomialBarrier(C=100.0, inputs=Standardized())),
        "level",
        LEVELS,
    ),
    "ODESteer.standardized()": (ODESteer.standardized, "level", LEVELS),
    # Methods of 2025 and 2026; some cost no more than they do at their largest amount.
    "Ablation(positive)": (lambda: Ablation("positive"), "interpolation", (1.0, 2.0)),
    "TwoSided()": (TwoSided, "level", LEVELS),
    "LeastIntervention()": (LeastIntervention, "level", LEVELS),
    "GatedDirection()": (GatedDirection, "T", (1.0, 2.0, 4.0)),
    "NullSpace": (lambda: ODESteer(metric=NullSpace()), "level", LEVELS),
    "neighbours": (
        lambda: Conditional(CAA(), gate=NeighbourBarrier(inputs=Standardized())),
        "strength",
        (0.5, 1.0, 1.5),
    ),
    "MultiLabelBarrier()": (lambda: ODESteer(MultiLabelBarrier()), "level", LEVELS),
    "SphericalSteering(20, -1)": (
        lambda: SphericalSteering(20.0, -1.0),
        "interpolation",
        (0.1, 0.2, 0.4),
    ),
    "Angular by 20°": (
        lambda: Angular(20.0, turn="by", max_strength=None),
        "interpolation",
        (0.5, 1.0, 2.0),
    ),
    "Bridge()": (Bridge, "interpolation", (0.5, 1.0, 2.0)),
    "SharedProjectionBarrier()": (lambda: ODESteer(SharedProjectionBarrier()), "level", LEVELS),
    "LinearAcT(support)": (lambda: LinearAcT(support=True), "interpolation", (0.5, 1.0, 2.0)),
}
_TRIES = 5


def measure(
    model: Annotated[str, typer.Argument(help="smollm2, gemma3, a folder or an id.")],
    data: Annotated[Path, typer.Option(help="Folder of public data sets.")],
    layers: Annotated[str, typer.Option(help="Zero-based, with commas between.")],
    tasks: Annotated[str, typer.Option()] = ",".join(TASKS),
    only: Annotated[
        str, typer.Option(help="Candidates whose name holds one of these, with commas between.")
    ] = "",
    n: Annotated[int, typer.Option(help="Held-out items a task.")] = 100,
    seed: Annotated[int, typer.Option()] = 0,
    kl: Annotated[
        list[float] | None, typer.Option(help="Costs to compare at, instead of the amounts.")
    ] = None,
    neutral: Annotated[int, typer.Option(help="Neutral prompts that costs are measured on.")] = 40,
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    """Measure effect and cost of every candidate at every layer and amount."""
    prompts = neutral_prompts("validation")[:neutral]
    lm = SteeredModel.from_pretrained(located(model), dtype=torch.float32)
    at = [int(layer) for layer in layers.split(",")]
    results = []
    for task in tasks.split(","):
        effect = TASKS[task](lm, data, n, seed)
        before = effect(_unsteered)
        print(f"{task}: unsteered {statistics.mean(before):.3f}", flush=True)
        sides = [
            lm.capture(side, at, "last") for side in (effect.data.positive, effect.data.negative)
        ]
        for layer in at:
            for name, (make, quantity, values) in CANDIDATES.items():
                if not any(part in name for part in only.split(",")):
                    continue
                states = [side.states[layer] for side in sides]
                method = make().fit(states[0], states[1], effect.data.groups)
                steerer = Steerer(method, Site(layer, "last"))
                held_out = getattr(getattr(method, "barrier", None), "held_out_", None)
                if kl:
                    values = tuple(
                        amount_of_cost(lm, steerer, quantity, values[0], cost, prompts)
                        for cost in kl
                    )
                for value in values:
                    steering = _steered(lm, steerer, quantity, value)
                    gains = [b - a for a, b in zip(before, effect(steering), strict=True)]
                    results.append(
                        Result(
                            task,
                            layer,
                            name,
                            quantity,
                            value,
                            statistics.mean(gains),
                            statistics.stdev(gains) / math.sqrt(len(gains)),
                            _cost(lm, steerer, quantity, value, prompts),
                            held_out and held_out["auc"],
                            tuple(gains),
                        )
                    )
                    print(replace(results[-1], gains=()), flush=True)
    Console().print(table(results))
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(result) for result in results], indent=1))


def amount_of_cost(
    lm: SteeredModel,
    steerer: Steerer,
    quantity: str,
    first: float,
    cost: float,
    prompts: Sequence[str],
) -> float:
    """The amount, of several tried, whose KL is nearest to ``cost``; KL grows about by its square.

    Levels of a barrier that is blind may have none: even level 0 costs more.
    """
    tried: dict[float, float] = {}
    amount = first
    for _ in range(_TRIES):
        tried[amount] = max(_cost(lm, steerer, quantity, amount, prompts), 1e-9)
        ratio = cost / tried[amount]
        if abs(math.log(ratio)) < 0.1:
            break
        amount *= min(4.0, max(0.25, math.sqrt(ratio)))
    return min(tried, key=lambda value: abs(math.log(tried[value] / cost)))


def _cost(
    lm: SteeredModel, steerer: Steerer, quantity: str, value: float, prompts: Sequence[str]
) -> float:
    amount: dict[str, Any] = {quantity: value}
    return lm.divergence(steerer, prompts=prompts, **amount).mean


def table(results: Sequence[Result]) -> Table:
    """All settings, one a row; gains also against the first candidate's, item by item.

    The n-th setting of a candidate is set against the n-th of the first at the same layer.
    """
    columns = ("task", "layer", "candidate", "amount", "gain", "against the first")
    shown = Table(*columns, "KL, nats a token", "AUC")
    counts: dict[tuple[str, int, str], int] = {}
    first: dict[tuple[str, int], list[Result]] = {}
    for r in results:
        own = first.setdefault((r.task, r.layer), [])
        if not own or own[0].candidate == r.candidate:
            own.append(r)
        key = r.task, r.layer, r.candidate
        number = counts[key] = counts.get(key, -1) + 1
        against = ""
        if r.candidate != own[0].candidate and number < len(own):
            apart = [a - b for a, b in zip(r.gains, own[number].gains, strict=True)]
            error = statistics.stdev(apart) / math.sqrt(len(apart))
            against = f"{statistics.mean(apart):+.3f} ± {error:.3f}"
        shown.add_row(
            r.task,
            str(r.layer),
            r.candidate,
            f"{r.quantity} {r.value:g}",
            f"{r.gain:+.3f} ± {r.error:.3f}",
            against,
            f"{r.kl:.3f}",
            "" if r.auc is None else f"{r.auc:.3f}",
        )
    return shown


def _unsteered(prompt_width: int) -> Any:
    return nullcontext()


def _steered(lm: SteeredModel, steerer: Steerer, quantity: str, value: float) -> SteeringFactory:
    return lambda prompt_width: lm.steering(steerer, prompt_width=prompt_width, **{quantity: value})


if __name__ == "__main__":
    typer.run(measure)
