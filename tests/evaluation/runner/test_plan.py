"""Plans: what is compared, and that choices never see what is tested."""

from dataclasses import replace
from pathlib import Path

import pytest
from bench_case import Numbers, runner

from odesteer import SteeredModel
from odesteer.errors import DataError, InvalidInputError, UnknownNameError
from odesteer.evaluation.runner import LayerRange, Plan, contenders
from odesteer.evaluation.runner.contenders import names
from odesteer.evaluation.task import Fold
from odesteer.methods import CAA


def test_every_method_has_a_row() -> None:
    from odesteer.methods import registry

    assert set(registry) - {"sum", "conditional"} <= set(names())
    assert names()[:2] == ("none", "prompt-only")


def test_no_steering_is_always_there() -> None:
    assert [c.name for c in contenders(["caa"])] == ["none", "caa"]


def test_a_misspelt_method() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'odesteer'"):
        contenders(["odester"])


def test_the_default_odesteer_is_not_tuned() -> None:
    (_, default) = contenders(["odesteer-default"])
    assert not default.is_tuned
    assert str(default.default(3)) == "level=1.5, layer 3"


def test_the_cost_is_no_less_than_what_is_run(lm: SteeredModel, tmp_path: Path) -> None:
    run = runner(lm, tmp_path)
    outcome = run.run()
    cost = outcome.plan.cost()
    # Two folds and seeds, sixteen items to report on, five rows.
    assert cost.test == len(outcome.results) == 2 * 2 * 16 * 5
    assert len(outcome.validation) <= cost.validation <= 2 * len(outcome.validation)
    # Three methods at their first layer and the two beside it.
    assert cost.fits == 2 * 2 * 3 * 3


def test_validation_items_of_all_seeds_take_turns(lm: SteeredModel, tmp_path: Path) -> None:
    task = Numbers()
    plan = Plan(
        [task], contenders(["caa"]), (0, 1), {"numbers": LayerRange((1,), (1,))}, budget=0.5
    )
    places = plan.validation(task, "fold 0")
    assert [place.seed for place in places] == [0, 1] * 8
    assert len({(place.seed, place.item.key) for place in places}) == 16


def test_heads_are_shifted_by_deviations_and_forms_compete() -> None:
    (_, heads) = contenders(["head-iti"])
    (candidate,) = heads.candidates
    assert candidate.quantity == "T"
    assert 15.0 in candidate.values
    forms = {"caa": {"": CAA(), "T=2.0": CAA(T=2.0)}}
    (_, caa) = contenders(["caa"], variants=forms)
    assert [c.label for c in caa.candidates] == ["", "T=2.0"]
    with pytest.raises(InvalidInputError, match="no parameters to choose among"):
        contenders(variants={"none": {"": CAA()}})


def test_a_fold_that_tests_what_it_is_fitted_on() -> None:
    (fold, _) = Numbers().folds(0)
    leaking = replace(fold.test[0], group=fold.fit.groups_positive[0])
    with pytest.raises(DataError, match="in fit and in test"):
        replace(fold, test=(leaking,))


def test_a_seed_that_tests_what_another_chooses_by() -> None:
    class Mixed(Numbers):
        def folds(self, seed: int) -> tuple[Fold, ...]:
            (fold, _) = super().folds(seed)
            return (replace(fold, validation=fold.test, test=fold.validation) if seed else fold,)

    with pytest.raises(DataError, match="chooses settings under another"):
        Plan(
            [Mixed()], contenders(["caa"]), (0, 1), {"numbers": LayerRange((1,), (1,))}, budget=0.5
        )
