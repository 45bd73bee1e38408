"""``odesteer bench --paper`` on a tiny model: completions, then judges, then the published row."""

import csv
import json
from itertools import pairwise
from pathlib import Path

import pytest
from command import CommandResult, Run

import tiny_models
from odesteer.evaluation.paper.published import figure

N_QUESTIONS = 12


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose context holds the published prompt."""
    folder = tmp_path_factory.mktemp("models") / "long"
    tiny_models.llama(max_position_embeddings=1024).save_pretrained(folder)
    tiny_models.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("truthfulqa")
    columns = ("Question", "Best Answer", "Correct Answers", "Incorrect Answers")
    with (folder / "TruthfulQA.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for i in range(N_QUESTIONS):
            writer.writerow((f"Is {i} odd?", f"{i} is", f"{i} is; it is {i}", f"no; {i} never"))
    targets = [
        {"question": f"Is {i} odd?", "mc1_targets": {"a": 1}, "mc2_targets": {"a": 1}}
        for i in range(N_QUESTIONS)
    ]
    (folder / "mc_task.json").write_text(json.dumps(targets))
    return folder


@pytest.fixture
def paper(run: Run, long: Path, questions: Path):  # type: ignore[no-untyped-def]
    """Runs an experiment with the tiny model in every place, judges too."""
    words = ["bench", "--paper", "llama-3.1-8b", "--task", "truthfulqa", "--model", long]
    words += ["--data", questions, "--limit", 1, "--batch-size", 8]
    words += ["--perplexity-model", long]
    for judge in ("truthfulqa-truth", "truthfulqa-info"):
        words += ["--judge", judge, "--judge-option", f"{judge}.model={long}"]
        words += ["--judge-option", f"{judge}.device=cpu"]

    def _paper(*more: object) -> CommandResult:
        return run(*words, *more)

    return _paper


def test_table_3_prints_the_published_row_beside_each_measured_one(paper) -> None:  # type: ignore[no-untyped-def]
    outcome = paper("--table", 3, "--amounts", "T=0.1,0.2", "--seeds", 2, "-o", "out", "--json")
    assert outcome.code == 0, outcome.err
    lines = {
        (line["row"], line["metric"]): line for line in outcome.document["lines"]["truthfulqa"]
    }
    names = {"no steering", "iti", "one-step-paper", "odesteer-paper"}
    assert {row for row, _ in lines} == names
    for row, published in (("no steering", "Original"), ("odesteer-paper", "ODESteer")):
        line = lines[row, "true_info"]
        expected = figure(2, "llama-3.1-8b", "truthfulqa", published, "true_info")
        assert expected is not None
        assert line["published"] == expected.value
        assert line["published_deviation"] == expected.deviation
        assert line["n"] + line["missing"] == 4
    assert lines["odesteer-paper", "true_info"]["setting"].startswith("T=0.")
    assert lines["no steering", "true_info"]["difference"] is None
    written = Path("out/paper.md").read_text()
    assert "| odesteer-paper | T=0." in written
    assert "0.632 ±0.008" in written
    assert "in the place of meta-llama/Llama-3.1-8B" in written
    assert str(Path.cwd()) not in Path("out/paper.json").read_text()
    generations = Path("out/generations.jsonl").read_bytes()
    again = paper("--table", 3, "--amounts", "T=0.1,0.2", "--seeds", 2, "-o", "out", "--json")
    assert again.document["lines"] == outcome.document["lines"]
    assert Path("out/generations.jsonl").read_bytes() == generations


def test_judges_come_after_the_last_completion(paper, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    from odesteer.evaluation.judges.published_truthfulqa import FinetunedJudge

    n_written = []
    load = FinetunedJudge._load

    def counting(self: FinetunedJudge):  # type: ignore[no-untyped-def]
        if self._lm is None:
            n_written.append(len(Path("out/generations.jsonl").read_text().splitlines()))
        return load(self)

    monkeypatch.setattr(FinetunedJudge, "_load", counting)
    assert paper("--table", 9, "--amounts", "T=0.1", "--seeds", 1, "-o", "out").code == 0
    assert n_written == [6, 6]  # three rows, two folds; one load for each judge


def test_figures_have_a_point_for_each_setting(paper) -> None:  # type: ignore[no-untyped-def]
    outcome = paper("--figure", 6, "--amounts", "T=0.1", "--seeds", 1, "-o", "out", "--json")
    assert outcome.code == 0, outcome.err
    lines = outcome.document["lines"]["truthfulqa"]
    points = [line["point"] for line in lines if line["metric"] == "true_info"]
    assert points == [None, 0, 1, 2, 3]
    assert Path("out/paper.png").read_bytes().startswith(b"\x89PNG")
    assert {line["published"] for line in lines} == {None}


def test_figure_2_is_the_barrier_along_trajectories_of_unseen_negatives(paper) -> None:  # type: ignore[no-untyped-def]
    outcome = paper("--figure", 2, "--amounts", "T=0.5", "-o", "out", "--json")
    assert outcome.code == 0, outcome.err
    lines = outcome.document["lines"]["truthfulqa"]
    values = [line["measured"] for line in lines]
    assert len(values) == 11
    assert all(a < b for a, b in pairwise(values))
    assert [line["point"] for line in lines] == [i / 10 for i in range(11)]


def test_a_plan_says_what_it_costs_and_writes_nothing(run: Run, questions: Path) -> None:
    words = ("--task", "truthfulqa", "--data", questions, "--dry-run", "--json")
    outcome = run("bench", "--paper", "llama-3.1-8b", *words)
    assert outcome.code == 0, outcome.err
    plan = outcome.document["tasks"]["truthfulqa"]
    # No steering and seven rows at one setting on 12 questions; three that choose among three T
    # on one more validation item of either fold.
    assert plan["completions"] == 3 * (8 * 12 + 3 * 3 * (12 + 2))
    assert 16e9 < plan["memory_bytes"]["completions"] < 80e9
    assert plan["seconds"]["completions"] > 0
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--paper", "llama-2"), "it has falcon-7b, mistral-7b-v0.3, llama-3.1-8b, qwen2.5-7b"),
        (("--paper", "falcon-7b", "--table", 4), "there is no command for table 4"),
        (("--paper", "falcon-7b", "--table", 3, "--figure", 4), "a table or a figure, not both"),
        (("--paper", "falcon-7b", "--table", 6, "--task", "truthfulqa"), "table 6 has no task"),
        (("--paper", "falcon-7b", "--methods", "caa"), "--methods does not go with --paper"),
        (("--paper", "falcon-7b", "--layers", "1,2"), "--paper steers one layer"),
        (("--paper", "falcon-7b", "--layers", "99"), "there is no layer 99"),
        (("--table", 3), "--table goes with --paper"),
    ],
)
def test_what_does_not_go_is_said_before_anything_is_loaded(
    run: Run, words: tuple[object, ...], message: str
) -> None:
    outcome = run("bench", *words)
    assert outcome.code == 2
    assert message in " ".join(outcome.err.split())
    assert not list(Path.cwd().iterdir())


def test_a_judge_of_the_headline_is_asked_for_before_anything_is_written(
    run: Run, questions: Path
) -> None:
    words = ("--task", "truthfulqa", "--data", questions, "--judge", "diversity", "-o", "out")
    outcome = run("bench", "--paper", "llama-3.1-8b", *words)
    assert outcome.says("scores 'true_info' of truthfulqa; add one with --judge")
    assert not Path("out").exists()
