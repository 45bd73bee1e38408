"""Steering only where the prompt meets a condition: decided once, held while the row generates."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from gate_cases import condition_between, gated, prompt_states
from steerers import (
    IDS,
    TEXTS,
    NoWaiting,
    Watch,
    batch,
    caa,
    hooks_of,
    logits,
    ode,
    states,
    steerer,
)
from torch import Tensor

import tiny_models
from odesteer.artifact import Gate, Site, Steerer, SteererSet
from odesteer.errors import InvalidInputError, ModelError
from odesteer.methods import CAA, ODESteer
from odesteer.models import SteeredModel
from odesteer.models.steering.gates import GateReader
from odesteer.models.steering.site_hooks import SiteInterventions

OPTIONS: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False}


def test_only_rows_that_meet_the_condition_are_steered(any_lm: SteeredModel) -> None:
    before, own = hooks_of(any_lm.model), gated(any_lm)
    found = any_lm.generate(TEXTS, own, strength=0.5, receipt=True, **OPTIONS)
    assert [one.gates for one in found] == [[True], [False], [False]]
    plain = any_lm.generate(TEXTS, **OPTIONS)
    ungated = replace(own, gate=None)
    steered = any_lm.generate(TEXTS[:1], ungated, strength=0.5, **OPTIONS)
    assert [one.text for one in found] == [*steered, *plain[1:]]
    assert steered != plain[:1]
    for one in found:
        assert (one.conditions[0] > 0) == one.gates[0]
    other_way = steerer().when(own.gate.condition, below=0)  # type: ignore[union-attr]
    texts = any_lm.generate(TEXTS, other_way, strength=0.5, **OPTIONS)
    assert texts[0] == plain[0]
    assert hooks_of(any_lm.model) == before


@pytest.mark.parametrize("pool", ["last", "mean"])
@pytest.mark.parametrize("part", ["residual", "heads"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_decision_is_that_of_the_prompt_alone(
    lm: SteeredModel, side: Any, part: str, pool: str
) -> None:
    own = gated(lm, part=part, pool=pool)
    gate = own.gate
    assert gate is not None
    with lm.steering(own, receipt=True) as steering, torch.no_grad():
        lm.model(**batch(lm, side))
    decisions = steering.receipt().decisions
    wanted = []
    for text in TEXTS:
        a = prompt_states(lm, text, 1, part)
        pooled = a[-1] if pool == "last" else a.mean(dim=0)
        wanted.append(float(gate.condition.barrier.value(pooled)))
    assert decisions.value.tolist() == pytest.approx(wanted, rel=1e-3, abs=1e-3)
    assert decisions.is_open.tolist() == [True, False, False]
    assert decisions.row.tolist() == [0, 1, 2]
    assert steering.receipt().row.tolist() == [0]


def test_closed_rows_are_untouched_to_the_bit(lm: SteeredModel) -> None:
    inputs, own = batch(lm), gated(lm, position="all")
    with torch.no_grad():
        base = lm.model(**inputs).logits
        with lm.steering(own):
            moved = lm.model(**inputs).logits
    assert torch.equal(moved[1:], base[1:])
    assert not torch.allclose(moved[0, -1], base[0, -1], atol=1e-3)


def test_padding_of_open_rows_stays() -> None:
    # Unlike that of a Llama, whose padding is zero and stays anyway.
    lm = SteeredModel(tiny_models.gpt2(), tiny_models.tokenizer())
    own = steerer(position="all").when(condition_between(lm, 1), below=0)
    found = []
    for several in ([], [own]):
        with lm.steering(*several), Watch(lm.layers.at(2)) as watch, torch.no_grad():
            lm.model(**batch(lm))
        found.append(watch.states[0])
    moved = (found[0] != found[1]).any(dim=-1)
    wanted = batch(lm)["attention_mask"].bool()
    wanted[0] = False  # whose gate is closed
    assert torch.equal(moved, wanted)


def test_what_is_generated_does_not_change_the_decision(lm: SteeredModel) -> None:
    """The barrier at generated tokens is on either side; the rows keep what they began with."""
    own = gated(lm)
    options = {**OPTIONS, "max_new_tokens": 12}
    with lm.steering(own, strength=0.5, receipt=True) as steering:
        lm.generate(TEXTS, **options)
    receipt = steering.receipt()
    assert set(receipt.row.tolist()) == {0}
    assert len(receipt) == 12
    assert len(receipt.decisions) == 3
    assert receipt.decisions.forward.tolist() == [0, 0, 0]


@pytest.mark.parametrize(("layer", "at"), [(2, 2), (3, 0), (1, 3)])
def test_with_and_without_a_cache_the_same_is_written(
    lm: SteeredModel, layer: int, at: int
) -> None:
    own = gated(lm, layer, at)
    cached = lm.generate(TEXTS, own, strength=0.5, **OPTIONS)
    assert cached[1:] == lm.generate(TEXTS, **OPTIONS)[1:]
    for options in ({"cache_implementation": "static"}, {"prefill_chunk_size": 3}):
        assert lm.generate(TEXTS, own, strength=0.5, **OPTIONS, **options) == cached
    if at <= layer:
        assert lm.generate(TEXTS, own, strength=0.5, use_cache=False, **OPTIONS) == cached
        return
    with pytest.raises(ModelError, match="read behind the steered layer"):
        lm.generate(TEXTS, own, strength=0.5, use_cache=False, **OPTIONS)


@pytest.mark.parametrize("position", ["last", "all", "generated"])
def test_a_condition_behind_the_steered_layer_spares_the_prompt(
    lm: SteeredModel, position: str
) -> None:
    own = gated(lm, layer=0, at=3, position=position)
    with lm.steering(own, strength=0.5, receipt=True) as steering:
        texts = lm.generate(TEXTS, receipt=False, **OPTIONS)
    width = max(len(lm.encode(text)) for text in TEXTS)
    moved = steering.receipt()
    assert set(zip(moved.row.tolist(), moved.column.tolist(), strict=True)) == {
        (0, width + i) for i in range(4)
    }
    # The same as steering what is generated, if it is to be steered.
    other = replace(own, gate=None, site=Site(0, "generated"))
    assert texts[:1] == lm.generate(TEXTS[:1], other, strength=0.5, **OPTIONS)


def test_a_condition_at_the_steered_layer_sees_it_unsteered(lm: SteeredModel) -> None:
    own = gated(lm, layer=1, at=1, position="all")
    for _ in range(2):
        with lm.steering(own, strength=9.0, receipt=True) as steering, torch.no_grad():
            lm.model(**batch(lm))
        assert steering.receipt().decisions.is_open.tolist() == [True, False, False]
    seen = steering.receipt().decisions.value
    # That of an outer context comes first, as everywhere.
    with lm.steering(steerer(layer=1, position="all"), strength=9.0):
        with lm.steering(own, receipt=True) as steering, torch.no_grad():
            lm.model(**batch(lm))
        assert not torch.allclose(steering.receipt().decisions.value, seen, atol=0.1)


def test_beams_and_samples_keep_the_decision_of_their_row(lm: SteeredModel) -> None:
    own = gated(lm)
    beams: dict[str, Any] = {"num_beams": 3, "num_return_sequences": 2, **OPTIONS}
    mixed = lm.generate(TEXTS, own, strength=0.5, **beams)
    ungated = replace(own, gate=None)
    assert mixed[:2] == lm.generate(TEXTS[:1], ungated, strength=0.5, **beams)
    assert mixed[2:] == lm.generate(TEXTS, **beams)[2:]
    samples = lm.generate(
        TEXTS[:2],
        own,
        strength=0.5,
        do_sample=True,
        num_return_sequences=3,
        max_new_tokens=4,
        receipt=True,
    )
    assert [one.gates for one in samples] == [[True]] * 3 + [[False]] * 3


def test_streaming(lm: SteeredModel) -> None:
    parts: dict[int, str] = {}
    texts = lm.generate(
        TEXTS,
        gated(lm),
        strength=0.5,
        stream=lambda row, text: parts.update({row: parts.get(row, "") + text}),
        **OPTIONS,
    )
    assert [parts[row] for row in range(3)] == texts


def test_prompts_in_several_batches(lm: SteeredModel) -> None:
    own = gated(lm)
    whole = lm.generate(TEXTS, own, strength=0.5, receipt=True, **OPTIONS)
    parts = lm.generate(TEXTS, own, strength=0.5, receipt=True, batch_size=2, **OPTIONS)
    assert [one.text for one in parts] == [one.text for one in whole]
    assert [one.gates for one in parts] == [one.gates for one in whole]


def test_rows_with_gates_of_their_own(lm: SteeredModel) -> None:
    condition = condition_between(lm, 1)
    is_first, is_other = (
        steerer(seed=1).when(condition, above=0),
        steerer(seed=1).when(condition, below=0),
    )
    found = lm.generate(
        TEXTS, [is_other, is_other, steerer()], strength=0.5, receipt=True, **OPTIONS
    )
    assert [one.gates for one in found] == [[False], [True], []]
    found = lm.generate(TEXTS, [is_first, None, is_first], strength=0.5, receipt=True, **OPTIONS)
    assert [one.gates for one in found] == [[True], [], [False]]
    several: dict[str, Any] = {"do_sample": True, "num_return_sequences": 2, "max_new_tokens": 2}
    found = lm.generate(TEXTS, [is_first, None, is_first], receipt=True, **several)
    assert [one.gates for one in found] == [[True], [True], [], [], [False], [False]]


def test_a_set_with_one_condition_reads_it_once(lm: SteeredModel) -> None:
    several = SteererSet([steerer(layer=0), steerer(layer=2), steerer(layer=3, part="heads")])
    own = several.when(condition_between(lm, 1), above=0)
    with lm.steering(own, strength=0.3, receipt=True) as steering:
        lm.generate(TEXTS, **OPTIONS)
    receipt = steering.receipt()
    assert len(receipt.decisions) == 3
    assert set(receipt.row.tolist()) == {0}
    counts = {layer: int((receipt.layer == layer).sum()) for layer in (0, 2, 3)}
    assert counts == {0: 4, 2: 5, 3: 5}  # the first layer is steered from its second token on


@pytest.mark.parametrize("pool", ["last", "mean"])
def test_another_prompt_on_the_same_cache_is_judged_anew(lm: SteeredModel, pool: str) -> None:
    own = steerer(layer=3).when(caa(layer=1), above=0, pool=pool)
    with (
        lm.steering(own, receipt=True) as steering,
        Watch(lm.layers.at(1)) as watch,
        torch.no_grad(),
    ):
        out = lm.model(IDS[:, :3], use_cache=True)
        out = lm.model(IDS[:, 3:4], past_key_values=out.past_key_values)
        steering.remove()
        steering.enable()  # whose first pass is a prompt
        lm.model(IDS[:, 3:], past_key_values=out.past_key_values)
    decisions = steering.receipt().decisions
    assert decisions.forward.tolist() == [0] * 6
    prompts = [watch.states[0], watch.states[2]]
    pooled = [a[:, -1] if pool == "last" else a.mean(dim=1) for a in prompts]
    wanted = own.gate.condition.barrier.value(torch.cat(pooled))  # type: ignore[union-attr]
    torch.testing.assert_close(decisions.value, wanted, rtol=1e-4, atol=1e-4)


def test_the_mean_of_a_prompt_that_is_read_in_chunks(lm: SteeredModel) -> None:
    own = gated(lm, pool="mean")
    found = []
    for chunk in (None, 3):
        options = {} if chunk is None else {"prefill_chunk_size": chunk}
        found.append(lm.generate(TEXTS, own, strength=0.5, receipt=True, **OPTIONS, **options))
    for whole, parts in zip(*found, strict=True):
        assert parts.text == whole.text
        assert parts.conditions == pytest.approx(whole.conditions, rel=1e-3, abs=1e-3)


def test_a_prompt_that_cannot_be_judged_is_left_alone(lm: SteeredModel) -> None:
    layer = lm.layers.at(1)
    forward = layer.forward

    def broken(*args: Any, **kwargs: Any) -> Tensor:
        out: Tensor = forward(*args, **kwargs)
        out[0] = torch.nan
        return out

    layer.forward = broken
    try:
        own = steerer(layer=3).when(caa(layer=1), above=-50)
        with lm.steering(own, receipt=True) as steering:
            logits(lm)
    finally:
        del layer.forward
    assert steering.receipt().decisions.is_open.tolist() == [False, True, True]


def test_steering_that_begins_behind_the_prompt_is_an_error(lm: SteeredModel) -> None:
    out = lm.model(IDS, use_cache=True)
    with (
        lm.steering(gated(lm)),
        pytest.raises(ModelError, match=r"no prompt has passed .* begin it before the prompt"),
    ):
        lm.model(IDS[:, :1], past_key_values=out.past_key_values)


def test_another_batch_behind_a_prompt_is_an_error(lm: SteeredModel) -> None:
    out = lm.model(IDS[:1], use_cache=True)
    with lm.steering(gated(lm)):
        lm.model(IDS, use_cache=True)
        with pytest.raises(ModelError, match="batch of 3 rows, and now there are 1"):
            lm.model(IDS[:1, :1], past_key_values=out.past_key_values)


def test_without_a_cache_the_first_pass_is_the_prompt(
    lm: SteeredModel,
) -> None:
    with lm.steering(gated(lm), receipt=True) as steering:
        lm.model(IDS, use_cache=False)
    whole = steering.receipt().decisions
    with lm.steering(gated(lm), receipt=True) as steering:
        lm.model(IDS)
    torch.testing.assert_close(whole.value, steering.receipt().decisions.value)
    with lm.steering(gated(lm), prompt_width=3, receipt=True) as steering:
        lm.model(IDS, use_cache=False)
    decisions = steering.receipt().decisions
    with lm.steering(gated(lm), receipt=True) as steering:
        lm.model(IDS[:, :3])
    torch.testing.assert_close(decisions.value, steering.receipt().decisions.value)


def test_a_condition_of_another_model_is_refused(lm: SteeredModel) -> None:
    before = hooks_of(lm.model)
    for condition, message in (
        (caa(layer=9), "no layer 9"),
        (steerer(CAA(), width=48), "width 48"),
        (steerer(CAA(), width=48, part="heads"), "width 48, and the heads of this layer"),
    ):
        with pytest.raises(ModelError, match=message):
            lm.steering(steerer().when(condition, above=0))
    useless = ode(layer=1)
    useless.barrier.upper_ = -1.0
    with pytest.raises(InvalidInputError, match=r"level 0\.5 has no meaning"):
        lm.steering(steerer().when(useless, above=0.5))
    assert hooks_of(lm.model) == before


@pytest.mark.parametrize("pool", ["last", "mean"])
def test_gates_never_wait_for_the_device(
    lm: SteeredModel, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, n_calls = {kind: getattr(kind, name) for kind, name in KINDS}, 0

    def watched(kind: type) -> Any:
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal n_calls
            n_calls += 1
            if n_calls <= 2:  # which prepare what is needed for this size of batch, once
                return inside[kind](self, *args, **kwargs)
            with NoWaiting():
                return inside[kind](self, *args, **kwargs)

        return call

    for kind, name in KINDS:
        monkeypatch.setattr(kind, name, watched(kind))
    own = gated(lm, pool=pool)
    inputs = {name: t for name, t in batch(lm).items() if name != "position_ids"}
    n_calls = 0
    with lm.steering(own, strength=0.1, receipt=True) as steering:
        for _ in range(2):
            lm.model.generate(**inputs, max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert n_calls == 16
    assert len(steering.receipt()) == 8


KINDS = ((GateReader, "read"), (SiteInterventions, "apply"))


def test_gradients_do_not_flow_through_the_decision(lm: SteeredModel) -> None:
    own = steerer().when(caa(layer=1), above=-50)
    weight = lm.layers.at(0).mlp.up_proj.weight
    found = []
    for one in (own, replace(own, gate=None)):
        with lm.steering(one):
            loss = lm.model(IDS).logits.square().mean()
            found.append(torch.autograd.grad(loss, weight)[0])
    torch.testing.assert_close(*found)


def test_gates_are_values(lm: SteeredModel) -> None:
    condition = caa(layer=1)
    assert Gate(condition, above=0) == steerer().when(condition, above=0).gate
    assert Gate(condition, above=0) != Gate(condition, below=0)
    assert Gate(condition, above=1.0).threshold == condition.barrier.threshold(1.0)
    assert states(lm, 1).shape == (3, 5, 32)
    assert isinstance(steerer(ODESteer()).when(condition, above=0), Steerer)
