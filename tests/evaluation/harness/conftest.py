"""lm-evaluation-harness on local tasks: data from JSON files, no network."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from odesteer.methods import ODESteer
from odesteer.models import SteeredModel
from odesteer.terrarium import model_path, world

N_QUESTIONS = 8
LEVEL = 1.5


@pytest.fixture(scope="session", autouse=True)
def _offline() -> Iterator[None]:
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: odesteer[bench]")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE"):
            patch.setenv(name, "1")
        yield


@pytest.fixture(scope="session")
def lm() -> SteeredModel:
    """The bundled model."""
    return SteeredModel.from_pretrained(str(model_path()), device="cpu")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("harness")


@pytest.fixture(scope="session")
def truthful(lm: SteeredModel, folder: Path) -> Path:
    """A steerer that makes the bundled model truthful, in a file."""
    truth = world("truth")
    data = truth.contrast("fit", 0, 100)
    path = folder / "truthful.safetensors"
    lm.fit(ODESteer(), data, truth.layer, position=truth.position).save(path)
    return path


@pytest.fixture(scope="session")
def questions(folder: Path) -> Path:
    """Questions with a right and a wrong answer, in that order, in a file."""
    truth: Any = world("truth")
    rng = random.Random(0)
    rows = []
    for prompt in truth.prompts("test", 0, N_QUESTIONS):
        fact = truth.fact_of_prompt(prompt)
        answers = [truth.answer(rng, fact, truthful) for truthful in (True, False)]
        rows.append({"prompt": prompt, "answers": answers, "right": 0})
    path = folder / "questions.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture(scope="session")
def tasks(questions: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """One task of each kind, as the harness describes them."""
    shared = {
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {"test": str(questions)},
            "cache_dir": str(folder / "cache"),
        },
        "test_split": "test",
    }
    mean = {"aggregation": "mean", "higher_is_better": True}
    return {
        "choosing": {
            "task": "choosing",
            **shared,
            "output_type": "multiple_choice",
            "doc_to_text": "{{prompt}}",
            "doc_to_choice": "answers",
            "doc_to_target": "right",
            "metric_list": [{"metric": "acc", **mean}],
        },
        "answering": {
            "task": "answering",
            **shared,
            "output_type": "generate_until",
            "doc_to_text": "{{prompt}}",
            "doc_to_target": "{{answers[0]}}",
            "generation_kwargs": {"until": ["\n"], "max_gen_toks": 24, "do_sample": False},
            "metric_list": [{"metric": "exact_match", **mean}],
        },
    }


@pytest.fixture(scope="session")
def harness() -> Callable[..., Any]:
    """The class of the model, made with the bundled model on the CPU unless something else is
    said."""
    from odesteer.evaluation.harness import register

    cls = register()

    def make(**arguments: Any) -> Any:
        return cls(**{"pretrained": str(model_path()), "device": "cpu", **arguments})

    return make
