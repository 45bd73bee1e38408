"""Plans: what is compared, and that choices never see what is tested."""

from dataclasses import replace
from pathlib import Path

import pytest
from bench_case import Numbers, runner

from odesteer import SteeredModel
from odesteer.artifact import SteererSet
from odesteer.errors import DataError, InvalidInputError, UnknownNameError
from odesteer.evaluation.runner import (
    BenchmarkProgress,
    JudgePanel,
    LayerRange,
    Plan,
    Runner,
    contenders,
)
from odesteer.evaluation.runner.completions import generate_completions
from odesteer.evaluation.runner.contenders import names
from odesteer.evaluation.runner.plan import CompletionSpec
from odesteer.evaluation.runner.steerer_cache import SteererCache
from odesteer.evaluation.task import Fold
from odesteer.methods import CAA, Amount
from odesteer.tuning import Setting
from odesteer.tuning.search.grid import neighbours


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


def test_amounts_name_their_quantity() -> None:
    given = {"level": (1.0, 2.0), "T": (5.0,), "strength": (0.1,)}
    rows = {
        row.name: row.candidates[0]
        for row in contenders(amounts=given)
        if row.candidates and row.name != "odesteer-default"
    }
    assert all(row.values == given[row.quantity] for row in rows.values() if row.quantity in given)
    # Rows keep to their own quantity where it is given; none is left out silently.
    assert {rows[name].quantity for name in ("odesteer", "one-step-level", "caa-clamped")} == {
        "level"
    }
    assert rows["odesteer-paper"].values == (0.1,)
    assert rows["linear-act"].quantity == "interpolation"
    (_, paper) = contenders(["odesteer-paper"], amounts={"T": (5.0,)})
    assert (paper.candidates[0].quantity, paper.candidates[0].values) == ("T", (5.0,))
    with pytest.raises(
        InvalidInputError, match="none of the rows takes a interpolation: none, caa"
    ):
        contenders(["caa"], amounts={"interpolation": (1.0,)})


def test_every_row_has_a_default_that_must_be_beaten() -> None:
    for row in contenders():
        if row.candidates:
            default = row.default(3)
            assert default.value in row.candidates[0].values, row.name
    (_, caa) = contenders(["caa"], amounts={"strength": (0.1, 0.2, 0.3)})
    assert str(caa.default(3)) == "strength=0.2, layer 3"
    plan = Plan([Numbers()], contenders(), (0,), {"numbers": LayerRange((1,), (1,))}, budget=0.5)
    assert all(search.default is not None for search in plan.searches(Numbers(), "fold 0").values())


def test_transport_may_go_beyond_its_map() -> None:
    (_, transport) = contenders(["linear-act"])
    assert max(transport.candidates[0].values) > 2
    beside = neighbours(
        Setting(0, 1, Amount("interpolation", 3.0)),
        [Setting(0, 1, Amount("interpolation", value)) for value in (2.0, 3.0)],
        (1,),
    )
    assert 4.0 in {setting.value for setting in beside}


def test_heads_of_all_layers_compete(lm: SteeredModel) -> None:
    (_, row) = contenders(["head-iti"], amounts={"T": (5.0, 15.0)})
    task = Numbers()
    plan = Plan([task], [row], (0,), {"numbers": LayerRange((0, 1), range(lm.n_layers))}, budget=1)
    search = plan.searches(task, "fold 0")[row]
    assert len({setting.layer for setting in search._coarse_grid()}) == 1, "no layer is chosen"
    at = plan.test(task)[0]
    setting = row.default(plan.layers["numbers"].default)
    spec = CompletionSpec(task, row, "test", setting, at, 0)
    steerer = SteererCache(lm, 4).steerer(spec)
    assert isinstance(steerer, SteererSet)
    assert all(member.site.part == "heads" for member in steerer)
    n_chosen = sum(len(member.method.heads_) for member in steerer)
    assert n_chosen == max(1, lm.n_heads * lm.n_layers // 20)
    (one,) = generate_completions(lm, [spec], [steerer])
    assert one["text"] is not None
    assert "heads of all layers" in row.describe(setting)


class Choices(Numbers):
    kind = "choice"
    judges = ("multiple-choice",)
    headline = "mc2"

    def folds(self, seed: int) -> tuple[Fold, ...]:
        both = {"choices": [" yes", " no"], "labels": [1, 0]}
        reference = {"mc1": both, "mc2": both}
        (fold, *_) = super().folds(0)
        parts = {
            name: tuple(replace(item, reference=reference) for item in getattr(fold, name)[:2])
            for name in ("validation", "test")
        }
        return (replace(fold, **parts),)


def test_what_no_seed_changes_is_measured_once(lm: SteeredModel, tmp_path: Path) -> None:
    task = Choices()
    rows = contenders(["caa", "linear-act"], amounts={"strength": (0.1,), "interpolation": (1.0,)})
    plan = Plan([task], rows, (0, 1, 2), {task.name: LayerRange((1,), (1,))}, budget=0.5)
    outcome = Runner(lm, plan, JudgePanel(lm, [task]), tmp_path, batch_size=4).run()
    assert len(outcome.results) == 3 * 3 * 2
    stored = (tmp_path / "generations.jsonl").read_text().splitlines()
    assert len(stored) == 3 * 2, "each row and item once, not for each seed"
    by_item: dict[tuple[str, str], set[str]] = {}
    for result in outcome.results:
        at = (result.spec.contender.name, result.spec.item.key)
        by_item.setdefault(at, set()).add(str(result.scores))
    assert all(len(scores) == 1 for scores in by_item.values())
    assert {result.spec.seed for result in outcome.results} == {0, 1, 2}


def test_progress_tells_of_captures_and_fits(lm: SteeredModel, tmp_path: Path) -> None:
    seen: list[BenchmarkProgress] = []
    runner(lm, tmp_path, on_progress=seen.append).run()
    activities = " ".join(progress.activity for progress in seen)
    assert "capturing activations of" in activities
    assert "fitting caa, 3 of" in activities or "fitting caa, 2 of" in activities
    first = next(i for i, progress in enumerate(seen) if progress.done)
    assert all(progress.seconds_left is None for progress in seen[:first])
