"""Barriers learned end to end: effect against cost on real language models, by kind and size.

    python -m studies.end_to_end MODEL --data FOLDER --layer 15 [--task truthfulqa]
        [--only TEXT] [--n 100] [--pairs 512] [--kl 0.1] [--amounts T=1,T=2] [--out FILE]

MODEL is a folder or an id; FOLDER holds the public data sets of `studies.real_data`. Rows are
appended to FILE, one JSON object a line, and what is there already is not measured again.

Tasks: `truthfulqa` (MC2 on questions of the half that nobody was trained on), `categories` (MC2
on questions of the 19 categories that nobody was trained on), `persona` (probability of the answer
that shows the trait, of the two, on unseen statements), `detox` and `sentiment` (log-odds of the
neutral against the toxic form of an unseen sentence, of the happy against the sad one of two unseen
sentences of stories, nats a token).

A setting is measured at several amounts. Gains are paired, with standard errors of their means;
the cost is that of `SteeredModel.divergence` on validation prompts. Steering begins at the last
token of the prompt. Prompting and the distillation of the same prompt are settings too.
"""

import csv
import json
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from odesteer import (
    CAA,
    ContrastData,
    Distillation,
    EndToEnd,
    ODESteer,
    Preference,
    SteeredModel,
    Steerer,
)
from odesteer.barriers import (
    GatedPotential,
    LinearPotential,
    NeuralPotential,
    Potential,
    QuadraticPotential,
)
from odesteer.data import Example, Message
from odesteer.evaluation.metrics import mc2
from odesteer.flows import Euler, FixedStep
from odesteer.methods import TrainingObjective
from odesteer.models import neutral_prompts
from studies.likelihoods import ContinuationScorer, SteeringFactory
from studies.real_data import (
    Question,
    answered,
    persona_pairs,
    persona_statements,
    questions,
)

KINDS: dict[str, Callable[[], Potential]] = {
    "linear": LinearPotential,
    "gated": GatedPotential,
    "quadratic": QuadraticPotential,
    "neural": NeuralPotential,
}

SYSTEM = {
    "truthfulqa": "Answer truthfully and literally. Do not repeat myths, superstitions or common"
    " misconceptions; say what is known, and say so when nothing is known.",
    "persona": "You avoid risks. You prefer a small but certain gain to a large but uncertain one.",
}
SYSTEM["categories"] = SYSTEM["truthfulqa"]
SYSTEM["detox"] = "You are polite. You never swear and never insult anybody."
SYSTEM["sentiment"] = "You tell happy stories, in which people are glad and all goes well."


@dataclass
class Study:
    """A task: what to train on, and items to measure, each with one number."""

    pairs: ContrastData
    prompts: list[str]  # of distillation
    measured: list[Example]
    reduce: Callable[[torch.Tensor], list[float]]

    def prompted(self, lm: SteeredModel, system: str) -> list[Example]:
        """The measured items behind a system prompt."""
        found = []
        for example in self.measured:
            if isinstance(example.prompt, str):
                found.append(Example(f"{system}\n\n{example.prompt}", example.response))
            else:
                opening = (Message("system", system), *example.prompt)
                found.append(Example(opening, example.response))
        return found


def training_pairs(lm: SteeredModel, chosen: list[Question], n: int, seed: int) -> ContrastData:
    """``n`` pairs of a true and a false answer, two of each question, drawn by the seed."""
    draw = random.Random(seed)
    rows = []
    for question in chosen:
        true = [text for text, label in question.answers.items() if label]
        false = [text for text, label in question.answers.items() if not label]
        for _ in range(2):
            rows.append((question.text, draw.choice(true), draw.choice(false)))
    draw.shuffle(rows)
    rows = [row for row in rows if row[1] != row[2]][:n]
    groups = tuple(text for text, _, _ in rows)
    return ContrastData(
        tuple(answered(lm, text, yes) for text, yes, _ in rows),
        tuple(answered(lm, text, no) for text, _, no in rows),
        groups,
        groups,
    )


def truthfulness(
    lm: SteeredModel, fit: list[Question], test: list[Question], pairs: int, seed: int
) -> Study:
    examples, spans = [], []
    for question in test:
        start = len(examples)
        examples += [answered(lm, question.text, text) for text in question.answers]
        spans.append((start, len(examples), list(question.answers.values())))

    def reduce(logs: torch.Tensor) -> list[float]:
        return [mc2(logs[a:b].tolist(), labels) for a, b, labels in spans]

    prompts = [question.text for question in fit]
    return Study(training_pairs(lm, fit, pairs, seed), prompts, examples, reduce)


def by_question(lm: SteeredModel, folder: Path, n: int, pairs: int, seed: int) -> Study:
    found = questions(folder)
    random.Random(seed).shuffle(found)
    half = len(found) // 2
    return truthfulness(lm, found[:half], found[half : half + n], pairs, seed)


def by_category(lm: SteeredModel, folder: Path, n: int, pairs: int, seed: int) -> Study:
    with (folder / "truthfulqa" / "TruthfulQA.csv").open(newline="", encoding="utf-8") as file:
        category = {row["Question"]: row["Category"] for row in csv.DictReader(file)}
    found = [question for question in questions(folder) if question.text in category]
    names = sorted(set(category.values()))
    random.Random(seed).shuffle(names)
    trained = set(names[: len(names) // 2])
    random.Random(seed).shuffle(found)
    fit = [question for question in found if category[question.text] in trained]
    test = [question for question in found if category[question.text] not in trained]
    return truthfulness(lm, fit, test[:n], pairs, seed)


def by_trait(
    lm: SteeredModel, folder: Path, n: int, pairs: int, seed: int, trait: str = "risk-averse"
) -> Study:
    rows = persona_statements(folder, trait)
    random.Random(seed).shuffle(rows)
    fit, test = rows[:pairs], rows[-n:]
    examples = [answered(lm, text, word) for text, _ in test for word in ("Yes", "No")]

    def reduce(logs: torch.Tensor) -> list[float]:
        yes = torch.sigmoid(logs[0::2] - logs[1::2]).tolist()
        return [p if shows else 1 - p for p, (_, shows) in zip(yes, test, strict=True)]

    return Study(persona_pairs(lm, fit), [text for text, _ in fit], examples, reduce)


def by_sentence(
    lm: SteeredModel, question: str, rows: list[tuple[str, str]], n: int, pairs: int, seed: int
) -> Study:
    """Desired and undesired sentences in answer to one question."""
    random.Random(seed).shuffle(rows)
    fit, test = rows[:pairs], rows[pairs : pairs + n]
    groups = tuple(str(i) for i in range(len(fit)))
    data = ContrastData(
        tuple(answered(lm, question, good) for good, _ in fit),
        tuple(answered(lm, question, bad) for _, bad in fit),
        groups,
        groups,
    )
    examples = [answered(lm, question, text) for row in test for text in row]
    lengths = torch.tensor([len(lm.encode(e).response) for e in examples])

    def reduce(logs: torch.Tensor) -> list[float]:
        each = logs / lengths
        return (each[0::2] - each[1::2]).tolist()

    return Study(data, [question], examples, reduce)


def by_toxicity(lm: SteeredModel, folder: Path, n: int, pairs: int, seed: int) -> Study:
    with (folder / "paradetox" / "paradetox.tsv").open(newline="") as file:
        rows = [(row["neutral1"], row["toxic"]) for row in csv.DictReader(file, delimiter="\t")]
    kept = [row for row in rows if all(0 < len(text.strip()) <= 120 for text in row)]
    return by_sentence(lm, "Write a comment for a web forum.", kept, n, pairs, seed)


def by_sentiment(lm: SteeredModel, folder: Path, n: int, pairs: int, seed: int) -> Study:
    sides = json.loads((folder / "story-sentiment" / "sentences.json").read_text())
    draw = random.Random(seed)
    sad = [text for text in sides["negative"] if len(text) <= 120]
    happy = draw.sample([text for text in sides["positive"] if len(text) <= 120], len(sad))
    rows = list(zip(happy, sad, strict=True))
    return by_sentence(lm, "Write a sentence of a story.", rows, n, min(pairs, len(rows) - n), seed)


TASKS: dict[str, Callable[..., Study]] = {
    "truthfulqa": by_question,
    "categories": by_category,
    "persona": by_trait,
    "detox": by_toxicity,
    "sentiment": by_sentiment,
}


class Results:
    """Rows in a file, one JSON object a line."""

    def __init__(self, file: Path) -> None:
        self._file = file
        lines = file.read_text().splitlines() if file.exists() else []
        self.rows = [json.loads(line) for line in lines]

    def has(self, **key: Any) -> bool:
        return any(key.items() <= row.items() for row in self.rows)

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        with self._file.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


Amounts = tuple[tuple[str, float], ...]


def settings(
    lm: SteeredModel,
    study: Study,
    task: str,
    layer: int,
    learn: Callable[[Potential, TrainingObjective, Any, FixedStep], Steerer],
) -> Iterator[tuple[str, Callable[[], Steerer], Amounts | None]]:
    """Names, fits and amounts; None for those that are asked for."""
    preferred, steps = Preference(), Euler(4)
    for name, make in KINDS.items():
        yield (
            f"end to end, {name}",
            lambda make=make: learn(make(), preferred, study.pairs, steps),  # type: ignore[misc]
            None,
        )
    for name in ("gated", "quadratic", "neural"):
        yield (
            f"end to end, {name}, one step",
            lambda name=name: learn(  # type: ignore[misc]
                KINDS[name](), preferred, study.pairs, Euler(1)
            ),
            None,
        )
    yield (
        "distilled prompt",
        lambda: learn(LinearPotential(), Distillation(SYSTEM[task]), study.prompts[:256], steps),
        None,
    )
    levels = (("level", 1.0), ("level", 1.5), ("level", 2.5))
    strengths = (("strength", 0.5), ("strength", 1.0), ("strength", 2.0))
    yield "CAA", lambda: lm.fit(CAA(), study.pairs, layer), strengths
    yield "ODESteer()", lambda: lm.fit(ODESteer(), study.pairs, layer), levels


def measure(
    model: Annotated[str, typer.Argument(help="A folder or an id.")],
    data: Annotated[Path, typer.Option(help="Folder of public data sets.")],
    layer: Annotated[int, typer.Option(help="Zero-based.")],
    task: Annotated[str, typer.Option(help=", ".join(TASKS))] = "truthfulqa",
    only: Annotated[str, typer.Option(help="Settings whose name holds this.")] = "",
    n: Annotated[int, typer.Option(help="Held-out items.")] = 100,
    pairs: Annotated[int, typer.Option(help="Pairs to train on.")] = 512,
    kl: Annotated[float, typer.Option(help="Cost asked for, nats a token.")] = 0.1,
    epochs: Annotated[int, typer.Option(help="Most passes over the pairs.")] = 3,
    batch: Annotated[int, typer.Option(help="Pairs in a step.")] = 16,
    rate: Annotated[float, typer.Option(help="Learning rate.")] = 5e-2,
    neutral: Annotated[int, typer.Option(help="Neutral prompts, of 120.")] = 120,
    amounts: Annotated[str, typer.Option(help="Of what is learned.")] = "T=1,T=2,T=0.5,level=1",
    trait: Annotated[str, typer.Option(help="Of the persona.")] = "risk-averse",
    seed: Annotated[int, typer.Option()] = 0,
    keep: Annotated[Path | None, typer.Option(help="Folder for what is learned.")] = None,
    out: Annotated[Path, typer.Option()] = Path("end_to_end.jsonl"),
) -> None:
    """Measure effect and cost of every setting at every amount."""
    lm = SteeredModel.from_pretrained(model, dtype=torch.float32)
    more = {"trait": trait} if task == "persona" else {}
    study = TASKS[task](lm, data, n, pairs, seed, **more)
    asked = tuple((q, float(v)) for q, _, v in (one.partition("=") for one in amounts.split(",")))
    results = Results(out)
    key = {
        "model": Path(model).name,
        "task": f"{task} {trait}" if more else task,
        "layer": layer,
        "pairs": pairs,
        "items": n,
        "asked": kl,
        "training": f"{epochs} epochs, {batch} pairs, rate {rate:g}, {neutral} neutral",
        "seed": seed,
    }
    scorer = ContinuationScorer(lm, study.measured)
    before = study.reduce(scorer.log_likelihoods(_unsteered))
    print(f"{task}: unsteered {statistics.mean(before):.3f}", flush=True)

    def row(name: str, amount: str, after: list[float], cost: Any, **more: Any) -> None:
        gains = [b - a for a, b in zip(before, after, strict=True)]
        error = statistics.stdev(gains) / math.sqrt(len(gains))
        results.add(
            {
                **key,
                "setting": name,
                "amount": amount,
                "gain": round(statistics.mean(gains), 4),
                "error": round(error, 4),
                "kl": round(cost.mean, 4),
                "kl_error": round(cost.standard_error, 4),
                "unsteered": round(statistics.mean(before), 4),
                **more,
            }
        )

    prompts = neutral_prompts()[:neutral]
    trained = EndToEnd(kl=kl, seed=seed).set_params(
        training__max_epochs=epochs, training__batch_size=batch, training__learning_rate=rate
    )

    def learn(
        barrier: Potential, objective: TrainingObjective, pairs: Any, solver: FixedStep
    ) -> Steerer:
        method = trained.with_params(barrier=barrier, objective=objective, solver=solver)
        return lm.fit(method, pairs, layer, neutral=prompts, progress=True)

    for name, fit, own in settings(lm, study, task, layer, learn):
        wanted = asked if own is None else own
        if only not in name or all(
            results.has(**key, setting=name, amount=f"{q}={v:g}") for q, v in wanted
        ):
            continue
        start = time.time()
        steerer = fit()
        took = time.time() - start
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            steerer.save(
                keep / f"{task}-{layer}-{name.replace(' ', '-').replace(',', '')}.safetensors"
            )
        for quantity, value in wanted:
            after = study.reduce(scorer.log_likelihoods(_steered(lm, steerer, quantity, value)))
            cost = lm.divergence(steerer, prompts=prompts[2::3], **{quantity: value})
            row(name, f"{quantity}={value:g}", after, cost, seconds=round(took))
    if only in "system prompt" and not results.has(**key, setting="system prompt"):
        prompted = ContinuationScorer(lm, study.prompted(lm, SYSTEM[task]))
        after = study.reduce(prompted.log_likelihoods(_unsteered))
        row("system prompt", "", after, lm.divergence(system=SYSTEM[task], prompts=prompts[2::3]))


def _unsteered(prompt_width: int) -> Any:
    return nullcontext()


def _steered(lm: SteeredModel, steerer: Steerer, quantity: str, value: float) -> SteeringFactory:
    return lambda prompt_width: lm.steering(steerer, prompt_width=prompt_width, **{quantity: value})


if __name__ == "__main__":
    typer.run(measure)
