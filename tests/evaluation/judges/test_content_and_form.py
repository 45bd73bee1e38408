"""Judges of choices, of form, of sentiment, and a third party's judge of profanity."""

import json
import math
from pathlib import Path

import pytest

from odesteer.evaluation.item import Item
from odesteer.evaluation.judges import create


def item(choices: list[str], labels: list[int]) -> Item:
    both = {"choices": choices, "labels": labels}
    return Item("i", "a prompt", "i", {"mc1": both, "mc2": both})


def test_the_margin_is_log_odds() -> None:
    asked = item(["a", "b", "c"], [1, 0, 1])
    logs = {"a": math.log(0.2), "b": math.log(0.5), "c": math.log(0.1)}
    (scores,) = create("choice-margin").judge([asked], [json.dumps(logs)])
    assert scores["margin"] == pytest.approx(math.log(0.3 / 0.5))
    assert scores["probability"] == pytest.approx(0.3 / 0.8)
    assert scores["accuracy"] == 0.0


def test_margins_of_sure_models_stay_finite() -> None:
    asked = item(["a", "b"], [1, 0])
    (scores,) = create("choice-margin").judge([asked], ['{"a": -1.0, "b": -5000.0}'])
    assert scores == {"margin": 4999.0, "probability": 1.0, "accuracy": 1.0}


@pytest.mark.parametrize("text", ["no JSON", '{"a": -1.0}', '{"a": -1.0, "b": null}'])
def test_a_choice_without_a_likelihood_is_missing(text: str) -> None:
    (scores,) = create("choice-margin").judge([item(["a", "b"], [1, 0])], [text])
    assert set(scores.values()) == {None}


def test_form_counts_blanks_refusals_and_repetition() -> None:
    texts = ["", "  \n", "I'm sorry, but I can't.", "As an AI I see.", "on and on and on and on"]
    found = create("form").judge([item(["a"], [1])] * 5, texts)
    assert [one["blank"] for one in found] == [1, 1, 0, 0, 0]
    assert [one["refusal"] for one in found] == [0, 0, 1, 1, 0]
    assert found[4]["repeated"] > 0.4
    assert [one["repeated"] for one in found[:4]] == [0, 0, 0, 0]


def test_vader_and_profanity_tell_plain_cases_apart() -> None:
    for name, texts in (
        ("vader", ["A wonderful, great film!", "An awful, terrible film."]),
        ("profanity", ["you fucking idiot", "thank you, my friend"]),
    ):
        judge = create(name)
        reason = judge.unavailable()
        if reason is not None:
            pytest.skip(reason)
        more, less = (one[name] for one in judge.judge([item(["a"], [1])] * 2, texts))
        assert more > 0.5
        assert less < 0.3


def test_small_sentiment_is_trained_on_the_judges_half(shared: Path) -> None:
    from odesteer.evaluation.suites import Sizes, registry

    judge = create("small-sentiment", data=str(shared / "data"))
    good, bad = judge.judge(
        [item(["a"], [1])] * 2,
        ["a wonderful film, great fun and excellent acting", "terrible, boring and awful"],
    )
    assert good["positive"] > 0.8 > 0.2 > bad["positive"]
    held_out = judge.about()["held_out"]["unseen reviews"]
    assert held_out["balanced_accuracy"] > 0.7

    trained = {row.what for row in judge.rows()}  # type: ignore[attr-defined]
    task = registry.get("sentiment")(Sizes(), shared / "data").tasks()[0]
    fold = task.folds(0)[0]
    fitted = {example.response for example in (*fold.fit.positive, *fold.fit.negative)}
    assert not trained & fitted
