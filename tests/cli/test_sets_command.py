"""Sets of steerers, attention heads and gates on the command line."""

from pathlib import Path

import pytest
import torch
from command import Run

from odesteer import SteeredModel, Steerer, SteererSet, load
from odesteer.artifact import Site

PROMPT = "Day 3:"
SHORT = ["--max-new-tokens", 4, "--greedy"]


def assert_in(text: str, *parts: str) -> None:
    for part in parts:
        assert part in text


@pytest.fixture
def several(run: Run, model: str, pairs: str) -> str:
    words = ["--layer", 2, "--layer", 0, "--method", "caa", "--json"]
    outcome = run("fit", model, "--data", pairs, "-o", "set.safetensors", *words)
    assert outcome.code == 0
    assert [one["site"]["layer"] for one in outcome.document["steerers"]] == [0, 2]
    return "set.safetensors"


def test_several_layers_go_into_one_file(run: Run, model: str, pairs: str, several: str) -> None:
    found = load(several)
    assert isinstance(found, SteererSet)
    assert found.sites == (Site(0), Site(2))
    words = ["--layer", 2, "--layer", 0, "--method", "caa"]
    outcome = run("fit", model, "--data", pairs, "-o", "again", *words)
    assert_in(outcome.out, "layer 0, positions", "layer 2, positions", "Next:")
    assert Path("again").read_bytes() == Path(several).read_bytes()


def test_layers_share_a_projection(run: Run, model: str, pairs: str) -> None:
    words = ["--layer", 0, "--layer", 2, "--param", "barrier=shared-projection"]
    quick = ["--param", "barrier.training.max_epochs=5", "--param", "barrier.rank=3"]
    outcome = run("fit", model, "--data", pairs, "-o", "shared.safetensors", *words, *quick)
    assert outcome.code == 0, outcome.err
    first, second = (one.barrier.function_ for one in load("shared.safetensors").members)
    assert first.projection_.shape[0] == 3
    assert torch.equal(first.projection_, second.projection_)
    assert not torch.equal(first.shift_, second.shift_)


def test_a_set_generates_as_the_library_does(run: Run, model: str, several: str) -> None:
    words = ["generate", model, "--steer", f"{several}@0.4", *SHORT, "--json", PROMPT]
    document = run(*words).document
    lm = SteeredModel.from_pretrained(model, device="cpu")
    options = {"max_new_tokens": 4, "do_sample": False}
    assert [document["results"][0]["text"]] == lm.generate(
        PROMPT, load(several), strength=0.4, **options
    )
    assert [one["site"]["layer"] for one in document["steerers"]] == [0, 2]
    assert [one["moved"] for one in document["results"][0]["receipts"]] == [4, 4]
    told = run("generate", model, "--steer", several, *SHORT, "--compare", PROMPT)
    assert told.code == 0
    refused = run("generate", model, "--steer", several, "--interpolation", 1, *SHORT, PROMPT)
    assert refused.says("CAA has no 'interpolation'")


def test_inspect_shows_each_steerer_of_a_set(run: Run, several: str) -> None:
    document = run("inspect", several, "--json").document
    assert document["digest"] == load(several).digest()
    assert [one["site"]["layer"] for one in document["steerers"]] == [0, 2]
    assert len(document["tensors"]) > 2
    assert_in(run("inspect", several).out, "a set of 2 steerers", "layer 0", "layer 2")


def test_heads_compete_over_layers(run: Run, model: str, pairs: str) -> None:
    words = ["--part", "heads", "--method", "head-iti", "--param", "top_k=2", "--json"]
    layers = ["--layer", 0, "--layer", 1, "--layer", 2]
    document = run("fit", model, "--data", pairs, "-o", "h", *layers, *words).document
    found = load("h")
    assert sum(len(one.method.heads_) for one in found) == 2
    assert {one["site"]["part"] for one in document["steerers"]} == {"heads"}
    assert run("generate", model, "--steer", "h", *SHORT, PROMPT).code == 0
    assert_in(run("inspect", "h").out, "heads, positions: last", "accuracy")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--layer", 1, "--layer", 1], "--layer 1 is given twice"),
        (["--layer", 1, "--layer", 9], "--layer 9"),
        (["--layer", 1, "--method", "head-iti"], "part='heads'"),
    ],
)
def test_what_cannot_be_fitted(
    run: Run, model: str, pairs: str, words: list[object], told: str
) -> None:
    outcome = run("fit", model, "--data", pairs, "-o", "s", *words)
    assert outcome.code != 0
    assert outcome.says(told)
    assert not Path("s").exists()


def test_a_steerer_with_a_condition(run: Run, model: str, steerer: str, caa: str) -> None:
    condition = load(caa)
    assert isinstance(condition, Steerer)
    prompts = [PROMPT, "The sun is warm and"]
    lm = SteeredModel.from_pretrained(model, device="cpu")
    gated = load(steerer).when(condition, above=0.2)
    texts = lm.generate(prompts, gated, receipt=True, max_new_tokens=4, do_sample=False)
    gated.save("gated.safetensors")
    words = ["generate", model, "--steer", "gated.safetensors", *SHORT]
    document = run(*words, "--json", *prompts).document
    for one, result in zip(texts, document["results"], strict=True):
        (receipt,) = result["receipts"]
        assert result["text"] == one.text
        assert [receipt["is_open"]] == one.gates
        assert receipt["condition"] == pytest.approx(one.conditions[0], rel=1e-4)
        assert receipt["moved"] == 4 * one.gates[0]
    closed = gated.when(condition, above=1000.0)
    closed.save("closed.safetensors")
    told = run("generate", model, "--steer", "closed.safetensors", *SHORT, PROMPT)
    assert_in(told.err, "left alone: its condition finds h")
    shown = " ".join(run("inspect", "gated.safetensors").out.split())
    assert_in(shown, "only where CAA at layer 1", "above level 0.2")
    assert run("inspect", "gated.safetensors", "--json").document["gate"] == str(gated.gate)
