"""Search over layers and amounts: choice, early stopping, default, checkpoint."""

import itertools
import json
from pathlib import Path

import pytest
from rule_objective import KnownObjective, noise, pairs, run_search

from odesteer import CAA, ODESteer, SteeredModel
from odesteer.errors import InvalidInputError, ModelError, OdesteerError
from odesteer.methods import Amount, HeadITI
from odesteer.tuning import (
    Candidate,
    Halving,
    MeasurementRequest,
    Search,
    Setting,
    TuningProgress,
    tune,
)

CAA_COARSE = Candidate.of(CAA(), "caa", "strength", (0.1, 0.2, 0.4))


def peaked(layer: int, value: float, item: int) -> tuple[float, float]:
    """Best at layer 2 and strength 0.3; strengths from 0.5 on cost too much."""
    height = 1 - 0.2 * abs(layer - 2) - 2 * abs(value - 0.3)
    return height + noise(layer, value, item), 0.4 * value + noise(layer, value, item, 0.01)


def test_it_finds_a_peak_between_the_points_of_the_grid(lm: SteeredModel) -> None:
    found = tune(lm, pairs(), [CAA_COARSE], KnownObjective(peaked), budget=0.25)
    choice = found.surface.choice
    assert choice is not None
    assert (choice.setting.layer, choice.setting.amount) == (2, Amount("strength", 0.3))
    assert choice.stage == 1
    assert choice.score.n == 32
    coarse = tune(lm, pairs(), [CAA_COARSE], KnownObjective(peaked), refinements=0).surface.choice
    assert coarse.setting.value in (0.2, 0.4)


def test_the_steerer_is_the_one_that_was_measured_and_that_fit_makes(lm: SteeredModel) -> None:
    found = tune(lm, pairs(), [CAA_COARSE], KnownObjective(peaked), position="answer", seed=3)
    again = lm.fit(CAA(), pairs(), 2, position="answer", seed=3)
    assert found.steerer.content().to_bytes() == again.content().to_bytes()


def test_the_best_beyond_the_budget_is_not_chosen(lm: SteeredModel) -> None:
    def steep(layer: int, value: float, item: int) -> tuple[float, float]:
        return value + 0.1 * layer, value + noise(layer, value, item, 0.01)

    found = tune(lm, pairs(), [CAA_COARSE], KnownObjective(steep), budget=0.25, refinements=0)
    assert found.surface.choice.setting.value == 0.2
    states = {row.setting.value: row.state for row in found.surface.rows if row.setting.layer == 3}
    assert states[0.4] == "over budget"
    loose = tune(lm, pairs(), [CAA_COARSE], KnownObjective(steep), budget=0.5, refinements=0)
    assert loose.surface.choice.setting.value == 0.4


def test_without_a_setting_in_the_budget_there_is_no_choice(lm: SteeredModel) -> None:
    found = tune(lm, pairs(), [CAA_COARSE], KnownObjective(lambda *at: (1.0, 2.0 + at[1])))
    assert found.steerer is None
    assert found.surface.choice is None
    assert found.surface.least_costly().setting.value == 0.1
    assert found.surface.to_json()["choice"] is None


def test_of_equal_values_the_cheapest_is_chosen(lm: SteeredModel) -> None:
    found = tune(lm, pairs(), [CAA_COARSE], KnownObjective(lambda *at: (1.0, at[1])), refinements=0)
    assert (found.surface.choice.setting.layer, found.surface.choice.setting.value) == (0, 0.1)


def test_stopped_settings_are_measured_on_few_items(lm: SteeredModel) -> None:
    objective = KnownObjective(peaked)
    found = tune(lm, pairs(), [CAA_COARSE], objective, refinements=0)
    whole = sum(len(items) for layer, _, items in objective.calls if layer is not None)
    assert whole <= 0.55 * len(found.surface.rows) * objective.n
    for row in found.surface.rows:
        assert (row.state == "measured") is (row.score.n == objective.n)
    everything = KnownObjective(peaked)
    surface = tune(
        lm, pairs(), [CAA_COARSE], everything, refinements=0, halving=Halving(rungs=1)
    ).surface
    assert {row.state for row in surface.rows} == {"measured"}
    assert surface.choice.setting == found.surface.choice.setting


def test_settings_without_values_are_counted_and_not_chosen(lm: SteeredModel) -> None:
    def silent(layer: int, value: float, item: int) -> tuple[float | None, float]:
        return (None if layer == 3 and item % 3 == 0 else float(layer)), 0.0

    surface = tune(lm, pairs(), [CAA_COARSE], KnownObjective(silent), refinements=0).surface
    assert surface.choice.setting.layer == 2
    silenced = [row for row in surface.rows if row.setting.layer == 3]
    assert {row.state for row in silenced} == {"not judged"}
    assert all(row.score.missing == 3 for row in silenced)  # of the 8 items of the first rung


def test_all_layers_are_captured_in_one_pass(
    lm: SteeredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    captured = []
    whole = SteeredModel.capture

    def counting(self, examples, layers, *rest, **named):
        captured.append(list(layers))
        return whole(self, examples, layers, *rest, **named)

    monkeypatch.setattr(SteeredModel, "capture", counting)
    candidates = [CAA_COARSE, Candidate.of(ODESteer(), "odesteer")]
    tune(lm, pairs(), candidates, KnownObjective(peaked))
    assert captured == [[0, 1, 2, 3]]


def test_several_methods_compete(lm: SteeredModel) -> None:
    def by_level(layer: int, value: float, item: int) -> tuple[float, float]:
        return (2.0 if value == 1.5 else 0.0), 0.0

    candidates = [CAA_COARSE, Candidate.of(ODESteer(), "odesteer", values=(1.0, 1.5))]
    surface = tune(lm, pairs(), candidates, KnownObjective(by_level), refinements=0).surface
    assert surface.choice.setting.candidate == 1
    assert surface.best_of(1) == surface.choice
    assert surface.best_of(0) is None or surface.best_of(0).setting.candidate == 0


def test_a_setting_that_fails_is_a_row_with_the_reason(lm: SteeredModel) -> None:
    def unwell(layer: int, value: float, item: int) -> tuple[float, float]:
        if layer == 1:
            raise ModelError("layer 1 is unwell.")
        return float(layer), 0.0

    surface = tune(lm, pairs(), [CAA_COARSE], KnownObjective(unwell), refinements=0).surface
    assert {r.state for r in surface.rows if r.setting.layer == 1} == {"layer 1 is unwell."}
    assert all(r.score is None for r in surface.rows if r.setting.layer == 1)
    assert surface.choice.setting.layer == 3
    json.dumps(surface.to_json(), allow_nan=False)
    with pytest.raises(ModelError, match="layer 1 is unwell"):
        tune(lm, pairs(), [CAA_COARSE], KnownObjective(unwell), layers=[1])


def test_an_error_of_the_program_is_not_taken_for_a_result(lm: SteeredModel) -> None:
    with pytest.raises(ZeroDivisionError):
        tune(lm, pairs(), [CAA_COARSE], KnownObjective(lambda *at: (1 / 0, 0.0)))


def test_an_interrupted_search_resumes_from_its_checkpoint(
    lm: SteeredModel, tmp_path: Path
) -> None:
    journal = tmp_path / "journal.jsonl"
    undisturbed = KnownObjective(peaked)
    whole = tune(lm, pairs(), [CAA_COARSE], undisturbed, journal=journal).surface.to_json()
    lines = journal.read_bytes().splitlines(keepends=True)
    for kept in (0, 5, len(lines) - 1):
        # Killed in the middle of a line.
        journal.write_bytes(b"".join(lines[:kept]) + lines[kept][:40])
        resumed = KnownObjective(peaked)
        again = tune(lm, pairs(), [CAA_COARSE], resumed, journal=journal).surface.to_json()
        assert again == whole
        assert len(undisturbed.calls) - len(resumed.calls) == kept
    repeated = KnownObjective(peaked)
    tune(lm, pairs(), [CAA_COARSE], repeated, journal=journal)
    assert {layer for layer, _, _ in repeated.calls} == {None}


def test_measurements_of_another_objective_or_fit_are_not_used(
    lm: SteeredModel, tmp_path: Path
) -> None:
    journal = tmp_path / "journal.jsonl"
    first = KnownObjective(peaked)
    tune(lm, pairs(), [CAA_COARSE], first, journal=journal, refinements=0)
    for objective, data in (
        (KnownObjective(peaked, name="other"), pairs()),
        (KnownObjective(peaked), pairs(20)),
    ):
        tune(lm, data, [CAA_COARSE], objective, journal=journal, refinements=0)
        assert objective.calls == first.calls


def test_a_full_disk_is_an_error_not_a_bad_setting(
    lm: SteeredModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self, *arguments, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OdesteerError, match="No space left on device"):
        tune(lm, pairs(), [CAA_COARSE], KnownObjective(peaked), journal=tmp_path / "journal.jsonl")


def test_progress_counts_up_to_the_end(lm: SteeredModel) -> None:
    told: list[TuningProgress] = []
    tune(lm, pairs(), [CAA_COARSE], KnownObjective(peaked), progress=told.append)
    done = [now.done for now in told]
    assert done == sorted(done)
    assert all(now.done <= now.total for now in told)
    assert {"capturing activations", "the unsteered model"} <= {now.activity for now in told}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"layers": [9]}, "9"),
        ({"layers": []}, "no layer"),
        ({"budget": float("nan")}, "budget"),
        ({"refinements": -1}, "refinements"),
        ({"candidates": []}, "nothing to tune"),
        ({"objective": KnownObjective(peaked, 0)}, "no validation items"),
    ],
)
def test_invalid_arguments(lm: SteeredModel, changes: dict, said: str) -> None:
    given = {"candidates": [CAA_COARSE], "objective": KnownObjective(peaked), **changes}
    with pytest.raises(OdesteerError, match=said):
        tune(lm, pairs(), **given)


def test_invalid_candidates() -> None:
    for arguments, said in (
        ((CAA(), "caa", "interpolation"), "interpolation"),
        ((CAA(), "caa", "T"), "no usual range of T"),
        ((CAA(), "caa", "T", ()), "no amount"),
        (("caa", "caa", "T", (1,)), "method"),
    ):
        with pytest.raises(InvalidInputError, match=said):
            Candidate.of(*arguments) if arguments[0] != "caa" else Candidate(*arguments)


@pytest.mark.parametrize(("lead", "chosen"), [(0.02, 0.2), (0.15, 0.4)])
def test_the_default_is_kept_unless_another_is_clearly_better(lead: float, chosen: float) -> None:
    def rule(layer: int, value: float, item: int) -> tuple[float, float]:
        # The standard error of the difference is about 0.09.
        better = lead + 0.5 * (-1) ** item if value == 0.4 else 0.0
        return better - (value == 0.1), 0.0

    default = Setting(0, 2, Amount("strength", 0.2))
    search = Search([CAA_COARSE], 32, [2], [2], 1.0, Halving(least=1), 0, default)
    surface = run_search(search, rule)
    best = surface.eligible[0]
    assert best.setting.value == 0.4
    assert surface.choice.setting.value == chosen
    # What is kept was measured on everything that the best was.
    assert {row.setting: row.state for row in surface.rows}[default] == "measured"


def test_a_default_that_costs_too_much_is_not_kept() -> None:
    default = Setting(0, 2, Amount("strength", 0.2))
    search = Search([CAA_COARSE], 32, [2], [2], 1.0, Halving(), 0, default)
    surface = run_search(search, lambda layer, value, item: (0.0, 9.0 if value == 0.2 else 0.0))
    assert surface.choice.setting.value != 0.2


def test_a_search_requests_at_most_its_upper_bound() -> None:
    default = Setting(0, 2, Amount("strength", 0.3))
    search = Search([CAA_COARSE], 50, [2], range(4), 1.0, default=default)
    requests: list[MeasurementRequest] = []
    surface = run_search(search, lambda layer, value, item: (value * (-1) ** item, 0.0), requests)
    n = sum(len(each.settings) * len(each.items) for each in requests)
    assert 0.5 * search.most < n <= search.most
    assert sum(row.score.n for row in surface.rows) == n
    assert {row.setting.layer for row in surface.rows} == {1, 2, 3}
    for request, following in itertools.pairwise(requests):
        if following.items.start:
            assert following.left < request.left


def test_heads_are_tuned_layer_by_layer_in_their_own_unit(lm: SteeredModel) -> None:
    candidate = Candidate.of(HeadITI(), "heads")
    assert (candidate.quantity, candidate.values[0]) == ("T", 5.0)
    found = tune(
        lm, pairs(), [candidate], KnownObjective(lambda *at: (float(at[0]), 0.0)), refinements=0
    )
    assert found.surface.choice.setting.layer == lm.n_layers - 1
    assert found.steerer.site.part == "heads"
    alone = lm.fit(HeadITI(), pairs(), lm.n_layers - 1, part="heads")
    assert found.steerer.content().to_bytes() == alone.content().to_bytes()
