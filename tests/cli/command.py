"""What running a command gives back, and the files that commands are run on."""

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
class Outcome:
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """What it wrote to stdout, if that is one JSON document and nothing else."""
        return json.loads(self.out)

    def says(self, *parts: str) -> bool:
        """Whether stderr has one error, with these parts, and no traceback."""
        lone = self.err.count("error: ") == 1 and "Traceback" not in self.err
        return lone and all(part in self.err for part in parts)


Run = Callable[..., Outcome]


def process(*words: object, folder: Path, **options: Any) -> "subprocess.Popen[str]":
    """The command as a user starts it, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "odesteer", *map(str, words)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell in the background hands down an ignored Ctrl-C.
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
    """Every file below a folder, hidden ones too, with what it holds."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
