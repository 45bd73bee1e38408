"""``odesteer bench``."""

import json
from pathlib import Path

import pytest
from command import Run

_FEW = (
    "--limit",
    2,
    "--seeds",
    1,
    "--methods",
    "odesteer-default,caa",
    "--amounts",
    "strength=0.1,0.2",
)


def test_a_plan_without_a_run(run: Run) -> None:
    outcome = run("bench", "--quick", "--dry-run", "--json")
    assert outcome.code == 0
    plan = json.loads(outcome.out)
    assert plan["validation_completions"] > 0
    assert plan["test_completions"] > 0
    assert "min on one idle core" in plan["plan"]["time"]
    assert not list(Path.cwd().iterdir())


def test_a_file_of_ones_own(run: Run, model: str, pairs: str) -> None:
    words = ("bench", "contrast", "--model", model, "--data", pairs, *_FEW, "-o", "out")
    outcome = run(*words)
    assert outcome.code == 0, outcome.err
    assert "mc2" in outcome.out
    assert "Saved in out" in outcome.out
    before = Path("out/summary.json").read_bytes()
    results = Path("out/generations.jsonl").read_bytes()
    assert model not in before.decode()
    again = run(*words, "--json")
    assert again.code == 0
    assert [line["contender"] for line in json.loads(again.out)["lines"]] == [
        "none", "odesteer-default", "caa",
    ]  # fmt: skip
    assert Path("out/summary.json").read_bytes() == before
    assert Path("out/generations.jsonl").read_bytes() == results


def test_methods_at_equal_cost_open_the_report(run: Run, model: str, pairs: str) -> None:
    few = ("--limit", 2, "--seeds", "7,", "--methods", "caa", "--folds", 1, "--cost-texts", 2)
    words = ("bench", "contrast", "--model", model, "--data", pairs, *few, "--at-kl", "0.002,0.005")
    outcome = run(*words, "-o", "out", "--json")
    assert outcome.code == 0, outcome.err
    (row,) = json.loads(outcome.out)["equal_cost"]
    assert row["contender"] == "caa"
    assert set(row["effects"]) == {"0.002", "0.005"}
    page = Path("out/report.html").read_text()
    assert page.index("Effect at equal cost") < page.index("<h2>contrast</h2>")
    assert json.loads(Path("out/equal-cost.json").read_text())["seeds"] == [7]

    alone = run(*words, "--no-best", "-o", "alone")
    assert alone.code == 0, alone.err
    assert "gain in mc2 at equal KL" in alone.out
    assert not Path("alone/report.html").exists()
    assert Path("alone/equal-cost.md").read_text() == Path("out/equal-cost.md").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("truthful",), "unknown suite 'truthful'. Did you mean 'truthfulqa'"),
        (("terrarium", "--methods", "odester"), "Did you mean 'odesteer'"),
        (("terrarium", "--model", "x/y"), "leave out --model"),
        (("terrarium", "--layers", "x"), "neither 'all' nor numbers"),
        (("terrarium", "--layers", "9", "--dry-run"), "there is no layer 9"),
        (("terrarium", "--at-kl", "much"), "neither 'none' nor numbers"),
        (("terrarium", "--at-kl", "0"), "positive"),
        (("terrarium", "--no-best"), "neither costs nor best settings"),
        (("terrarium", "--seeds", "a,b"), "neither a number nor a list"),
        (("terrarium", "--task", "truths"), "has no task 'truths'; it has truth, civility, mood"),
        (("terrarium", "--amounts", "level=much"), "are not numbers"),
        (("terrarium", "--amounts", "0.5,1"), "not of the form"),
        (("terrarium", "--amounts", "levle=1"), "levle"),
        (
            ("terrarium", "--methods", "caa", "--amounts", "interpolation=1"),
            "none of the rows takes",
        ),
        (("terrarium", "--judge", "nobody", "--dry-run"), "unknown judge 'nobody'"),
        (("terrarium", "--judge-option", "rubric"), "not of the form NAME.OPTION=VALUE"),
        (("terrarium", "--judge-option", "rubric.colour=red"), "has no option 'colour'"),
        (("terrarium", "--data", "x"), "makes its own data"),
        (("contrast",), "name it with --data"),
        (("contrast", "--data", "nowhere.jsonl"), "there is no file nowhere.jsonl"),
        (("terrarium", "--column", "text=a"), "are for the suite contrast"),
        (("truthfulqa", "--data", "nowhere"), "Download TruthfulQA.csv"),
        (("ultrafeedback", "--data", "nowhere"), "HuggingFaceH4/ultrafeedback_binarized from the"),
        (("realtoxicityprompts", "--data", "nowhere"), "https://github.com/s-nlp/paradetox"),
        (("terrarium", "--vary", "barrier=linear"), "not of the form METHOD.NAME=A/B"),
        (("terrarium", "--vary", "odester.level=1/2"), "Did you mean 'odesteer'"),
        (("terrarium", "--vary", "odesteer.levle=1/2"), "has no parameter 'levle'"),
    ],
)
def test_bad_input(run: Run, words: tuple[object, ...], message: str) -> None:
    outcome = run("bench", *words)
    assert outcome.code in (1, 2)
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert not Path("bench-terrarium").exists()


def test_data_errors_advise_options_that_bench_has(run: Run, model: str) -> None:
    words = ("bench", "contrast", "--model", model, "--data", "d.jsonl", "--dry-run")
    same = {"positive": "a", "negative": "a"}
    Path("d.jsonl").write_text(f"{json.dumps(same)}\n")
    assert run(*words).says("line 1: 'a' is on both sides", "--identical drop")
    assert run(*words, "--identical", "drop").says("no")
    Path("d.jsonl").write_text('{"statement": "a", "label": 1}\n')
    assert run(*words).says("--column text=statement")


def test_a_folder_with_other_files(run: Run) -> None:
    Path("notes").mkdir()
    Path("notes/mine.txt").write_text("keep me")
    outcome = run("bench", "-o", "notes")
    assert outcome.code == 2
    assert "no earlier benchmark" in outcome.err


def test_a_judge_that_needs_a_key_without_one(
    run: Run, model: str, monkeypatch: pytest.MonkeyPatch, shared: Path
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    data = shared / "data" / "truthfulqa"
    Path("rubric.json").write_text('[{"name": "kind", "requirement": "It is kind."}]')
    judge = ("--judge", "rubric", "--judge-option", "rubric.model=some-model")
    judge = (*judge, "--judge-option", "rubric.rubric=rubric.json")
    outcome = run("bench", "truthfulqa", "--model", model, "--data", data, *judge, *_FEW)
    assert outcome.code in (1, 2)
    said = " ".join(outcome.err.split())
    assert "needs a key; set the environment variable OPENAI_API_KEY to it" in said
    assert not Path("bench-truthfulqa").exists()


def test_parameters_to_choose_among(run: Run) -> None:
    words = ("bench", "--quick", "--dry-run", "--json", "--methods", "caa,odesteer")
    plain = json.loads(run(*words).out)
    varied = json.loads(run(*words, "--vary", "odesteer.barrier=linear/polynomial").out)
    assert varied["fits"] == plain["fits"] * 1.5
    assert varied["validation_completions"] > plain["validation_completions"]
