"""The output folder: tables in three forms, plots, and a page that needs nothing else."""

import csv
import io
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import tiny_models
from odesteer import ContrastData, SteeredModel
from odesteer.evaluation.item import Item
from odesteer.evaluation.report import (
    FINAL,
    PlotsWarning,
    SummaryRow,
    about_model,
    write_report,
)
from odesteer.evaluation.runner import JudgePanel, LayerRange, Plan, Runner, RunResults, contenders
from odesteer.evaluation.task import Fold, Task


class Words(Task):
    name = "words"
    title = "words <b>unlike</b> each other"
    version = "3"
    source = "made up"
    differences = ("nothing to differ from",)
    max_new_tokens = 5
    judges = ("repetition", "diversity", "perplexity")
    headline = "dist-1"
    wins = "dist-1"
    percentiles = ("dist-1",)
    shots = 1

    def folds(self, seed: int) -> tuple[Fold, ...]:
        words = [f"word{i}" for i in range(8)]
        data = ContrastData.from_texts([f"{w} good" for w in words], [f"{w} bad" for w in words])
        items = [Item(f"ask {i}", f"ask {i}", f"ask {i}", {}) for i in range(7)]
        return (Fold("all", data, tuple(items[:2]), tuple(items[2:])),)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> RunResults:
    lm = SteeredModel(tiny_models.llama(), tiny_models.tokenizer())
    tasks = [Words()]
    rows = contenders(
        ["prompt-only", "odesteer", "one-step", "caa"],
        amounts={"level": (0.1, 0.3), "strength": (0.1, 0.3)},
    )
    plan = Plan(tasks, rows, (0, 1), {"words": LayerRange((0, 2), range(4))}, budget=0.5)
    return Runner(lm, plan, JudgePanel(lm, tasks), tmp_path_factory.mktemp("run")).run()


@pytest.fixture(scope="module")
def folder(outcome: RunResults, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report")
    write_report(outcome, path, title="a <title>", about={"suite": "words"})
    return path


def _document(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def test_every_file_is_there(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert {*FINAL, "report.html", "environment.json", "plots"} == names
    plots = {path.name for path in (folder / "plots").iterdir()}
    assert plots == {f"{kind}-words.png" for kind in ("curves", "layers", "barrier", "headline")}


def test_the_three_tables_agree(folder: Path) -> None:
    lines = _document(folder)["lines"]
    assert [line["contender"] for line in lines] == [
        "none", "prompt-only", "odesteer", "caa", "one-step",
    ]  # fmt: skip
    rows = list(csv.DictReader(io.StringIO((folder / "summary.csv").read_text())))
    markdown = (folder / "summary.md").read_text()
    for line in lines:
        value = line["metrics"]["dist-1"]["value"]
        (row,) = (
            r for r in rows
            if (r["contender"], r["metric"], r["against"]) == (line["contender"], "dist-1", "")
        )  # fmt: skip
        assert float(row["value"]) == pytest.approx(value, rel=1e-5)
        (shown,) = re.findall(rf"^\| {line['contender']} \|.*$", markdown, re.MULTILINE)
        assert f"{value:.3f} [" in shown


def test_means_are_of_the_items(folder: Path) -> None:
    items = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    for line in _document(folder)["lines"]:
        mine = [
            item["scores"]["dist-1"]
            for item in items
            if item["phase"] == "test" and item["contender"] == line["contender"]
        ]
        known = [score for score in mine if score is not None]
        estimate = line["metrics"]["dist-1"]
        assert estimate["value"] == pytest.approx(sum(known) / len(known))
        assert (estimate["n"], estimate["n_missing"]) == (len(known), len(mine) - len(known))
        assert estimate["low"] <= estimate["value"] <= estimate["high"]


def test_comparisons(folder: Path) -> None:
    lines = {line["contender"]: line for line in _document(folder)["lines"]}
    assert set(lines["caa"]["against"]) == {"none", "one-step"}
    assert set(lines["none"]["against"]) == {"one-step"}
    assert "win_rate" in lines["caa"]["metrics"]
    assert "win_rate" not in lines["none"]["metrics"]
    assert "dist-1-p90" in lines["none"]["metrics"]


def test_the_curve_has_every_setting_and_one_choice(folder: Path) -> None:
    curve = _document(folder)["curve"]
    caa = [point for point in curve if point["contender"] == "caa"]
    tried = [(p["layer"], p["value"]) for p in caa]
    assert tried[:4] == [(0, 0.1), (0, 0.3), (2, 0.1), (2, 0.3)]
    assert len(tried) == len(set(tried)) > 4, "and settings beside the best"
    assert all(p["n"] == 4 for p in caa if p["state"] == "measured")
    assert sum(p["chosen"] for p in caa) == 1


def test_the_page_stands_alone(folder: Path) -> None:
    text = (folder / "report.html").read_text()
    assert "a &lt;title&gt;" in text
    assert "&lt;b&gt;unlike" in text
    assert text.count("data:image/png;base64,") == 4
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", text)
    assert "http" not in re.sub(r"base64,[^\"]*", "", text)


def test_the_report_leads_with_what_can_be_concluded(folder: Path) -> None:
    document = _document(folder)
    (sentence,) = document["conclusions"]
    assert sentence.startswith("words: nothing can be concluded, as dist-1 is indicative only")
    assert document["contrasts"] == [], "no contrast of a metric that can be won by a trick"
    page = (folder / "report.html").read_text()
    places = [page.index(part) for part in ("nothing can be concluded", "<table>", "<h2>Time")]
    assert places == sorted(places)
    assert "dist-1 (indicative)" in page
    assert "**dist-1**" not in (folder / "summary.md").read_text()
    assert "5 prompts resolve ±43.8 points" in page
    assert "standard error of" in page
    assert set(document["about"]["data_digests"]) == {"words"}


def test_no_table_is_wider_than_a_screen(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    for table in re.findall(r"<table>.*?</table>", page, re.DOTALL):
        assert table.partition("</tr>")[0].count("<th") <= 7
    assert "overflow-x" not in page


def test_declared_contrasts_are_corrected_together(
    outcome: RunResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    from odesteer.evaluation.report import conclusions

    monkeypatch.setattr(outcome, "gates", {})  # as if the judge were exact
    found = conclusions.contrasts(outcome)
    assert [(c.ours, c.reference) for c in found] == [("odesteer", "caa"), ("odesteer", "one-step")]
    assert conclusions.best_baseline(outcome, outcome.plan.tasks[0]) == "caa"
    first, second = sorted(found, key=lambda contrast: contrast.p)
    assert first.corrected == pytest.approx(min(1.0, 2 * first.p))
    assert second.corrected >= max(second.p, first.corrected)
    (sentence,) = conclusions.conclusions(outcome, found)
    for contrast in found:
        verdict = "cannot be told from" if contrast.corrected >= 0.05 else "is"
        assert verdict in contrast.text
        assert contrast.text in sentence


def test_what_is_said_of_a_model() -> None:
    lm = SteeredModel(tiny_models.llama(), tiny_models.tokenizer())
    about = about_model(lm)
    assert about["dtype"] == "float32"
    assert about["device"] == "cpu"
    assert len(about["model_digest"]) == 16
    assert "model_revision" in about


def test_no_folder_of_this_machine_is_told(folder: Path) -> None:
    for name in (*FINAL, "report.html", "environment.json"):
        assert str(Path.home()) not in (folder / name).read_text()


def test_without_matplotlib(
    outcome: RunResults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.warns(PlotsWarning, match=r"pip install 'odesteer\[plot\]'"):
        lines: Sequence[SummaryRow] = write_report(outcome, tmp_path, title="t", about={})
    assert lines
    assert (tmp_path / "report.html").exists()


def test_a_judge_that_fails_yields_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from odesteer.errors import ModelError
    from odesteer.evaluation.judges.ngrams import Diversity, Repetition

    def fail(self: Repetition, items: Sequence[Item], texts: Sequence[str]) -> None:
        raise ModelError("out of order")

    lm = SteeredModel(tiny_models.llama(), tiny_models.tokenizer())
    tasks = [Words()]
    plan = Plan(
        tasks, contenders(["odesteer-default"]), (0,), {"words": LayerRange((1,), (1,))}, budget=0.5
    )
    with monkeypatch.context() as patched:
        # Without the judge of its headline metric a run stops, its results safe.
        patched.setattr(Diversity, "_judge", fail)
        with pytest.raises(ModelError, match=r"'diversity' failed: out of order.*are safe"):
            Runner(lm, plan, JudgePanel(lm, tasks), tmp_path).run()
    with monkeypatch.context() as patched:
        patched.setattr(Repetition, "_judge", fail)
        failed = Runner(lm, plan, JudgePanel(lm, tasks), tmp_path).run()
        write_report(failed, tmp_path, title="t", about={})
    document = _document(tmp_path)
    assert document["unavailable_judges"] == {"repetition": "it failed: out of order"}
    estimate = document["lines"][0]["metrics"]["repetition"]
    assert (estimate["value"], estimate["n"], estimate["n_missing"]) == (None, 0, 5)
    assert "| missing |" in (tmp_path / "summary.md").read_text()
    assert document["lines"][0]["metrics"]["dist-1"]["n"] == 5
    # The next run asks it again, and writes nothing else anew.
    generations = (tmp_path / "generations.jsonl").read_bytes()
    write_report(
        Runner(lm, plan, JudgePanel(lm, tasks), tmp_path).run(), tmp_path, title="t", about={}
    )
    assert _document(tmp_path)["lines"][0]["metrics"]["repetition"]["n"] == 5
    assert (tmp_path / "generations.jsonl").read_bytes() == generations
