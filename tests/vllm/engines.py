"""Helpers: engines of vLLM, in this process and in others."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from references import LENGTH, Answer, Request

from odesteer.vllm.server import is_installed

needs_vllm = pytest.mark.skipif(
    not is_installed(), reason="vLLM is not installed; see make test-vllm"
)

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}

ARGUMENTS: dict[str, Any] = {
    "dtype": "float32",
    "max_model_len": 160,
    "max_num_seqs": 32,
    "max_num_batched_tokens": 64,
    "block_size": 32,
    "enforce_eager": True,
}


class Engine:
    """A running engine."""

    def __init__(self, llm: Any) -> None:
        self.llm = llm

    def run(self, requests: Sequence[Request]) -> list[tuple[Answer, int]]:
        """The answers, and how many tokens of each prompt came from the prefix cache."""
        return run(self.llm, requests)

    def answers(self, requests: Sequence[Request]) -> list[Answer]:
        return [answer for answer, _ in self.run(requests)]

    def answer(self, prompt: tuple[int, ...], steering: str | None = None) -> tuple[Answer, int]:
        return self.run([Request(prompt, steering)])[0]


@contextmanager
def engine(model: Path, **arguments: Any) -> Iterator[Engine]:
    """An engine with the steerers that the environment names."""
    from vllm import LLM

    llm = LLM(model=str(model), **{**ARGUMENTS, **arguments})
    try:
        yield Engine(llm)
    finally:
        llm.llm_engine.engine_core.shutdown()


def run(llm: Any, requests: Sequence[Request]) -> list[tuple[Answer, int]]:
    from vllm import SamplingParams

    params = [
        SamplingParams(
            temperature=0,
            max_tokens=LENGTH,
            ignore_eos=True,
            logprobs=0,
            detokenize=False,
            extra_args={"odesteer": request.steering} if request.steering else None,
        )
        for request in requests
    ]
    inputs = [{"prompt_token_ids": list(request.prompt)} for request in requests]
    found = []
    for output in llm.generate(inputs, params, use_tqdm=False):
        (text,) = output.outputs
        logprobs = (d[t].logprob for d, t in zip(text.logprobs, text.token_ids, strict=True))
        answer = Answer(tuple(text.token_ids), tuple(logprobs))
        found.append((answer, output.num_cached_tokens))
    return found


def in_another_process(
    model: Path, prompts: Sequence[Sequence[int]], environment: dict[str, str], **arguments: Any
) -> "subprocess.CompletedProcess[str]":
    """Run prompts, unsteered, by an engine in a process of its own; it prints the answers."""
    job = json.dumps({"model": str(model), "prompts": prompts, "arguments": arguments})
    return subprocess.run(
        [sys.executable, __file__, job],
        env={**os.environ, **environment},
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=900,
    )


def read_answers(output: str) -> list[Answer]:
    """What `in_another_process` printed."""
    pairs = json.loads(output.splitlines()[-1])
    return [Answer(tuple(tokens), tuple(logprobs)) for tokens, logprobs in pairs]


if __name__ == "__main__":
    job = json.loads(sys.argv[1])
    with engine(Path(job["model"]), **job["arguments"]) as own:
        answers = own.answers([Request(tuple(prompt)) for prompt in job["prompts"]])
    print(json.dumps([(answer.tokens, answer.logprobs) for answer in answers]))
