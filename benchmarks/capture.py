"""Throughput of capture, against a plain forward pass that returns all hidden states.

    python -m benchmarks.capture [--json FILE] [--quick]

plain  the model called on batches in the order given, padded to the longest, with
       ``output_hidden_states=True``; the states of the last tokens at the wanted layer are kept
ours   `SteeredModel.capture`: batches of similar length, and no layer behind the wanted one

In turn, on the same examples (random words, 8 to 64 of them): the median of all rounds and the
quartiles of the ratio. On a CPU with a random Llama of 12 layers x 1024 and with the bundled
model, on a GPU with the shape of Llama-3.1-8B in bfloat16. Then activations of all layers go to
disk: how large they are, how long it takes, and the most memory that the process had.
"""

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.machine import describe_machine, peak_memory
from benchmarks.subjects import Subject, bundled, large_llama, random_llama, small_llama
from odesteer import SteeredModel
from odesteer.data import Example
from odesteer.models.tokens.batches import pad_batch

BATCH = 16


class Words:
    """A tokenizer whose texts are numbers of tokens, with spaces between them."""

    pad_token_id = 0

    def __call__(self, text: str, **options: Any) -> dict[str, list[int]]:
        return {"input_ids": [int(word) if word.isdigit() else 1 for word in text.split()]}


def random_examples(
    n: int, vocabulary: int, shortest: int = 8, longest: int = 64, *, first: int = 3
) -> list[Example]:
    """Random words, of random lengths."""
    rng = random.Random(0)
    return [
        Example("", " ".join(str(rng.randrange(first, vocabulary)) for _ in range(length)))
        for length in (rng.randint(shortest, longest) for _ in range(n))
    ]


def plain(subject: Subject, rows: list[tuple[int, ...]], layer: int) -> Tensor:
    """States `[n, d]` of the last tokens after a layer, of all that the model returns."""
    found = []
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        inputs = pad_batch(batch, 0, "right", subject.model.device)
        with torch.no_grad():
            out = subject.model(**inputs, output_hidden_states=True, use_cache=False)
        last = torch.tensor([len(row) - 1 for row in batch])
        states = out.hidden_states[layer + 1]
        found.append(states[torch.arange(len(batch)), last].float().cpu())
    return torch.cat(found)


def compared(subject: Subject, n: int, rounds: int) -> list[dict[str, Any]]:
    """One row for a layer a quarter, half and three quarters of the way up, and the last."""
    lm = SteeredModel(subject.model, Words())
    examples = random_examples(n, subject.vocabulary)
    ids = [lm.encode(example).ids for example in examples]
    rows = []
    for layer in sorted({share * lm.n_layers // 4 for share in (1, 2, 3)} | {lm.n_layers - 1}):
        seconds: dict[str, list[float]] = {"plain": [], "ours": []}
        for i in range(rounds + 1):
            for name, own in seconds.items():
                start = time.perf_counter()
                if name == "plain":
                    wanted = plain(subject, ids, layer)
                else:
                    ours = lm.capture(examples, layer, batch_size=BATCH).states[layer]
                if i:
                    own.append(time.perf_counter() - start)
        # After the last layer transformers hands out normalised states.
        if layer < lm.n_layers - 1:
            error = float((ours - wanted).norm() / wanted.norm())
            if error > (1e-5 if subject.model.dtype == torch.float32 else 3e-2):
                raise SystemExit(f"the states differ by {error:.2g}")
        ratios = [a / b for a, b in zip(seconds["plain"], seconds["ours"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        rows.append(
            {
                "model": subject.name,
                "layer": layer,
                "layers": lm.n_layers,
                "plain_examples_per_second": n / statistics.median(seconds["plain"]),
                "ours_examples_per_second": n / statistics.median(seconds["ours"]),
                "speedup": middle,
                "speedup_quartiles": [low, high],
            }
        )
    return rows


def to_disk(n: int, folder: str | None) -> dict[str, Any]:
    """Activations of 32 layers x 4096, of a model whose layers compute next to nothing."""
    model = random_llama(4096, 32, 4, 1, 32, 1000, head_dim=8).eval()
    lm = SteeredModel(model, Words())
    examples = random_examples(n, 1000, 2, 4)
    lm.capture(examples[:16], range(lm.n_layers))  # warms up
    before, start = peak_memory(), time.perf_counter()
    lm.capture(examples, range(lm.n_layers), folder=folder)
    return {
        "examples": n,
        "layers": lm.n_layers,
        "width": lm.width,
        "where": "memory" if folder is None else "disk",
        "seconds": time.perf_counter() - start,
        "float32_mib": 4 * n * lm.n_layers * lm.width / 2**20,
        "more_mib": 2**10 * (peak_memory() - before),
    }


def _in_a_process(n: int, *, on_disk: bool) -> dict[str, Any]:
    """`to_disk` in a separate process, to measure its memory alone."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = scratch if on_disk else None
        code = f"""
import json, torch
torch.set_num_threads({torch.get_num_threads()})
from benchmarks.capture import to_disk
print(json.dumps(to_disk({n}, {folder!r})))
"""
        run = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def _subjects() -> Iterator[Subject]:
    if torch.cuda.is_available():
        yield large_llama(compiled=False)
    else:
        yield small_llama()
        yield bundled()


def main(
    output: Annotated[
        Path | None, typer.Option("--json", help="Also write the figures here.")
    ] = None,
    quick: Annotated[bool, typer.Option(help="Few rounds, to see that it runs.")] = False,
    disk_only: Annotated[bool, typer.Option("--disk", help="Only the second part.")] = False,
) -> None:
    """Time capturing."""
    console = Console(width=120)
    machine = describe_machine()
    console.print(machine)
    gpu = torch.cuda.is_available()
    rows: list[dict[str, Any]] = []
    for subject in [] if disk_only else _subjects():
        n = 256 if subject.name == "bundled" or gpu else 48
        rows += compared(subject, n // 4 if quick else n, 2 if quick else 5)
    table = Table("model", "layer", "plain, examples/s", "ours", "ours over plain", "quartiles")
    for row in rows:
        low, high = row["speedup_quartiles"]
        table.add_row(
            row["model"],
            f"{row['layer']} of {row['layers']}",
            f"{row['plain_examples_per_second']:,.1f}",
            f"{row['ours_examples_per_second']:,.1f}",
            f"{row['speedup']:.2f}",
            f"{low:.2f} to {high:.2f}",
        )
    if rows:
        console.print(table)
    sizes = (100,) if quick else (1000, 2000)
    disk = [_in_a_process(n, on_disk=on_disk) for n in sizes for on_disk in (False, True)]
    table = Table("examples x layers x width", "MiB as float32", "kept in", "seconds", "more MiB")
    for row in disk:
        table.add_row(
            f"{row['examples']:,} x {row['layers']} x {row['width']}",
            f"{row['float32_mib']:,.0f}",
            row["where"],
            f"{row['seconds']:.1f}",
            f"{row['more_mib']:,.0f}",
        )
    console.print(table)
    if output is not None:
        document = {"machine": machine, "capture": rows, "disk": disk}
        output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
