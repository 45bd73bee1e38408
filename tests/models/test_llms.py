"""SmolLM2 fitted, steered and scored as a user would, and how its folder is found."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from scripts import llms

from odesteer.artifact import Steerer
from odesteer.data import ContrastData, Example
from odesteer.evaluation.metrics import log_likelihoods
from odesteer.methods import CAA, Amount, ODESteer
from odesteer.models import SteeredModel

THINGS = [
    "film",
    "book",
    "meal",
    "concert",
    "hotel",
    "journey",
    "play",
    "lecture",
    "party",
    "museum",
    "song",
    "speech",
    "match",
    "soup",
    "novel",
    "market",
    "beach",
    "show",
]
PRAISE = ["wonderful", "great", "excellent", "lovely"]
PANNING = ["awful", "terrible", "dreadful", "boring"]


def opinions() -> ContrastData:
    """Praise and panning of the same things, in pairs."""
    sides = [
        tuple(
            Example("", f"I must say that the {thing} was {word}.")
            for thing in THINGS[:6]
            for word in words
        )
        for words in (PRAISE, PANNING)
    ]
    groups = tuple(thing for thing in THINGS[:6] for _ in PRAISE)
    return ContrastData(sides[0], sides[1], groups, groups)


@pytest.fixture(scope="module")
def lm(smollm2: Path) -> SteeredModel:
    return SteeredModel.from_pretrained(str(smollm2), device="cpu", dtype=torch.float32)


def test_steering_raises_what_it_was_fitted_for(lm: SteeredModel) -> None:
    prompts = [f"In the end everybody agreed that the {thing} was" for thing in THINGS[6:]]
    words = (" great", " terrible")
    held_out = [Example(prompt, word) for prompt in prompts for word in words]

    def margin(steerer: Steerer | None = None, amount: Amount | None = None) -> float:
        totals = [one.total for one in log_likelihoods(lm, held_out, steerer, amount)]
        return sum(totals[0::2]) - sum(totals[1::2])

    unsteered = margin()
    for method in (CAA(), ODESteer()):
        steerer = lm.fit(method, opinions(), 15)
        down, up = (margin(steerer, Amount("level", level)) for level in (-1.0, 1.0))
        assert down < unsteered < up

    (plain,) = lm.generate("The capital of France is", max_new_tokens=6, do_sample=False)
    assert "Paris" in plain


def test_an_absent_model_is_named_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODESTEER_LLMS", str(tmp_path))
    with pytest.raises(SystemExit, match="make llms"):
        llms.folder("gemma3")
    with pytest.raises(SystemExit, match="smollm2, gemma3"):
        llms.folder("gpt5")
    assert llms.located("owner/name") == "owner/name"


def test_a_changed_file_is_not_complete(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    files = {"config.json": hashlib.sha256(b"{}").hexdigest()}
    (tmp_path / "SOURCE.json").write_text(json.dumps({"files": files}))
    assert llms._is_complete(tmp_path)
    (tmp_path / "config.json").write_text("{ }")
    assert not llms._is_complete(tmp_path)
    (tmp_path / "config.json").unlink()
    assert not llms._is_complete(tmp_path)
