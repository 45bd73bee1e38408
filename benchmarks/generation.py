"""Throughput of decoding, steered and unsteered side by side.

    python -m benchmarks.generation [--json FILE] [--quick] [--cpu-time]

Each form generates with the same model, in turn for a few tokens at a time, so that a drift of the
machine's speed meets all alike. A share is the tokens a second of a form over those of no steering
in the same round: the median of all rounds, and the quartiles.

none       no steering
none again the same once more: how far shares stray from 1 by themselves
addition   a vector added to the last position by a plain forward hook (CAA as it is usually done)
published  ten Euler steps, each with the gradient of a TensorSketch of 8,000 components by fast
           Fourier transforms, by a plain hook (written here from the mathematics)
ours       the default steerer, ten Euler steps until h reaches a level
ours, T    the same for a fixed T, as the published form moves
ours, rows the same with another level for each row of the batch

On a CPU: a random Llama of 12 layers x 1024, and the bundled model. On a GPU: the shape of
Llama-3.1-8B with random weights in bfloat16, run as it is and compiled with a static cache.
"""

import json
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.machine import describe_machine
from benchmarks.subjects import Subject, bundled, large_llama, small_llama
from benchmarks.transform import N_COMPONENTS, fft_form
from odesteer import CAA, ODESteer, Site, SteeredModel, Steerer
from odesteer.barriers.logistic import fit_features
from odesteer.barriers.random_features import TensorSketch
from odesteer.models.architecture.sites import hidden_states

PROMPT = 16  # tokens
N_EXAMPLES = 200  # of each class


class Hooked:
    """A context in which a plain hook moves the last position of what a module returns."""

    def __init__(self, module: nn.Module, moved: Callable[[Tensor], Tensor]) -> None:
        self._module, self._moved = module, moved

    def _hook(self, module: nn.Module, args: Any, output: Any) -> None:
        states = hidden_states(output)
        states[:, -1] = self._moved(states[:, -1])

    def __enter__(self) -> None:
        self._handle = self._module.register_forward_hook(self._hook)

    def __exit__(self, *exception: object) -> None:
        self._handle.remove()


def forms(subject: Subject) -> dict[str, Callable[[int], AbstractContextManager[Any]]]:
    """For each form the context in which a batch of some size is steered."""
    lm = SteeredModel(subject.model, _no_tokenizer)
    layer = lm.layers.at(subject.layer)
    positive, negative = two_kinds(subject, layer)
    site = Site(subject.layer)
    ours = Steerer(ODESteer().fit(positive, negative), site)
    direction = CAA(folds=0).fit(positive, negative).direction_
    T = 0.25 * ours.method.mean_norm_
    sketch = fitted_sketch(positive, negative)
    device, compiled = positive.device, subject.compiled
    addition = (T * direction / direction.norm()).to(device, subject.model.dtype)

    def published(a: Tensor) -> Tensor:
        return fft_form(sketch, a.float(), T, 10).to(a.dtype)

    return {
        "none": lambda batch: nullcontext(),
        "none again": lambda batch: nullcontext(),
        "addition": lambda batch: Hooked(layer, lambda a: a + addition),
        "published": lambda batch: Hooked(layer, published),
        "ours": lambda batch: lm.steering(ours, compiled=compiled),
        "ours, T": lambda batch: lm.steering(ours, T=T, compiled=compiled),
        "ours, rows": lambda batch: lm.steering(ours, level=_levels(batch), compiled=compiled),
    }


def _levels(batch: int) -> list[float]:
    return [0.5 + (row % 4) / 2 for row in range(batch)]


def _no_tokenizer(text: str, **options: Any) -> dict[str, list[int]]:
    return {"input_ids": [1]}


def two_kinds(subject: Subject, layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Activations after words of the two halves of the vocabulary, each `[n, d]`."""
    found: list[Tensor] = []
    handle = layer.register_forward_hook(
        lambda module, args, output: found.append(hidden_states(output)[:, -1].float())
    )
    half = subject.vocabulary // 2
    generator = torch.Generator().manual_seed(1)
    try:
        for low in (0, half):
            ids = torch.randint(low, low + half, (N_EXAMPLES, 8), generator=generator)
            with torch.inference_mode():
                subject.model(ids.to(subject.model.device))
    finally:
        handle.remove()
    return found[0].clone(), found[1].clone()


def fitted_sketch(positive: Tensor, negative: Tensor) -> TensorSketch:
    """The barrier of the published form, by its explicit features."""
    sketch = TensorSketch(2, 0.1, 1.0, N_COMPONENTS).drawn(positive.shape[1], 0)
    x = torch.nn.functional.normalize(torch.cat([positive, negative]).cpu(), dim=-1)
    y = torch.cat([torch.ones(len(positive)), torch.zeros(len(negative))]).double()
    weights, sketch.offset_ = fit_features(sketch.features(x), y, 1.0)
    sketch.coefficients_ = weights.float()
    return sketch.to(positive.device)


class Decoding:
    """One sequence of greedy tokens for each row, continued a few at a time."""

    def __init__(
        self, subject: Subject, batch: int, n_tokens: int, clock: Callable[[], float]
    ) -> None:
        self._clock = clock
        self._model, self._forward = subject.model, subject.model
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(subject.vocabulary, (batch, PROMPT), generator=generator)
        self._ids = ids.to(subject.model.device)
        self._cache = self._new_cache(PROMPT + n_tokens) if subject.compiled else None
        self._compiled = subject.compiled

    def _new_cache(self, length: int) -> Any:
        from transformers import StaticCache

        return StaticCache(config=self._model.config, max_cache_len=length)

    def begin(self) -> None:
        """Read the prompt."""
        self._continue(self._model)
        if self._compiled:
            self._forward = torch.compile(self._model, mode="reduce-overhead", fullgraph=True)

    def run(self, n_tokens: int) -> float:
        """Seconds for so many tokens of each row."""
        _wait(self._ids)
        start = self._clock()
        for _ in range(n_tokens):
            self._continue(self._forward)
        _wait(self._ids)
        return self._clock() - start

    def _continue(self, forward: Any) -> None:
        output = forward(self._ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        self._cache = output.past_key_values
        self._ids = output.logits[:, -1:].argmax(dim=-1)


def _wait(tensor: Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize()


def compared(
    subject: Subject, batch: int, rounds: int, clock: Callable[[], float]
) -> Iterator[tuple[str, list[float]]]:
    """For each form its tokens a second, one number a round."""
    contexts = {name: of(batch) for name, of in forms(subject).items()}
    seconds: dict[str, list[float]] = {name: [] for name in contexts}
    shuffler = random.Random(0)
    with torch.inference_mode():
        length = (rounds + 2) * (subject.tokens + 1)
        runs = {name: Decoding(subject, batch, length, clock) for name in contexts}
        for i in range(rounds + 2):  # two to warm up
            # In another order each round: who follows whom matters to caches.
            for name in shuffler.sample(list(contexts), len(contexts)):
                with contexts[name]:
                    if i == 0:
                        runs[name].begin()
                    runs[name].run(1)
                    taken = runs[name].run(subject.tokens)
                if i > 1:
                    seconds[name].append(taken)
    for name, times in seconds.items():
        yield name, [batch * subject.tokens / taken for taken in times]


def measured(
    subject: Subject, batch: int, rounds: int, clock: Callable[[], float]
) -> list[dict[str, Any]]:
    """One row a form."""
    rates = dict(compared(subject, batch, rounds, clock))
    rows = []
    for name, own in rates.items():
        shares = [a / b for a, b in zip(own, rates["none"], strict=True)]
        low, middle, high = statistics.quantiles(shares, n=4)
        rows.append(
            {
                "model": subject.name,
                "batch": batch,
                "form": name,
                "tokens_per_second": statistics.median(own),
                "share": middle,
                "share_quartiles": [low, high],
            }
        )
    return rows


def _subjects() -> Iterator[Subject]:
    if torch.cuda.is_available():
        for compiled in (False, True):
            yield large_llama(compiled=compiled)
    else:
        yield small_llama()
        yield bundled()


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """The shares, with quartiles."""
    from matplotlib.figure import Figure

    cases = list(dict.fromkeys((row["model"], row["batch"]) for row in rows))
    names = [name for name in dict.fromkeys(row["form"] for row in rows) if name != "none"]
    figure = Figure(figsize=(7, 0.55 * len(cases) + 1.2), layout="constrained")
    axes = figure.add_subplot()
    for k, name in enumerate(names):
        own = [row for row in rows if row["form"] == name]
        shares = [row["share"] for row in own]
        ends = [
            [abs(row["share_quartiles"][side] - row["share"]) for row in own] for side in (0, 1)
        ]
        heights = [j + 0.12 * (k - (len(names) - 1) / 2) for j in range(len(own))]
        axes.errorbar(shares, heights, xerr=ends, fmt="o", markersize=3.5, label=name)
    axes.axvline(1, color="0.6", linewidth=0.8)
    axes.set_yticks(range(len(cases)), [f"{model}, batch {batch}" for model, batch in cases])
    axes.invert_yaxis()
    axes.set_xlabel("tokens a second, share of no steering (median and quartiles)")
    axes.set_xlim(0, 1.1)
    axes.legend(fontsize=7, loc="center left")
    figure.savefig(path, dpi=110)


def main(
    output: Annotated[
        Path | None, typer.Option("--json", help="Also write the figures here.")
    ] = None,
    picture: Annotated[Path | None, typer.Option("--plot", help="Also draw them here.")] = None,
    quick: Annotated[bool, typer.Option(help="Few rounds, to see that it runs.")] = False,
    cpu_time: Annotated[
        bool,
        typer.Option(
            "--cpu-time",
            help="Count seconds of the CPU, with OMP_NUM_THREADS=1, on a machine that is not idle.",
        ),
    ] = False,
) -> None:
    """Time decoding."""
    console = Console(width=120)
    machine = describe_machine()
    console.print(machine)
    rows: list[dict[str, Any]] = []
    for subject in _subjects():
        for batch in subject.batches:
            clock = time.thread_time if cpu_time else time.perf_counter
            rows += measured(subject, batch, 3 if quick else subject.rounds, clock)
    table = Table("model", "batch", "form", "tokens/s", "share of none", "quartiles")
    for row in rows:
        low, high = row["share_quartiles"]
        table.add_row(
            row["model"],
            str(row["batch"]),
            row["form"],
            f"{row['tokens_per_second']:,.1f}",
            f"{row['share']:.3f}",
            f"{low:.3f} to {high:.3f}",
        )
    console.print(table)
    if picture is not None:
        plot(rows, picture)
    if output is not None:
        document = {"machine": machine, "generation": rows}
        output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
