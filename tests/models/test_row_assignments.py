"""Who moves which row and how far, and what is refused before anything is touched."""

from typing import Any

import pytest
import torch
from steerers import D, hooks_of, logits, ode, states, steerer
from torch import Tensor

from odesteer.artifact import Site, Steerer
from odesteer.errors import InvalidInputError, ModelError
from odesteer.models import SteeredModel


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
