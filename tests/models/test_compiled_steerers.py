"""Steerers whose flow is compiled, on models that are compiled and models that are not."""

from typing import Any

import pytest
import torch
from steerers import logits, ode

import tiny_models
from odesteer.artifact import Steerer
from odesteer.barriers import NeuralBarrier
from odesteer.flows import Midpoint
from odesteer.models import SteeredModel

pytestmark = pytest.mark.usefixtures("no_graphs_of_others")


@pytest.fixture
def plain() -> Steerer:
    barrier = NeuralBarrier(hidden=(16,), max_epochs=30, folds=0)
    return ode(position="all", barrier=barrier, solver=Midpoint(4))


def compiled(steerer: Steerer) -> Steerer:
    """Without the wait for a C++ compiler."""
    made = steerer.compiled()
    made.method._flow.backend = "eager"  # type: ignore[attr-defined]
    return made


def graphs_of(steerer: Steerer) -> list[object]:
    found = list(steerer.method._flow._graphs.values())  # type: ignore[attr-defined]
    assert None not in found
    return found


def test_rows_receipts_and_gates(lm: SteeredModel, plain: Steerer) -> None:
    levels = [0.5, None, 2.0]
    condition = ode()
    for options in ({"level": levels}, {"T": 1.0}):
        found = []
        for steerer in (plain, compiled(plain)):
            gated = steerer.when(condition, above=-50.0)
            with lm.steering(steerer, **options):
                by_rows = logits(lm)
            with lm.steering(gated, **options, receipt=True) as handle:
                by_gate = logits(lm)
            receipt = handle.receipt()
            found.append((by_rows, by_gate, receipt.after, receipt.distance))
        for expected, other in zip(*found, strict=True):
            torch.testing.assert_close(other, expected, rtol=1e-4, atol=1e-4)


def test_generating(lm: SteeredModel, plain: Steerer) -> None:
    prompts = ["the dog", "who is it?"]
    expected = lm.generate(prompts, plain, level=1.0, max_new_tokens=4)
    steerer = compiled(plain)
    assert lm.generate(prompts, steerer, level=1.0, max_new_tokens=4) == expected
    (made,) = graphs_of(steerer)
    lm.generate(prompts, steerer, level=0.5, max_new_tokens=4)
    assert graphs_of(steerer) == [made]


@pytest.mark.parametrize("whole", [True, False], ids=["compiled model", "plain model"])
def test_graphs_are_used_where_compiled_code_may_run(whole: bool, plain: Steerer) -> None:
    lm = SteeredModel(tiny_models.llama(num_hidden_layers=3), tiny_models.tokenizer())
    with lm.steering(plain, level=1.0):
        expected = logits(lm)
    graphs = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    steerer = compiled(plain)
    steerer.method._flow.backend = backend  # type: ignore[attr-defined]
    model = tiny_models.llama(num_hidden_layers=3)
    if whole:
        model = torch.compile(model, backend="eager", fullgraph=True)
    lm = SteeredModel(model, tiny_models.tokenizer())
    with lm.steering(steerer, level=1.0):
        torch.testing.assert_close(logits(lm), expected, rtol=1e-4, atol=1e-4)
    assert not graphs
    with lm.steering(steerer, level=1.0, compiled=True):
        torch.testing.assert_close(logits(lm), expected, rtol=1e-4, atol=1e-4)
    assert graphs
