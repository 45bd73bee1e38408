"""Throughput of vLLM without the plugin, with it idle, and with it steering.

    make test-vllm                                   # once, for the environment
    .venv-vllm/bin/python -m benchmarks.vllm [--json FILE] [--eager] [--layers 12] [--width 1024]

A Llama with random weights, and a barrier fitted to its activations at the middle layer. Two
engines run beside each other and take turns, round by round, on the cores that vLLM chooses (it
leaves one to its front end): one without the plugin, and one with it that is asked for

idle       nothing
steering   the same level for every request
levels     another level for every request
"""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe_machine
from odesteer.artifact import Site, Steerer
from odesteer.methods import ODESteer

VOCABULARY = 8192
PROMPT, REQUESTS, TOKENS = 32, 16, 64
RUNS = {"no plugin": "plain", "idle": "plugin", "steering": "plugin", "levels": "plugin"}


def make_model(folder: Path, layers: int, width: int, dtype: str) -> None:
    """Write a Llama with random weights, and a steerer of it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=width,
            intermediate_size=11 * width // 4,
            num_hidden_layers=layers,
            num_attention_heads=width // 64,
            max_position_embeddings=512,
        )
    ).eval()
    clouds = []
    for low, high in ((0, VOCABULARY // 2), (VOCABULARY // 4, VOCABULARY)):
        with torch.no_grad():
            states = model(torch.randint(low, high, (300, 8)), output_hidden_states=True)
        clouds.append(states.hidden_states[layers // 2][:, -1])
    steerer = Steerer(ODESteer().fit(*clouds), Site(layers // 2 - 1))
    steerer.save(folder / "truth.safetensors")
    model.to(getattr(torch, dtype)).save_pretrained(folder / "model")


def asked(run: str) -> list[str | None]:
    """The body of each request."""
    levels: dict[str, list[str | None]] = {
        "steering": ["truth@1.5"] * REQUESTS,
        "levels": [f"truth@{0.5 + i / REQUESTS:.3f}" for i in range(REQUESTS)],
    }
    return levels.get(run, [None] * REQUESTS)


def answer(folder: Path, dtype: str, eager: bool) -> None:
    """Worker process: reads lines of texts, prints the seconds that each took."""
    from vllm import LLM, SamplingParams

    llm = LLM(
        str(folder / "model"),
        dtype=dtype,
        max_model_len=256,
        max_num_seqs=REQUESTS,
        enforce_eager=eager,
        enable_prefix_caching=False,
        skip_tokenizer_init=True,
    )
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(VOCABULARY, (REQUESTS, PROMPT), generator=generator).tolist()
    prompts = [{"prompt_token_ids": row} for row in ids]
    print("ready", flush=True)
    for line in sys.stdin:
        params = [
            SamplingParams(
                temperature=0,
                max_tokens=TOKENS,
                ignore_eos=True,
                detokenize=False,
                extra_args=text and {"odesteer": text},
            )
            for text in json.loads(line)
        ]
        start = time.perf_counter()
        llm.generate(prompts, params, use_tqdm=False)
        print(time.perf_counter() - start, flush=True)


@contextmanager
def engine(
    folder: Path, dtype: str, eager: bool, plugin: bool
) -> Iterator["subprocess.Popen[str]"]:
    """A process that runs `answer`."""
    words = [sys.executable, "-m", "benchmarks.vllm", "--answer", str(folder), "--dtype", dtype]
    told = {"ODESTEER_STEERERS": f"truth={folder / 'truth.safetensors'}"} if plugin else {}
    process = subprocess.Popen(
        [*words, *(["--eager"] if eager else [])],
        env={
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_LOGGING_LEVEL": "ERROR",
            "VLLM_PLUGINS": "odesteer" if plugin else "",
            **told,
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        read(process, "ready")
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()
        process.wait(timeout=60)


def read(process: "subprocess.Popen[str]", wanted: str = "") -> str:
    """The next line that is ``wanted``, or a number."""
    assert process.stdout is not None
    for line in process.stdout:
        word = line.strip()
        if word == wanted or (not wanted and word.replace(".", "", 1).isdigit()):
            return word
    raise RuntimeError("an engine has ended; see its messages above.")


def seconds(process: "subprocess.Popen[str]", texts: list[str | None]) -> float:
    assert process.stdin is not None
    process.stdin.write(f"{json.dumps(texts)}\n")
    process.stdin.flush()
    return float(read(process))


def main(
    layers: Annotated[int, typer.Option(help="Number of decoder layers.")] = 12,
    width: Annotated[int, typer.Option(help="Width of the residual stream.")] = 1024,
    dtype: Annotated[str, typer.Option(help="Type of weights and activations.")] = "bfloat16",
    rounds: Annotated[int, typer.Option(help="How often each is timed.")] = 5,
    eager: Annotated[bool, typer.Option("--eager", help="Do not compile.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures.")] = None,
    answering: Annotated[Path | None, typer.Option("--answer", hidden=True)] = None,
) -> None:
    if answering is not None:
        return answer(answering, dtype, eager)
    times: dict[str, list[float]] = {run: [] for run in RUNS}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        make_model(folder, layers, width, dtype)
        engines = {
            kind: stack.enter_context(engine(folder, dtype, eager, plugin=kind == "plugin"))
            for kind in dict.fromkeys(RUNS.values())
        }
        shuffler = random.Random(0)
        for number in range(rounds + 1):
            # In another order each round: who follows whom matters to caches.
            for run in shuffler.sample(list(RUNS), len(RUNS)):
                took = seconds(engines[RUNS[run]], asked(run))
                if number:  # the first round warms up
                    times[run].append(took)
    figures = {run: compared(took, times["no plugin"]) for run, took in times.items()}
    machine = describe_machine()
    show(figures, f"{layers} x {width}, {dtype}, {'eager' if eager else 'compiled'}", machine)
    if json_file is not None:
        found: dict[str, Any] = {"machine": machine, "figures": figures, "seconds": times}
        json_file.write_text(json.dumps(found, indent=1))
    return None


def compared(took: list[float], plain: list[float]) -> dict[str, float]:
    """Tokens a second, and the share of those without the plugin in the same round."""
    low, middle, high = statistics.quantiles([a / b for a, b in zip(plain, took, strict=True)], n=4)
    rate = REQUESTS * TOKENS / statistics.median(took)
    return {"tokens a second": rate, "share": middle, "low": low, "high": high}


def show(figures: dict[str, dict[str, float]], title: str, machine: dict[str, str]) -> None:
    table = Table(title=f"{title}: {REQUESTS} requests of {TOKENS} tokens")
    for column in ("", "tokens a second", "of no plugin", "quartiles"):
        table.add_column(column, justify="left" if not column else "right")
    for run, found in figures.items():
        table.add_row(
            run,
            f"{found['tokens a second']:.1f}",
            f"{found['share']:.3f}",
            f"{found['low']:.2f} to {found['high']:.2f}",
        )
    console = Console(width=100)
    console.print(table)
    console.print(", ".join(f"{name} {value}" for name, value in machine.items()))


if __name__ == "__main__":
    typer.run(main)
