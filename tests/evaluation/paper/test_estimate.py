"""The estimate of a run of the paper, where models run, and speeds."""

import pytest
import torch

from odesteer.data import ContrastData, Example
from odesteer.evaluation.item import Item
from odesteer.evaluation.paper.completions import Stored, work_of
from odesteer.evaluation.paper.estimate import Machine, RunEstimate, estimate
from odesteer.evaluation.paper.experiments import EXPERIMENTS, Question, experiment
from odesteer.evaluation.paper.models import MODELS, paper_model
from odesteer.evaluation.paper.placement import placement
from odesteer.evaluation.paper.results import speeds
from odesteer.evaluation.task import Fold, Task

MODEL = paper_model("llama-3.1-8b")
GPU = Machine("a GPU", 80e9, 1e14, 1e12)


class Questions(Task):
    name = "truthfulqa"
    title = "questions"
    version = "1"
    source = "made up"
    headline = "true_info"

    def __init__(self, n: int) -> None:
        self.n = n

    def folds(self, seed: int) -> tuple[Fold, ...]:
        data = ContrastData((Example("Q", " yes"),), (Example("Q", " no"),), ("g",), ("g",))
        items = [Item(f"t{i}", "x" * 400, f"t{i}", {}) for i in range(self.n)]
        return (Fold("all", data, (Item("v", "x" * 400, "v", {}),), tuple(items)),)


def planned(n: int, dtype: str = "bfloat16", batch_size: int | None = None) -> RunEstimate:
    task = Questions(n)
    asked = Question(MODEL, task.name, MODEL.layer, 32, MODEL.lengths)
    rows = experiment(3).rows(asked)
    folds = {42: list(task.folds(42))}
    works = work_of(experiment(3), task, rows, folds)
    judges = ("truthfulqa-truth", "truthfulqa-info")
    return estimate(
        task, rows, works, folds, judges, MODEL.architecture, dtype, batch_size, machine=GPU
    )


def test_completions_are_counted_with_those_that_choose_t() -> None:
    found = planned(10)
    assert found.completions == 10 + 3 * 3 * (10 + 1)
    assert found.fits == 3
    assert found.prompt_tokens == found.completions * 100
    assert found.new_tokens == found.completions * 50


def test_time_grows_with_the_work_and_memory_with_the_batch() -> None:
    few, many = planned(10), planned(1000)
    assert many.seconds["judging"] / few.seconds["judging"] == pytest.approx(
        many.completions / few.completions
    )
    assert many.seconds["completions"] > few.seconds["completions"]
    assert (
        planned(10, batch_size=64).memory["completions"]
        > planned(10, batch_size=1).memory["completions"]
    )


def test_a_batch_is_as_large_as_one_gpu_of_80_gb_has_room_for() -> None:
    found = planned(10)
    assert found.does_fit
    assert MODEL.architecture.parameters * 2 < found.memory["completions"] <= 80e9
    assert not planned(10, dtype="float64", batch_size=256).does_fit


def test_without_a_gpu_models_run_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert placement(MODEL.architecture).options == {"dtype": "float32", "device": "cpu"}
    assert placement(MODEL.architecture, dtype="bfloat16").dtype == "bfloat16"


@pytest.mark.parametrize(("memory", "device_map"), [(80e9, None), (12e9, "auto")])
def test_a_model_without_room_on_one_gpu_is_spread(
    monkeypatch: pytest.MonkeyPatch, memory: float, device_map: str | None
) -> None:
    class Properties:
        total_memory = memory

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda at: Properties())
    found = placement(MODEL.architecture)
    assert (found.device_map, found.dtype) == (device_map, "bfloat16")
    assert found.options.get("device") == (None if device_map else "cuda")


def test_every_table_and_figure_has_rows_for_every_model_of_its_tasks() -> None:
    assert {each.name for each in EXPERIMENTS} == {
        *(f"table {n}" for n in (2, 3, 5, 6, 7, 8, 9)), *(f"figure {n}" for n in range(2, 7)),
    }  # fmt: skip
    for each in EXPERIMENTS:
        for model in MODELS:
            for task in each.tasks:
                asked = Question(model, task, model.layer, 32, model.lengths_for(task))
                rows = each.rows(asked)
                assert rows[0].published == "Original"
                assert len({row.name for row in rows}) == len(rows) > 1
                assert each.metrics_of(task)


def test_speeds_are_of_what_was_generated_now() -> None:
    rows = experiment(7).rows(Question(MODEL, "truthfulqa", 13, 32, (5.0,)))
    stored = Stored([], {}, {"caa": 2.0}, {"caa": 100}, 8, 0)
    found = {line.row: line for line in speeds(MODEL.key, rows, stored)}
    assert found["caa"].measured == 50.0
    assert found["iti"].measured is None
    assert found["iti"].published is not None
    assert found["iti"].published.value == 114.82
