"""The context: rows, several steerers, nesting, threads, gradients, other uses of the model."""

import gc
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from steerers import D, Watch, caa, hooks_of, ode, steerer
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import tiny_models
from odesteer.artifact import Site, Steerer
from odesteer.errors import InvalidInputError, ModelError
from odesteer.models import SteeredModel
from odesteer.models.steering import _LayerHook

IDS = torch.tensor([[1, 20, 30, 40, 50], [1, 60, 70, 80, 90], [1, 25, 35, 45, 55]])


def logits(lm: SteeredModel, ids: Tensor = IDS) -> Tensor:
    with torch.no_grad():
        out: Tensor = lm.model(ids).logits
    return out


def states(lm: SteeredModel, layer: int) -> Tensor:
    with Watch(lm.layers.at(layer)) as watch:
        logits(lm)
    return watch.states[0]


def test_rows_with_their_own_steerers_and_amounts(lm: SteeredModel) -> None:
    a, b = steerer(seed=1), steerer(seed=2)
    base = states(lm, 2)
    with lm.steering([a, b, a], strength=[1.0, 2.0, None]):
        moved = states(lm, 2)
    torch.testing.assert_close(moved[0, -1], a.steer(base[0, -1], strength=1.0))
    torch.testing.assert_close(moved[1, -1], b.steer(base[1, -1], strength=2.0))
    assert torch.equal(moved[2], base[2])


def test_amounts_may_be_a_tensor(lm: SteeredModel) -> None:
    a = steerer()
    base = states(lm, 2)
    with lm.steering(a, strength=torch.tensor([0.5, 1.0, 1.5])):
        moved = states(lm, 2)
    for row, strength in enumerate((0.5, 1.0, 1.5)):
        torch.testing.assert_close(moved[row, -1], a.steer(base[row, -1], strength=strength))


def test_rows_of_one_steerer_move_in_one_call(lm: SteeredModel) -> None:
    calls: list[tuple[int, ...]] = []
    a = steerer()

    def solve(x: Tensor, amount: Any) -> Any:
        calls.append(tuple(x.shape))
        return type(a.method).solve(moved, x, amount)

    moved = a.method.to("cpu")
    object.__setattr__(a.method, "to", lambda device: moved)
    moved.solve = solve  # type: ignore[method-assign]
    with lm.steering([a, None, a], strength=[1.0, 2.0, 3.0]):
        logits(lm)
    with lm.steering(a):
        logits(lm)
    assert calls == [(2, 1, D), (3, 1, D)]


def test_a_batch_of_another_size_is_refused(lm: SteeredModel) -> None:
    before = hooks_of(lm.model)
    with (
        pytest.raises(ModelError, match="a batch of 3 rows, and 2 steerers or amounts"),
        lm.steering([steerer(), None]),
    ):
        logits(lm)
    assert hooks_of(lm.model) == before


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


def in_a_thread(task: Callable[[], Any]) -> Any:
    done: list[Any] = []
    thread = threading.Thread(target=lambda: done.append(task()))
    thread.start()
    thread.join()
    return done[0]


def test_another_thread_is_not_steered(lm: SteeredModel) -> None:
    base = logits(lm)
    with lm.steering(caa()):
        steered = logits(lm)
        assert torch.equal(in_a_thread(lambda: logits(lm)), base)
        assert torch.equal(logits(lm), steered)
    assert not torch.equal(steered, base)


def test_threads_with_their_own_steering(lm: SteeredModel) -> None:
    """Four threads at once, in step, each with another steerer (one without)."""
    steerers = [None, caa(seed=1), caa(seed=2), ode(position="all")]
    wanted = []
    for own in steerers:
        with lm.steering(*([own] if own else [])):
            wanted.append(logits(lm))
    barrier = threading.Barrier(len(steerers), timeout=60)
    found: dict[int, list[Tensor]] = {}

    def work(i: int) -> None:
        own = steerers[i]
        for _ in range(5):
            barrier.wait()
            with lm.steering(*([own] if own else [])):
                barrier.wait()
                found.setdefault(i, []).append(logits(lm))
                barrier.wait()

    before = hooks_of(lm.model)
    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(steerers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, outputs in found.items():
        assert len(outputs) == 5
        assert all(torch.equal(output, wanted[i]) for output in outputs)
    assert hooks_of(lm.model) == before


def test_threads_that_come_and_go_do_not_disturb_each_other(lm: SteeredModel) -> None:
    """Hooks come and go while another thread is in the middle of its passes."""
    base, done, errors = logits(lm), threading.Event(), list[BaseException]()

    def come_and_go() -> None:
        try:
            while not done.is_set():
                with lm.steering(caa()):
                    pass
        except BaseException as error:
            errors.append(error)

    others = [threading.Thread(target=come_and_go) for _ in range(2)]
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for other in others:
            other.start()
        for _ in range(40):
            assert torch.equal(logits(lm), base)
    finally:
        done.set()
        sys.setswitchinterval(switch)
        for other in others:
            other.join()
    assert not errors


def test_a_hook_that_another_thread_meets_half_placed(lm: SteeredModel) -> None:
    """Between two tables of torch, a hook may be called without the named arguments."""
    layer, owner = lm.layers.at(2), lm.layers.owner
    with lm.steering(caa()):
        (before,), (after,) = owner._forward_pre_hooks.values(), layer._forward_hooks.values()
        assert in_a_thread(lambda: before(owner, (IDS,))) is None
        assert in_a_thread(lambda: after(layer, (), torch.ones(1, 1, D))) is None


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
    seen: list[Tensor] = []
    handle = lm.layers.at(2).register_forward_hook(lambda module, args, out: seen.append(out))
    try:
        with lm.steering(steerer()), Watch(lm.layers.at(2)) as watch:
            logits(lm)
            assert torch.equal(seen[0], watch.states[0])
            lm.model(IDS)
            assert not torch.equal(seen[1], watch.states[1])
    finally:
        handle.remove()


class NoWaiting(TorchDispatchMode):
    """Fails on operations for which the host waits for the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "nonzero", "masked_select", "equal"), name
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("position", ["last", "all"])
@pytest.mark.parametrize("padded", [False, True])
def test_the_hooks_never_wait_for_the_device(
    lm: SteeredModel, position: str, padded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = _LayerHook.__call__
    n_calls = 0

    def watched(self: Any, *args: Any) -> Any:
        nonlocal n_calls
        n_calls += 1
        if n_calls == 1:  # which prepares the rows of this size of batch, once
            return inside(self, *args)
        with NoWaiting():
            return inside(self, *args)

    monkeypatch.setattr(_LayerHook, "__call__", watched)
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


def test_without_a_cache_prompt_and_generated_must_be_told_apart(lm: SteeredModel) -> None:
    for position in ("prompt", "generated"):
        with (
            lm.steering(steerer(position=position)),
            pytest.raises(ModelError, match=r"without a cache; .* prompt_width="),
        ):
            lm.model.generate(IDS, max_new_tokens=2, use_cache=False, pad_token_id=0)


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


def test_the_receipt_of_a_context(lm: SteeredModel) -> None:
    moving = ode(position="all")
    base = states(lm, 2)
    with lm.steering(moving, level=1.0, receipt=True) as steering:
        moved = states(lm, 2)
        logits(lm, IDS[:1, :2])
    receipt = steering.receipt()
    assert len(receipt) == 15 + 2
    assert receipt.forward.tolist() == [0] * 15 + [1] * 2
    assert receipt.row[:15].tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert receipt.column[:15].tolist() == [0, 1, 2, 3, 4] * 3
    barrier = moving.barrier
    torch.testing.assert_close(receipt.before[:15], barrier.value(base).flatten())
    torch.testing.assert_close(receipt.after[:15], barrier.value(moved).flatten())
    solution = moving.method.solve(base)
    assert receipt.distance.shape == (17,)
    assert solution.time.shape == (3, 5)
    assert receipt.n_unusable == 0


def test_what_runs_to_the_cap_is_counted(lm: SteeredModel) -> None:
    moving = ode(max_strength=0.01)
    with lm.steering(moving, level=50.0, receipt=True) as steering:
        logits(lm)
    assert steering.receipt().n_capped == 3


def test_unusable_activations_are_counted_and_left_alone(lm: SteeredModel) -> None:
    layer = lm.layers.at(2)
    forward = layer.forward

    def broken(*args: Any, **kwargs: Any) -> Tensor:
        out: Tensor = forward(*args, **kwargs)
        out[0, -1], out[1, -1] = 0.0, torch.nan
        return out

    layer.forward = broken
    try:
        with lm.steering(ode(), receipt=True) as steering:
            moved = states(lm, 2)
    finally:
        del layer.forward
    assert steering.receipt().n_unusable == 2
    assert bool((moved[0, -1] == 0).all())
    assert bool(moved[1, -1].isnan().all())


def test_no_receipt_unless_asked_for(lm: SteeredModel) -> None:
    with lm.steering(caa()) as steering:
        logits(lm)
    with pytest.raises(ModelError, match="receipt=True"):
        steering.receipt()
    with lm.steering(caa(), receipt=True) as steering:
        pass
    assert len(steering.receipt()) == 0


BAD_AMOUNTS: list[tuple[dict[str, Any], str]] = [
    ({"level": float("nan")}, "level must be finite, not nan"),
    ({"level": [1.0, float("inf"), None]}, "level must be finite, not inf"),
    ({"level": "high"}, "level must be a number"),
    ({"level": 1.0, "T": 2.0}, "exactly one of .* not level=1.0 and T=2.0"),
    ({"level": [1.0, 2.0, 3.0], "strength": 2.0}, "exactly one of"),
    ({"interpolation": 0.5}, "ODESteer has no 'interpolation'"),
    ({"prompt_width": 0}, "prompt_width must be positive"),
    ({"prompt_width": 2.5}, "prompt_width must be an integer"),
]


@pytest.mark.parametrize(("amount", "message"), BAD_AMOUNTS)
def test_an_amount_is_checked_before_anything_is_touched(
    lm: SteeredModel, amount: dict[str, Any], message: str
) -> None:
    before = hooks_of(lm.model)
    with pytest.raises(InvalidInputError, match=message):
        lm.steering(ode(), **amount)
    assert hooks_of(lm.model) == before


def test_a_level_without_meaning_is_refused_before_anything_is_touched(lm: SteeredModel) -> None:
    useless = ode()
    useless.barrier.upper_ = -1.0
    with pytest.raises(InvalidInputError, match=r"level 1\.5 has no meaning"):
        lm.steering(useless)


def test_a_steerer_of_another_width_is_refused(lm: SteeredModel) -> None:
    other = steerer().method.clone().fit(torch.randn(9, 48) + 1, torch.randn(9, 48) - 1)
    with pytest.raises(ModelError, match=r"width 48.* the model has width 32"):
        lm.steering(Steerer(other, Site(1)))


def test_a_steerer_of_a_deeper_model_is_refused(lm: SteeredModel) -> None:
    with pytest.raises(ModelError, match=r"no layer 13: .* 0 to 3"):
        lm.steering(steerer(layer=13))


def test_a_steerer_without_a_site_is_refused(lm: SteeredModel) -> None:
    with pytest.raises(ModelError, match="not bound to a layer"):
        lm.steering(Steerer(steerer().method))


def test_lists_for_rows_must_agree(lm: SteeredModel) -> None:
    with pytest.raises(InvalidInputError, match="2 steerers and 3 amounts"):
        lm.steering([steerer(), None], strength=[1.0, 2.0, 3.0])
    with pytest.raises(InvalidInputError, match=r"row 1 has 'a\.safetensors' for a steerer"):
        lm.steering([steerer(), "a.safetensors"])  # type: ignore[list-item]


def test_an_amount_needs_a_steerer(lm: SteeredModel) -> None:
    with pytest.raises(InvalidInputError, match="needs a steerer"):
        lm.steering(level=1.0)


def test_layers_that_return_something_else_are_an_error(lm: SteeredModel) -> None:
    layer = lm.layers.at(2)
    before = hooks_of(lm.model)
    layer.forward = lambda hidden_states, **kwargs: hidden_states[0]
    try:
        with (
            pytest.raises(ModelError, match=r"a tensor of shape \(5, 32\) where hidden states"),
            lm.steering(steerer()),
        ):
            logits(lm)
    finally:
        del layer.forward
    assert hooks_of(lm.model) == before
