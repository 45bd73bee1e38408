"""Every registered method inside a model: base, steered, off, on again."""

from functools import cache
from typing import Any

import pytest
import torch
from steerers import activations, hooks_of
from torch import Tensor

import tiny_models
import trained
from odesteer.artifact import Site, Steerer
from odesteer.barriers import ValueBarrier
from odesteer.data import Example
from odesteer.methods import Amount, GatedDirection, SphericalSteering, registry
from odesteer.models import SteeredModel
from odesteer.models.architecture.layers import argument_names
from odesteer.models.tokens.batches import pad_batch

LAYER = 2
TEXTS = ["the dog and the cat", "x", "who is it?"]
MODELS = ("llama", "qwen3", "gemma2", "gpt2", "gpt_neox", "falcon", "mamba")

# What differs from the defaults, so that a method fits these models and moves most tokens.
PARAMETERS: dict[str, dict[str, Any]] = {
    "head-iti": {"n_heads": 4},
    "conditional": {"below": 50.0},
    "recontrol": {"barrier": ValueBarrier((16,), keep_best=True, folds=0)},
}
HEADS = ("head-iti",)  # acts on attention heads, which Mamba has none of


@cache
def model(name: str) -> SteeredModel:
    return SteeredModel(tiny_models.ARCHITECTURES[name](), tiny_models.tokenizer())


@cache
def steerer(name: str) -> Steerer:
    cls = registry.get(name)
    # A couple of dozen random examples are not always enough for a network to settle.
    settled = {"keep_best": True} if "keep_best" in cls.parameter_names() else {}
    method = cls(**settled, **PARAMETERS.get(name, {}))
    part = "heads" if name in HEADS else "residual"
    return Steerer(trained.fitted(method, *activations()), Site(LAYER, part=part))


def amounts(name: str) -> list[Amount]:
    """Of the level both ways, since tokens that are there already do not move."""
    quantities = steerer(name).method.quantities
    if "level" in quantities and quantities[0] != "interpolation":
        return [Amount("level", 2.0), Amount("level", -2.0)]
    levels = [Amount("level", -1.0)] if "level" in quantities else []
    return [Amount(quantities[0], 1.0), *levels]


def logits(lm: SteeredModel) -> Tensor:
    ids = [lm.encode(text).ids for text in TEXTS]
    inputs = pad_batch(ids, 0, "left", torch.device("cpu"))
    if "position_ids" not in argument_names(lm.model):
        inputs.pop("position_ids")
    with torch.no_grad():
        return lm.model(**inputs).logits  # type: ignore[no-any-return]


def acts(lm: SteeredModel, moving: Steerer) -> bool:
    """Whether a method moves the last token of a text: all do, but for gates that are closed."""
    if not isinstance(moving.method, GatedDirection | SphericalSteering):
        return True
    last = lm.capture([Example("", text) for text in TEXTS], LAYER).states[LAYER]
    return bool(moving.method.acts(last).any())


@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize("name", list(registry))
def test_base_steered_off_on_again(name: str, architecture: str) -> None:
    if name in HEADS and architecture == "mamba":
        pytest.skip("Mamba has no attention heads")
    lm, moving = model(architecture), steerer(name)
    before = hooks_of(lm.model)
    base = logits(lm)
    moves = []
    for amount in amounts(name):
        given = {amount.quantity: amount.value}
        with lm.steering(moving, **given):
            steered = logits(lm)
        assert torch.equal(logits(lm), base)
        with lm.steering(moving, **given):
            assert torch.equal(logits(lm), steered)
        assert bool(torch.isfinite(steered).all())
        assert torch.equal(steered[0, :-1], base[0, :-1])  # only the last token is steered
        moves.append(float((steered[:, -1] - base[:, -1]).abs().max()))
    assert (max(moves) > 1e-3) == acts(lm, moving)
    for quantity in moving.method.quantities:
        if quantity != "level":
            with lm.steering(moving, **{quantity: 0.0}):
                assert torch.equal(logits(lm), base)
    assert hooks_of(lm.model) == before


@pytest.mark.parametrize("name", list(registry))
def test_saved_steerers_steer_the_same(name: str, tmp_path: Any) -> None:
    lm, moving = model("llama"), steerer(name)
    moving.save(tmp_path / "s.safetensors")
    loaded = Steerer.load(tmp_path / "s.safetensors")
    assert loaded.site == moving.site
    assert loaded.digest() == moving.digest()
    for amount in amounts(name):
        given = {amount.quantity: amount.value}
        with lm.steering(moving, **given):
            ours = logits(lm)
        with lm.steering(loaded, **given):
            assert torch.equal(logits(lm), ours)
