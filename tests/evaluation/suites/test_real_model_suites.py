"""Suites for any model: personas, detoxification and sentiment from their published files."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from odesteer import Message
from odesteer.errors import DataError, InvalidInputError
from odesteer.evaluation.config import BenchmarkConfig
from odesteer.evaluation.judges.tfidf import is_for_judges
from odesteer.evaluation.suites import Sizes, registry


def tasks(name: str, data: Path, sizes: Sizes | None = None, **more: Any) -> dict[str, Any]:
    return {task.name: task for task in registry.get(name)(sizes, data, **more).tasks()}


@pytest.fixture
def persona(tmp_path: Path) -> Path:
    folder = tmp_path / "anthropic-evals"
    folder.mkdir()
    for trait in ("kind", "bold"):
        rows = [
            {
                "question": f"Would you say this?\n{trait} {i}",
                "answer_matching_behavior": " Yes" if i % 3 else " No",
                "answer_not_matching_behavior": " No" if i % 3 else " Yes",
            }
            for i in range(60)
        ]
        (folder / f"{trait}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


@pytest.mark.parametrize("chat", [False, True])
def test_personas_are_balanced_and_kept_apart(persona: Path, chat: bool) -> None:
    found = tasks("persona", persona, Sizes(20, 6, 14), chat=chat)
    assert list(found) == ["persona-bold", "persona-kind"]
    (fold,) = found["persona-kind"].folds(0)
    assert (len(fold.fit.positive), len(fold.validation), len(fold.test)) == (20, 6, 14)
    first = [item.reference["mc2"]["choices"][0].strip() for item in fold.test]
    assert first.count("Yes") == first.count("No") == 7
    for item in fold.test:
        assert item.reference["mc2"]["labels"] == [1, 0]
        assert isinstance(item.prompt, tuple) == chat
        number = int(item.group.split()[-1])
        assert (item.reference["mc2"]["choices"][0].strip() == "Yes") == bool(number % 3)
        assert item.reference["mc2"]["choices"][0].startswith(" ") != chat
    if chat:
        assert fold.test[0].prompt[0].role == Message("user", "x").role
    positive = [example.response.strip() for example in fold.fit.positive]
    negative = [example.response.strip() for example in fold.fit.negative]
    assert all({p, n} == {"Yes", "No"} for p, n in zip(positive, negative, strict=True))


def test_few_statements_are_shared_out_in_proportion(persona: Path) -> None:
    (fold,) = tasks("persona", persona)["persona-bold"].folds(0)
    n = len(fold.fit.positive), len(fold.validation), len(fold.test)
    assert n == (20, 6, 14)


def test_a_persona_with_other_answers_is_refused(tmp_path: Path) -> None:
    row = {"question": "?", "answer_matching_behavior": "(A)"}
    (tmp_path / "p.jsonl").write_text(json.dumps(row))
    with pytest.raises(DataError, match="Yes or No"):
        tasks("persona", tmp_path)
    with pytest.raises(DataError, match=r"no \.jsonl file"):
        tasks("persona", tmp_path / "nowhere")


@pytest.fixture
def paradetox(tmp_path: Path) -> Path:
    with (tmp_path / "paradetox.tsv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["toxic", "neutral1"], delimiter="\t")
        writer.writeheader()
        for i in range(120):
            writer.writerow(
                {
                    "toxic": f"well my friend number {i} is a damned fool and a liar",
                    "neutral1": f"well my friend number {i} is not honest",
                }
            )
    return tmp_path


def test_detox_fits_on_what_trains_no_judge_and_tests_on_other_texts(paradetox: Path) -> None:
    for task in tasks("detox", paradetox).values():
        (fold,) = task.folds(0)
        fitted = {example.response for example in fold.fit.negative}
        tested = {item.group for item in (*fold.validation, *fold.test)}
        assert fitted
        assert not fitted & tested
        assert not any(map(is_for_judges, fitted | tested))


def test_detox_compares_what_follows_a_shared_beginning(paradetox: Path) -> None:
    found = tasks("detox", paradetox)
    item = found["detox-odds"].folds(0)[0].test[0]
    assert item.prompt.startswith("well my friend number")
    assert item.prompt.endswith("is")
    assert item.reference["mc2"]["choices"] == [" not honest", " a damned fool and a liar"]
    text = found["detox"].folds(0)[0].test[0]
    assert item.group.startswith(text.prompt.split()[0])
    assert len(text.prompt.split()) == 6


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    folder = tmp_path / "cad-imdb" / "paired"
    folder.mkdir(parents=True)
    with (folder / "train_paired.tsv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["Sentiment", "Text", "batch_id"], delimiter="\t")
        writer.writeheader()
        for i in range(60):
            for side, word in (("Positive", "fine"), ("Negative", "poor")):
                text = f"Film {i}<br /><br />is one that I found {word} from beginning to end, all."
                writer.writerow({"Sentiment": side, "Text": text, "batch_id": i})
    return tmp_path


def test_sentiment_begins_with_negative_reviews_of_other_pairs(reviews: Path) -> None:
    found = tasks("sentiment", reviews)
    for task in found.values():
        (fold,) = task.folds(0)
        fitted, tested = set(fold.fit.groups_positive), {item.group for item in fold.test}
        assert not fitted & tested
        assert not any(map(is_for_judges, fitted | tested))
        assert all("fine" in example.response for example in fold.fit.positive)
        assert all("poor" in item.text for item in fold.test)
        assert "<br" not in fold.test[0].text
    item = found["sentiment-odds"].folds(0)[0].test[0]
    assert sum(item.reference["mc2"]["labels"]) == 4
    assert item.text.endswith("Overall, this film is")


@pytest.mark.parametrize("name", ["detox", "sentiment"])
def test_suites_name_what_they_need(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="github"):
        registry.get(name)()
    with pytest.raises(DataError, match="--data"):
        registry.get(name)(None, tmp_path).tasks()


def test_tasks_seeds_folds_and_fits_can_be_limited(persona: Path) -> None:
    asked = BenchmarkConfig(
        suite="persona",
        model="m",
        data=persona,
        only_tasks=("persona-bold",),
        seeds=(42, 43),
        fit_limit=6,
        limit=4,
        folds=1,
        methods=("caa",),
        at_kl=(0.1,),
    )
    (task,) = asked.tasks()
    plan = asked.plan([task], 4)
    assert plan.seeds == (42, 43)
    (fold,) = plan.folds["persona-bold", 42]
    assert (len(fold.fit.positive), len(fold.validation), len(fold.test)) == (6, 4, 4)
    about = asked.about()
    assert about["seeds"] == [42, 43]
    assert about["at_kl"] == [0.1]
    with pytest.raises(InvalidInputError, match="persona-bold, persona-kind"):
        BenchmarkConfig(suite="persona", model="m", data=persona, only_tasks=("x",)).tasks()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seeds": (1, 1)}, "different"),
        ({"at_kl": (0.0,)}, "positive"),
        ({"cost_texts": 1}, "at least 2"),
        ({"best": False}, "neither"),
        ({"folds": 0}, "folds must be at least 1"),
        ({"fit_limit": 0}, "fit_limit must be at least 1"),
    ],
)
def test_options_that_mean_nothing(wrong: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=message):
        BenchmarkConfig(suite="persona", model="m", data=tmp_path, **wrong)


@pytest.mark.parametrize("chat", [False, True])
def test_preferences_by_likelihood_need_no_judge(tmp_path: Path, chat: bool) -> None:
    long = " ".join(f"w{i}" for i in range(80))
    rows = [
        {"prompt": f"ask {i}", "chosen": f"yes {i} {long}", "rejected": f"no {i}"}
        for i in range(24)
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    found = tasks("ultrafeedback", path, chat=chat)
    task = found["ultrafeedback-preference"]
    assert task.kind == "choice"
    (fold,) = task.folds(0)
    assert fold.fit.digest() == found["ultrafeedback"].folds(0)[0].fit.digest()
    for item in fold.test:
        better, worse = item.reference["mc2"]["choices"]
        assert better.startswith("yes")
        assert len(better.split()) == 50
        assert worse.startswith("no")
        assert isinstance(item.prompt, tuple) == chat
