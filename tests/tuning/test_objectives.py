"""Objectives on a model: likelihood margin, generated texts, trained judge; heat maps."""

import math

import pytest
import torch
from rule_objective import KnownObjective, pairs

from odesteer import CAA, ContrastData, ODESteer, SteeredModel, Steerer
from odesteer.data import Example
from odesteer.errors import DataError, InvalidInputError
from odesteer.methods import Amount
from odesteer.terrarium import model_path, world
from odesteer.tuning import (
    Candidate,
    LikelihoodMargin,
    ReadingJudge,
    WrittenTexts,
    from_data,
    heat_map,
    tune,
)
from odesteer.tuning.objectives.log_likelihood import log_likelihoods
from odesteer.tuning.objectives.prompts import generation_prompts, prompt_responses


@pytest.fixture(scope="module")
def steerer(lm: SteeredModel) -> Steerer:
    return lm.fit(CAA(), pairs(), 2, position="answer")


@pytest.fixture(scope="module")
def bundled() -> SteeredModel:
    return SteeredModel.from_pretrained(model_path(), device="cpu")


def by_hand(lm: SteeredModel, ids: tuple[int, ...], start: int) -> float:
    logits = lm.model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
    return sum(float(logits[i - 1, ids[i]]) for i in range(start, len(ids)))


def test_likelihoods_in_batches_are_those_of_single_texts(lm: SteeredModel) -> None:
    texts = [("Day 1:", " warm"), ("", "the sun and the rain"), ("A much longer prompt.", " x y")]
    encoded = [lm.encode(Example(prompt, text)) for prompt, text in texts]
    with torch.no_grad():
        for found, each in zip(log_likelihoods(lm, encoded), encoded, strict=True):
            start = max(each.n_prompt, 1)
            assert found.n_tokens == len(each) - start
            assert found.total == pytest.approx(by_hand(lm, each.ids, start), abs=1e-3)


@pytest.mark.parametrize("position", ["last", "generated", "prompt", "all"])
def test_steered_likelihoods_are_those_of_steered_generation(
    lm: SteeredModel, position: str
) -> None:
    one = lm.fit(CAA(), pairs(), 1, position="answer", steer_position=position)
    encoded = [lm.encode(Example(p, " sunny day")) for p in ("Day 7:", "A longer prompt here")]
    found = log_likelihoods(lm, encoded, one, Amount("strength", 0.5))
    for each, likelihood in zip(encoded, found, strict=True):
        cache, total = None, 0.0
        with torch.no_grad(), lm.steering(one, strength=0.5):
            ids = torch.tensor([each.ids[: each.n_prompt]])
            for token in each.ids[each.n_prompt :]:
                out = lm.model(input_ids=ids, past_key_values=cache, use_cache=True)
                cache, ids = out.past_key_values, torch.tensor([[token]])
                total += float(out.logits[0, -1].float().log_softmax(-1)[token])
        assert likelihood.total == pytest.approx(total, abs=1e-3)


def test_written_texts_are_judged_and_cost_what_the_unsteered_model_thinks(
    lm: SteeredModel, steerer: Steerer
) -> None:
    prompts = [f"Day {i}:" for i in range(6)]
    seen = []

    def judge(prompts, texts):
        seen.append((list(prompts), list(texts)))
        return [None if i == 0 else float(len(text)) for i, text in enumerate(texts)]

    objective = WrittenTexts(lm, prompts, judge, title="length", max_new_tokens=8)
    unsteered = objective.measure(None, None, range(6))
    assert all(m.fluency in (0.0, None) for m in unsteered)
    assert [m.value is None for m in unsteered] == [True] + [False] * 5
    amount = Amount("strength", 1.0)
    steered = objective.measure(steerer, amount, range(2, 6))
    # Asked alone it is the same: it draws the unsteered texts that it compares with itself.
    fresh = WrittenTexts(lm, prompts, judge, title="length", max_new_tokens=8)
    assert fresh.measure(steerer, amount, range(2, 6)) == steered
    assert seen[1][0] == prompts[2:]
    text = seen[1][1][1]
    own = objective.write(None, None, range(2, 6))[1]
    surprise = [
        -found.mean
        for found in log_likelihoods(lm, [lm.encode(Example(prompts[3], t)) for t in (text, own)])
    ]
    assert steered[1].fluency == pytest.approx(surprise[0] - surprise[1], abs=1e-4)


def test_a_blank_text_has_no_cost() -> None:
    class Mute(SteeredModel):
        def generate(self, prompts, *rest, **named):
            return [" "] * len(prompts)

    import tiny_models

    mute = Mute(tiny_models.llama(), tiny_models.tokenizer())
    objective = WrittenTexts(mute, ["a", "b"], lambda p, t: [None, None], title="none")
    score = objective.score(None)
    assert math.isnan(score.fluency)
    assert math.isnan(score.value)
    assert score.missing == 2


def test_a_judge_gives_a_verdict_on_each_text(lm: SteeredModel) -> None:
    objective = WrittenTexts(lm, ["a", "b"], lambda p, t: [1.0], title="short", max_new_tokens=2)
    with pytest.raises(InvalidInputError, match="1 verdicts on 2 texts"):
        objective.score(None)
    with pytest.raises(InvalidInputError, match="no prompts"):
        WrittenTexts(lm, [], lambda p, t: [], title="none")


def test_the_margin_rises_towards_the_positives_and_falls_the_other_way(
    bundled: SteeredModel,
) -> None:
    fit, held_out = world("civility").contrast("fit", 0, 60).split(0.3)
    steerer = bundled.fit(CAA(), fit, 4, position="answer")
    objective = LikelihoodMargin(bundled, held_out, max_items=12, max_new_tokens=8)
    still = objective.score(None)
    assert (still.value, still.fluency) == (0.0, 0.0)
    up = objective.score(steerer, Amount("strength", 0.3))
    down = objective.score(steerer, Amount("strength", -0.3))
    assert up.value > 3 * up.value_error > 0
    assert down.value < 0
    assert up.fluency > 0
    # Ranges of items measured one by one are the whole.
    part = objective.measure(steerer, Amount("strength", 0.3), range(5, 12))
    whole = objective.measure(steerer, Amount("strength", 0.3), range(12))
    for one, same in zip(whole[5:], part, strict=True):
        assert same.value == pytest.approx(one.value, abs=1e-4)


def test_each_prompt_gets_responses_of_both_sides() -> None:
    data = ContrastData(
        (Example("careful:", "yes"), Example("careful?", "sure")),
        (Example("careless:", "no"), Example("careful?", "never")),
        ("a", "b"),
        ("a", "b"),
    )
    found = {q.prompt: (q.positive, q.negative) for q in prompt_responses(data)}
    assert found == {
        "careful:": (("yes",), ("no",)),
        "careless:": (("yes",), ("no",)),
        "careful?": (("sure",), ("never",)),
    }


def test_plain_texts_are_opened_by_their_first_words() -> None:
    data = ContrastData.from_texts(["one two three four five six seven"], ["a b c"])
    assert generation_prompts(prompt_responses(data)) == ("one two", "a b")


def test_sides_that_differ_in_prompts_only_are_refused(lm: SteeredModel) -> None:
    rows = range(20)
    honest = tuple(Example("Be honest.", f"Fact {i}.") for i in rows)
    lying = tuple(Example("Lie.", f"Fact {i}.") for i in rows)
    groups = tuple(map(str, rows))
    data = ContrastData(honest, lying, groups, groups)
    for proxy in ("judge", "likelihood"):
        with pytest.raises(DataError, match="only their prompts differ"):
            from_data(lm, data, proxy)


def test_the_judge_tells_texts_that_it_has_not_seen(lm: SteeredModel) -> None:
    judge = ReadingJudge(lm, pairs(30))
    assert judge.auc > 0.95
    good, bad, blank = judge(["Day 99:"] * 3, [" warm sunny bright", " wet cold grey", " "])
    assert good > 0.8 > 0.2 > bad
    assert blank is None
    assert ReadingJudge(lm, pairs(30)).about() == judge.about()


@pytest.mark.parametrize("proxy", ["judge", "likelihood"])
@pytest.mark.parametrize("prompts", [True, False])
def test_nothing_that_is_selected_on_was_fitted_on(
    lm: SteeredModel, proxy: str, prompts: bool
) -> None:
    data = pairs(40, prompts=prompts)
    fit, objective = from_data(lm, data, proxy, n_items=10, max_new_tokens=4)
    assert objective.n_items <= 10
    used = {e.response for e in (*fit.positive, *fit.negative)}
    if proxy == "likelihood":
        held_out = {*objective.data.groups_positive}
        assert not held_out & {*fit.groups_positive}
    else:
        assert not any(p in {e.prompt for e in fit.positive} for p in objective.prompts)
        assert len(used) < 80
    again = from_data(lm, data, proxy, n_items=10, max_new_tokens=4)[1]
    assert again.about() == objective.about()
    assert again.score(None) == objective.score(None)


def test_too_few_groups_are_refused(lm: SteeredModel) -> None:
    with pytest.raises(DataError, match="at least 16"):
        from_data(lm, pairs(8), "judge")
    with pytest.raises(DataError, match="at least 6"):
        from_data(lm, pairs(5), "likelihood")
    with pytest.raises(InvalidInputError, match="judge, likelihood"):
        from_data(lm, pairs(), "guess")


def test_the_picture_shows_every_candidate_and_is_the_same_twice(lm: SteeredModel) -> None:
    pytest.importorskip("matplotlib")
    candidates = [
        Candidate.of(CAA(), "caa", "strength", (0.1, 0.4)),
        Candidate.of(CAA(), "caa 1", "T", (1.0, 2.0)),
    ]
    known = KnownObjective(lambda layer, value, i: (value - layer, value))
    surface = tune(lm, pairs(), candidates, known).surface
    image = heat_map(surface)
    assert image.startswith(b"\x89PNG")
    assert heat_map(surface) == image


@pytest.mark.parametrize("proxy", ["judge", "likelihood"])
def test_a_search_by_data_chooses_the_way_up(bundled: SteeredModel, proxy: str) -> None:
    data = world("civility").contrast("fit", 0, 72)
    fit, objective = from_data(bundled, data, proxy, n_items=12, max_new_tokens=16)
    candidate = Candidate.of(ODESteer(), values=(-1.5, 1.5))
    found = tune(bundled, fit, [candidate], objective, layers=[4], position="answer", budget=3.0)
    assert found.surface.choice.setting.value > 0
    assert found.surface.choice.score.value > found.surface.unsteered.value
