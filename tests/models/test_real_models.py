"""Small models that others trained: fitted and steered as a user would."""

import json
from pathlib import Path

import pytest
import torch

from odesteer.data import ContrastData
from odesteer.methods import CAA, ODESteer
from odesteer.models import SteeredModel

PROMPTS = ["One day, Lily went to the park.", "Tom had a big red ball.", "The dog saw a cat."]
HAPPY = ("happy", "smile", "laugh", "love", "fun", "excited", "glad", "great", "play", "friend")
SAD = ("sad", "cry", "cried", "scared", "hurt", "afraid", "lost", "alone", "bad", "angry")


@pytest.fixture(scope="module")
def stories(shared: Path) -> SteeredModel:
    return SteeredModel.from_pretrained(str(shared / "models" / "stories260K-hf"), device="cpu")


@pytest.fixture(scope="module")
def sentiment(shared: Path) -> ContrastData:
    path = shared / "data" / "story-sentiment" / "sentences.json"
    sentences = json.loads(path.read_text())
    return ContrastData.from_texts(sentences["positive"][:150], sentences["negative"][:150])


def mood(texts: list[str]) -> float:
    words = " ".join(texts).lower()
    return sum(map(words.count, HAPPY)) - sum(map(words.count, SAD))


def test_moods_of_stories(stories: SteeredModel, sentiment: ContrastData) -> None:
    steerer = stories.fit(ODESteer(), sentiment, 3)
    assert steerer.provenance.model_id == "stories260K-hf"
    assert steerer.provenance.held_out["auc"] > 0.7

    def told(level: float | None) -> list[str]:
        return stories.generate(
            PROMPTS * 8,
            None if level is None else steerer,
            level=level,
            max_new_tokens=60,
            do_sample=True,
            temperature=0.9,
        )

    down, plain, up = (mood(told(level)) for level in (-1.5, None, 1.5))
    assert down < plain < up


def test_the_receipt_shows_the_level(stories: SteeredModel, sentiment: ContrastData) -> None:
    steerer = stories.fit(ODESteer(), sentiment, 3)
    threshold = steerer.barrier.threshold(1.0)
    for one in stories.generate(PROMPTS, steerer, level=1.0, max_new_tokens=30, receipt=True):
        assert "".join(one.tokens) == one.text
        reached = [after for after in one.after if after is not None and after > threshold - 0.05]
        assert len(reached) + one.capped == len(one.tokens)
        assert one.unusable == 0


def test_texts_are_those_of_transformers(stories: SteeredModel, shared: Path) -> None:
    """No spaces or characters are lost at the seam between prompt and text."""
    for prompt in PROMPTS:
        ids = torch.tensor([stories.encode(prompt).ids])
        out = stories.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=40,
            do_sample=False,
            pad_token_id=0,
        )[0]
        whole = stories.tokenizer.decode(out, skip_special_tokens=True)
        opening = stories.tokenizer.decode(ids[0], skip_special_tokens=True)
        shown: list[tuple[int, str]] = []
        (text,) = stories.generate(
            prompt, max_new_tokens=40, do_sample=False, stream=lambda *s, to=shown: to.append(s)
        )
        assert opening + text == whole
        assert "".join(piece for _, piece in shown) == text
        assert len(shown) > 20


def test_two_layers_of_another_model(shared: Path, sentiment: ContrastData) -> None:
    lm = SteeredModel.from_pretrained(str(shared / "models" / "TinyStories-656K"), device="cpu")
    assert lm.n_layers == 2
    for steerer in lm.fit(CAA(), sentiment, [0, 1]):
        base, steered = (
            lm.generate(PROMPTS, *args, max_new_tokens=30, do_sample=False)
            for args in ([], [steerer])
        )
        assert base != steered
