"""Small pretrained story models steered by level: valence and likelihood of continuations.

    python -m studies.small_models FOLDER

FOLDER holds ``models/stories260K-hf``, ``models/TinyStories-656K``, ``data/story-sentiment`` and
``data/lexicons``. Runs ``odesteer fit`` and ``odesteer generate`` as a user would, at several
levels, and prints the mean valence of the continuations (sum of VADER word valences a text; Hutto
and Gilbert, ICWSM 2014) and their mean negative log-likelihood a token under the unsteered model.
"""

import json
import math
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from odesteer import SteeredModel

MODELS = {"stories260K-hf": 3, "TinyStories-656K": 0}
LEVELS = (None, -2.0, -1.0, 0.0, 0.5, 1.0, 1.5, 2.0)
PROMPTS = (
    "One day, Lily went to the park.",
    "Tom had a red ball.",
    "The little dog saw a bird.",
    "Mom and Ben went to the shop.",
    "There was a big tree.",
    "Sam opened the door.",
    "It was a rainy day.",
    "Mia found a box under the bed.",
)
COPIES = 12


def main(folder: Annotated[Path, typer.Argument(help="With models and data sets.")]) -> None:
    """Fit, generate at several levels, score."""
    lexicon = _lexicon(folder / "data/lexicons/vader_lexicon.zip")
    data = folder / "data/story-sentiment/sentences.json"
    table = Table("model, layer", "level", "valence", "NLL, nats a token", "example")
    for name, layer in MODELS.items():
        model = folder / "models" / name
        lm = SteeredModel.from_pretrained(str(model))
        with tempfile.TemporaryDirectory() as scratch:
            steerer = Path(scratch) / "mood.safetensors"
            _odesteer("fit", model, "--data", data, "--layer", layer, "-o", steerer)
            for level in LEVELS:
                texts = _generate(model, steerer, level)
                valence = sum(_valence(text, lexicon) for text in texts) / len(texts)
                table.add_row(
                    f"{name}, {layer}",
                    "unsteered" if level is None else f"{level:g}",
                    f"{valence:+.2f}",
                    f"{_nll(lm, texts):.2f}",
                    " ".join(texts[0].split())[:60],
                )
    Console(width=130).print(table)


def _generate(model: Path, steerer: Path, level: float | None) -> list[str]:
    """One continuation of each prompt and copy, by the command."""
    prompts = [prompt for prompt in PROMPTS for _ in range(COPIES)]
    words = [
        "generate", model, "--max-new-tokens", 48, "--temperature", 0.7, "--top-p", 0.9,
        "--batch-size", len(prompts), *prompts,
    ]  # fmt: skip
    if level is not None:
        words += ["--steer", steerer, "--level", level]
    document: dict[str, Any] = _odesteer(*words)
    return [result["text"] for result in document["results"]]


def _odesteer(*words: object) -> dict[str, Any]:
    """Run ``odesteer WORDS --json`` and return the document that it prints."""
    command = [sys.executable, "-m", "odesteer", *map(str, words), "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(run.stderr)
    document: dict[str, Any] = json.loads(run.stdout)
    return document


def _lexicon(path: Path) -> dict[str, float]:
    with zipfile.ZipFile(path) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("vader_lexicon.txt"))
        lines = archive.read(name).decode().splitlines()
    return {word: float(v) for word, v, *_ in (ln.split("\t") for ln in lines if ln.strip())}


def _valence(text: str, lexicon: dict[str, float]) -> float:
    return sum(lexicon.get(word.strip('.,!?"').lower(), 0.0) for word in text.split())


def _nll(lm: SteeredModel, texts: list[str]) -> float:
    """Mean negative log-likelihood a token of continuations, given their prompts."""
    prompts = [prompt for prompt in PROMPTS for _ in range(COPIES)]
    total, count = 0.0, 0
    for prompt, text in zip(prompts, texts, strict=True):
        start = len(lm.encode(prompt).ids)
        ids = torch.tensor([lm.encode(prompt + text).ids])
        if ids.shape[1] <= start:
            continue
        with torch.inference_mode():
            log_p = lm.model(ids).logits[0, :-1].float().log_softmax(-1)
        chosen = log_p.gather(1, ids[0, 1:, None])[start - 1 :, 0]
        total, count = total - float(chosen.sum()), count + len(chosen)
    return total / count if count else math.nan


if __name__ == "__main__":
    typer.run(main)
