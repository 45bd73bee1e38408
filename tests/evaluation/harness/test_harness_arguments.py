"""Steering arguments of the harness's model, and the errors for wrong ones."""

from pathlib import Path
from typing import Any

import pytest
import torch

from odesteer.artifact import Site, Steerer
from odesteer.errors import ArtifactError, InvalidInputError, ModelError
from odesteer.evaluation.harness.arguments import read_steering
from odesteer.methods import CAA, Amount
from odesteer.models import SteeredModel


def test_an_amount_behind_the_file_or_beside_it(truthful: Path) -> None:
    for steer, amount in ((f"{truthful}@1.5", None), (truthful, Amount("level", 1.5))):
        (one,) = read_steering(steer, amount)
        assert one.arguments == {"level": 1.5}
    assert read_steering(f"{truthful}@T=5", None)[0].arguments == {"T": 5.0}
    assert read_steering(str(truthful), None)[0].arguments == {}
    assert read_steering(None, None) == []


def test_an_at_sign_may_be_part_of_a_name(truthful: Path, tmp_path: Path) -> None:
    path = tmp_path / "a@2"
    path.write_bytes(truthful.read_bytes())
    assert read_steering(str(path), None)[0].arguments == {}
    assert read_steering(f"{path}@3", None)[0].arguments == {"level": 3.0}


def test_several_each_with_its_own_amount(truthful: Path) -> None:
    steerer = Steerer.load(truthful)
    found = read_steering([f"{truthful}@2", steerer], None)
    assert [each.arguments for each in found] == [{"level": 2.0}, {}]


@pytest.mark.parametrize(
    ("steer", "amount", "message"),
    [
        (None, Amount("level", 1.0), "needs a steerer"),
        ("{file}@1", Amount("level", 1.0), "leave out level="),
        ("{file}@much", None, "is not an amount"),
        ("{file}", Amount("interpolation", 1.0), "interpolation"),
    ],
)
def test_contradictions(
    truthful: Path, steer: str | None, amount: Amount | None, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        read_steering(steer and steer.format(file=truthful), amount)


def test_errors_come_before_any_model_is_loaded(harness: Any, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such file"):
        harness(pretrained="no/model", steer=str(tmp_path / "none.safetensors"))
    with pytest.raises(InvalidInputError, match="exactly one"):
        harness(pretrained="no/model", level=1.0, T=2.0)


def test_a_steerer_of_another_width(harness: Any, lm: SteeredModel) -> None:
    narrow = Steerer(CAA().fit(torch.randn(8, 4) + 1, torch.randn(8, 4)), Site(1))
    with pytest.raises(ModelError, match="width 4"):
        harness(pretrained=lm.model, tokenizer=lm.tokenizer, steer=narrow)


def test_no_argument_is_dropped(harness: Any, lm: SteeredModel) -> None:
    with pytest.raises(InvalidInputError, match="levle"):
        harness(pretrained=lm.model, tokenizer=lm.tokenizer, levle=1.0)
    with pytest.raises(TypeError, match="levle"):
        harness(levle=1.0)
