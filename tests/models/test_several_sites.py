"""Steerers at several sites as one thing, and heads chosen among several layers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from steerers import Watch, caa, hooks_of, logits, ode, pairs, states, steerer

import tiny_models
from odesteer import load
from odesteer.artifact import PARTS, Site, Steerer, SteererSet
from odesteer.data import ContrastData
from odesteer.errors import InvalidInputError, ModelError
from odesteer.methods import CAA, HeadITI, NormPreserving, ODESteer
from odesteer.models import SteeredModel
from odesteer.models.fitting import best_heads

PROMPTS = ["the dog and the cat", "x", "who is it?"]
OPTIONS: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False}


def both() -> SteererSet:
    return SteererSet([steerer(layer=3, seed=2), steerer(layer=1, seed=1)])


def test_every_site_is_moved_in_the_order_of_the_pass(any_lm: SteeredModel) -> None:
    ids = {"input_ids": torch.tensor([[1, 20, 30], [1, 60, 70]])}
    early, late = both()
    before = hooks_of(any_lm.model)
    with Watch(any_lm.layers.at(3)) as watch, any_lm.steering(early, strength=0.5):
        any_lm.model(**ids)
    with any_lm.steering(both(), strength=0.5), Watch(any_lm.layers.at(3)) as watched:
        any_lm.model(**ids)
    wanted = late.steer(watch.states[0][:, -1], strength=0.5)
    torch.testing.assert_close(watched.states[0][:, -1], wanted, rtol=1e-4, atol=1e-4)
    assert hooks_of(any_lm.model) == before


def test_an_amount_applies_to_each(lm: SteeredModel) -> None:
    one, other = both()
    for given in ({}, {"strength": 0.3}):
        with lm.steering(both(), **given):
            together = logits(lm)
        with lm.steering(one, **given), lm.steering(other, **given):
            assert torch.equal(logits(lm), together)


def test_an_amount_that_one_of_them_lacks_is_refused(lm: SteeredModel) -> None:
    mixed = SteererSet([steerer(layer=1), ode(layer=2)])
    assert mixed.quantities == ("strength",)
    with pytest.raises(InvalidInputError, match="Shift has no 'level'"):
        lm.steering(mixed, level=1.0)
    with lm.steering(mixed):
        logits(lm)


def test_rows_of_one_batch_with_sets_steerers_and_nothing(lm: SteeredModel) -> None:
    found = lm.generate(PROMPTS, [both(), None, caa()], strength=0.4, **OPTIONS)
    for prompt, text, own in zip(PROMPTS, found, [both(), None, caa()], strict=True):
        alone = lm.generate(prompt, own, strength=None if own is None else 0.4, **OPTIONS)
        assert [text] == alone
    rows = lm.generate(PROMPTS, both(), strength=[0.4, None, 0.1], **OPTIONS)
    assert rows[:2] == found[:2]
    with pytest.raises(InvalidInputError, match="3 prompts and 2 steerers"):
        lm.generate(PROMPTS, [both(), both()], **OPTIONS)


def test_the_receipt_has_every_site_and_the_text_the_last(lm: SteeredModel) -> None:
    several = SteererSet([ode(layer=1), ode(layer=3)])
    with lm.steering(several, receipt=True) as steering:
        logits(lm)
    receipt = steering.receipt()
    assert receipt.layer.tolist() == [1, 1, 1, 3, 3, 3]
    (text,) = lm.generate(PROMPTS[0], several, receipt=True, **OPTIONS)
    with lm.steering(several[0]):
        (alone,) = lm.generate(PROMPTS[0], several[1], receipt=True, **OPTIONS)
    assert text == alone
    (uncached,) = lm.generate(PROMPTS[0], several, receipt=True, use_cache=False, **OPTIONS)
    assert uncached.after == pytest.approx(text.after, abs=1e-3)


def test_a_set_from_fit_to_file_to_generation(lm: SteeredModel, tmp_path: Path) -> None:
    fitted = lm.fit(ODESteer(), pairs(), [2, 0], position="answer")
    assert isinstance(fitted, SteererSet)
    assert fitted.sites == (Site(0), Site(2))
    fitted.save(tmp_path / "set.safetensors")
    loaded = load(tmp_path / "set.safetensors")
    texts = lm.generate(PROMPTS, fitted, T=9.0, **OPTIONS)
    assert lm.generate(PROMPTS, loaded, T=9.0, **OPTIONS) == texts
    assert texts != lm.generate(PROMPTS, **OPTIONS)


def test_one_layer_in_a_list_is_a_set_of_one(lm: SteeredModel) -> None:
    alone = lm.fit(CAA(), pairs(), [2])
    assert isinstance(alone, SteererSet)
    assert len(alone) == 1
    assert isinstance(lm.fit(CAA(), pairs(), 2), Steerer)


def test_a_set_that_does_not_fit_is_refused_before_anything_is_touched(lm: SteeredModel) -> None:
    before = hooks_of(lm.model)
    with pytest.raises(ModelError, match="no layer 13"):
        lm.steering(SteererSet([steerer(layer=1), steerer(layer=13)]))
    assert hooks_of(lm.model) == before


@pytest.mark.parametrize("part", PARTS)
def test_fits_of_every_part(lm: SteeredModel, part: str) -> None:
    layer = lm.n_layers - 1 if part == "final" else 2
    fitted = lm.fit(CAA(), pairs(), layer, part=part)
    assert fitted.site == Site(layer, part=part)
    assert fitted.provenance.n_heads == (4 if part == "heads" else None)
    positive, negative = (
        lm.capture(side, layer, part=part).states[layer]
        for side in (pairs().positive, pairs().negative)
    )
    wanted = positive.mean(0) - negative.mean(0)
    torch.testing.assert_close(fitted.method.direction_, wanted, rtol=1e-4, atol=1e-5)


def many() -> ContrastData:
    """As many pairs as it takes to rank heads."""
    kinds = [f"{one} {two}" for one in ("sun", "day", "dog", "tea") for two in ("up", "in", "on")]
    return ContrastData.from_texts([f"good {kind}!" for kind in kinds], [f"bad {k}" for k in kinds])


@pytest.mark.parametrize("layer", [[0, 1, 2, 3], range(4)])
def test_heads_of_all_layers_compete(lm: SteeredModel, layer: Any) -> None:
    fitted = lm.fit(HeadITI(top_k=3), many(), layer, part="heads")
    assert isinstance(fitted, SteererSet)
    accuracies = []
    for i in range(4):
        sides = [lm.capture(side, i, part="heads").states[i] for side in _sides(many())]
        accuracies.append(HeadITI(n_heads=4).head_accuracies(*sides, many().groups))
    order = torch.cat(accuracies).argsort(descending=True, stable=True)[:3].tolist()
    wanted = sorted(divmod(i, 4) for i in order)
    assert wanted == [(s.site.layer, h) for s in fitted for h in s.method.heads_]
    for one in fitted:
        assert one.site.part == "heads"
        moved = one.steer(torch.ones(32), T=1.0) - 1
        untouched = [h for h in range(4) if h not in one.method.heads_]
        assert bool((moved.reshape(4, 8)[untouched] == 0).all())
        for head in one.method.heads_:
            told = one.provenance.held_out[f"head_{head}_accuracy"]
            assert told == pytest.approx(float(accuracies[one.site.layer][head]))
    base = lm.generate(PROMPTS, **OPTIONS)
    assert lm.generate(PROMPTS, fitted, T=5.0, **OPTIONS) != base


def _sides(data: Any) -> tuple[Any, Any]:
    return data.positive, data.negative


def test_heads_of_one_layer(lm: SteeredModel) -> None:
    fitted = lm.fit(HeadITI(top_k=2), many(), 1, part="heads")
    assert isinstance(fitted, Steerer)
    assert len(fitted.method.heads_) == 2
    assert fitted.method.n_heads == 4
    assert {f"head_{h}_accuracy" for h in fitted.method.heads_} <= set(fitted.provenance.held_out)


def test_named_heads_are_those_of_every_layer(lm: SteeredModel) -> None:
    fitted = lm.fit(HeadITI(heads=[3]), many(), [0, 2], part="heads")
    assert [one.method.heads_ for one in fitted] == [[3], [3]]


def test_a_quarter_of_all_heads_by_default(lm: SteeredModel) -> None:
    fitted = lm.fit(HeadITI(), many(), range(4), part="heads")
    assert sum(len(one.method.heads_) for one in fitted) == 4


def test_the_first_of_equal_heads_are_taken() -> None:
    a = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    sides = dict.fromkeys(("low", "high"), (a[:20] + 9, a[20:] - 9, None))
    found = best_heads(HeadITI(n_heads=4, top_k=5), sides)  # type: ignore[arg-type]
    assert found == {"low": dict.fromkeys(range(4), 1.0), "high": {0: 1.0}}


def test_heads_inside_another_method(lm: SteeredModel) -> None:
    fitted = lm.fit(NormPreserving(HeadITI(top_k=2)), many(), [0, 2], part="heads")
    assert [one.method.method.n_heads for one in fitted] == [4, 4]
    assert [len(one.method.method.heads_) for one in fitted] == [2, 2]
    with pytest.raises(InvalidInputError, match="fit it with part='heads'"):
        lm.fit(NormPreserving(HeadITI()), many(), 1)


def test_what_head_iti_is_refused(lm: SteeredModel) -> None:
    with pytest.raises(InvalidInputError, match="fit it with part='heads'"):
        lm.fit(HeadITI(), many(), 1)
    with pytest.raises(InvalidInputError, match="n_heads=8, but this model has 4"):
        lm.fit(HeadITI(n_heads=8), many(), 1, part="heads")
    with pytest.raises(InvalidInputError, match=r"from 1 to 8, .* in 2 layers, not 9"):
        lm.fit(HeadITI(top_k=9), many(), [0, 1], part="heads")


def test_heads_of_another_model_are_refused(lm: SteeredModel) -> None:
    fitted = lm.fit(HeadITI(), many(), 1, part="heads")
    changes = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
    other = SteeredModel(tiny_models.llama(**changes), tiny_models.tokenizer())
    with pytest.raises(ModelError, match=r"fitted on 4 attention heads .* the model has 2"):
        other.steering(fitted)
    assert states(lm, 1).shape[-1] == states(other, 1).shape[-1]
