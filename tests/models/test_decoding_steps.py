"""Steps of decoding move activations where they lie, unless somebody has to look at them."""

from importlib.util import find_spec
from typing import Any

import pytest
import torch
from steerers import IDS, D, NoWaiting, activations, caa, ode, steerer
from torch import Tensor
from transformers import DynamicCache

import tiny_models
from odesteer.artifact import Steerer
from odesteer.errors import InvalidInputError
from odesteer.methods import CAA, Amount, Method, ODESteer
from odesteer.models import SteeredModel
from odesteer.models.steering.site_hooks import SiteInterventions

compiled_form = pytest.mark.skipif(find_spec("numba") is None, reason="needs odesteer[fast]")


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of what was moved where it lies."""
    seen: list[tuple[int, ...]] = []
    inside = SiteInterventions.apply_step

    def watched(self: Any, states: Tensor) -> bool:
        stepped = inside(self, states)
        if stepped:
            seen.append(tuple(states.shape))
        return stepped

    monkeypatch.setattr(SiteInterventions, "apply_step", watched)
    return seen


def decoded(lm: SteeredModel, *steerers: Any, n: int = 6, **options: Any) -> Tensor:
    """Logits `[batch, n, words]` of the prompt's last token and of given tokens one by one."""
    cache, found = DynamicCache(), []
    with torch.no_grad(), lm.steering(*steerers, **options):
        for i in range(n):
            ids = IDS if i == 0 else IDS[:, i % 5 : i % 5 + 1]
            found.append(lm.model(ids, past_key_values=cache).logits[:, -1])
    return torch.stack(found, dim=1)


def other() -> Steerer:
    """A flow that is not `ode()`'s."""
    return steerer(ODESteer(level=None, T=2.0), seed=1)


@compiled_form
@pytest.mark.parametrize(
    ("steerers", "options", "n"),
    [
        ([ode()], {}, 4),
        ([ode(position="all")], {"T": 2.0}, 4),
        ([ode(position="generated")], {"T": 2.0}, 4),
        ([ode(position="prompt")], {"T": 2.0}, 4),
        ([ode()], {"level": [2.0, None, -1.0]}, 4),
        ([[ode(), None, other()]], {"T": 2.0}, 4),
        ([ode(), ode(layer=3)], {"T": 2.0}, 8),
        ([ode(position="all"), other()], {"T": 2.0}, 4),
        ([ode()], {"T": 2.0, "prompt_width": 8}, 2),
    ],
)
def test_the_same_is_computed_as_with_a_receipt(
    lm: SteeredModel, steps: list[Any], steerers: Any, options: dict[str, Any], n: int
) -> None:
    expected = decoded(lm, *steerers, **options, receipt=True)
    assert not steps
    found = decoded(lm, *steerers, **options)
    assert torch.equal(found, expected)
    assert not torch.allclose(found, decoded(lm), atol=1e-3)
    # The first step prepares what the others use.
    assert steps == [(3, 1, D)] * n


@compiled_form
def test_what_must_not_be_moved_where_it_lies(lm: SteeredModel, steps: list[Any]) -> None:
    gate = ode().when(ode(layer=1), above=0)
    decoded(lm, gate)
    decoded(lm, caa())
    decoded(lm, steerer(ODESteer(), part="heads"))
    half = SteeredModel(tiny_models.llama().bfloat16(), tiny_models.tokenizer())
    decoded(half, ode())
    assert not steps
    layer = lm.layers.at(2)
    cache = DynamicCache()
    with lm.steering(ode()):
        for _ in range(3):  # with gradients
            lm.model(IDS[:, :1], past_key_values=cache)
    assert not steps
    layer.forward = lambda hidden_states, **kwargs: hidden_states
    try:
        decoded(lm, ode())  # what a layer returns is what it was given
    finally:
        del layer.forward
    assert not steps


@compiled_form
def test_a_step_never_waits(lm: SteeredModel, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, n_steps = SiteInterventions.apply_step, 0

    def watched(self: Any, states: Tensor) -> bool:
        nonlocal n_steps
        with NoWaiting():
            stepped = inside(self, states)
        n_steps += stepped
        return stepped

    monkeypatch.setattr(SiteInterventions, "apply_step", watched)
    decoded(lm, ode(), level=[0.5, 1.0, None])
    assert n_steps == 4


def test_a_level_on_another_device_is_looked_at_once() -> None:
    """Where it is given, not at every step."""
    method: Method = CAA().fit(*activations())
    looked: list[Any] = []
    barrier: Any = method.barrier
    inside = barrier.check_level
    barrier.check_level = lambda level: looked.append(level) or inside(level)
    a = torch.randn(3, 1, D)
    prepared = method.prepared(Amount("level", torch.ones(3, 1)), a)
    n = len(looked)
    solutions = [prepared.solve(a) for _ in range(2)]
    assert torch.equal(solutions[0].state, method.steer(a, level=1.0))
    assert len(looked) - n <= 3  # on the CPU, where looking costs nothing
    meta = torch.ones(3, device="meta")
    assert barrier.threshold(meta).device.type == "meta"
    with pytest.raises(InvalidInputError, match="does not broadcast"):
        method.prepared(Amount("level", torch.ones(2, 1)), a)
    with pytest.raises(InvalidInputError, match="has no 'interpolation'"):
        method.prepared(Amount("interpolation", 1.0), a)


def test_tokens_that_are_only_counted() -> None:
    from odesteer.models.steering.pass_reader import ForwardPassReader

    class Owner(torch.nn.Module):
        def forward(
            self, input_ids: Any = None, past_key_values: Any = None, attention_mask: Any = None
        ) -> None: ...

    class Static:
        length: Any = 0

        def get_seq_length(self) -> Any:
            return self.length

    def given(length: int, cache: Any) -> dict[str, Any]:
        return {"input_ids": torch.zeros(2, length).long(), "past_key_values": cache}

    reader, cache = ForwardPassReader(Owner()), Static()
    assert not reader.continues_decoding((), given(1, cache))  # never seen
    assert reader.read((), given(5, cache)).past == 0
    cache.length = torch.tensor(5)
    assert reader.continues_decoding((), given(1, cache))
    assert reader.continues_decoding((), given(1, cache))
    assert not reader.continues_decoding((), given(2, cache))
    assert not reader.continues_decoding((), given(1, Static()))
    assert not reader.continues_decoding((torch.zeros(2, 1),), {"past_key_values": cache})
    assert reader.read((), given(1, cache)).past == 7
