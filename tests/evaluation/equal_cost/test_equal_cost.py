"""Comparison at equal cost: interpolation, a run on a tiny model, and its resumption."""

import json
import math
from pathlib import Path

import pytest

import tiny_models
from odesteer import ContrastData, Example, SteeredModel
from odesteer.evaluation.equal_cost import (
    CostCurve,
    CurveSegment,
    EqualCostComparison,
    MeasuredAmount,
    write_equal_cost,
)
from odesteer.evaluation.equal_cost.costs import CostMeter, unrelated_questions
from odesteer.evaluation.equal_cost.report import conclusion, rows_of
from odesteer.evaluation.item import Item
from odesteer.evaluation.runner import JudgePanel, LayerRange, Plan, contenders
from odesteer.evaluation.task import Fold, Task
from odesteer.methods import CAA, Amount

TARGETS = (0.002, 0.005, 0.01)
KEYS = [(f"u{i}", 0, f"k{i}") for i in range(6)]


def point(kl: float, effects: list[float | None]) -> MeasuredAmount:
    found = dict(zip(KEYS, effects, strict=True))
    return MeasuredAmount("strength=1", 3, kl, 0.01, found, found)


def test_effects_are_linear_in_the_root_of_the_cost() -> None:
    """A gain proportional to √KL is found exactly at every cost between."""
    points = tuple(point(kl, [c * math.sqrt(kl) for c in range(6)]) for kl in (0.3, 0.04, 0.11))
    segment = CurveSegment("all", 0, points)
    for kl in (0.01, 0.04, 0.05, 0.1, 0.3):
        effects = list(segment.effect(kl).values())
        assert effects == pytest.approx([c * math.sqrt(kl) for c in range(6)])
    assert list(segment.effect(0.31).values()) == [None] * 6


def test_what_is_missing_stays_missing() -> None:
    segment = CurveSegment("all", 0, (point(0.1, [1.0, None, 3.0, 4.0, 5.0, 6.0]),))
    assert segment.effect(0.1)[KEYS[1]] is None
    assert segment.effect(0.1)[KEYS[0]] == pytest.approx(1.0)


def test_differences_are_paired_and_unreached_costs_have_no_figure() -> None:
    near = point(0.5, [1.0, 5.0, -3.0, 8.0, 2.0, -6.0])
    far = point(0.5, [value + 0.25 for value in near.gains.values() if value is not None])
    short = point(0.05, [1.0] * 6)
    curves = [
        CostCurve("t", name, name, [CurveSegment("all", 0, (one,))])
        for name, one in (("caa", near), ("odesteer", far), ("angular", short))
    ]
    rows = {row.contender: row for row in rows_of(curves, [0.5])}
    difference = rows["odesteer"].against["caa"][0.5]
    assert difference.value == pytest.approx(0.25)
    assert difference.low == pytest.approx(0.25)
    assert difference.high == pytest.approx(0.25)
    wide = rows["odesteer"].effects[0.5]
    assert wide.low is not None
    assert wide.high is not None
    assert wide.high - wide.low > 1
    assert rows["angular"].effects == {}
    told = conclusion(list(rows.values()), [0.5], less_is_better=False)
    assert told.startswith("At KL 0.5 `odesteer` gains the most of 2 rows")
    assert "not clearly more than nothing" in told
    assert "lead over `caa` is +0.250 [+0.250, +0.250]: clear" in told
    assert "`caa` gains the most" in conclusion(list(rows.values()), [0.5], less_is_better=True)


class UpOrDown(Task):
    """Odds of one word against another."""

    name = "up"
    title = "odds of up"
    version = "1"
    source = "made up"
    kind = "choice"
    judges = ("choice-margin",)
    headline = "margin"

    def folds(self, seed: int) -> tuple[Fold, ...]:
        questions = [f"number {i} goes" for i in range(24)]
        fit, validation, test = questions[:12], questions[12:16], questions[16:]
        data = ContrastData(
            tuple(Example(q, " up") for q in fit),
            tuple(Example(q, " down") for q in fit),
            tuple(fit),
            tuple(fit),
        )
        both = {"choices": [" up", " down"], "labels": [1, 0]}
        items = [
            tuple(Item(q, q, q, {"mc1": both, "mc2": both}) for q in part)
            for part in (validation, test)
        ]
        return (Fold("all", data, *items),)


@pytest.fixture(scope="module")
def lm() -> SteeredModel:
    return SteeredModel(tiny_models.llama(), tiny_models.tokenizer())


ROWS = ("prompt-only", "odesteer", "caa", "mimic", "head-iti")


def comparison(
    lm: SteeredModel, folder: Path, layers: tuple[int, ...], names: tuple[str, ...] = ROWS
) -> tuple[object, Plan]:
    tasks = [UpOrDown()]
    rows = contenders(names)
    plan = Plan(tasks, rows, (0,), {"up": LayerRange(layers, range(4))}, budget=0.5)
    panel = JudgePanel(lm, tasks)
    return EqualCostComparison(lm, plan, panel, folder, targets=TARGETS, n_texts=3), plan


def finish(lm: SteeredModel, folder: Path, layers: tuple[int, ...] = (1,)) -> dict[str, object]:
    run, plan = comparison(lm, folder, layers)
    curves = run.measure(4)  # type: ignore[attr-defined]
    write_equal_cost(run, curves, plan, folder, title="up", about={})  # type: ignore[arg-type]
    found: dict[str, object] = json.loads((folder / "equal-cost.json").read_text())
    return found


def test_a_run_has_every_method_at_the_costs(lm: SteeredModel, tmp_path: Path) -> None:
    document = finish(lm, tmp_path)
    rows = {row["contender"]: row for row in document["rows"]}  # type: ignore[attr-defined]
    assert set(rows) == {"odesteer", "caa", "mimic", "head-iti"}
    assert rows["head-iti"]["curve"]
    assert not rows["head-iti"]["failures"]
    for target in TARGETS:
        assert rows["caa"]["effects"][f"{target:g}"]["n"] == 8
    costs = [each["kl"] for each in rows["caa"]["curve"]]
    assert costs == sorted(costs)
    assert costs[-1] >= TARGETS[-1]
    for target in TARGETS[:-1]:
        assert min(abs(kl / target - 1) for kl in costs) <= 0.16
    assert all(each["neutral_perplexity"] > 1 for each in rows["caa"]["curve"])
    assert 0 < document["side_effects_unsteered"]["unrelated_mc"] < 1  # type: ignore[index]
    text = (tmp_path / "equal-cost.md").read_text()
    assert "`caa`" in text
    assert "effect at KL 0.005" in text

    generations = (tmp_path / "generations.jsonl").read_bytes()
    costs_file = (tmp_path / "costs.jsonl").read_bytes()
    assert finish(lm, tmp_path) == document  # nothing is measured again
    assert (tmp_path / "generations.jsonl").read_bytes() == generations
    assert (tmp_path / "costs.jsonl").read_bytes() == costs_file


@pytest.mark.filterwarnings("error")
def test_the_untuned_row_is_compared_unless_its_tuned_form_is(
    lm: SteeredModel, tmp_path: Path
) -> None:
    for names, wanted in (
        (("none", "odesteer-default"), ["odesteer-default"]),
        (("none", "odesteer-default", "odesteer"), ["odesteer"]),
    ):
        folder = tmp_path / wanted[0]
        run, plan = comparison(lm, folder, (1,), names)
        curves = run.measure(4)  # type: ignore[attr-defined]
        write_equal_cost(run, curves, plan, folder, title="up", about={})  # type: ignore[arg-type]
        assert [curve.contender for curve in curves] == wanted
        assert curves[0].segments


def test_an_interrupted_run_ends_the_same(
    lm: SteeredModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = finish(lm, tmp_path / "whole")
    meant, calls = CostMeter.neutral, []

    def interrupted(self: CostMeter, *given: object) -> dict[str, float]:
        calls.append(given)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return meant(self, *given)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(CostMeter, "neutral", interrupted)
        with pytest.raises(KeyboardInterrupt):
            finish(lm, tmp_path / "cut")
    assert finish(lm, tmp_path / "cut") == whole


def test_a_layer_is_chosen_on_validation_items(lm: SteeredModel, tmp_path: Path) -> None:
    document = finish(lm, tmp_path, (0, 2))
    layers = {
        each["layer"]
        for row in document["rows"]  # type: ignore[attr-defined]
        for each in row["curve"]
    }
    assert layers <= {0, 2}
    assert layers


def test_the_cost_is_the_divergence_of_the_model(lm: SteeredModel) -> None:
    fold = UpOrDown().folds(0)[0]
    steerer = lm.fit(CAA(), fold.fit, 1)
    meter = CostMeter(lm, 4)
    for strength in (1.0, 5.0):
        ours = meter.neutral(steerer, Amount("strength", strength))["kl"]
        theirs = lm.divergence(
            steerer, strength=strength, prompts=meter.prompts, max_new_tokens=24
        ).mean
        assert ours == pytest.approx(theirs, rel=1e-2, abs=1e-6)


def test_unrelated_questions_have_four_different_answers() -> None:
    questions = unrelated_questions()
    assert len({one.question for one in questions}) == len(questions) == 24
    assert all(len(set(one.answers)) == 4 for one in questions)


class Words(UpOrDown):
    """Texts that repeat themselves little, by a judge that may err."""

    name = "words"
    kind = "generation"
    max_new_tokens = 4
    judges = ("diversity",)
    headline = "dist-1"
    instruction = "Never say a word twice."


def test_written_texts_have_a_gate_and_prompts_their_own_cost(
    lm: SteeredModel, tmp_path: Path
) -> None:
    tasks = [Words()]
    rows = contenders(("prompt-only", "caa"))
    plan = Plan(tasks, rows, (0,), {"words": LayerRange((1,), range(4))}, budget=0.5)
    run = EqualCostComparison(
        lm, plan, JudgePanel(lm, tasks), tmp_path, targets=(0.005,), n_texts=3
    )
    curves = {curve.contender: curve for curve in run.measure(8)}
    assert set(curves) == {"prompt-only", "caa"}
    assert not run.gates["words"].passed
    (prompted,) = curves["prompt-only"].segments[0].points
    assert prompted.kl > 0
    assert prompted.layer is None
    write_equal_cost(run, list(curves.values()), plan, tmp_path, title="w", about={})
    document = json.loads((tmp_path / "equal-cost.json").read_text())
    found = {row["contender"]: row for row in document["rows"]}
    assert found["prompt-only"]["effects"] == {}  # it cannot be dialled
    assert found["caa"]["effects"]["0.005"]["n"] == 8
    assert not document["tasks"]["words"]["gate"]["passed"]
    text = (tmp_path / "equal-cost.md").read_text()
    assert "indicative only" in text
    assert f"at KL {prompted.kl:.3f}" in text
