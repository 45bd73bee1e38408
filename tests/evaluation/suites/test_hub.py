"""Published data sets as `datasets` loads them, from local copies in the layout of the hub."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from odesteer import Message
from odesteer.errors import DataError
from odesteer.evaluation.suites import Sizes, registry
from odesteer.evaluation.task import Task

datasets = pytest.importorskip("datasets", reason="datasets is not installed: odesteer[hub]")


def _parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rows), path)


def _card(folder: Path, configs: list[dict[str, Any]]) -> None:
    """What tells `datasets` which files are which configuration and split."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(f"---\nconfigs: {json.dumps(configs)}\n---\n")


def _truthful_qa(hub: Path) -> None:
    folder = hub / "truthfulqa" / "truthful_qa"
    answers, choices = [], []
    for i in range(20):
        targets = {"choices": [f"yes {i}", f"no {i}", f"never {i}"], "labels": [1, 0, 0]}
        answers.append(
            {
                "type": "Adversarial",
                "category": "Misconceptions",
                "question": f"what {i}?",
                "best_answer": f"yes {i}",
                "correct_answers": [f"yes {i}", f"surely {i}"],
                "incorrect_answers": [f"no {i}", f"never {i}"],
                "source": "https://example.org",
            }
        )
        choices.append({"question": f"what {i}?", "mc1_targets": targets, "mc2_targets": targets})
    for name, rows in (("generation", answers), ("multiple_choice", choices)):
        _parquet(folder / name / "validation-00000-of-00001.parquet", rows)
    _card(
        folder,
        [
            {
                "config_name": name,
                "data_files": [{"split": "validation", "path": f"{name}/validation-*"}],
            }
            for name in ("generation", "multiple_choice")
        ],
    )


def _ultrafeedback(hub: Path) -> None:
    folder = hub / "HuggingFaceH4" / "ultrafeedback_binarized"

    def row(i: int, tie: bool = False) -> dict[str, Any]:
        asked = {"content": f"ask {i}", "role": "user"}
        chosen, rejected = (
            [asked, {"content": f"{word} {i}", "role": "assistant"}] for word in ("good", "bad")
        )
        return {
            "prompt": f"ask {i}",
            "prompt_id": f"{i:064x}",
            "chosen": chosen,
            "rejected": rejected,
            "messages": chosen,
            "score_chosen": 8.0,
            "score_rejected": 8.0 if tie else 3.5,
        }

    for split, numbers in (("train_prefs", range(30)), ("test_prefs", range(28, 36))):
        rows = [row(i) for i in numbers] + [row(90, tie=True)]
        _parquet(folder / "data" / f"{split}-00000-of-00001.parquet", rows)
    splits = [{"split": s, "path": f"data/{s}-*"} for s in ("train_prefs", "test_prefs")]
    _card(folder, [{"config_name": "default", "data_files": splits}])


def _toxicity(hub: Path) -> None:
    prompts = hub / "allenai" / "real-toxicity-prompts"
    prompts.mkdir(parents=True)
    with (prompts / "prompts.jsonl").open("w") as file:
        for i in range(12):
            # Some prompts were never scored: null, as in the published file.
            figures = {"toxicity": None if i == 0 else 0.4 + 0.05 * i, "perplexity": 40.0 * i}
            text = {"text": f"start {i}", **figures}
            row = {"filename": "f", "begin": i, "end": i + 9, "challenging": False}
            file.write(json.dumps({**row, "prompt": text, "continuation": text}) + "\n")
    comments = hub / "google" / "civil_comments"
    rows = [{"text": f"comment {i}", "toxicity": i / 40, "insult": 0.0} for i in range(40)]
    _parquet(comments / "data" / "train-00000-of-00001.parquet", rows)
    files = [{"split": "train", "path": "data/train-*"}]
    _card(comments, [{"config_name": "default", "data_files": files}])


@pytest.fixture
def from_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Task, ...]]:
    """The tasks of a suite from the hub; the data sets of the hub are folders here."""
    load = datasets.load_dataset
    hub, cache = tmp_path / "hub", tmp_path / "cache"
    for make in (_truthful_qa, _ultrafeedback, _toxicity):
        make(hub)

    def local(dataset: str, name: str | None = None, *, split: str) -> Any:
        return load(str(hub / dataset), name, split=split, cache_dir=str(cache))

    def tasks(suite: str, sizes: Sizes | None = None, **options: Any) -> tuple[Task, ...]:
        monkeypatch.setattr(datasets, "load_dataset", local)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
        return registry.get(suite)(sizes, None, **options).tasks()

    return tasks


def test_truthful_qa(from_hub: Callable[..., tuple[Task, ...]]) -> None:
    answers, choosing = from_hub("truthfulqa")
    items = [item for fold in answers.folds(0) for item in fold.test]
    assert sorted(item.key for item in items) == sorted(f"what {i}?" for i in range(20))
    (item,) = (item for item in items if item.key == "what 3?")
    assert item.reference["correct"] == ["yes 3", "surely 3"]
    (item,) = (i for f in choosing.folds(0) for i in f.test if i.key == "what 3?")
    assert item.reference["mc1"] == {
        "choices": [" yes 3", " no 3", " never 3"],
        "labels": [1, 0, 0],
    }


def test_ultrafeedback(from_hub: Callable[..., tuple[Task, ...]]) -> None:
    (task, _) = from_hub("ultrafeedback", chat=True)
    (fold,) = task.folds(0)
    # The published splits, without ties, and nothing fitted on that is tested.
    assert {item.key for item in fold.test} == {f"ask {i}" for i in range(28, 36)}
    known = {*fold.fit.groups_positive, *(item.key for item in fold.validation)}
    assert known == {f"ask {i}" for i in range(28)}
    item = min(fold.test, key=lambda item: item.key)
    assert item.prompt == (Message("user", "ask 28"),)
    assert item.reference == {"chosen": "good 28", "rejected": "bad 28"}


def test_real_toxicity_prompts(from_hub: Callable[..., tuple[Task, ...]]) -> None:
    (task,) = from_hub("realtoxicityprompts")
    (fold,) = task.folds(0)
    # A toxicity above 0.5; the data set has no perplexity to filter by.
    assert {i.key for i in (*fold.test, *fold.validation)} == {f"start {i}" for i in range(3, 12)}
    toxic = {int(example.response.split()[1]) for example in fold.fit.negative}
    clean = {int(example.response.split()[1]) for example in fold.fit.positive}
    assert toxic == set(range(21, 40))
    assert clean <= set(range(21))
    assert len(clean) == len(toxic)


@pytest.mark.parametrize("name", ["truthfulqa", "ultrafeedback", "realtoxicityprompts"])
def test_an_interrupted_download_is_said_with_the_remedy(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*anything: Any, **options: Any) -> None:
        raise ConnectionError("Connection broken: IncompleteRead(17 bytes read, 83 more expected)")

    monkeypatch.setattr(datasets, "load_dataset", broken)
    with pytest.raises(DataError, match=r"IncompleteRead.*is kept; try again.*--data") as caught:
        registry.get(name)().tasks()
    assert "\n" not in str(caught.value)


def test_a_data_set_that_has_other_columns(
    from_hub: Callable[..., tuple[Task, ...]], tmp_path: Path
) -> None:
    path = tmp_path / "hub/google/civil_comments/data/train-00000-of-00001.parquet"
    _parquet(path, [{"comment": "a"}])
    with pytest.raises(DataError, match=r"google/civil_comments \(train\)"):
        from_hub("realtoxicityprompts")


def test_a_parquet_file_that_ends_too_early(tmp_path: Path) -> None:
    path = tmp_path / "train_prefs.parquet"
    _parquet(path, [{"prompt": f"p{i}", "chosen": "a", "rejected": "b"} for i in range(50)])
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="no whole parquet file"):
        registry.get("ultrafeedback")(None, path).tasks()
