"""A batch that does not fit into the GPU's memory is halved, and nothing is lost."""

from pathlib import Path

import pytest
import torch
from test_estimate import Questions

import tiny_models
from odesteer import SteeredModel
from odesteer.evaluation.paper import completions
from odesteer.evaluation.paper.experiments import Question, experiment
from odesteer.evaluation.paper.models import paper_model
from odesteer.evaluation.runner.completions import CompletionBatch, complete_batch


def test_batches_are_halved_until_they_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def little_room(lm: SteeredModel, batch: CompletionBatch):  # type: ignore[no-untyped-def]
        sizes.append(len(batch.specs))
        if len(batch.specs) > 2:
            raise torch.OutOfMemoryError("no room")
        return complete_batch(lm, batch)

    monkeypatch.setattr(completions, "complete_batch", little_room)
    lm = SteeredModel(tiny_models.llama(max_position_embeddings=1024), tiny_models.tokenizer())
    task = Questions(5)
    task.max_new_tokens = 2
    asked = Question(paper_model("llama-3.1-8b"), task.name, 1, 4, (0.1,))
    rows = experiment(3).rows(asked)[:1]
    folds = {42: list(task.folds(42))}
    found = completions.complete(lm, experiment(3), task, rows, folds, tmp_path, 5)
    assert sizes == [5, 2, 2, 1]
    assert found.batch_size == 2
    assert len(found.completions) == 5
