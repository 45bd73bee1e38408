"""The engine under a long prompt and many requests; `python -m benchmarks.serving --model` runs it.

Side by side in one process: short requests alone and while a long prompt joins, memory, tokens a
second against a plain batch of `generate`, and how often the prompt of 16 choices is computed.
Seconds pass by the wall, or are those that the engine's thread has the CPU, which other processes
hardly change (one thread of torch then).
"""

import asyncio
import functools
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psutil
import torch

from odesteer.models import SteeredModel
from odesteer.serving import Engine, GenerationRequest, SamplingParams

_SHORT, _SHORT_TOKENS, _TOKENS = 15, 24, 48


Clock = Callable[[], float]


def measure_goals(
    lm: SteeredModel, rounds: int, n_long: int, *, cpu_time: bool = False
) -> dict[str, float]:
    """The figures, medians over rounds; seconds, MiB and tokens a second."""
    lm.model.generation_config.eos_token_id = None  # texts end by their length alone
    return asyncio.run(_measure(lm, rounds, n_long, cpu_time=cpu_time))


async def _measure(
    lm: SteeredModel, rounds: int, n_long: int, *, cpu_time: bool
) -> dict[str, float]:
    if cpu_time:
        torch.set_num_threads(1)
    engine = Engine(lm, "model")
    engine.start()
    clock: Clock = time.perf_counter
    if cpu_time:
        number = await engine.call(_cpu_clock_of_thread)
        clock = functools.partial(time.clock_gettime, number)
    found: dict[str, list[float]] = {}

    def note(**figures: float) -> None:
        for name, value in figures.items():
            found.setdefault(name, []).append(value)

    generator = torch.Generator().manual_seed(0)
    n_words = engine.vocabulary

    def prompt(n: int) -> tuple[int, ...]:
        ids: list[int] = torch.randint(5, n_words, (n,), generator=generator).tolist()
        return tuple(ids)

    try:
        for round_ in range(rounds + 1):  # the first is not counted
            keep = note if round_ else _forget
            short = [prompt(_SHORT_TOKENS) for _ in range(_SHORT)]
            with _memory() as alone:
                seconds = await _times(engine, short, _SHORT_TOKENS, clock)
            with _memory() as beside:
                long = asyncio.create_task(_times(engine, [prompt(n_long)], 8, clock))
                await asyncio.sleep(0.05)
                slower = await _times(engine, short, _SHORT_TOKENS, clock)
                whole = await long
            keep(
                short_alone=statistics.median(seconds),
                short_beside_long=statistics.median(slower),
                long=whole[0],
                memory_alone=alone[0],
                memory_beside_long=beside[0],
            )
            for n in (16, 64):
                prompts = [prompt(_SHORT_TOKENS) for _ in range(n)]
                began = clock()
                await _times(engine, prompts, _TOKENS, clock)
                keep(**{f"engine_{n}": n * _TOKENS / (clock() - began)})
                began = clock()
                await engine.call(lambda lm, ids=prompts: _plain(lm, ids))
                keep(**{f"generate_{n}": n * _TOKENS / (clock() - began)})
        median = {name: statistics.median(values) for name, values in found.items()}
        return {**median, "prefills_of_16_choices": await _prefills(engine, prompt(32))}
    finally:
        await engine.close()


def _cpu_clock_of_thread(lm: SteeredModel) -> int:
    return time.pthread_getcpuclockid(threading.get_ident())


def _forget(**figures: float) -> None:
    """A round that is not counted."""


async def _times(
    engine: Engine,
    prompts: Sequence[tuple[int, ...]],
    n_tokens: int,
    clock: Clock = time.perf_counter,
) -> list[float]:
    """Seconds of each request, all sent at once, greedily."""
    began = clock()
    sampling = SamplingParams(n_tokens, temperature=0)
    streams = engine.submit([GenerationRequest(each, sampling) for each in prompts], at_end=True)

    async def read(stream: Any) -> float:
        async for chunk in stream:
            if chunk.error is not None:
                raise RuntimeError(chunk.error)
        return clock() - began

    return list(await asyncio.gather(*map(read, streams)))


@torch.no_grad()
def _plain(lm: SteeredModel, prompts: Sequence[tuple[int, ...]]) -> None:
    ids = torch.tensor(prompts, device=lm.device)
    lm.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=_TOKENS,
        min_new_tokens=_TOKENS,
        do_sample=False,
        pad_token_id=0,
    )


async def _prefills(engine: Engine, prompt: tuple[int, ...]) -> float:
    """In how many rows the prompt of 16 choices is computed."""
    rows = 0

    def count(module: Any, args: Any, kwargs: Any) -> None:
        nonlocal rows
        ids = kwargs["input_ids"]
        rows += len(ids) if ids.shape[1] > 1 else 0

    hook = engine.lm.model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        await _times(engine, [prompt] * 16, 4)
    finally:
        hook.remove()
    return rows


@contextmanager
def _memory() -> Iterator[list[float]]:
    """The most resident MiB while it runs."""
    process, most, ended = psutil.Process(), [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            most[0] = max(most[0], process.memory_info().rss / 2**20)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        ended.set()
        thread.join()
