"""Fit and generate by command on a model trained by others: the mood follows the level."""

import json
import random
import zipfile
from pathlib import Path

import pytest
from command import Run

PROMPTS = (
    "One day, Lily went to the park.",
    "Tom had a red ball.",
    "The little dog saw a bird.",
    "Mom and Ben went to the shop.",
    "There was a big tree.",
    "Sam opened the door.",
)


@pytest.fixture(scope="module")
def lexicon(shared: Path) -> dict[str, float]:
    """Valence of words, -4 to 4, as raters gave it (Hutto and Gilbert, ICWSM 2014)."""
    with zipfile.ZipFile(shared / "data/lexicons/vader_lexicon.zip") as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("vader_lexicon.txt"))
        lines = archive.read(name).decode().splitlines()
    fields = (line.split("\t") for line in lines if line.strip())
    return {word: float(valence) for word, valence, *_ in fields}


def test_the_mood_of_stories_moves_up_and_down_with_the_level(
    run: Run, shared: Path, lexicon: dict[str, float]
) -> None:
    model = shared / "models/stories260K-hf"
    sentences = json.loads((shared / "data/story-sentiment/sentences.json").read_text())
    rng = random.Random(0)
    few = {side: rng.sample(sentences[side], 150) for side in ("positive", "negative")}
    Path("few.json").write_text(json.dumps([few]))
    words = ["fit", model, "--data", "few.json", "--layer", 3, "-o", "mood.safetensors", "--json"]
    fitted = run(*words)
    assert fitted.code == 0
    assert fitted.document["held_out"]["auc"] > 0.8

    def mood(level: float) -> float:
        prompts = [prompt for prompt in PROMPTS for _ in range(8)]
        more = ["--level", level, "--max-new-tokens", 48, "--batch-size", 48, "--json"]
        results = run("generate", model, "--steer", "mood.safetensors", *more, *prompts)
        assert results.code == 0
        valences = [
            lexicon.get(word.strip('.,!?"').lower(), 0.0)
            for result in results.document["results"]
            for word in result["text"].split()
        ]
        return sum(valences) / len(PROMPTS) / 8

    low, middle, high = mood(-2), mood(0), mood(2)
    assert low < middle < high
