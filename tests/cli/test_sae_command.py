"""``odesteer sae``, a steerer on its features, and their names in ``odesteer inspect``."""

from pathlib import Path

import pytest
import torch
from command import Run

from odesteer.autoencoders import SparseAutoencoder

SMALL = ("--tokens", 300, "--features", 40, "--active", 5, "--epochs", 2)


@pytest.fixture
def sae(run: Run, model: str, tmp_path: Path) -> str:
    texts = "\n".join(f"The sun is out on day {i} and the rain is gone." for i in range(60))
    (tmp_path / "texts.txt").write_text(texts)
    words = ["sae", model, "--layer", 1, "-o", "my-sae", "--texts", "texts.txt", *SMALL, "--json"]
    done = run(*words)
    assert done.code == 0, done.err
    assert done.document["n_tokens"] >= 300
    assert done.document["explained_variance"] < 1
    assert run(*words).says("not empty", "--force")
    assert run(*words, "--force").code == 0
    return str(tmp_path / "my-sae")


def test_train_fit_and_inspect(run: Run, model: str, pairs: str, sae: str) -> None:
    found = SparseAutoencoder.load(sae)
    assert (found.width, found.n_features, found.k) == (32, 40, 5)
    assert found.metadata["hook_name"] == "blocks.1.hook_resid_post"
    assert found.names
    words = ["fit", model, "--data", pairs, "--layer", 1, "-o", "s.safetensors"]
    done = run(*words, "--param", "barrier=sae", "--param", f"barrier.sae={sae}")
    assert done.code == 0, done.err
    shown = run("inspect", "s.safetensors", "--json")
    features = shown.document["features"]
    assert 0 < len(features) <= 10
    assert features[0]["name"] == found.name(features[0]["feature"])
    text = run("inspect", "s.safetensors")
    assert f"feature {features[0]['feature']}" in text.out
    assert "carried by" in text.out
    generated = run("generate", model, "Hello", "--steer", "s.safetensors", "--max-new-tokens", 3)
    assert generated.code == 0, generated.err


def test_the_model_answers_neutral_prompts_without_texts(run: Run, model: str) -> None:
    done = run("sae", model, "--layer", 1, "-o", "own", *SMALL, "--json")
    assert done.code == 0, done.err
    assert SparseAutoencoder.load("own").encode(torch.randn(2, 32)).shape == (2, 40)


def test_bad_input_writes_nothing(run: Run, model: str, tmp_path: Path) -> None:
    assert run("sae", model, "--layer", 9, "-o", "x", *SMALL).code != 0
    assert run("sae", model, "--layer", 1, "-o", "x", "--features", 4).says("--active 32")
    assert run("sae", model, "--layer", 1, "-o", "x", "--texts", "no.txt").says("no.txt")
    (tmp_path / "empty.txt").write_text("\n")
    assert run("sae", model, "--layer", 1, "-o", "x", "--texts", "empty.txt").says("no text")
    (tmp_path / "file").write_text("")
    assert run("sae", model, "--layer", 1, "-o", "file", *SMALL).code != 0
    assert not (tmp_path / "x").exists()
