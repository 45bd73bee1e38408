"""Contrastive tasks for real language models, read from a folder of public data sets.

FOLDER holds ``repe/facts_true_false.csv``, ``truthfulqa/mc_task.json``,
``paradetox/paradetox.tsv``, ``anthropic-evals/risk-averse.jsonl`` and
``cad-imdb/paired/train_paired.tsv``.
"""

import csv
import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from odesteer import ContrastData, SteeredModel
from odesteer.data import Example, Message


@dataclass(frozen=True)
class Question:
    """A question of TruthfulQA with the labels of its MC2 answers (1 true, 0 false)."""

    text: str
    answers: dict[str, int]


def is_chat_model(lm: SteeredModel) -> bool:
    """Whether the tokenizer has a chat template."""
    return bool(getattr(lm.tokenizer, "chat_template", None))


def answered(lm: SteeredModel, question: str, answer: str) -> Example:
    """A question with its answer: through the chat template where there is one."""
    if is_chat_model(lm):
        return Example((Message("user", question),), answer)
    return Example(f"Q: {question}\nA:", f" {answer}")


def questions(folder: Path) -> list[Question]:
    """TruthfulQA in the order of the file."""
    rows = json.loads((folder / "truthfulqa" / "mc_task.json").read_text())
    return [Question(row["question"], row["mc2_targets"]) for row in rows]


def answer_pairs(
    lm: SteeredModel, chosen: Iterable[Question], per_question: int = 2
) -> ContrastData:
    """True and false answers in pairs, at most ``per_question`` of each question."""
    positive, negative, groups = [], [], []
    for question in chosen:
        true = [text for text, label in question.answers.items() if label]
        false = [text for text, label in question.answers.items() if not label]
        for yes, no in list(zip(true, false, strict=False))[:per_question]:
            positive.append(answered(lm, question.text, yes))
            negative.append(answered(lm, question.text, no))
            groups.append(question.text)
    return ContrastData(tuple(positive), tuple(negative), tuple(groups), tuple(groups))


def facts(lm: SteeredModel, folder: Path, n: int, seed: int) -> ContrastData:
    """True and false statements (RepE's list), unpaired."""
    with (folder / "repe" / "facts_true_false.csv").open(newline="") as file:
        rows = [(row["statement"], row["label"] == "1") for row in csv.DictReader(file)]
    return ContrastData.from_texts(
        [text for text, true in rows if true], [text for text, true in rows if not true]
    )


def truth(lm: SteeredModel, folder: Path, n: int, seed: int) -> ContrastData:
    """True and false answers to questions of TruthfulQA."""
    found = questions(folder)
    random.Random(seed).shuffle(found)
    return answer_pairs(lm, found[: n // 2])


def civility(lm: SteeredModel, folder: Path, n: int, seed: int) -> ContrastData:
    """Neutral and toxic forms of the same sentence (ParaDetox)."""
    with (folder / "paradetox" / "paradetox.tsv").open(newline="") as file:
        rows = [(row["neutral1"], row["toxic"]) for row in csv.DictReader(file, delimiter="\t")]
    return _pairs(row for row in _drawn(rows, n, seed) if all(text.strip() for text in row))


def persona_statements(folder: Path, name: str = "risk-averse") -> list[tuple[str, bool]]:
    """Questions of Anthropic's evaluations, and whether yes shows the trait."""
    lines = (folder / "anthropic-evals" / f"{name}.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [(row["question"], "Yes" in row["answer_matching_behavior"]) for row in rows]


def persona(lm: SteeredModel, folder: Path, n: int, seed: int) -> ContrastData:
    """The answer that shows a risk-averse person and the one that does not."""
    rows = _drawn(persona_statements(folder), n, seed)
    return persona_pairs(lm, rows)


def persona_pairs(lm: SteeredModel, rows: Iterable[tuple[str, bool]]) -> ContrastData:
    """Each question answered as the persona would and the other way."""
    positive, negative, groups = [], [], []
    for question, yes in rows:
        texts = ("Yes", "No") if yes else ("No", "Yes")
        positive.append(answered(lm, question, texts[0]))
        negative.append(answered(lm, question, texts[1]))
        groups.append(question)
    return ContrastData(tuple(positive), tuple(negative), tuple(groups), tuple(groups))


def review_pairs(folder: Path, part: str = "train") -> list[tuple[str, str]]:
    """Film reviews: positive and negative, one a minimal rewriting of the other."""
    sides: dict[str, dict[str, str]] = {}
    with (folder / "cad-imdb" / "paired" / f"{part}_paired.tsv").open(newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            sides.setdefault(row["batch_id"], {})[row["Sentiment"]] = row["Text"]
    return [(s["Positive"], s["Negative"]) for s in sides.values() if len(s) == 2]


def sentiment(lm: SteeredModel, folder: Path, n: int, seed: int) -> ContrastData:
    """Positive and negative film reviews of at most 1,000 characters (cad-imdb)."""
    short = [pair for pair in review_pairs(folder) if max(map(len, pair)) <= 1000]
    return review_data(_drawn(short, n // 2, seed))


def review_data(pairs: Iterable[tuple[str, str]]) -> ContrastData:
    """Pairs of reviews as contrastive data."""
    return _pairs(pairs)


TASKS: dict[str, Callable[[SteeredModel, Path, int, int], ContrastData]] = {
    "facts": facts,
    "truthfulqa": truth,
    "paradetox": civility,
    "persona": persona,
    "reviews": sentiment,
}


def _pairs(rows: Iterable[tuple[str, str]]) -> ContrastData:
    kept = list(rows)
    groups = tuple(str(i) for i in range(len(kept)))
    positive, negative = zip(*kept, strict=True)
    return ContrastData(
        tuple(Example("", text) for text in positive),
        tuple(Example("", text) for text in negative),
        groups,
        groups,
    )


def _drawn(rows: list[Any], n: int, seed: int) -> list[Any]:
    return random.Random(seed).sample(rows, min(n, len(rows)))
