"""``odesteer tune``."""

import json
import signal
import sys
import time
import typing
from pathlib import Path

import pytest
from command import Run, files_in, process, save_pairs

from odesteer import load, load_contrast
from odesteer.cli.commands.tune import command as tune_module
from odesteer.models import CAPTURE_POSITIONS
from odesteer.tuning import BUDGET, PROXIES
from odesteer.tuning.layer_rules import LayerRule

_BARRIERS = ("linear", "polynomial")
FAST = ("--samples", 8, "--max-new-tokens", 4, "--rungs", 1, "--refinements", 0)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_pairs(tmp_path_factory.mktemp("data") / "many.jsonl", n=32)


@pytest.fixture
def words(model: str, many: str) -> tuple[object, ...]:
    """A search that takes a second and finds something, whatever it costs."""
    grid = ("--method", "caa", "--layer", 1, "--layer", 2, "--amounts", "strength=0.1,0.2")
    return ("tune", model, "--data", many, *grid, "--budget", 9, *FAST)


def test_it_saves_the_choice_the_surface_and_a_plot(run: Run, words, many: str) -> None:
    outcome = run(*words, "-o", "found", "--json")
    assert outcome.code == 0
    told = outcome.document
    surface = json.loads(Path("found/surface.json").read_text())
    assert set(files_in(Path("found"))) == {
        "journal.jsonl",
        "steerer.safetensors",
        "surface.json",
        "surface.png",
    }
    steerer = load("found/steerer.safetensors")
    chosen = surface["settings"][surface["choice"]]
    assert steerer.site.layer == chosen["layer"] == told["choice"]["layer"]
    assert chosen["strength"] == told["choice"]["strength"]
    assert told["steerer"]["digest"] == steerer.digest()
    assert {s["state"] for s in surface["settings"]} == {"measured"}
    assert {(s["layer"], s["strength"]) for s in surface["settings"]} == {
        (layer, value) for layer in (1, 2) for value in (0.1, 0.2)
    }
    assert chosen["value"] == max(s["value"] for s in surface["settings"])
    # It was fitted on some of the groups only.
    assert 0 < steerer.provenance.n_positive < len(load_contrast(many).positive)


@pytest.mark.parametrize("objective", PROXIES)
def test_the_same_words_give_the_same_bytes(run: Run, words, objective: str) -> None:
    for folder in ("a", "b"):
        assert run(*words, "-o", folder, "--objective", objective).code == 0
    assert files_in(Path("a")) == files_in(Path("b"))


def test_people_are_told_what_was_chosen_and_what_to_do_next(run: Run, words) -> None:
    outcome = run(*words, "-o", "my search")
    assert outcome.code == 0
    for part in ("unsteered", "choice", "settings", "Next:", "4 tried"):
        assert part in outcome.out
    assert "--steer 'my search/steerer.safetensors' --compare --strength" in outcome.out
    assert "s left" in outcome.err


@pytest.mark.parametrize(
    ("tried", "labels"),
    [
        (("--method", "caa", "--method", "iti"), ["caa", "iti"]),
        (
            (
                "--method",
                "odesteer",
                "--vary",
                "barrier=linear/polynomial",
                "--vary",
                "max_strength=1/2",
            ),
            [
                f"odesteer barrier={b} max_strength={t}"
                for b in ("linear", "polynomial")
                for t in (1, 2)
            ],
        ),
    ],
)
def test_methods_and_parameters_compete(
    run: Run, model: str, many: str, tried: tuple[str, ...], labels: list[str]
) -> None:
    grid = ("--layer", 2, "--amounts", "strength=0.1")
    words = ("tune", model, "--data", many, *tried, *grid, "--budget", 9, *FAST)
    assert run(*words, "-o", "o", "--json").code == 0
    surface = json.loads(Path("o/surface.json").read_text())
    assert [candidate["label"] for candidate in surface["candidates"]] == labels
    assert len(surface["settings"]) == len(labels)


def test_an_earlier_result_is_replaced_only_by_force(run: Run, words) -> None:
    assert run(*words).code == 0
    before = files_in(Path("odesteer-tune"))
    refused = run(*words)
    assert refused.code == 1
    assert refused.says("steerer.safetensors", "exists", "--force")
    assert run(*words, "--force").code == 0
    assert files_in(Path("odesteer-tune")) == before


def test_nothing_within_the_budget_is_said_and_all_is_kept(run: Run, words) -> None:
    words = [word if word != "strength=0.1,0.2" else "strength=20,30" for word in words]
    outcome = run(*words, "--budget", 0, "-o", "o")
    assert outcome.code == 1
    assert outcome.says("no setting stays within the budget of 0", "--budget", "o/surface.json")
    assert json.loads(Path("o/surface.json").read_text())["choice"] is None
    assert not Path("o/steerer.safetensors").exists()


def test_an_interrupted_search_goes_on(run: Run, model: str, many: str, tmp_path: Path) -> None:
    slow = ("--samples", 16, "--max-new-tokens", 8, "--refinements", 0, "--budget", 9)
    words = ("tune", model, "--data", many, "--method", "caa", *slow, "--objective", "judge")
    with process(*words, "-o", "o", "--json", folder=tmp_path) as started:
        while not (tmp_path / "o" / "journal.jsonl").exists() and started.poll() is None:
            time.sleep(0.01)
        started.send_signal(signal.SIGINT)
        out, err = started.communicate(timeout=120)
    assert started.returncode == 130, err
    assert "Traceback" not in err
    assert '"exit_code": 130' in out
    assert set(files_in(tmp_path / "o")) == {"journal.jsonl"}
    kept = (tmp_path / "o" / "journal.jsonl").read_bytes()
    assert run(*words, "-o", "o", "--json").code == 0
    assert (tmp_path / "o" / "journal.jsonl").read_bytes().startswith(kept[: kept.rfind(b"\n") + 1])
    assert run(*words, "-o", "undisturbed", "--json").code == 0
    for name in ("surface.json", "steerer.safetensors"):
        assert (tmp_path / "o" / name).read_bytes() == Path("undisturbed", name).read_bytes()


def test_a_world_is_judged_exactly(run: Run) -> None:
    grid = ("--layer", 4, "--amounts", "level=-1.5,1.5", "--samples", 8)
    outcome = run("tune", "--world", "civility", *grid, "--rungs", 1, "--refinements", 0, "--json")
    assert outcome.code == 0
    told = outcome.document
    assert told["choice"]["level"] == 1.5
    assert told["objective"]["judge"] == "exact"
    assert told["test"]["steered"]["value"] > told["test"]["unsteered"]["value"]
    assert load("odesteer-tune/steerer.safetensors").provenance.capture_position


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "--data FILE, or --world NAME"),
        (("--data", "d.jsonl", "--world", "truth"), "--data FILE, or --world NAME"),
        (("--world", "trut"), "truth, civility, mood"),
        (("--world", "truth", "--objective", "judge"), "--objective"),
        (("--world", "truth", "--method", "oedsteer"), "odesteer"),
        (("--world", "truth", "--method", "caa", "--method", "caa"), "twice"),
        (("--world", "truth", "--amounts", "levle=1"), "levle"),
        (("--world", "truth", "--amounts", "level=one"), "'one' is not a number"),
        (("--world", "truth", "--amounts", "level=nan"), "finite"),
        (("--world", "truth", "--amounts", "interpolation=1"), "odesteer takes level"),
        (("--world", "truth", "--vary", "barrier.D=1/2"), "'D'"),
        (("--world", "truth", "--budget", "nan"), "--budget"),
        (("--world", "truth", "--layer", "17"), "6 decoder layers"),
        (("--world", "truth", "--samples", "1"), "--samples"),
    ],
)
def test_words_that_are_refused(run: Run, tmp_path: Path, more, said: str) -> None:
    outcome = run("tune", *more)
    assert outcome.code == 2
    assert outcome.says(said)
    assert files_in(tmp_path) == {}


def test_data_that_are_refused(run: Run, model: str, pairs: str, tmp_path: Path) -> None:
    few = run("tune", model, "--data", pairs, "--objective", "judge")
    assert few.code == 1
    assert few.says("12 groups", "at least 16", "likelihood")
    assert run("tune", model, "--data", "nothing.jsonl").says("nothing.jsonl")
    assert run("tune", model, "--data", pairs, "-o", "no/such").says("no folder")
    assert files_in(tmp_path) == {}


def test_without_matplotlib_there_is_no_plot_and_no_error(
    run: Run, words, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    outcome = run(*words, "-o", "o")
    assert outcome.code == 0
    assert "odesteer[plot]" in outcome.err
    assert not Path("o/surface.png").exists()


def test_the_choices_in_the_help_are_those_of_the_library() -> None:
    assert typing.get_args(tune_module.Proxy) == PROXIES
    assert typing.get_args(tune_module.LayerRule) == typing.get_args(LayerRule)
    assert typing.get_args(tune_module.CapturePosition) == CAPTURE_POSITIONS
    assert tune_module.DEFAULT_BUDGET == BUDGET


def test_the_amount_of_a_method_that_costs_so_much(run: Run, model: str, many: str) -> None:
    words = ("tune", model, "--data", many, "--method", "caa", "--layer", 1)
    outcome = run(*words, "--kl", 0.01, "-o", "found", "--json")
    assert outcome.code == 0
    (found,) = outcome.document["found"]
    assert outcome.document["choice"] == found
    assert found["kl"] == pytest.approx(0.01, rel=0.06)
    assert found["quantity"] == "strength"
    assert set(files_in(Path("found"))) == {"at-kl.json", "steerer.safetensors"}
    assert json.loads(Path("found/at-kl.json").read_text())["found"] == [found]
    steerer = load("found/steerer.safetensors")
    assert steerer.provenance.n_positive == len(load_contrast(many).positive)  # nothing held out


def test_methods_are_chosen_among_at_one_cost(run: Run, model: str, many: str) -> None:
    words = ("tune", model, "--data", many, "--method", "caa", "--method", "iti")
    outcome = run(*words, "--layer", 1, "--layer", 2, "--kl", 0.01, *FAST, "-o", "f", "--json")
    assert outcome.code == 0
    found = outcome.document["found"]
    assert {(each["candidate"], each["layer"]) for each in found} == {
        (name, layer) for name in ("caa", "iti") for layer in (1, 2)
    }
    reached = [each for each in found if "kl" in each]
    assert all(each["kl"] == pytest.approx(0.01, rel=0.26) for each in reached)
    scores = [each["score"] for each in reached]
    assert scores == sorted(scores, reverse=True)
    assert outcome.document["choice"] == found[0]


def test_a_cost_that_no_method_reaches_is_an_error_that_says_how_far_it_goes(
    run: Run, model: str, many: str
) -> None:
    words = ("tune", model, "--data", many, "--method", "mimic", "--layer", 1, "-o", "f")
    outcome = run(*words, "--kl", 500)
    assert outcome.code == 1
    assert "costs at most" in outcome.err
    assert not Path("f/steerer.safetensors").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--kl", -1), "positive"),
        (("--kl", 0.1, "--amounts", "level=1"), "--amounts does not go with --kl"),
        (("--kl", 0.1, "--budget", 1), "--budget does not go with --kl"),
    ],
)
def test_options_that_do_not_go_with_a_cost(
    run: Run, model: str, many: str, options: tuple[object, ...], message: str
) -> None:
    outcome = run("tune", model, "--data", many, *options)
    assert outcome.code == 2
    assert message in " ".join(outcome.err.split())


def test_a_rule_keeps_some_of_the_layers(run: Run, words) -> None:
    chosen = (*words[:4], "--method", "caa", "--layer-rule", "early")
    grid = ("--amounts", "strength=0.1", "--budget", 9)
    for more in (grid, ("--kl", 0.01)):
        outcome = run(*chosen, "--layer", 2, "--layer", 3, *more, *FAST, "-o", "f", "--force")
        assert outcome.code == 0, outcome.err
        assert "layers by the rule early: 2" in outcome.err
    outcome = run(*chosen, "--layer", 3, *grid, *FAST)
    assert outcome.code == 2
    assert "last fifth" in outcome.err
