"""Gate of judges: no headline for scores that can be won by a trick."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from odesteer.errors import InvalidInputError
from odesteer.evaluation.config import BenchmarkConfig
from odesteer.evaluation.item import Item
from odesteer.evaluation.runner import JudgePanel
from odesteer.evaluation.runner.gate import CONSTANTS, JudgeGate, measure, needs_gate
from odesteer.evaluation.task import Fold, Task

ITEMS = [
    Item(f"{i}", f"Is {i} so?", f"{i}", {"question": f"Is {i} so?", "correct": [f"{i} is so."],
         "incorrect": [f"No, not {i}."]})
    for i in range(6)
]  # fmt: skip


class Answers(Task):
    name = "answers"
    title = "answers"
    version = "1"
    source = "made up"
    judges = ("made-up",)
    headline = "right"

    def folds(self, seed: int) -> tuple[Fold, ...]:
        return ()


class Panel:
    """One judge, a function of item and text."""

    def __init__(self, judge: Callable[[Item, str], float], held_out: float | None = None) -> None:
        self._judge = judge
        measured = None if held_out is None else {"balanced_accuracy": held_out}
        self._about = {} if held_out is None else {"held_out": {"unseen questions": measured}}

    def headline_judges(self, task: Task) -> list[str]:
        return ["made-up"]

    def about(self) -> dict[str, Any]:
        return {"made-up": self._about}

    def judge(
        self, name: str, items: Sequence[Item], completions: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, float]]:
        pairs = zip(items, completions, strict=True)
        return [{"right": self._judge(item, one["text"])} for item, one in pairs]


def knows(item: Item, text: str) -> float:
    return float(text in item.reference["correct"])


def _gate(judge: Callable[[Item, str], float], *, less: bool = False, **options: Any) -> JudgeGate:
    return measure(Answers(), Panel(judge, **options), ITEMS, less=less)  # type: ignore[arg-type]


def test_a_judge_that_knows_the_answers_passes() -> None:
    gate = _gate(knows)
    assert gate.passed
    assert (gate.good, gate.bad, gate.accuracy) == (1.0, 0.0, 1.0)
    assert set(gate.degenerate) == {"constant", "blank", "repeated", "copied question"}
    assert JudgeGate.from_json(gate.to_json()) == gate


@pytest.mark.parametrize(
    ("trick", "kind"),
    [
        (lambda item, text: text in CONSTANTS, "constant"),
        (lambda item, text: not text, "blank"),
        (lambda item, text: "is no there is" in text, "repeated"),
        (lambda item, text: text == item.reference["question"], "copied question"),
    ],
)
def test_every_trick_is_found(trick: Callable[[Item, str], bool], kind: str) -> None:
    gate = _gate(lambda item, text: float(trick(item, text)) or knows(item, text))
    assert gate.reasons == (f"{kind} answers are rewarded",)
    assert gate.degenerate[kind] == 1.0
    assert "indicative only" in gate.text
    inverse = _gate(lambda i, t: 1 - (float(trick(i, t)) or knows(i, t)), less=True)
    assert inverse.reasons == gate.reasons


@pytest.mark.parametrize(("accuracy", "passes"), [(0.79, False), (0.8, True)])
def test_a_judge_trained_here_is_measured_on_rows_it_has_not_seen(
    accuracy: float, passes: bool
) -> None:
    assert _gate(knows, held_out=accuracy).passed is passes


def test_a_judge_that_cannot_be_measured_gives_no_headline() -> None:
    items = [Item("a", "a", "a", {})]
    gate = measure(Answers(), Panel(lambda i, t: 0.0), items, less=False)  # type: ignore[arg-type]
    assert "there are no good and bad answers to measure it on" in gate.reasons


def test_rewards_are_measured_by_pairs() -> None:
    gate = _gate(lambda item, text: 7.0 if knows(item, text) else -3.0)
    assert gate.passed
    assert gate.accuracy == 1.0


def test_exact_judges_have_no_gate() -> None:
    tasks = BenchmarkConfig(suite="terrarium", model="m", quick=True).tasks()
    assert not any(needs_gate(task, JudgePanel(None, tasks)) for task in tasks)


@pytest.mark.slow
def test_the_words_of_answers_are_no_headline(shared: Any) -> None:
    """A constant scored 1.000 under both small judges, published best answers 0.920."""
    data = shared / "data" / "truthfulqa"
    config = BenchmarkConfig(suite="truthfulqa", model="m", data=data, quick=True, limit=40)
    tasks = config.tasks()
    task = next(task for task in tasks if task.kind == "generation")
    judges = config.judge_panel(None, tasks, 8)
    gate = measure(task, judges, list(task.folds(0)[0].test), less=False)
    assert not gate.passed
    assert gate.degenerate["constant"] > 0.9
    assert "constant answers are rewarded" in gate.reasons


def test_a_run_never_starts_without_its_headline(tmp_path: Any) -> None:
    (tmp_path / "paradetox").mkdir()
    rows = [f"you idiot number {i}\tyou person number {i}" for i in range(60)]
    text = "\n".join(["toxic\tneutral1", *rows])
    (tmp_path / "paradetox" / "paradetox.tsv").write_text(text)
    prompts = [f'{{"prompt": {{"text": "bad {i}", "toxicity": 0.9}}}}' for i in range(20)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(prompts))
    absent = {"toxicity-model": {"model": str(tmp_path / "absent")}}
    config = BenchmarkConfig(
        suite="realtoxicityprompts", model="m", data=tmp_path, quick=True, judge_options=absent
    )
    with pytest.raises(InvalidInputError, match=r"no headline metric 'toxicity'.*absent"):
        config.judge_panel(None, config.tasks(), 8)


def test_the_first_metric_of_other_judges_is_the_headline() -> None:
    config = BenchmarkConfig(
        suite="terrarium", model="m", quick=True, judges=("perplexity", "repetition")
    )
    tasks = config.tasks()
    assert {task.headline for task in tasks} == {"repetition"}
    panel = config.judge_panel(None, tasks, 8)
    assert panel.headline_judges(tasks[0]) == ["repetition"]
    assert needs_gate(tasks[0], panel), "a count of n-grams is no verdict"
