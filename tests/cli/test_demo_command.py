"""``odesteer demo`` on few samples."""

import sys
from pathlib import Path

import pytest
from command import Run, files_in

from odesteer import load
from odesteer.cli.commands.demo import command as demo_module

WORLDS = ("truth", "civility", "mood")
ARMS = ("unsteered", "steered", "opposite")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"_N_PAIRS": 40, "_N_TIMED": 2, "_TOKENS_TIMED": 3, "_ROUNDS": 1}.items():
        monkeypatch.setattr(demo_module, name, value)


def test_the_document_of_the_demo(run: Run, quick: None) -> None:
    outcome = run("demo", "--json", "--samples", 8)
    assert outcome.code == 0
    document = outcome.document
    assert list(document["worlds"]) == list(WORLDS)
    for name, world in document["worlds"].items():
        for arm in ARMS:
            rates = world[arm]
            for key in ("attribute", "validity", "joint", "negative_joint"):
                assert 0 <= rates[key] <= 1
                assert rates[key] * 8 == pytest.approx(round(rates[key] * 8))
            assert rates["joint"] <= min(rates["attribute"], rates["validity"])
        assert world["unsteered"]["barrier"] is None
        up, down = world["steered"]["barrier"], world["opposite"]["barrier"]
        assert up["after"] > up["before"]
        assert down["after"] < down["before"]
        steerer = load(world["artifact"])
        assert (steerer.site.layer, steerer.provenance.n_positive) == (world["layer"], 40)
        assert world["artifact"] == f"odesteer-demo/{name}.safetensors"
        assert set(world["examples"][0]) == {"prompt", *ARMS}
    truth = document["worlds"]["truth"]
    assert truth["steered"]["joint"] > truth["opposite"]["joint"]
    speed = document["speed"]
    assert speed["steered"] > 0
    assert speed["change"] == pytest.approx(speed["steered"] / speed["unsteered"] - 1)
    assert Path(document["plot"]).read_bytes().startswith(b"\x89PNG")


def test_the_demo_without_matplotlib_and_what_to_type_next(
    run: Run, quick: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import shlex

    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    outcome = run("demo", "--samples", 2, "--output", "made here", "--seed", 1)
    assert outcome.code == 0
    assert "pip install 'odesteer[plot]'" in outcome.err
    made = {f"made here/{name}.safetensors" for name in WORLDS}
    assert set(files_in(tmp_path)) == made
    for part in (
        *WORLDS,
        "unsteered",
        "level 1.5",
        "level -2",
        "mean barrier",
        "Tokens a second",
    ):
        assert part in outcome.out
    assert max(map(len, outcome.out.partition("Saved in")[0].splitlines())) <= 80
    commands = [
        shlex.split(line)[1:]
        for line in outcome.out.partition("Next:")[2].splitlines()
        if "generate" in line or "inspect" in line
    ]
    assert len(commands) == 4
    for words in (commands[0], commands[-1]):
        assert run(*words).code == 0


def test_the_demo_refuses_a_place_that_cannot_be_a_folder(run: Run, tmp_path: Path) -> None:
    Path("odesteer-demo").write_text("precious")
    before = files_in(tmp_path)
    outcome = run("demo")
    assert outcome.code == 1
    assert outcome.says("odesteer-demo", "is a file")
    assert files_in(tmp_path) == before
