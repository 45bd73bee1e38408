"""vLLM on a GPU in ten minutes: agreement, prefix cache, cost with CUDA graphs and without.

    .venv-vllm/bin/python -m benchmarks.vllm_gpu [--folder DIR]

It needs an NVIDIA GPU, vLLM for CUDA (`pip install 'odesteer[vllm]'`), pytest, and this repository.
Model runner V2, vLLM's default there, steers; each part has a limit of time, and the last lines say
which parts passed. Logs and figures go to the folder.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.machine import describe_machine

PARTS: dict[str, tuple[list[str], int]] = {
    "agreement": (["-m", "pytest", "-q", "tests/vllm/test_agreement.py"], 240),
    "prefix cache": (["-m", "pytest", "-q", "tests/vllm/test_prefix_cache.py"], 120),
    "cost, CUDA graphs": (["-m", "benchmarks.vllm", "--rounds", "4", "--json", "graphs.json"], 150),
    "cost, eager": (
        ["-m", "benchmarks.vllm", "--rounds", "2", "--eager", "--json", "eager.json"],
        90,
    ),
}
"""The words for Python and the seconds of each part."""


def main(
    folder: Annotated[Path, typer.Option(help="Where logs and figures go.")] = Path("vllm-gpu"),
) -> None:
    """Run all parts; the exit status is 1 if one of them failed."""
    if not torch.cuda.is_available():
        raise typer.BadParameter("there is no CUDA device; this is for a machine with a GPU.")
    folder.mkdir(parents=True, exist_ok=True)
    print(describe_machine(), torch.cuda.get_device_name())
    environment = {**os.environ, "VLLM_USE_V2_MODEL_RUNNER": "1"}
    results = {}
    for part, (words, limit) in PARTS.items():
        words = [str(folder / word) if word.endswith(".json") else word for word in words]
        began = time.monotonic()
        with (folder / f"{part.replace(', ', '-').replace(' ', '-')}.log").open("w") as log:
            try:
                done = subprocess.run(
                    [sys.executable, *words],
                    env=environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    timeout=limit,
                    check=False,
                )
                status = "passed" if done.returncode == 0 else f"failed ({done.returncode})"
            except subprocess.TimeoutExpired:
                status = f"not done in {limit} s"
        results[part] = status
        print(f"{part}: {status}, {time.monotonic() - began:.0f} s", flush=True)
    raise SystemExit(any(status != "passed" for status in results.values()))


if __name__ == "__main__":
    typer.run(main)
