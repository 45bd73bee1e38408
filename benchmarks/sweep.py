"""All layers of a model in one go: 20,000 examples captured to disk, and a steerer for each layer.

    python -m benchmarks.sweep [--examples 20000] [--json FILE]

32 layers x 4096, with next to nothing in the layers: what a real model takes for its own passes
comes on top. The classes are words of the two halves of the vocabulary. Each layer is read back and
fitted to by itself, with ODESteer's defaults.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.capture import Words, random_examples
from benchmarks.machine import describe_machine, peak_memory
from benchmarks.subjects import random_llama
from odesteer import ODESteer, SteeredModel

VOCABULARY = 1000


def swept(n: int, folder: Path) -> dict[str, Any]:
    """Seconds and memory of each part."""
    model = random_llama(4096, 32, 4, 1, 32, VOCABULARY, head_dim=8).eval()
    lm = SteeredModel(model, Words())
    half = VOCABULARY // 2
    examples = [
        *random_examples(n // 2, half, 2, 4),
        *random_examples(n - n // 2, VOCABULARY, 2, 4, first=half),
    ]
    lm.capture(examples[:16], range(lm.n_layers))  # warms up
    found: dict[str, Any] = {"examples": n, "layers": lm.n_layers, "width": lm.width}
    found["gib_before"] = peak_memory()
    start = time.perf_counter()
    captured = lm.capture(examples, range(lm.n_layers), folder=folder)
    found["capture_seconds"] = time.perf_counter() - start
    found["gib_on_disk"] = sum(file.stat().st_size for file in folder.iterdir()) / 2**30
    found["gib_after_capture"] = peak_memory()
    reading, fitting = [], []
    for layer in range(lm.n_layers):
        start = time.perf_counter()
        states = captured.states[layer]
        read = time.perf_counter()
        ODESteer().fit(states[: n // 2], states[n // 2 :])
        reading.append(read - start)
        fitting.append(time.perf_counter() - read)
    found |= {"read_seconds": reading, "fit_seconds": fitting, "gib_after_fits": peak_memory()}
    return found


def main(
    examples: Annotated[int, typer.Option(help="How many, half of them of each class.")] = 20_000,
    output: Annotated[
        Path | None, typer.Option("--json", help="Also write the figures here.")
    ] = None,
) -> None:
    """Time a sweep over all layers."""
    console = Console(width=120)
    machine = describe_machine()
    console.print(machine)
    with tempfile.TemporaryDirectory() as scratch:
        found = swept(examples, Path(scratch) / "activations")
    table = Table("", "seconds", "most memory so far, GiB")
    table.add_row("the model", "", f"{found['gib_before']:.1f}")
    table.add_row(
        f"capture, {found['gib_on_disk']:.1f} GiB on disk",
        f"{found['capture_seconds']:.0f}",
        f"{found['gib_after_capture']:.1f}",
    )
    table.add_row(f"{found['layers']} layers read", f"{sum(found['read_seconds']):.0f}", "")
    table.add_row(
        f"{found['layers']} layers fitted",
        f"{sum(found['fit_seconds']):.0f}",
        f"{found['gib_after_fits']:.1f}",
    )
    console.print(table)
    if output is not None:
        output.write_text(json.dumps({"machine": machine, "sweep": found}, indent=1) + "\n")


if __name__ == "__main__":
    torch.manual_seed(0)
    typer.run(main)
