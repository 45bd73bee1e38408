"""Choice of a direction to ablate: what is refused, and the order of the rest."""

from dataclasses import dataclass

import pytest
import torch

import tiny_models
from odesteer.artifact import Steerer, SteererSet
from odesteer.data import ContrastData, Example
from odesteer.errors import InvalidInputError
from odesteer.methods import Amount
from odesteer.models import SteeredModel
from odesteer.tuning import LikelihoodMargin, Measurement, Objective, choose_ablation


@pytest.fixture(scope="module")
def lm() -> SteeredModel:
    return SteeredModel(tiny_models.llama(), tiny_models.tokenizer())


@pytest.fixture(scope="module")
def data() -> ContrastData:
    sides = [
        tuple(Example(f"{i} the", f" {end} sun") for i in range(12)) for end in ("good", "bad")
    ]
    groups = tuple(map(str, range(12)))
    return ContrastData(*sides, groups, groups)


@dataclass
class Ranked(Objective):
    """Values by the layer of the direction; ``induced`` is that of the subtraction."""

    induced: dict[int, float]
    title: str = "by layer"

    @property
    def n_items(self) -> int:
        return 1

    def about(self) -> dict[str, object]:
        return {}

    def measure(
        self, steerer: Steerer | SteererSet | None, amount: Amount | None, items: range
    ) -> list[Measurement]:
        if steerer is None:
            return [Measurement(0.0, 0.0)]
        if isinstance(steerer, SteererSet):
            assert {member.site.position for member in steerer.members if member.site} == {"all"}
            first = steerer.members[0].method.direction_  # type: ignore[attr-defined]
            for member in steerer.members:
                assert torch.equal(member.method.direction_, first)  # type: ignore[attr-defined]
            return [Measurement(float(len(steerer.members)) + float(first[0]), 0.0)]
        assert amount == Amount("T", -1.0)
        assert steerer.site is not None
        return [Measurement(self.induced[steerer.site.layer], 0.0)]


def test_directions_are_chosen_by_the_published_rule(lm: SteeredModel, data: ContrastData) -> None:
    objective = Ranked({0: -1.0, 1: 1.0, 2: -1.0})
    found = choose_ablation(lm, data, objective, max_kl=100.0)
    assert [one.layer for one in found if one.failure] == [1]  # does not induce
    assert sorted(one.layer for one in found) == [0, 1, 2]  # the last fifth of four is left out
    values = [one.score.value for one in found[:2] if one.score]
    assert values == sorted(values, reverse=True)
    assert all(len(one.steerers.members) == 4 for one in found)
    assert "does not induce" in found[-1].failure
    with lm.steering(found[0].steerers):
        states = lm.capture(data.negative, 2).states[2]
    direction = found[0].steerers.members[0].method.direction_  # type: ignore[attr-defined]
    assert float((states @ direction).abs().max()) < 1e-5


def test_what_costs_too_much_is_refused(lm: SteeredModel, data: ContrastData) -> None:
    objective = Ranked(dict.fromkeys(range(4), -1.0))
    found = choose_ablation(lm, data, objective, layers=[1], max_kl=1e-12, everywhere=False)
    assert [len(one.steerers.members) for one in found] == [1]
    assert "nats a token, over 1e-12" in found[0].failure
    assert found[0].score is None
    for wrong in ({"max_kl": 0.0}, {"layers": []}, {"positions": ()}):
        with pytest.raises(InvalidInputError):
            choose_ablation(lm, data, objective, **wrong)  # type: ignore[arg-type]


def test_the_margin_of_likelihoods_takes_sets(lm: SteeredModel, data: ContrastData) -> None:
    objective = LikelihoodMargin(lm, data, max_items=2, max_new_tokens=3)
    (one,) = choose_ablation(lm, data, objective, layers=[1], positions=("answer",), max_kl=100.0)
    assert one.score is not None
    assert one.score.value == one.score.value
