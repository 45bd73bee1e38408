"""States behind the last norm, which the head is given, are captured and steered by their site."""

from pathlib import Path
from typing import Any

import pytest
import torch
from steerers import TEXTS, WatchInputs, batch, hooks_of, steerer
from torch import Tensor

import tiny_models
from odesteer.artifact import Provenance, Site, Steerer, load
from odesteer.barriers import Training
from odesteer.data import ContrastData, Example
from odesteer.errors import InvalidInputError, ModelError
from odesteer.methods import CAA, Amount, EndToEnd, MiMiC, REControl
from odesteer.models import SteeredModel

LAST = 3
EXAMPLES = [Example("who is there?", " it is the dog"), Example("", "short"), Example("a", " b")]
NAMES = ["llama", "gemma3", "gpt2", "opt", "bloom", "mamba", "gemma3_vl", "llava"]
BUILT = {**tiny_models.ARCHITECTURES, **tiny_models.VISION_LANGUAGE}


@pytest.fixture(scope="module", params=NAMES)
def any_lm(request: pytest.FixtureRequest) -> SteeredModel:
    return SteeredModel(BUILT[request.param](), tiny_models.tokenizer())


def final(*args: Any, **kwargs: Any) -> Steerer:
    return steerer(*args, layer=LAST, part="final", **kwargs)


def forward(lm: SteeredModel, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Logits, and what the head is given."""
    with WatchInputs(lm.model.get_output_embeddings()) as watch, torch.no_grad():
        out = lm.model(**inputs).logits
    return out, watch.states[0]


def test_what_the_head_is_given_is_captured_and_moved(any_lm: SteeredModel) -> None:
    lm, moving = any_lm, final()
    inputs, hooks = batch(lm), hooks_of(lm.model)
    captured = lm.capture(EXAMPLES, LAST, part="final").states[LAST]
    for row, example in zip(captured, EXAMPLES, strict=True):
        ids = torch.tensor([lm.encode(example).ids])
        torch.testing.assert_close(row, forward(lm, {"input_ids": ids})[1][0, -1])
    base, before = forward(lm, inputs)
    with lm.steering(moving, strength=2.0, receipt=True) as steering:
        logits, after = forward(lm, inputs)
    last = inputs["attention_mask"].cumsum(1).argmax(1)
    for row, column in enumerate(last.tolist()):
        wanted = moving.steer(before[row, column], strength=2.0)
        torch.testing.assert_close(after[row, column], wanted, rtol=1e-4, atol=1e-4)
        kept = [i for i in range(before.shape[1]) if i != column]
        assert torch.equal(after[row, kept], before[row, kept])
    assert not torch.allclose(logits, base, atol=1e-3)
    assert bool(steering.receipt().final.all())
    assert not bool(steering.receipt().heads.any())
    assert torch.equal(forward(lm, inputs)[0], base)
    assert hooks_of(lm.model) == hooks


def test_keys_and_values_do_not_change(lm: SteeredModel) -> None:
    inputs = {"input_ids": torch.tensor([[1, 20, 30, 40]])}
    caches = []
    for steerers in ([], [final(position="all")]):
        with lm.steering(*steerers), torch.no_grad():
            caches.append(lm.model(**inputs, use_cache=True).past_key_values)
    for layer in range(LAST + 1):
        one, other = (cache.layers[layer] for cache in caches)
        assert torch.equal(one.keys, other.keys)
        assert torch.equal(one.values, other.values)


@pytest.mark.parametrize("method", [REControl(n_steps=3), MiMiC(), CAA()])
def test_a_batch_is_written_as_each_prompt_alone(lm: SteeredModel, method: Any) -> None:
    moving, options = final(method), {"max_new_tokens": 5, "do_sample": False}
    together = lm.generate(TEXTS, moving, **options)
    assert together == [lm.generate(text, moving, **options)[0] for text in TEXTS]
    assert together == lm.generate(TEXTS, moving, use_cache=False, **options)


def test_it_is_fitted_saved_and_loaded(lm: SteeredModel, tmp_path: Path) -> None:
    texts = [f"{word} {number}" for word in ("cat", "dog") for number in range(6)]
    data = ContrastData(
        tuple(Example("", text) for text in texts[:6]),
        tuple(Example("", text) for text in texts[6:]),
        tuple("abcdef"),
        tuple("abcdef"),
    )
    fitted = lm.fit(CAA(), data, LAST, part="final")
    assert isinstance(fitted, Steerer)
    assert str(fitted.site) == "layer 3, behind the last norm, positions: last"
    published = lm.fit(REControl.paper(), data, LAST, part="final", position="answer")
    assert published.method.default_amount == Amount("T", 30.0)
    trained = lm.fit(EndToEnd(training=Training(max_epochs=1)), data, LAST, part="final")
    assert isinstance(trained, Steerer)
    assert trained.site == fitted.site
    fitted.save(tmp_path / "final.safetensors")
    again = load(tmp_path / "final.safetensors")
    assert again.site == fitted.site
    inputs = batch(lm)
    with lm.steering(fitted):
        wanted, _ = forward(lm, inputs)
    with lm.steering(again):
        assert torch.equal(forward(lm, inputs)[0], wanted)


def test_it_is_behind_the_residual_stream_of_the_last_layer(lm: SteeredModel) -> None:
    first, second, inputs = steerer(seed=1, layer=LAST), final(seed=2), batch(lm)
    with lm.steering(first):
        _, between = forward(lm, inputs)
    with lm.steering(second, first):
        _, after = forward(lm, inputs)
    last = inputs["attention_mask"].cumsum(1).argmax(1)
    rows = torch.arange(len(last))
    wanted = second.steer(between[rows, last])
    torch.testing.assert_close(after[rows, last], wanted, rtol=1e-4, atol=1e-4)


def test_graphs_contain_it(lm: SteeredModel) -> None:
    moving, inputs = final(), batch(lm)
    with lm.steering(moving), torch.no_grad():
        wanted = lm.model(**inputs).logits
    torch.compiler.reset()
    compiled = torch.compile(lm.model, backend="eager", dynamic=False)
    with lm.steering(moving, compiled=True), torch.no_grad():
        torch.testing.assert_close(compiled(**inputs).logits, wanted)
    torch.compiler.reset()


def test_tuples_are_steered_too(lm: SteeredModel) -> None:
    inputs = batch(lm)
    with lm.steering(final()), torch.no_grad():
        wanted = lm.model(**inputs).logits
        assert torch.equal(lm.model(**inputs, return_dict=False)[0], wanted)
        out = lm.model(**inputs, output_hidden_states=True)
        assert torch.equal(out.logits, wanted)


def test_gradients_pass_through_it(lm: SteeredModel) -> None:
    moving, inputs = final(), batch(lm)
    with lm.steering(moving), torch.no_grad():
        wanted = lm.model(**inputs).logits
    with lm.steering(moving):
        logits = lm.model(**inputs).logits
    torch.testing.assert_close(logits, wanted)
    assert torch.isfinite(torch.autograd.grad(logits.sum(), list(lm.model.parameters()))[0]).all()


def test_other_layers_have_none(lm: SteeredModel) -> None:
    with pytest.raises(InvalidInputError, match="behind the last layer, which is 3"):
        lm.capture(EXAMPLES, 2, part="final")
    with pytest.raises(InvalidInputError, match="behind the last layer, which is 3"):
        lm.steering(steerer(layer=1, part="final"))
    with pytest.raises(InvalidInputError, match="model of the provenance, not 5"):
        Steerer(final().method, Site(5, part="final"), Provenance(n_layers=8))


def test_a_head_inside_the_module_of_the_layers_is_refused(lm: SteeredModel) -> None:
    inner = lm.model.model
    one = SteeredModel(lm.model, tiny_models.tokenizer())
    inner.lm_head = lm.model.lm_head
    try:
        with pytest.raises(ModelError, match="in one module"):
            one.capture(EXAMPLES, LAST, part="final")
    finally:
        del inner.lm_head
