"""steering-vectors and repeng themselves, on a tiny Llama and on the same pairs as we.

On SmolLM2-135M-Instruct, layer 15, 8 pairs of sentences: our CAA differed from steering-vectors'
mean difference by 8.6e-6 at most (its length is 27.0), and the logits with it by 2.8e-5, where
steering changes them by 9.8; repeng's steered logits with our GGUF file were the same to the bit.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny_models
from odesteer.artifact import Site, Steerer, SteererSet
from odesteer.data import Example
from odesteer.interchange import ControlVector, read_gguf, read_steerer, write_gguf
from odesteer.methods import CAA, RepE
from odesteer.models import SteeredModel

LAYER = 2
POSITIVE = ["What a fine day", "I like this", "She smiled", "A warm light", "We won", "So kind"]
NEGATIVE = ["What a grey day", "I hate this", "She frowned", "A cold rain", "We lost", "So rude"]
IDS = torch.tensor([[1, 40, 77, 101, 33, 9, 120]])


@pytest.fixture(scope="module")
def lm() -> SteeredModel:
    return SteeredModel(tiny_models.llama(), tiny_models.tokenizer())


@pytest.fixture(scope="module")
def clouds(lm: SteeredModel) -> Any:
    found = lm.capture([Example("", text) for text in POSITIVE + NEGATIVE], LAYER).states[LAYER]
    groups = list(range(len(POSITIVE)))
    return found[: len(POSITIVE)], found[len(POSITIVE) :], (groups, groups)


def logits(lm: SteeredModel, *steerers: Any, **how: Any) -> torch.Tensor:
    with torch.no_grad(), lm.steering(*steerers, prompt_width=IDS.shape[1], **how):
        found: torch.Tensor = lm.model(IDS).logits
        return found


@pytest.fixture(scope="module")
def steering_vectors() -> Any:
    return pytest.importorskip(
        "steering_vectors", reason="not installed: pip install 'odesteer[peers]'"
    )


@pytest.fixture(scope="module")
def repeng() -> Any:
    name = "float_"  # which repeng 0.4 uses, and numpy 2 dropped
    if name not in vars(np):
        setattr(np, name, np.float64)
    return pytest.importorskip("repeng", reason="not installed: pip install 'odesteer[peers]'")


def test_caa_is_the_mean_difference_of_steering_vectors(
    lm: SteeredModel, clouds: Any, steering_vectors: Any, tmp_path: Path
) -> None:
    pairs = list(zip(POSITIVE, NEGATIVE, strict=True))
    theirs = steering_vectors.train_steering_vector(
        lm.model, lm.tokenizer, pairs, layers=[LAYER], batch_size=1
    )
    ours = CAA(folds=0).fit(*clouds)
    torch.testing.assert_close(
        ours.direction_, theirs.layer_activations[LAYER], rtol=1e-5, atol=1e-6
    )
    steered = logits(lm, Steerer(ours, Site(LAYER, "all")), T=3.0)
    with torch.no_grad(), theirs.apply(lm.model, multiplier=3.0):
        torch.testing.assert_close(lm.model(IDS).logits, steered, rtol=1e-4, atol=1e-5)
    # As the documentation says to save them.
    from safetensors.torch import save_file

    path = tmp_path / "vectors.safetensors"
    save_file({f"layer.{n}": v for n, v in theirs.layer_activations.items()}, path)
    torch.testing.assert_close(logits(lm, read_steerer(path), T=3.0), steered, rtol=1e-4, atol=1e-5)


def test_repe_is_their_principal_component(
    lm: SteeredModel, clouds: Any, steering_vectors: Any, repeng: Any
) -> None:
    pca = steering_vectors.aggregators.pca_aggregator()(*clouds[:2])
    entries = [repeng.DatasetEntry(*pair) for pair in zip(POSITIVE, NEGATIVE, strict=True)]

    def control_vector(method: str) -> torch.Tensor:
        found = repeng.ControlVector.train(
            lm.model, lm.tokenizer, entries, method=method, hidden_layers=[LAYER], batch_size=1
        )
        return torch.from_numpy(found.directions[LAYER])

    plain = RepE(folds=0).fit(*clouds).direction_
    centred = RepE(centred=True, folds=0).fit(*clouds).direction_
    assert float(plain @ pca) == pytest.approx(1, abs=1e-5)
    assert abs(float(plain @ control_vector("pca_center"))) == pytest.approx(1, abs=1e-5)
    assert abs(float(centred @ control_vector("pca_diff"))) == pytest.approx(1, abs=1e-5)
    assert abs(float(plain @ centred)) < 0.999


def test_repeng_reads_and_applies_what_is_exported(
    lm: SteeredModel, clouds: Any, repeng: Any, tmp_path: Path
) -> None:
    caa = CAA(folds=0).fit(*clouds)
    steerer = SteererSet(Steerer(caa, Site(layer, "all")) for layer in (1, LAYER))
    write_gguf(ControlVector.of(steerer, model_hint="llama"), tmp_path / "v.gguf")
    vector = repeng.ControlVector.import_gguf(tmp_path / "v.gguf")
    assert vector.model_type == "llama"
    assert sorted(vector.directions) == [1, LAYER]
    wanted = logits(lm, steerer, T=2.0)
    wrapped = repeng.ControlModel(lm.model, [1, LAYER])
    try:
        wrapped.set_control(vector, 2.0)
        with torch.no_grad():
            torch.testing.assert_close(wrapped(IDS).logits, wanted)
    finally:
        wrapped.unwrap()


def test_what_repeng_exports_is_read(repeng: Any, tmp_path: Path) -> None:
    vectors = {layer: np.random.default_rng(layer).normal(size=6).astype("f4") for layer in (1, 5)}
    repeng.ControlVector("qwen2", vectors).export_gguf(tmp_path / "v.gguf")
    found = read_gguf(tmp_path / "v.gguf")
    assert found.model_hint == "qwen2"
    assert {k: v.tolist() for k, v in found.directions.items()} == {
        k: v.tolist() for k, v in vectors.items()
    }
