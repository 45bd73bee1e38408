"""Our likelihoods and MC scores of TruthfulQA are those of the harness's own task."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from odesteer.data import Example
from odesteer.evaluation.metrics import log_likelihoods, mc1, mc2
from odesteer.evaluation.suites.truthfulqa import PRESET
from odesteer.models import SteeredModel

pytestmark = pytest.mark.slow

N_QUESTIONS = int(os.environ.get("ODESTEER_QUESTIONS", "12"))
"""All of them, by hand: ODESTEER_QUESTIONS=817 pytest -s tests/evaluation/harness -k truthfulqa"""


@pytest.fixture(scope="module")
def small(shared: Path) -> SteeredModel:
    return SteeredModel.from_pretrained(str(shared / "models" / "stories260K-hf"), device="cpu")


def prompt(question: str) -> str:
    return f"{PRESET}\n\nQ: {question}\nA:"


@pytest.fixture(scope="module")
def questions(shared: Path) -> list[dict[str, Any]]:
    """Published questions: the longest, and others spread over all."""
    rows: list[dict[str, Any]] = json.loads(
        (shared / "data" / "truthfulqa" / "mc_task.json").read_text()
    )
    longest = sorted(rows, key=lambda row: -max(map(len, row["mc2_targets"])))
    chosen = [*longest[: N_QUESTIONS // 2], *rows[:: max(1, len(rows) // N_QUESTIONS)], *rows]
    return list({row["question"]: row for row in chosen}.values())[:N_QUESTIONS]


@pytest.fixture(scope="module")
def samples(
    small: SteeredModel, questions: list[dict[str, Any]], folder: Path
) -> dict[str, list[dict[str, Any]]]:
    """What the harness notes down for each question of its two tasks, on a local copy."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    data = folder / "truthfulqa.jsonl"
    with data.open("w") as file:
        for row in questions:
            targets = {
                name: {"choices": list(row[name]), "labels": list(row[name].values())}
                for name in ("mc1_targets", "mc2_targets")
            }
            file.write(json.dumps({"question": row["question"], **targets}) + "\n")
    theirs = Path(lm_eval.__file__).parent / "tasks" / "truthfulqa"
    own = folder / "truthfulqa"
    own.mkdir()
    for name in ("mc1", "mc2"):
        task = {
            "include": str(theirs / f"truthfulqa_{name}.yaml"),
            "task": f"local_{name}",
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {
                "data_files": {"validation": str(data)},
                "cache_dir": str(folder / "cache"),
            },
        }
        (own / f"{name}.yaml").write_text(json.dumps(task))
    results = lm_eval.simple_evaluate(
        model=HFLM(pretrained=small.model, tokenizer=small.tokenizer, batch_size=8),
        tasks=["local_mc1", "local_mc2"],
        task_manager=TaskManager(include_path=str(own)),
        log_samples=True,
        bootstrap_iters=0,
    )
    found: dict[str, list[dict[str, Any]]] = results["samples"]
    return found


@pytest.mark.parametrize(("name", "score"), [("mc1", mc1), ("mc2", mc2)])
def test_likelihoods_and_scores_agree(
    small: SteeredModel,
    questions: list[dict[str, Any]],
    samples: dict[str, list[dict[str, Any]]],
    name: str,
    score: Any,
) -> None:
    n_answers, truncated, worst = 0, 0, 0.0
    for row, sample in zip(questions, samples[f"local_{name}"], strict=True):
        targets = row[f"{name}_targets"]
        context = prompt(row["question"])
        asked = [Example(context, f" {answer}") for answer in targets]
        theirs = [value for value, _ in sample["filtered_resps"]]
        assert {given for given, _ in sample["arguments"]} == {context}
        found = log_likelihoods(small, asked, batch_size=8, truncate=True)
        ours = [one.total for one in found]
        assert ours == pytest.approx(theirs, abs=1e-4, rel=0)
        assert score(ours, list(targets.values())) == pytest.approx(sample["acc"], abs=1e-4)
        n_answers += len(found)
        truncated += sum(one.n_lost > 0 for one in found)
        worst = max(worst, *(abs(a - b) for a, b in zip(ours, theirs, strict=True)))
    # Prompts that the context has no room for are among them.
    assert truncated > 0 or name == "mc1"
    print(f"\n{name}: {len(questions)} questions, {n_answers} answers, {truncated} with a prompt"
          f" that lost its beginning; largest difference {worst:.1e} nats")  # fmt: skip
