"""Helpers: the result of a command, a command in a process of its own, files to run it on."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tiny_models


@dataclass(frozen=True)
class CommandResult:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Its stdout as one JSON document."""
        return json.loads(self.out)

    def says(self, *parts: str) -> bool:
        """Whether stderr has exactly one error, with these parts, and no traceback."""
        single = self.err.count("error: ") == 1 and "Traceback" not in self.err
        return single and all(part in self.err for part in parts)


Run = Callable[..., CommandResult]


def process(*words: object, folder: Path, **options: Any) -> "subprocess.Popen[str]":
    """Start the command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "odesteer", *map(str, words)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Background shells ignore SIGINT, which child processes inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **options,
    )


def save_model(folder: Path, **changes: Any) -> str:
    """A tiny Llama with its tokenizer in a folder."""
    tiny_models.llama(**changes).save_pretrained(folder)
    tiny_models.tokenizer().save_pretrained(folder)
    return str(folder)


def save_pairs(path: Path, n: int = 12, *, seed: int = 0) -> str:
    """Pairs of random words of two kinds."""
    rng = random.Random(seed)
    kinds = {
        "positive": ["sunny", "gay", "warm", "bright"],
        "negative": ["dull", "cold", "grey", "wet"],
    }
    with path.open("w") as file:
        for i in range(n):
            texts = {side: " ".join(rng.choices(words, k=6)) for side, words in kinds.items()}
            file.write(json.dumps({"prompt": f"Day {i}:", **texts}) + "\n")
    return str(path)


def files_in(folder: Path) -> dict[str, bytes]:
    """The contents of all files below a folder, hidden ones included."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
