"""What every judge keeps to."""

import json
from pathlib import Path

import judge_models
import pytest
from judge_models import make_item

from odesteer.errors import InvalidInputError, UnknownNameError
from odesteer.evaluation.judges import Judge, create, registry

EXACT = ("choice-margin", "diversity", "form", "multiple-choice", "repetition", "terrarium")
TRAINED = ("small-info", "small-sentiment", "small-toxicity", "small-truth")


@pytest.mark.parametrize("name", list(registry))
def test_opened_without_arguments_it_tells_about_itself(name: str, tmp_path: Path) -> None:
    options = {"data": str(tmp_path)} if name in TRAINED else {}
    judge = create(name, **options)
    assert isinstance(judge, Judge)
    assert judge.name == name
    facts = judge.about()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["kind"]
    assert facts["what"]


@pytest.mark.parametrize("name", [name for name in registry if name != "rubric"])
def test_metrics_are_named(name: str) -> None:
    judge = create(name)
    assert judge.metrics
    assert judge.lower_is_better <= set(judge.metrics)


@pytest.mark.parametrize("name", EXACT)
def test_exact_judges_need_nothing(name: str) -> None:
    judge = create(name)
    assert judge.unavailable() is None
    assert judge.judge([], []) == []


@pytest.mark.parametrize("name", EXACT)
def test_items_and_texts_must_match(name: str) -> None:
    with pytest.raises(InvalidInputError, match="1 items have 2 texts"):
        create(name).judge([make_item()], ["a", "b"])


def test_names_and_options_that_there_are_not() -> None:
    with pytest.raises(UnknownNameError, match="'perplexity'"):
        create("perplexty")
    with pytest.raises(InvalidInputError, match=r"no option 'modell'; it has model, device"):
        create("perplexity", modell="x")


def test_a_reference_that_lacks_what_is_needed() -> None:
    with pytest.raises(InvalidInputError, match=r"'world'.*item 'i'"):
        create("terrarium").judge([make_item()], ["a"])


def test_judges_whose_scores_have_one_name_do_not_judge_together(tmp_path: Path) -> None:
    from odesteer.evaluation.runner import JudgePanel
    from odesteer.evaluation.suites import Sizes
    from odesteer.evaluation.suites import registry as suites

    (task, *_) = suites.get("terrarium")(Sizes(8, 2, 2)).tasks()
    (tmp_path / "truthfulqa").mkdir()
    (tmp_path / "truthfulqa" / "finetune_truth.jsonl").touch()
    both = ("truthfulqa-truth", "small-truth")
    task.headline = "true"
    model = judge_models.answering(tmp_path / "judge", " yes")
    options = {"small-truth": {"data": str(tmp_path)}, "truthfulqa-truth": {"model": model}}
    with pytest.raises(InvalidInputError, match="'truthfulqa-truth' and 'small-truth' both score"):
        JudgePanel(None, [task], wanted=both, options=options)
    JudgePanel(None, [task], wanted=both[:1], options=options)
