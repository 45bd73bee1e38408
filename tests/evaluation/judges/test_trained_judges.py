"""Small judges: what they learn, and what they say about themselves."""

import json
from pathlib import Path
from typing import Any

import pytest
from judge_models import make_item

from odesteer.errors import DataError, InvalidInputError
from odesteer.evaluation.judges import create
from odesteer.evaluation.judges.tfidf import is_for_judges

RIGHT, WRONG = ("it depends on the person", "nobody can say so"), ("always", "of course it will")


def _answers(folder: Path, name: str, ending: str, n_questions: int = 40) -> None:
    """Questions whose right answers are careful ones."""
    (folder / "truthfulqa").mkdir(parents=True, exist_ok=True)
    rows = [
        {"prompt": f"Q: Is thing {i} so?\nA: {answer}.\n{ending}:", "completion": completion}
        for i in range(n_questions)
        for answers, completion in ((RIGHT, " yes"), (WRONG, " no"))
        for answer in answers
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "truthfulqa" / f"finetune_{name}.jsonl").write_text(lines)


def _toxicity(folder: Path) -> None:
    (folder / "paradetox").mkdir()
    (folder / "toxicity-surge").mkdir()
    pairs = [f"you idiot number {i}\tyou person number {i}\t\tdear number {i}" for i in range(60)]
    header = "toxic\tneutral1\tneutral2\tneutral3"
    (folder / "paradetox" / "paradetox.tsv").write_text("\n".join([header, *pairs]) + "\n")
    rows = [f'"idiot, {i}",Toxic\n"person, {i}",Not Toxic\n' for i in range(30)]
    (folder / "toxicity-surge" / "toxicity_en.csv").write_text("text,is_toxic\n" + "".join(rows))


@pytest.mark.parametrize(
    ("kind", "ending", "metric"), [("truth", "True", "true"), ("info", "Helpful", "info")]
)
def test_a_judge_of_answers_learns_them(
    tmp_path: Path, kind: str, ending: str, metric: str
) -> None:
    _answers(tmp_path, kind, ending)
    judge = create(f"small-{kind}", data=str(tmp_path))
    items = [make_item(question="Is thing 99 so?")] * 3
    careful, bold, blank = judge.judge(items, ["Nobody can say so.", "Of course it will!", " \n"])
    assert (careful[metric], bold[metric]) == (1.0, 0.0)
    assert careful[f"{metric}-probability"] > 0.5 > bold[f"{metric}-probability"]
    assert blank == {metric: 0.0, f"{metric}-probability": 0.0}
    facts = judge.about()
    assert facts["rows"] == 160
    assert facts["held_out"]["unseen questions"]["accuracy"] == 1.0
    assert facts["sha256"].keys() == {f"truthfulqa/finetune_{kind}.jsonl"}
    assert json.loads(json.dumps(facts)) == facts


def test_held_out_questions_are_held_out_whole(tmp_path: Path) -> None:
    _answers(tmp_path, "truth", "True")
    judge: Any = create("small-truth", data=str(tmp_path))
    fitted = []
    fit = judge._fit
    judge._fit = lambda rows: (fitted.append(rows), fit(rows))[1]
    rows = judge.rows()
    held = judge.splits(rows)["unseen questions"]
    unseen = {row.group for row, out in zip(rows, held, strict=True) if out}
    judge.about()
    assert 0.1 < sum(held) / len(held) < 0.35
    assert not unseen & {row.group for row in fitted[0]}
    assert unseen < {row.group for row in fitted[-1]}


def test_too_few_rows_to_measure_are_told(tmp_path: Path) -> None:
    _answers(tmp_path, "truth", "True", n_questions=1)
    judge = create("small-truth", data=str(tmp_path))
    assert judge.about()["held_out"]["unseen questions"] is None
    assert judge.judge([make_item(question="q")], ["always"])[0]["true"] is not None


@pytest.mark.parametrize(("completion", "what"), [(" yes", "one kind only"), (None, "none")])
def test_nothing_to_tell_apart(tmp_path: Path, completion: str | None, what: str) -> None:
    _answers(tmp_path, "truth", "True", n_questions=0)
    row = {"prompt": "Q: a\nA: b\nTrue:", "completion": completion}
    if completion is not None:
        (tmp_path / "truthfulqa" / "finetune_truth.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=what):
        create("small-truth", data=str(tmp_path)).judge([make_item(question="q")], ["a"])


def test_the_accuracy_is_that_of_what_was_not_seen(tmp_path: Path) -> None:
    """Labels that follow nothing but the wording of one question can not be told beforehand."""
    (tmp_path / "truthfulqa").mkdir()
    rows = [
        {"prompt": f"Q: word{i}?\nA: again.\nTrue:", "completion": " yes" if i % 2 else " no"}
        for i in range(400)
        for _ in range(3)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "truthfulqa" / "finetune_truth.jsonl").write_text(lines)
    judge: Any = create("small-truth", data=str(tmp_path))
    judge.splits = lambda rows: {"unseen": type(judge).splits(judge, rows)["unseen questions"]}
    assert judge.about()["held_out"]["unseen"]["accuracy"] < 0.65
    known = judge.judge([make_item(question=f"word{i}?") for i in range(40)], ["again."] * 40)
    assert [scores["true"] for scores in known] == [float(i % 2) for i in range(40)]


def test_a_judge_of_toxicity_learns_it(tmp_path: Path) -> None:
    _toxicity(tmp_path)
    judge = create("small-toxicity", data=str(tmp_path))
    insult, polite, blank = judge.judge([make_item()] * 3, ["you idiot", "dear person", ""])
    assert insult["toxicity"] > 0.5 > polite["toxicity"]
    assert (insult["toxic"], polite["toxic"]) == (1.0, 0.0)
    assert blank == {"toxicity": 1.0, "toxic": 1.0}
    held_out = judge.about()["held_out"]
    assert held_out["unseen texts"]["accuracy"] == 1.0
    # Half of the rows: suites take the other half, and share no text with the judge.
    assert held_out["another source"]["rows"] == 30
    assert all(is_for_judges(f"idiot, {i}") for i in _numbers(judge, "comment idiot"))
    assert 0 < len(_numbers(judge, "pair")) < 60
    assert judge.lower_is_better == {"toxicity", "toxic"}


def _numbers(judge: Any, prefix: str) -> list[int]:
    """The numbers of the groups that a judge is trained on."""
    groups = {row.group for row in judge.rows() if row.group.startswith(prefix)}
    return sorted(int(group.rpartition(" ")[2]) for group in groups)


def test_scores_of_a_judge_depend_on_its_training_file(tmp_path: Path) -> None:
    from odesteer.evaluation.runner import JudgePanel
    from odesteer.evaluation.suites import registry as suites

    (task, *_) = suites.get("terrarium")().tasks()
    task.headline = "true"
    options = {"small-truth": {"data": str(tmp_path)}}
    tags = []
    for n in (20, 30, 30):
        _answers(tmp_path, "truth", "True", n_questions=n)
        panel = JudgePanel(None, [task], wanted=["small-truth"], options=options)
        tags.append(panel.tag("small-truth"))
    assert tags[0] != tags[1] == tags[2]


@pytest.mark.parametrize("name", ["small-truth", "small-info", "small-toxicity"])
def test_absent_data_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge: Any = create(name, data=str(tmp_path))
    with pytest.raises(InvalidInputError) as error:
        judge.judge([make_item(question="q")], ["a"])
    for part in (str(tmp_path / judge.files[0]), "https://github.com/", "ODESTEER_DATA"):
        assert part in str(error.value)
    assert "held_out" not in judge.about()
    monkeypatch.setenv("ODESTEER_DATA", str(tmp_path / "elsewhere"))
    assert str(tmp_path / "elsewhere") in str(create(name).unavailable())


@pytest.mark.parametrize(
    "row",
    [{"prompt": "Q: a\nA: b\nHelpful:", "completion": " yes"}, {"prompt": "a", "completion": "no"},
     {"prompt": "Q: a\nA: b\nTrue:", "completion": " maybe"}, {"prompt": 1, "completion": None}],
)  # fmt: skip
def test_other_files_are_refused_with_the_line(tmp_path: Path, row: dict[str, Any]) -> None:
    _answers(tmp_path, "truth", "True")
    path = tmp_path / "truthfulqa" / "finetune_truth.jsonl"
    path.write_text(path.read_text() + json.dumps(row) + "\n")
    with pytest.raises(DataError, match="line 161"):
        create("small-truth", data=str(tmp_path)).judge([make_item(question="q")], ["a"])


def test_other_labels_of_comments_are_refused(tmp_path: Path) -> None:
    _toxicity(tmp_path)
    (tmp_path / "toxicity-surge" / "toxicity_en.csv").write_text("text,is_toxic\na,1\n")
    with pytest.raises(DataError, match=r"line 2.*'1'"):
        create("small-toxicity", data=str(tmp_path)).judge([make_item()], ["a"])


@pytest.mark.slow
def test_on_the_published_rows_it_beats_the_commoner_answer(shared: Path) -> None:
    for name, least in (("small-truth", 0.7), ("small-info", 0.85)):
        facts = create(name, data=str(shared / "data")).about()
        assert facts["rows"] == 22434
        measured = facts["held_out"]["unseen questions"]
        assert measured["accuracy"] > max(least, measured["always_the_commoner"] + 0.05)


@pytest.mark.slow
def test_toxicity_is_learned_from_the_published_rows(shared: Path) -> None:
    held_out = create("small-toxicity", data=str(shared / "data")).about()["held_out"]
    assert held_out["unseen texts"]["accuracy"] > 0.93
    assert held_out["another source"]["auc"] > 0.8
