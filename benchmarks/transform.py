"""Time to steer a token and to fit a barrier, by the form of the barrier.

    python -m benchmarks.transform [--json FILE] [--quick] [--only PART]

Forms compared side by side, all explicit Euler in float32:

fft        the published form: a TensorSketch with 8,000 components, whose gradient is taken by
           fast Fourier transforms at every step (written here from the mathematics)
full       the same sketch collapsed to a quadratic form of rank d
low        the exact kernel, at the rank that displaces activations with an error of 1e-4
in place   the same as a step of decoding: prepared once, a few activations moved in place
addition   a + v, the cost of activation addition
"""

import json
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.machine import describe_machine, peak_memory
from benchmarks.timing import interleaved
from odesteer.barriers import Barrier, PolynomialBarrier, TensorSketchBarrier
from odesteer.barriers.logistic import fit_features
from odesteer.barriers.random_features import TensorSketch
from odesteer.flows import Euler, FlowInPlace, GradientField, flow_in_place, solve

N_COMPONENTS = 8000


def activations(n: int, d: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two classes `[n, d]` with a power-law spectrum, like those of a language model.

    Standard deviations fall as 1/√i over the principal axes, the classes differ in mean by about
    one of them and a little in covariance, and all share an offset of the size of the spread.
    """
    generator = torch.Generator().manual_seed(seed)
    scale = torch.arange(1, d + 1).float().rsqrt()
    offset = torch.randn(d, generator=generator) * scale
    shift = 0.5 * torch.randn(d, generator=generator) * scale
    stretch = 1 + 0.3 * torch.rand(d, generator=generator)

    def draw(sign: int, stretched: Tensor | float) -> Tensor:
        noise = torch.randn(n, d, generator=generator)
        return offset + sign * shift + noise.mul_(scale * stretched)

    return draw(1, stretch), draw(-1, 1.0)


def fft_form(sketch: TensorSketch, a: Tensor, T: float, n_steps: int) -> Tensor:
    """Explicit Euler with the gradient of the sketch by FFT at each step, as published."""
    for _ in range(n_steps):
        norm = a.norm(dim=-1, keepdim=True)
        x = a / norm
        g = sketch.gradient(x)
        g = (g - (g * x).sum(-1, keepdim=True) * x) / norm
        a = a + (T / n_steps) * g / g.norm(dim=-1, keepdim=True)
    return a


def ours(barrier: Barrier, a: Tensor, T: float, n_steps: int) -> Tensor:
    return solve(GradientField(barrier), a, T, Euler(n_steps)).state


def in_place(flow: FlowInPlace, a: Tensor) -> None:
    """Includes a copy, so that each call moves the same."""
    flow.move(a.clone())


def fitted_forms(d: int) -> tuple[TensorSketch, Barrier, PolynomialBarrier]:
    """The sketch by FFT, the same collapsed, and the exact kernel at low rank."""
    positive, negative = activations(600, d, seed=0)
    full = TensorSketchBarrier(n_components=N_COMPONENTS, folds=0).fit(positive, negative)
    # The collapsed barrier keeps no hashes; draw and fit the same sketch again by its parts.
    sketch = TensorSketch(2, full.gamma, full.c0, N_COMPONENTS).drawn(d, full.seed)
    x = full.inputs(torch.cat([positive, negative]))
    y = torch.cat([torch.ones(600), torch.zeros(600)]).double()
    weights, sketch.offset_ = fit_features(sketch.features(x), y, full.C)
    sketch.coefficients_ = weights.float()
    low = PolynomialBarrier(folds=0).fit(positive, negative)
    return sketch, full, low


def steering(widths: tuple[int, ...], batches: tuple[int, ...]) -> list[dict[str, Any]]:
    """Microseconds a token for each form, width, batch and number of steps."""
    rows = []
    for d in widths:
        forms = fitted_forms(d)
        test, _ = activations(max(batches), d, seed=1)
        rows += [steering_row(test[:batch], *forms) for batch in batches]
    return rows


def steering_row(
    a: Tensor, sketch: TensorSketch, full: Barrier, low: PolynomialBarrier
) -> dict[str, Any]:
    """One width and batch: all forms in turn, and how far the collapsed form is from the FFTs."""
    batch, d = a.shape
    T = 0.5 * float(a.norm(dim=1).mean())
    direction = torch.randn(d)
    calls: dict[str, Callable[[], object]] = {
        "fft, 10": lambda: fft_form(sketch, a, T, 10),
        "full, 10": lambda: ours(full, a, T, 10),
        "full, 1000": lambda: ours(full, a, T, 1000),
        "low, 10": lambda: ours(low, a, T, 10),
        "low, 1000": lambda: ours(low, a, T, 1000),
        "addition": lambda: a + direction,
    }
    flow = flow_in_place(GradientField(low), Euler(10), T, None, batch, a.device)
    if flow is not None:
        calls["in place, 10"] = partial(in_place, flow, a[:, None])
    with torch.inference_mode():
        times = interleaved(calls)
        expected = fft_form(sketch, a, T, 10) - a
        error = (ours(full, a, T, 10) - a - expected).norm() / expected.norm()
    return {
        "d": d,
        "rank": low.function_.rank,  # type: ignore[union-attr]
        "batch": batch,
        "microseconds_per_token": {
            name: 1e6 * timing.median / batch for name, timing in times.items()
        },
        "fft_over_full": times["fft, 10"].median / times["full, 10"].median,
        "fft_over_low": times["fft, 10"].median / times["low, 10"].median,
        "low_1000_over_10": times["low, 1000"].median / times["low, 10"].median,
        "displacement_error_of_full": float(error),
    }


def fitting(d: int, sizes: tuple[int, ...], most_for_published: int) -> list[dict[str, Any]]:
    """Seconds to fit the published sketch form, our sketch and the exact kernel."""
    return [fitting_row(d, n, published=n <= most_for_published) for n in sizes]


def fitting_row(d: int, n: int, *, published: bool) -> dict[str, Any]:
    """One number of examples, half of each class."""
    positive, negative = activations(n // 2, d, seed=2)
    row: dict[str, Any] = {"d": d, "examples": n}
    if published:
        row["published sketch"] = _seconds(lambda: fit_as_published(positive, negative))
    barriers = {
        "our sketch": TensorSketchBarrier(folds=0),
        "exact kernel": PolynomialBarrier(folds=0),
        "exact kernel with 5 folds": PolynomialBarrier(),
    }
    for name, barrier in barriers.items():
        row[name] = _seconds(partial(barrier.fit, positive, negative))
    if published:
        row["published_over_exact"] = row["published sketch"] / row["exact kernel"]
    return row


def fit_as_published(positive: Tensor, negative: Tensor) -> None:
    """scikit-learn's logistic regression on the explicit features of the sketch."""
    from sklearn.linear_model import LogisticRegression

    x = torch.nn.functional.normalize(torch.cat([positive, negative]), dim=1)
    sketch = TensorSketch(2, 0.1, 1.0, N_COMPONENTS).drawn(x.shape[1], seed=0)
    y = torch.cat([torch.ones(len(positive)), torch.zeros(len(negative))])
    LogisticRegression(max_iter=1000).fit(sketch.features(x).numpy(), y.numpy())


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    flat = [
        {
            key: value
            for name, cell in row.items()
            for key, value in (cell.items() if isinstance(cell, dict) else [(name, cell)])
        }
        for row in rows
    ]
    columns = list(dict.fromkeys(name for row in flat for name in row))
    table = Table(*columns, title=title)
    for row in flat:
        table.add_row(*(_cell(row.get(name, math.nan)) for name in columns))
    return table


def _cell(value: float | str) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def large() -> dict[str, Any]:
    """The exact kernel on 20,000 activations of width 4096."""
    positive, negative = activations(10_000, 4096, seed=2)
    before = peak_memory()
    row: dict[str, Any] = {"d": 4096, "examples": 20_000, "GiB of examples and torch": before}
    for name, barrier in {
        "exact kernel": PolynomialBarrier(folds=0),
        "with 5 folds": PolynomialBarrier(),
    }.items():
        row[name] = _seconds(partial(barrier.fit, positive, negative))
        row[f"{name}, more GiB"] = peak_memory() - before
    return row


def main(
    output: Annotated[
        Path | None, typer.Option("--json", help="Also write the figures here.")
    ] = None,
    quick: Annotated[bool, typer.Option(help="Small sizes only, to see that it runs.")] = False,
    part: Annotated[str, typer.Option("--only", help="steering, fitting or large.")] = "",
) -> None:
    """Time steering and fitting."""
    console = Console(width=160)
    machine = describe_machine()
    console.print(machine)
    if part == "large":
        console.print(_table("fitting 20,000 x 4096: seconds, and memory", [large()]))
        return
    rows = []
    if part != "fitting":
        rows = steering((256,) if quick else (1024, 4096), (1, 16) if quick else (1, 16, 256))
        console.print(_table("steering: microseconds a token, and ratios", rows))
    if part == "steering":
        return
    fits = (
        fitting(256, (600,), 600)
        if quick
        else fitting(1024, (600, 1200, 5000, 20000), 5000) + fitting(4096, (600, 1200, 20000), 1200)
    )
    console.print(_table("fitting: seconds, and the published form over ours", fits))
    peak = peak_memory()
    console.print(f"peak memory of this process: {peak:.1f} GiB")
    if output is not None:
        document = {"machine": machine, "steering": rows, "fitting": fits, "peak_gib": peak}
        output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
