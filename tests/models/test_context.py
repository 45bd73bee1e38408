"""The context: several steerers, nesting, handles, gradients, other uses of the model."""

import gc
from typing import Any

import pytest
import torch
from steerers import IDS, NoWaiting, Watch, caa, hooks_of, logits, ode, states, steerer
from torch import Tensor

import tiny_models
from odesteer.errors import ModelError
from odesteer.models import SteeredModel, SteeringWarning
from odesteer.models.steering.site_hooks import SiteInterventions


def test_several_sites_at_once(lm: SteeredModel) -> None:
    early, late = steerer(layer=1, seed=1), steerer(layer=3, seed=2)
    with lm.steering(early):
        alone = states(lm, 3)
    with lm.steering(early, late):
        both = states(lm, 3)
    assert torch.equal(both[:, :-1], alone[:, :-1])
    torch.testing.assert_close(both[:, -1], late.steer(alone[:, -1]))


def test_nested_contexts_act_one_after_the_other(lm: SteeredModel) -> None:
    outer, inner = ode(T=2.0, level=None), caa(seed=3)
    base = states(lm, 2)
    with lm.steering(outer):
        with lm.steering(inner):
            both = states(lm, 2)
        one = states(lm, 2)
    wanted = outer.steer(base[:, -1])
    torch.testing.assert_close(one[:, -1], wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(both[:, -1], inner.steer(wanted), rtol=1e-5, atol=1e-5)
    assert torch.equal(states(lm, 2), base)


def test_contexts_may_end_in_any_order(lm: SteeredModel) -> None:
    before, base = hooks_of(lm.model), logits(lm)
    first, second = lm.steering(caa(seed=1)).enable(), lm.steering(caa(seed=2)).enable()
    logits(lm)
    first.remove()
    with lm.steering(caa(seed=2)):
        wanted = logits(lm)
        assert not torch.equal(wanted, base)
    second.remove()
    assert torch.equal(logits(lm), base)
    assert hooks_of(lm.model) == before


def test_the_handle_form(lm: SteeredModel) -> None:
    base = logits(lm)
    handle = lm.steering(caa())
    assert torch.equal(logits(lm), base)
    handle.enable()
    steered = logits(lm)
    with pytest.raises(ModelError, match="enabled already"):
        handle.enable()
    handle.remove()
    handle.remove()
    assert torch.equal(logits(lm), base)
    with handle:
        assert torch.equal(logits(lm), steered)
    assert not torch.equal(steered, base)


def test_a_forgotten_handle_takes_its_hooks_along(lm: SteeredModel) -> None:
    before = hooks_of(lm.model)
    handle = lm.steering(caa()).enable()
    assert hooks_of(lm.model) != before
    del handle
    gc.collect()
    assert hooks_of(lm.model) == before


def test_gradients_flow_through_steering(lm: SteeredModel) -> None:
    weight = lm.layers.at(0).mlp.up_proj.weight
    for position in ("last", "all"):
        with lm.steering(steerer(position=position), steerer(position=position, seed=1)):
            loss = lm.model(IDS).logits.square().mean()
            (gradient,) = torch.autograd.grad(loss, weight)
            with torch.no_grad():
                assert torch.allclose(lm.model(IDS).logits.square().mean(), loss)
        (plain,) = torch.autograd.grad(lm.model(IDS).logits.square().mean(), weight)
        assert torch.isfinite(gradient).all()
        assert not torch.allclose(gradient, plain)


def test_no_copy_of_the_hidden_states_without_gradients(lm: SteeredModel) -> None:
    """The layer's output tensor itself is changed; with gradients another one takes its place."""
    layer, seen = lm.layers.at(2), list[Tensor]()
    forward = layer.forward

    def watched(*args: Any, **kwargs: Any) -> Tensor:
        seen.append(forward(*args, **kwargs))
        return seen[-1]

    layer.forward = watched
    try:
        with lm.steering(steerer()), Watch(layer) as watch:
            logits(lm)
            assert torch.equal(seen[0], watch.states[0])
            lm.model(IDS)
            assert not torch.equal(seen[1], watch.states[1])
    finally:
        del layer.forward


@pytest.mark.parametrize("part", ["residual", "heads"])
def test_hidden_states_are_those_that_were_used(part: str) -> None:
    """With gradients and without, in whatever order hooks were registered."""
    lm = SteeredModel(tiny_models.llama(), tiny_models.tokenizer())
    lm.model(IDS, output_hidden_states=True)  # transformers registers its hooks here
    seen: list[Tensor] = []
    lm.layers.at(2).register_forward_hook(lambda module, args, out: seen.append(out))
    with lm.steering(steerer(part=part), steerer(layer=1, part=part)):
        with torch.no_grad():
            without = lm.model(IDS, output_hidden_states=True).hidden_states
        found = lm.model(IDS, output_hidden_states=True).hidden_states
    assert found[3].requires_grad
    for a, b in zip(found, without, strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(seen[1], found[3])
    assert not torch.allclose(found[2], lm.model(IDS, output_hidden_states=True).hidden_states[2])


@pytest.mark.parametrize("position", ["last", "all"])
@pytest.mark.parametrize("padded", [False, True])
def test_the_hooks_never_wait_for_the_device(
    lm: SteeredModel, position: str, padded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = SiteInterventions.apply
    n_calls = 0

    def watched(self: Any, *args: Any) -> Any:
        nonlocal n_calls
        n_calls += 1
        if n_calls == 1:  # which prepares the rows of this size of batch, once
            return inside(self, *args)
        with NoWaiting():
            return inside(self, *args)

    monkeypatch.setattr(SiteInterventions, "apply", watched)
    mask = torch.ones_like(IDS)
    mask[1, : 2 * padded] = 0
    rows = [steerer(position=position), None, steerer(position=position, seed=1)]
    for own in (rows[0], rows):
        n_calls = 0
        with lm.steering(own, strength=0.1, receipt=True) as steering:
            for _ in range(2):
                lm.model.generate(
                    IDS, attention_mask=mask, max_new_tokens=4, do_sample=False, pad_token_id=0
                )
        assert n_calls == 8
        assert len(steering.receipt()) > 0


def test_a_layer_that_returns_its_input_does_not_change_it(lm: SteeredModel) -> None:
    layer = lm.layers.at(2)
    layer.forward = lambda hidden_states, **kwargs: hidden_states
    try:
        base = states(lm, 1)
        seen: list[Tensor] = []
        handle = lm.layers.at(1).register_forward_hook(lambda m, args, out: seen.append(out))
        with lm.steering(steerer()):
            moved = states(lm, 2)
        handle.remove()
        assert torch.equal(seen[0], base)
        assert not torch.equal(moved, base)
    finally:
        del layer.forward


def test_scoring_a_whole_sequence_agrees_with_generating_it(lm: SteeredModel) -> None:
    for position in ("last", "generated", "prompt", "all"):
        with lm.steering(ode(position=position, level=None, T=2.0)):
            out = lm.model.generate(
                IDS,
                max_new_tokens=6,
                do_sample=False,
                output_logits=True,
                pad_token_id=0,
                return_dict_in_generate=True,
            )
        with lm.steering(ode(position=position, level=None, T=2.0), prompt_width=5):
            scored = logits(lm, out.sequences)
        for i, step in enumerate(out.logits):
            torch.testing.assert_close(scored[:, 4 + i], step, rtol=1e-3, atol=1e-3)


def test_a_block_that_steers_no_pass_warns(lm: SteeredModel) -> None:
    with pytest.warns(SteeringWarning, match="no forward pass was steered"), lm.steering(caa()):
        pass
    with pytest.raises(KeyError), lm.steering(caa()):
        raise KeyError
    with lm.steering():  # steers nothing, and says so
        pass


def test_a_prompt_read_in_chunks(lm: SteeredModel) -> None:
    for position in ("prompt", "all", "generated"):
        found = []
        for chunk in (None, 3):
            with lm.steering(caa(position=position), receipt=True) as steering:
                lm.model.generate(
                    IDS,
                    max_new_tokens=3,
                    do_sample=False,
                    prefill_chunk_size=chunk,
                    pad_token_id=0,
                )
            receipt = steering.receipt()
            found.append(sorted(zip(receipt.row.tolist(), receipt.column.tolist(), strict=True)))
        assert found[0] == found[1]


def test_half_precision_models_keep_their_type() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        lm = SteeredModel(tiny_models.llama().to(dtype), tiny_models.tokenizer())
        base = states(lm, 2)
        with lm.steering(ode(position="all")):
            moved = states(lm, 2)
        assert moved.dtype == dtype
        assert not torch.equal(moved, base)
        torch.testing.assert_close(moved, ode().steer(base), rtol=2e-2, atol=2e-2)
