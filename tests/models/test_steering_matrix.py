"""Steering every architecture: where it acts, what it leaves alone, and that it goes away."""

from typing import Any

import pytest
import torch
from steerers import TEXTS, Watch, batch, caa, hooks_of, ode, steerer
from torch import Tensor

from odesteer.artifact import POSITIONS
from odesteer.models import SteeredModel
from odesteer.models.tokens.batches import PaddingSide

LAYER = 2
WIDTH = 14  # tokens of the longest


def forward(lm: SteeredModel, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Logits, and the output of the steered layer."""
    with Watch(lm.layers.at(LAYER)) as watch, torch.no_grad():
        logits = lm.model(**inputs).logits
    return logits, watch.states[0]


def test_off_on_off_on(any_lm: SteeredModel) -> None:
    inputs, moving = batch(any_lm), ode(LAYER)
    before = hooks_of(any_lm.model)
    base, _ = forward(any_lm, inputs)
    with any_lm.steering(moving, T=3.0):
        steered, _ = forward(any_lm, inputs)
        assert hooks_of(any_lm.model) != before
    off, _ = forward(any_lm, inputs)
    with any_lm.steering(moving, T=3.0):
        again, _ = forward(any_lm, inputs)
    with any_lm.steering(moving, T=0.0):
        nowhere, _ = forward(any_lm, inputs)
    assert torch.equal(off, base)
    assert torch.equal(again, steered)
    assert not torch.allclose(steered[:, -1], base[:, -1], atol=1e-3)
    torch.testing.assert_close(nowhere, base, rtol=1e-4, atol=1e-4)
    assert hooks_of(any_lm.model) == before


@pytest.mark.parametrize("side", ["left", "right"])
def test_only_the_last_token_of_each_row_moves(any_lm: SteeredModel, side: PaddingSide) -> None:
    inputs, moving = batch(any_lm, side), ode(LAYER)
    _, base = forward(any_lm, inputs)
    with any_lm.steering(moving, T=3.0):
        _, steered = forward(any_lm, inputs)
    lengths = inputs["attention_mask"].sum(dim=1)
    for row, length in enumerate(lengths.tolist()):
        last = length - 1 if side == "right" else base.shape[1] - 1
        kept = [column for column in range(base.shape[1]) if column != last]
        assert torch.equal(steered[row, kept], base[row, kept])
        wanted = moving.steer(base[row, last], T=3.0)
        torch.testing.assert_close(steered[row, last], wanted, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(wanted, base[row, last], atol=0.1)


@pytest.mark.parametrize("position", POSITIONS)
def test_each_position_in_generation(any_lm: SteeredModel, position: str) -> None:
    inputs = batch(any_lm)
    inputs.pop("position_ids", None)
    with any_lm.steering(caa(LAYER, position), receipt=True) as steering:
        any_lm.model.generate(
            **inputs,
            max_new_tokens=4,
            min_new_tokens=4,
            do_sample=False,
            use_cache=True,
            pad_token_id=0,
        )
    receipt = steering.receipt()
    mask = inputs["attention_mask"]
    prompt = {(row, column) for row, column in mask.nonzero().tolist()}
    width = mask.shape[1]
    fed_back = {(row, width + i) for row in range(3) for i in range(3)}
    last = {(row, width - 1) for row in range(3)}
    wanted = {
        "last": last | fed_back,
        "generated": fed_back,
        "prompt": prompt,
        "all": prompt | fed_back,
    }[position]
    moved = list(zip(receipt.row.tolist(), receipt.column.tolist(), strict=True))
    assert len(moved) == len(set(moved))
    assert set(moved) == wanted
    assert set(receipt.layer.tolist()) == {LAYER}
    assert bool((receipt.after > receipt.before).all())


def test_a_padded_batch_is_steered_as_each_row_alone(any_lm: SteeredModel) -> None:
    levels = [2.0, None, -1.0]
    moving = ode(LAYER)
    with any_lm.steering(moving, level=levels):
        together, _ = forward(any_lm, batch(any_lm))
    for row, (text, level) in enumerate(zip(TEXTS, levels, strict=True)):
        ids = {"input_ids": torch.tensor([any_lm.encode(text).ids])}
        with any_lm.steering(*([] if level is None else [moving]), level=level):
            alone, _ = forward(any_lm, ids)
        torch.testing.assert_close(together[row, -1], alone[0, -1], rtol=2e-3, atol=2e-3)


def test_rows_without_a_steerer_are_untouched_to_the_bit(any_lm: SteeredModel) -> None:
    inputs = batch(any_lm)
    base, _ = forward(any_lm, inputs)
    with any_lm.steering([ode(LAYER), None, caa(LAYER)]):
        mixed, _ = forward(any_lm, inputs)
    with any_lm.steering(ode(LAYER), level=[None, None, None]):
        none, _ = forward(any_lm, inputs)
    assert torch.equal(mixed[1], base[1])
    assert not torch.allclose(mixed[0, -1], base[0, -1], atol=1e-3)
    assert not torch.allclose(mixed[2, -1], base[2, -1], atol=1e-3)
    assert torch.equal(none, base)


def generated(lm: SteeredModel, **options: Any) -> list[Any]:
    options = {"max_new_tokens": 6, "do_sample": False, "use_cache": True, **options}
    return [
        (g.text, g.before, g.after)
        for g in lm.generate(TEXTS, steerer(None, LAYER), strength=0.2, receipt=True, **options)
    ]


def test_with_and_without_a_cache_the_same_is_written(any_lm: SteeredModel) -> None:
    cached = generated(any_lm)
    assert [text for text, _, _ in cached] != any_lm.generate(
        TEXTS, max_new_tokens=6, do_sample=False
    )
    assert generated(any_lm, use_cache=False) == cached


def test_a_static_cache_writes_the_same(any_lm: SteeredModel) -> None:
    config = any_lm.model.config
    if config.model_type in ("mamba", "jamba") or getattr(config, "alibi", False):
        pytest.skip("transformers has no static cache for this architecture, or a broken one")
    assert generated(any_lm, cache_implementation="static") == generated(any_lm)
