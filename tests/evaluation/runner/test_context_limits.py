"""What does not fit into the model's context is left out and counted."""

from dataclasses import replace

import pytest
from bench_case import Numbers

import tiny_models
from odesteer import SteeredModel
from odesteer.errors import DataError
from odesteer.evaluation.runner.context_limits import ContextFilter


def test_what_is_too_long_is_left_out(lm: SteeredModel) -> None:
    task = Numbers()
    fold = task.folds(0)[0]
    n = tiny_models.CONTEXT
    too_long = replace(fold.test[0], key="long", prompt="x" * (n - task.max_new_tokens))
    just_fits = replace(fold.test[1], key="fits", prompt="x" * (n - task.max_new_tokens - 1))
    example = replace(fold.fit.positive[0], response="y" * n)
    fit = replace(fold.fit, positive=(example, *fold.fit.positive[1:]))
    context_filter = ContextFilter(lm)
    filtered = context_filter.filtered(task, replace(fold, fit=fit, test=(too_long, just_fits)))
    assert [item.key for item in filtered.test] == ["fits"]
    assert filtered.fit.positive == fold.fit.positive[1:]
    assert filtered.validation == fold.validation
    assert context_filter.left_out == {"numbers": 2}


def test_nothing_left_is_an_error(lm: SteeredModel) -> None:
    task = Numbers()
    fold = task.folds(0)[0]
    long = replace(fold.test[0], prompt="x" * 200)
    with pytest.raises(DataError, match="all 1 test prompts are longer"):
        ContextFilter(lm).filtered(task, replace(fold, test=(long,)))
