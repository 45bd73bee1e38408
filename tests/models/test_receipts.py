"""The receipt of a context: what happened at each position that was moved."""

from typing import Any

import pytest
import torch
from steerers import IDS, caa, logits, ode, states
from torch import Tensor

from odesteer.errors import ModelError
from odesteer.models import SteeredModel, SteeringWarning


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
    with (
        pytest.warns(SteeringWarning, match="no forward pass was steered"),
        lm.steering(caa(), receipt=True) as steering,
    ):
        pass
    assert len(steering.receipt()) == 0
