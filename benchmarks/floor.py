"""Time of moving activations in a decoding step, against the bounds of memory and arithmetic.

    python -m benchmarks.floor [--json FILE] [--quick]

Steering reads the basis Q `[d, r]` in float32 for each of two products, and multiplies it by each
row twice: `benchmarks.scale` counts 2·4·d·r bytes and 2·2·d·r operations a row. The floor is the
longer of both: the bytes over the bandwidth, the operations over the speed, each measured here.
The move itself is measured with caches emptied before each call, as a model's weights do it. On a
GPU also inside a CUDA graph, where launches cost less. Ten Euler steps until h reaches a level.
"""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.machine import describe_machine
from odesteer.barriers import PolynomialBarrier
from odesteer.barriers.quadratic import QuadraticFunction
from odesteer.flows import Euler, FlowInPlace, GradientField, ReachValue, flow_in_place

SHAPES = ((1024, 135), (4096, 135), (8192, 135), (4096, 1024))
ROWS = (1, 16, 64)
MANY = 2**26  # numbers, which no cache holds beside anything else

Call = Callable[[], object]


def seconds(call: Call, device: torch.device, before: Call) -> float:
    """Median time of one call, without what is done ``before`` each."""
    times = []
    for _ in range(30):
        before()
        if device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            start.record()
            call()
            end.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(end) / 1e3)
        else:
            begin = time.perf_counter()
            call()
            times.append(time.perf_counter() - begin)
    return statistics.median(times[5:])


def machine_speed(device: torch.device) -> tuple[float, float]:
    """Bytes a second that are read, and float32 operations a second of a product."""
    many = torch.ones(4 * MANY, device=device)
    bandwidth = 4 * many.numel() / seconds(many.sum, device, lambda: None)
    a = torch.randn(1024, 4096, device=device)
    taken = seconds(lambda: a @ a.T, device, lambda: None)
    return bandwidth, 2 * 1024 * 1024 * 4096 / taken


def prepared(d: int, r: int, rows: int, device: torch.device) -> FlowInPlace:
    """A barrier of rank r, and a level that every row has to move to."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(d, r, generator=generator))[0].contiguous()
    curvature, slope = torch.randn(2, r, generator=generator)
    function = QuadraticFunction.of(basis, curvature, slope, 0.0)
    barrier = PolynomialBarrier(folds=0).fit(*torch.randn(2, 20, d, generator=generator))
    barrier.function_ = function
    field = GradientField(barrier.to(device))
    flow = flow_in_place(field, Euler(10), d**0.5, ReachValue(1.5), rows, device)
    if flow is None:
        raise SystemExit("flows have no compiled form here; install odesteer[fast], or triton.")
    return flow


def graphed(flow: FlowInPlace, states: Tensor) -> Call | None:
    """The move in a CUDA graph; None without CUDA."""
    if not states.is_cuda:
        return None
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        flow.move(states)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        flow.move(states)
    return graph.replay


def measured(
    d: int, r: int, rows: int, device: torch.device, speed: tuple[float, float]
) -> dict[str, Any]:
    flow = prepared(d, r, rows, device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    start = torch.randn(rows, 1, d, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    states, junk = start.clone(), torch.zeros(MANY, device=device)

    def before() -> None:
        states.copy_(start)
        junk.add_(1)

    bandwidth, operations = speed
    floors = 2 * 4 * d * r / bandwidth, 2 * 2 * d * r * rows / operations
    calls: dict[str, Call | None] = {
        "move": lambda: flow.move(states),
        "in a graph": graphed(flow, states),
    }
    found: dict[str, Any] = {"d": d, "rank": r, "rows": rows}
    found |= {"bytes, us": 1e6 * floors[0], "operations, us": 1e6 * floors[1]}
    for name, call in calls.items():
        if call is not None:
            found[f"{name}, us"] = 1e6 * seconds(call, device, before)
            found[f"{name} over floor"] = found[f"{name}, us"] / (1e6 * max(floors))
    return found


def main(
    output: Annotated[
        Path | None, typer.Option("--json", help="Also write the figures here.")
    ] = None,
    quick: Annotated[bool, typer.Option(help="One size, to see that it runs.")] = False,
) -> None:
    """Time the move of activations against its floor."""
    console = Console(width=140)
    machine = describe_machine()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    speed = machine_speed(device)
    console.print(machine)
    console.print(f"{speed[0] / 1e9:,.1f} GB/s read, {speed[1] / 1e9:,.0f} GFLOP/s in float32")
    with torch.inference_mode():
        rows = [
            measured(d, r, n, device, speed)
            for d, r in (SHAPES[:1] if quick else SHAPES)
            for n in (ROWS[:1] if quick else ROWS)
        ]
    table = Table(*rows[0])
    for row in rows:
        cells = (
            f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()
        )
        table.add_row(*cells)
    console.print(table)
    if output is not None:
        output.write_text(json.dumps({"machine": machine, "floor": rows}, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
