"""Watermarks pass through steered generation untouched, and are detected."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_models
from odesteer.artifact import Site, Steerer
from odesteer.errors import InvalidInputError
from odesteer.methods import CAA
from odesteer.models import SteeredModel
from odesteer.models.generation.watermark import WatermarkDetection, watermarking_config

SYNTHID = json.dumps({"ngram_len": 3, "keys": [654, 400, 836]})
GREEN = json.dumps({"bias": 4.0, "hashing_key": 77})


@pytest.fixture(scope="module")
def lm() -> SteeredModel:
    return SteeredModel(tiny_models.llama(), tiny_models.tokenizer())


@pytest.fixture(scope="module")
def steerer() -> Steerer:
    generator = torch.Generator().manual_seed(1)
    direction = torch.randn(tiny_models.WIDTH, generator=generator)
    return Steerer(CAA.from_direction(direction), Site(2))


def generated(lm: SteeredModel, steerer: Steerer | None, mark: Any, seed: int = 0) -> list[int]:
    """80 tokens behind a prompt."""
    options = {} if mark is None else {"watermarking_config": watermarking_config(mark)}
    ids = torch.tensor([list(lm.encode("Hello").ids)])
    torch.manual_seed(seed)
    with lm.steering(*([] if steerer is None else [steerer])):
        out = lm.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=80,
            min_new_tokens=80,
            do_sample=True,
            top_k=0,
            pad_token_id=0,
            **options,
        )
    found: list[int] = out[0, ids.shape[1] :].tolist()
    return found


@pytest.mark.parametrize("mark", ["greenlist", GREEN, SYNTHID])
def test_the_configuration_arrives_as_it_is(
    lm: SteeredModel, steerer: Steerer, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, seen = watermarking_config(mark), []
    original = lm.model.generate

    def generate(*args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs["watermarking_config"])
        return original(*args, **kwargs)

    monkeypatch.setattr(lm.model, "generate", generate)
    before = config.to_dict()
    lm.generate("Hello", steerer, max_new_tokens=5, do_sample=True, watermarking_config=config)
    assert seen == [config]
    assert config.to_dict() == before


@pytest.mark.parametrize("mark", [GREEN, SYNTHID])
@pytest.mark.parametrize("steered", [False, True])
def test_it_is_detected_where_it_is(
    lm: SteeredModel, steerer: Steerer, mark: str, steered: bool
) -> None:
    detection = WatermarkDetection(watermarking_config(mark), lm.model.config)
    used = steerer if steered else None
    marked = [detection.score(generated(lm, used, mark, seed)).z for seed in range(3)]
    plain = [detection.score(generated(lm, used, None, seed)).z for seed in range(3)]
    assert min(marked) > 3
    assert max(plain) < 3


def test_another_key_finds_nothing(lm: SteeredModel) -> None:
    ids = generated(lm, None, GREEN)
    other = json.dumps({"bias": 4.0, "hashing_key": 78})
    assert WatermarkDetection(watermarking_config(other), lm.model.config).score(ids).z < 3


def test_repetition_is_no_evidence(lm: SteeredModel) -> None:
    detection = WatermarkDetection(watermarking_config("greenlist"), lm.model.config)
    score = detection.score([50, 60] * 40)
    assert score.n_tokens == 2
    assert abs(score.z) < 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("green", "no watermark"),
        ("{", "not valid JSON"),
        ("[1]", "no watermark"),
        ('{"biass": 2}', "biass"),
        ('{"seeding_scheme": "x"}', "seeding_scheme"),
        ('{"greenlist_ratio": 7}', "greenlist_ratio"),
        ('{"keys": [1, 2]}', "ngram_len"),
    ],
)
def test_what_is_no_watermark(text: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        watermarking_config(text)


def test_a_file_with_the_key(tmp_path: Path) -> None:
    (tmp_path / "mark.json").write_text(GREEN)
    assert watermarking_config(str(tmp_path / "mark.json")).hashing_key == 77


def test_texts_that_cannot_be_scored(lm: SteeredModel) -> None:
    for mark in ("greenlist", SYNTHID):
        detection = WatermarkDetection(watermarking_config(mark), lm.model.config)
        for few in ([], [5]):
            with pytest.raises(InvalidInputError, match="too few"):
                detection.score(few)
        with pytest.raises(InvalidInputError, match="beyond the model's vocabulary"):
            detection.score([5, 10_000, 7, 8])
