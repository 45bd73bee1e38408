"""Tokens a second of the server: one request at a time against several, unsteered and steered.

    python -m benchmarks.serving [--json FILE] [--rounds N] [--requests N]
    python -m benchmarks.serving --model FOLDER [--long N] [--rounds N] [--cpu-time] [--json FILE]

Starts ``odesteer serve`` on the bundled model with its three steerers, and sends it stories to
continue, greedily. One and 16 clients send in turn, each kind of request after the other in every
round, so that a drift of the machine's speed meets all alike; figures are medians of all rounds.

unsteered   no steering
one level   all requests with one steerer at one level
mixed       every request with another steerer or level, one in four with none
streamed    as mixed, each token sent as it comes, with what steering did to it

With ``--model``: the engine with another model, in float32 and without HTTP: 15 short requests,
alone and while a prompt of ``--long`` tokens joins, memory, and a plain batch of `generate`; with
``--cpu-time`` in seconds of the CPU, on a machine that is not idle.
"""

import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe_machine
from benchmarks.serving_goals import measure_goals
from odesteer.models import SteeredModel
from odesteer.terrarium import world

_CLIENTS = (1, 16)
_LEVELS = (None, 1.5, -1.0, 0.5)
_NAMES = ("truth", "civility", "mood")
_MAX_TOKENS = 48


def _requests(kind: str, n: int) -> list[dict[str, Any]]:
    prompts = world("mood").prompts("test", 0, n)
    bodies = []
    for i, prompt in enumerate(prompts):
        level = {"unsteered": None, "one level": 1.5}.get(kind, _LEVELS[i % len(_LEVELS)])
        name = "mood" if kind == "one level" else _NAMES[i % len(_NAMES)]
        body: dict[str, Any] = {
            "model": "bundled",
            "prompt": prompt,
            "max_tokens": _MAX_TOKENS,
            "temperature": 0,
        }
        if level is not None:
            body["steering"] = [{"name": name, "level": level}]
        if kind == "streamed":
            body |= {
                "stream": True,
                "token_details": True,
                "stream_options": {"include_usage": True},
            }
        bodies.append(body)
    return bodies


@contextmanager
def _server() -> Iterator[str]:
    command = [sys.executable, "-m", "odesteer", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                found = re.search(r"http://\S+/v1", line)
                if found:
                    yield found[0]
                    return
            raise RuntimeError("the server did not start.")
        finally:
            process.terminate()


async def _send(client: httpx.AsyncClient, body: dict[str, Any]) -> int:
    """Number of tokens of one answer."""
    answer = await client.post("completions", json=body)
    answer.raise_for_status()
    if "stream" not in body:
        return int(answer.json()["usage"]["completion_tokens"])
    events = [line for line in answer.text.splitlines() if line.startswith("data: {")]
    return int(json.loads(events[-1].removeprefix("data: "))["usage"]["completion_tokens"])


async def _tokens_a_second(address: str, bodies: Sequence[dict[str, Any]], n_clients: int) -> float:
    left = list(bodies)
    async with httpx.AsyncClient(base_url=address, timeout=120) as client:

        async def work() -> int:
            n = 0
            while left:
                n += await _send(client, left.pop())
            return n

        began = time.perf_counter()
        n_tokens = sum(await asyncio.gather(*(work() for _ in range(n_clients))))
        return n_tokens / (time.perf_counter() - began)


def main(
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
    rounds: int = 5,
    requests: int = 32,
    model: Annotated[str | None, typer.Option("--model")] = None,
    long: int = 4000,
    cpu_time: Annotated[bool, typer.Option("--cpu-time")] = False,
) -> None:
    """Measure and print a table."""
    if model is not None:
        _show_goals(model, rounds, long, json_file, cpu_time=cpu_time)
        return
    kinds = ("unsteered", "one level", "mixed", "streamed")
    found: dict[str, dict[int, list[float]]] = {k: {n: [] for n in _CLIENTS} for k in kinds}
    with _server() as address:
        for i in range(rounds + 1):  # the first round is not counted
            for kind in kinds:
                for n in _CLIENTS:
                    bodies = _requests(kind, requests)
                    speed = asyncio.run(_tokens_a_second(address, bodies, n))
                    found[kind][n] += [speed] if i else []
    median = {
        kind: {n: statistics.median(speeds) for n, speeds in by.items()}
        for kind, by in found.items()
    }
    table = Table("requests", *(f"{n} client{'s' * (n > 1)}" for n in _CLIENTS), "16 / 1", "share")
    for kind, by in median.items():
        share = by[16] / median["unsteered"][16]
        table.add_row(
            kind, *(f"{by[n]:,.0f}" for n in _CLIENTS), f"{by[16] / by[1]:.1f}", f"{share:.0%}"
        )
    Console().print(table)
    print("Tokens a second; share: of the unsteered tokens a second, at 16 clients.")
    if json_file is not None:
        figures = {"machine": describe_machine(), "tokens_a_second": found, "median": median}
        json_file.write_text(json.dumps(figures, indent=2))


def _show_goals(
    model: str, rounds: int, long: int, json_file: Path | None, *, cpu_time: bool
) -> None:
    lm = SteeredModel.from_pretrained(model, dtype=torch.float32)
    figures = measure_goals(lm, rounds, long, cpu_time=cpu_time)
    table = Table("figure", "value")
    for name, value in figures.items():
        table.add_row(name.replace("_", " "), f"{value:,.2f}")
    ratio = figures["short_beside_long"] / figures["short_alone"]
    table.add_row("short beside long / alone", f"{ratio:.2f}")
    for n in (16, 64):
        share = figures[f"engine_{n}"] / figures[f"generate_{n}"]
        table.add_row(f"engine / generate at {n}", f"{share:.0%}")
    Console().print(table)
    print("Seconds (medians), MiB, tokens a second.")
    if json_file is not None:
        json_file.write_text(json.dumps({"machine": describe_machine(), **figures}, indent=2))


if __name__ == "__main__":
    typer.run(main)
