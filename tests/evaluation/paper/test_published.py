"""The published figures, and what the paper's headline says about them."""

import pytest

from odesteer.errors import InvalidInputError
from odesteer.evaluation.paper.models import MODELS, paper_model
from odesteer.evaluation.paper.published import figure, published, with_deviation

BEST = {"win_rate": max, "true_info": max, "toxicity": min}


def test_the_headline_of_the_paper_follows_from_table_2():
    gains = {}
    for metric, best in BEST.items():
        own, others = [], []
        for model in MODELS:
            rows = {
                f.method: f.value
                for f in published()
                if (f.table, f.model, f.metric) == (2, model.key, metric)
            }
            assert len(rows) == 10
            own.append(rows.pop("ODESteer"))
            others.append(best(rows.values()))
        gains[metric] = (sum(own) - sum(others)) / 4
    assert gains["true_info"] == pytest.approx(0.057, abs=0.001)
    assert gains["win_rate"] == pytest.approx(0.025, abs=0.001)
    assert gains["toxicity"] == pytest.approx(-0.024, abs=0.001)


def test_tables_agree_where_they_share_a_figure():
    for model in MODELS[:3]:
        whole = figure(2, model.key, "truthfulqa", "ODESteer", "true_info")
        assert figure(3, model.key, "truthfulqa", "ODESteer", "true_info").value == whole.value
        assert figure(9, model.key, "truthfulqa", "Euler", "true_info").value == whole.value


def test_figures_have_the_unit_of_their_metric():
    for one in published():
        if one.metric not in {"reward", "reward-p90", "perplexity", "tokens_per_second"}:
            assert 0 <= one.value <= 1, one
            assert one.deviation is None or one.deviation < 0.04, one


def test_every_figure_has_a_key_of_its_own():
    keys = [(f.table, f.model, f.task, f.method, f.metric) for f in published()]
    assert len(set(keys)) == len(keys) > 400
    assert {f.table for f in published()} == {2, 3, 6, 7, 8, 9}
    assert {f.model for f in published()} == {model.key for model in MODELS}
    assert figure(2, "llama-3.1-8b", "truthfulqa", "GPT", "true_info") is None


def test_layers_count_from_zero_and_exist():
    assert [model.layer for model in MODELS] == [14, 15, 13, 13]
    assert all(model.layer < model.architecture.layers for model in MODELS)
    assert paper_model("Qwen2.5-7B").lengths_for("realtoxicityprompts") == (48.0,)


def test_an_unknown_model_names_those_there_are():
    with pytest.raises(InvalidInputError, match=r"no model 'llama-2'.*llama-3\.1-8b"):
        paper_model("llama-2")


def test_figures_print_with_their_deviation():
    assert with_deviation(0.632, 0.00823) == "0.632 ±0.008"
    assert with_deviation(107.41, None) == "107.41"
    assert with_deviation(-15.298, 0.194) == "-15.30 ±0.19"
