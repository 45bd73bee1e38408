"""Attention heads are found by structure, captured, and steered like the residual stream."""

from typing import Any

import pytest
import torch
from steerers import TEXTS, Watch, WatchInputs, batch, hooks_of, logits, ode, steerer
from torch import Tensor, nn

import tiny_models
from odesteer.data import Example
from odesteer.errors import InvalidInputError, ModelError
from odesteer.models import SteeredModel
from odesteer.models.architecture.heads import Projection, choose_projection
from odesteer.models.tokens.batches import PaddingSide

LAYER = 1  # which is an attention in every architecture that has any
PROJECTIONS = {
    **dict.fromkeys(tiny_models.ARCHITECTURES, "self_attn.o_proj"),
    **dict.fromkeys(("falcon", "falcon_new", "bloom"), "self_attention.dense"),
    "gpt2": "attn.c_proj",
    "gpt_neox": "attention.dense",
    "opt": "self_attn.out_proj",
    "mpt": "attn.out_proj",
}
WITH_HEADS = [name for name in tiny_models.ARCHITECTURES if name != "mamba"]
EXAMPLES = [Example("who is there?", " it is the dog"), Example("", "short"), Example("a", " b")]


@pytest.fixture(scope="module", params=WITH_HEADS)
def named(request: pytest.FixtureRequest) -> tuple[str, SteeredModel]:
    model = tiny_models.ARCHITECTURES[request.param]()
    return request.param, SteeredModel(model, tiny_models.tokenizer())


@pytest.fixture(scope="module")
def heads_lm(named: tuple[str, SteeredModel]) -> SteeredModel:
    return named[1]


def projection(lm: SteeredModel, layer: int = LAYER) -> nn.Module:
    return lm._sites.heads.at(layer)[0]


def heads(*args: Any, **kwargs: Any) -> Any:
    return steerer(*args, layer=LAYER, part="heads", **kwargs)


def forward(lm: SteeredModel, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Logits, and what the output projection of the steered layer is given."""
    with WatchInputs(projection(lm)) as watch, torch.no_grad():
        out = lm.model(**inputs).logits
    return out, watch.states[0]


def test_the_output_projection_of_every_architecture(named: tuple[str, SteeredModel]) -> None:
    name, lm = named
    assert lm.n_heads == 4
    module, width = lm._sites.heads.at(LAYER)
    assert width == 32
    assert module is lm.layers.at(LAYER).get_submodule(PROJECTIONS[name])
    # It is the last map that its attention runs, and the attention returns what it returns.
    attention = lm.layers.at(LAYER).get_submodule(PROJECTIONS[name].rpartition(".")[0])
    ran: list[nn.Module] = []
    handles = [
        part.register_forward_hook(lambda part, args, out: ran.append(part))
        for part in attention.children()
        if hasattr(part, "weight") and part.weight.ndim == 2
    ]
    with Watch(module) as inner, Watch(attention) as outer:
        lm.model(**batch(lm))
    for handle in handles:
        handle.remove()
    assert ran[-1] is module
    if name != "bloom":  # which adds the residual stream inside
        assert torch.equal(inner.states[0], outer.states[0])


@pytest.mark.parametrize("side", ["right", "left"])
def test_captured_heads_are_those_of_a_plain_pass(heads_lm: SteeredModel, side: Any) -> None:
    captured = heads_lm.capture(EXAMPLES, [LAYER, 3], part="heads", batch_size=2, side=side)
    for layer in (LAYER, 3):
        for row, example in enumerate(EXAMPLES):
            with WatchInputs(projection(heads_lm, layer)) as watch, torch.no_grad():
                heads_lm.model(torch.tensor([heads_lm.encode(example).ids]))
            wanted = watch.states[0][0, -1]
            torch.testing.assert_close(captured.states[layer][row], wanted, rtol=1e-3, atol=1e-4)


def test_off_on_off_on(heads_lm: SteeredModel) -> None:
    inputs, moving = batch(heads_lm), heads()
    before = hooks_of(heads_lm.model)
    base, _ = forward(heads_lm, inputs)
    with heads_lm.steering(moving, strength=2.0):
        steered, _ = forward(heads_lm, inputs)
        assert hooks_of(heads_lm.model) != before
    off, _ = forward(heads_lm, inputs)
    with heads_lm.steering(moving, strength=2.0):
        again, _ = forward(heads_lm, inputs)
    assert torch.equal(off, base)
    assert torch.equal(again, steered)
    assert not torch.allclose(steered[:, -1], base[:, -1], atol=1e-3)
    assert hooks_of(heads_lm.model) == before


@pytest.mark.parametrize("side", ["left", "right"])
def test_only_the_last_token_of_each_row_moves(heads_lm: SteeredModel, side: PaddingSide) -> None:
    inputs, moving = batch(heads_lm, side), heads()
    _, base = forward(heads_lm, inputs)
    with heads_lm.steering(moving, strength=[2.0, None, 1.0], receipt=True) as steering:
        _, moved = forward(heads_lm, inputs)
    lengths = inputs["attention_mask"].sum(dim=1).tolist()
    for row, (length, strength) in enumerate(zip(lengths, [2.0, 0.0, 1.0], strict=True)):
        last = length - 1 if side == "right" else base.shape[1] - 1
        kept = [column for column in range(base.shape[1]) if column != last]
        assert torch.equal(moved[row, kept], base[row, kept])
        wanted = moving.steer(base[row, last], strength=strength)
        torch.testing.assert_close(moved[row, last], wanted, rtol=1e-4, atol=1e-4)
    assert torch.equal(moved[1], base[1])
    receipt = steering.receipt()
    assert receipt.row.tolist() == [0, 2]
    assert bool(receipt.heads.all())
    assert receipt.layer.tolist() == [LAYER] * 2


@pytest.mark.parametrize("position", ["generated", "prompt", "all"])
def test_positions_in_generation(heads_lm: SteeredModel, position: str) -> None:
    inputs = batch(heads_lm)
    inputs.pop("position_ids", None)
    with heads_lm.steering(heads(position=position), receipt=True) as steering:
        heads_lm.model.generate(
            **inputs,
            max_new_tokens=3,
            min_new_tokens=3,
            do_sample=False,
            use_cache=True,
            pad_token_id=0,
        )
    receipt, mask = steering.receipt(), inputs["attention_mask"]
    prompt = {(row, column) for row, column in mask.nonzero().tolist()}
    fed_back = {(row, mask.shape[1] + i) for row in range(3) for i in range(2)}
    wanted = {"generated": fed_back, "prompt": prompt, "all": prompt | fed_back}[position]
    assert set(zip(receipt.row.tolist(), receipt.column.tolist(), strict=True)) == wanted


def test_a_batch_is_written_as_each_prompt_alone(heads_lm: SteeredModel) -> None:
    options: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False}
    together = heads_lm.generate(TEXTS, heads(), strength=[1.0, None, 2.0], **options)
    alone = [
        heads_lm.generate(text, None if s is None else heads(), strength=s, **options)[0]
        for text, s in zip(TEXTS, [1.0, None, 2.0], strict=True)
    ]
    assert together == alone
    assert together != heads_lm.generate(TEXTS, **options)
    uncached = heads_lm.generate(
        TEXTS, heads(), strength=[1.0, None, 2.0], use_cache=False, **options
    )
    assert uncached == together


def test_a_state_space_model_has_no_heads() -> None:
    lm = SteeredModel(tiny_models.mamba(), tiny_models.tokenizer())
    with pytest.raises(ModelError, match="MambaForCausalLM has no attention heads"):
        _ = lm.n_heads
    with pytest.raises(ModelError, match="no attention heads"):
        lm.steering(heads())
    with pytest.raises(ModelError, match="no attention heads"):
        lm.capture(EXAMPLES, 0, part="heads")


def test_a_hybrid_model_has_heads_where_it_has_attention() -> None:
    lm = SteeredModel(tiny_models.jamba(), tiny_models.tokenizer())
    before = hooks_of(lm.model)
    with pytest.raises(ModelError, match=r"layer 0 .* no attention .* with attention: \[1, 3\]"):
        lm.capture(EXAMPLES, [1, 0], part="heads")
    assert hooks_of(lm.model) == before


def test_heads_wider_than_the_residual_stream() -> None:
    lm = SteeredModel(tiny_models.llama(head_dim=16), tiny_models.tokenizer())
    assert lm.capture(EXAMPLES, 2, part="heads").states[2].shape == (3, 64)
    with lm.steering(heads(width=64)):
        logits(lm)
    with pytest.raises(ModelError, match="width 32, and the heads of this layer have width 64"):
        lm.steering(heads())
    with pytest.raises(ModelError, match="width 64, and the model has width 32"):
        lm.steering(steerer(width=64))


def test_there_are_no_other_parts(lm: SteeredModel) -> None:
    with pytest.raises(
        InvalidInputError, match="part must be one of residual, heads, final, not 'mlp'"
    ):
        lm.capture(EXAMPLES, 0, part="mlp")


def test_heads_and_residual_stream_of_one_layer(lm: SteeredModel) -> None:
    both = [steerer(seed=1, layer=LAYER), heads(seed=2)]
    with lm.steering(both[1]), Watch(lm.layers.at(LAYER)) as watch:
        logits(lm)
    with lm.steering(*both), Watch(lm.layers.at(LAYER)) as watched:
        logits(lm)
    wanted = both[0].steer(watch.states[0][:, -1])
    torch.testing.assert_close(watched.states[0][:, -1], wanted)


def test_nested_contexts_act_one_after_the_other(lm: SteeredModel) -> None:
    inputs, outer, inner = batch(lm), heads(seed=1), heads(ode().method.clone(), seed=2)
    _, base = forward(lm, inputs)
    with lm.steering(outer), lm.steering(inner):
        _, both = forward(lm, inputs)
    wanted = inner.steer(outer.steer(base[:, -1]))
    torch.testing.assert_close(both[:, -1], wanted, rtol=1e-4, atol=1e-4)


def test_what_the_attention_holds_is_not_changed(lm: SteeredModel) -> None:
    """Something else may use the tensor that the projection is given."""
    seen: list[Tensor] = []
    handle = projection(lm).register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    try:
        _, base = forward(lm, batch(lm))
        with lm.steering(heads(position="all")):
            forward(lm, batch(lm))
    finally:
        handle.remove()
    assert torch.equal(seen[1], base)


def test_gradients_flow_through_steered_heads(lm: SteeredModel) -> None:
    weight = lm.layers.at(0).mlp.up_proj.weight
    gradients = []
    for several in ([], [heads(position="all"), heads(seed=3)]):
        with lm.steering(*several):
            loss = lm.model(**batch(lm)).logits.square().mean()
            gradients.append(torch.autograd.grad(loss, weight)[0])
    assert bool(torch.isfinite(gradients[1]).all())
    assert not torch.allclose(*gradients)


def test_half_precision_keeps_its_type() -> None:
    lm = SteeredModel(tiny_models.llama().bfloat16(), tiny_models.tokenizer())
    _, base = forward(lm, batch(lm))
    with lm.steering(heads(position="all")):
        _, moved = forward(lm, batch(lm))
    assert moved.dtype == torch.bfloat16
    torch.testing.assert_close(moved[0], heads().steer(base[0]), rtol=2e-2, atol=2e-2)


def test_a_projection_that_is_never_called_is_an_error(lm: SteeredModel) -> None:
    """As with fused kernels that read its weights."""
    attention = lm.layers.at(LAYER).self_attn
    before = hooks_of(lm.model)

    def fused(hidden_states: Tensor, attention_mask: Any = None, **kwargs: Any) -> Any:
        return hidden_states @ attention.o_proj.weight.T, None

    attention.forward = fused
    try:
        with (
            pytest.raises(ModelError, match="ran without calling the output projection"),
            lm.steering(heads()),
        ):
            logits(lm)
        with pytest.raises(ModelError, match="ran without calling the output projection"):
            lm.capture(EXAMPLES, LAYER, part="heads")
    finally:
        del attention.forward
    assert hooks_of(lm.model) == before


def found(*maps: tuple[str, int, int]) -> list[Projection]:
    return [Projection(*one) for one in maps]


def test_names_of_queries_keys_and_values_are_no_outputs() -> None:
    square = [(32, 32)] * 4
    for names, right in (
        (("q_proj", "k_proj", "v_proj", "out"), "out"),
        (("attention.self.query", "attention.self.key", "attention.self.value", "dense"), "dense"),
        (("wq", "wk", "wv", "wo"), "wo"),
        (("gate_proj", "to_q", "to_k_1", "project"), "project"),
    ):
        maps = found(*((name, *widths) for name, widths in zip(names, square, strict=True)))
        assert choose_projection(maps, 4, 32, 8, "layer 0").path == right


def test_the_widths_decide_first() -> None:
    maps = found(("query_key_value", 32, 96), ("q_proj", 64, 32), ("proj", 16, 32), ("up", 32, 64))
    assert choose_projection(maps, 4, 32, 16, "layer 0").path == "q_proj"
    assert choose_projection(maps, 4, 32, 4, "layer 0").path == "proj"


def test_ambiguity_lists_the_candidates_and_how_to_name_one() -> None:
    maps = found(("self.out", 32, 32), ("cross.out", 32, 32), ("self.q_proj", 32, 32))
    with pytest.raises(ModelError) as caught:
        choose_projection(maps, 4, 32, 8, "layer 0 (Block)")
    message = str(caught.value)
    assert "in layer 0 (Block)" in message
    assert "'self.out' (32 to 32), 'cross.out' (32 to 32)." in message
    assert "heads='self.out'" in message
    with pytest.raises(ModelError, match=r"no output projection of 5 heads .* 'self.out'"):
        choose_projection(maps, 5, 32, None, "layer 0")


def test_naming_the_projection() -> None:
    model = tiny_models.llama()
    plain = SteeredModel(model, tiny_models.tokenizer())
    lm = SteeredModel(model, tiny_models.tokenizer(), heads="self_attn.o_proj")
    assert projection(lm) is projection(plain)
    other = SteeredModel(model, tiny_models.tokenizer(), heads="mlp.down_proj")
    assert other.capture(EXAMPLES, 0, part="heads").states[0].shape == (3, 48)
    for wrong in ("self_attn.dense", "self_attn"):
        lm = SteeredModel(model, tiny_models.tokenizer(), heads=wrong)
        with pytest.raises(ModelError, match=rf"heads='{wrong}' .* has 'self_attn.q_proj' \(32"):
            lm.steering(heads())
