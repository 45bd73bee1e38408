"""Flows that no fused form takes: plain PyTorch against the same compiled by `torch.compile`."""

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.timing import interleaved
from odesteer.barriers import (
    MinimumBarrier,
    NeuralBarrier,
    PolynomialBarrier,
    RandomFourierBarrier,
    TensorSketchBarrier,
)
from odesteer.flows import RK4, Covariance, Geodesic, Midpoint
from odesteer.methods import Amount, ODESteer


def methods() -> dict[str, ODESteer]:
    """What a user may choose besides explicit Euler on a quadratic barrier."""
    quadratic = PolynomialBarrier(folds=0)
    neural = NeuralBarrier(folds=0)
    return {
        "quadratic, midpoint": ODESteer(quadratic, Midpoint()),
        "quadratic, RK4": ODESteer(quadratic, RK4()),
        "quadratic, geodesic": ODESteer(quadratic, Geodesic()),
        "quadratic, covariance": ODESteer(quadratic, metric=Covariance()),
        "cubic, Euler": ODESteer(PolynomialBarrier(degree=3, folds=0)),
        "cubic sketch, Euler": ODESteer(TensorSketchBarrier(degree=3, folds=0)),
        "Fourier, Euler": ODESteer(RandomFourierBarrier(folds=0)),
        "neural, Euler": ODESteer(neural),
        "neural, RK4": ODESteer(neural, RK4()),
        "minimum, Euler": ODESteer(MinimumBarrier(folds=0)),
    }


def compiled_rows(
    positive: Tensor, negative: Tensor, test: Tensor, batches: tuple[int, ...]
) -> Iterator[dict[str, Any]]:
    """A row for each method, amount and batch of ``test``; graphs are made anew, from no cache."""
    for name, method in methods().items():
        plain = method.fit(positive, negative)
        for amount in (Amount("strength", 0.5), Amount("level", 1.5)):
            compiled = plain.compiled()
            for batch in batches:
                yield {
                    "d": test.shape[1],
                    "flow": name,
                    "to": "a level" if amount.quantity == "level" else "a time",
                    "batch": batch,
                    **_compare(plain, compiled, amount, test[:batch, None]),
                }


@torch.inference_mode()
def _compare(plain: ODESteer, compiled: ODESteer, amount: Amount, a: Tensor) -> dict[str, float]:
    amount = plain.prepared(amount, a).amount
    expected = plain.solve(a, amount).state
    with torch._inductor.config.patch(force_disable_caches=True):
        start = time.perf_counter()
        state = compiled.solve(a, amount).state
        first = time.perf_counter() - start
    times = interleaved(
        {"plain": lambda: plain.solve(a, amount), "compiled": lambda: compiled.solve(a, amount)}
    )
    return {
        "plain, µs": 1e6 * times["plain"].median,
        "compiled, µs": 1e6 * times["compiled"].median,
        "plain / compiled": times["plain"].median / times["compiled"].median,
        "first call, s": first,
        "difference": float((state - expected).norm() / (expected - a).norm()),
    }
