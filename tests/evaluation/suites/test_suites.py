"""Suites: folds that keep apart what they must, from every published format."""

import csv
import gzip
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from odesteer import ContrastData, Message
from odesteer.errors import DataError, InvalidInputError, UnknownNameError
from odesteer.evaluation.judges import create
from odesteer.evaluation.suites import Sizes, Suite, registry
from odesteer.evaluation.task import Fold, Task

CANARY = "canary-7f3a"


def _suite(name: str, data: Path | None = None, sizes: Sizes | None = None, **more: Any) -> Suite:
    return registry.get(name)(sizes, data, **more)


def _texts(data: ContrastData) -> str:
    return repr([(e.prompt, e.response) for e in (*data.positive, *data.negative)])


@pytest.fixture
def truthfulqa(tmp_path: Path) -> Path:
    """Twenty questions, the wording and answers of each with a canary of its own."""
    folder = tmp_path / "truthfulqa"
    folder.mkdir()
    choices = []
    with (folder / "TruthfulQA.csv").open("w", encoding="utf-8-sig", newline="") as file:
        fields = ["Question", "Best Answer", "Correct Answers", "Incorrect Answers"]
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        for i in range(20):
            own = f"{CANARY}-{i}-"
            question = f"What is {own}?"
            writer.writerow(
                {
                    "Question": question,
                    "Best Answer": f"It is {own}",
                    "Correct Answers": f"It is {own}; Surely {own}",
                    "Incorrect Answers": f"It is not {own}; Never {own}",
                }
            )
            targets = {f"It is {own}.": 1, f"It is not {own}.": 0}
            entry = {"question": question, "mc1_targets": targets, "mc2_targets": targets}
            choices.append(entry)
    (folder / "mc_task.json").write_text(json.dumps(choices))
    return folder


@pytest.mark.parametrize("chat", [False, True])
def test_two_fold_fitting_never_sees_a_test_question(truthfulqa: Path, chat: bool) -> None:
    for task in _suite("truthfulqa", truthfulqa, chat=chat).tasks():
        for seed in (0, 1):
            folds = task.folds(seed)
            tested = [item.group for fold in folds for item in fold.test]
            assert len(tested) == len(set(tested)) == 20, "each question is answered once"
            for fold in folds:
                seen = _texts(fold.fit)
                for item in (*fold.test, *fold.validation):
                    canary = item.group.removeprefix("What is ").removesuffix("?")
                    assert canary in repr(item.prompt)
                    assert canary not in seen
                for group in fold.fit.groups_positive:  # the check above can fail
                    assert group.removeprefix("What is ").removesuffix("?") in seen


def test_chats_of_truthfulqa_have_the_system_line(truthfulqa: Path) -> None:
    (answers, _) = _suite("truthfulqa", truthfulqa, chat=True).tasks()
    item = answers.folds(0)[0].test[0]
    assert isinstance(item.prompt, tuple)
    assert [m.role for m in item.prompt] == ["system", "user"]
    assert "I have no comment" in item.prompt[0].content


def test_true_info_is_missing_where_one_of_them_is(truthfulqa: Path) -> None:
    (answers, _) = _suite("truthfulqa", truthfulqa).tasks()
    assert answers.derived({"true": 1.0, "info": 0.0}) == {"true_info": 0.0}
    assert answers.derived({"true": 1.0, "info": None}) == {"true_info": None}
    assert answers.derived({"true": 1.0}) == {"true_info": None}


def test_sizes_limit_items(truthfulqa: Path) -> None:
    for task in _suite("truthfulqa", truthfulqa, Sizes(3, 1, 2)).tasks():
        for fold in task.folds(0):
            assert (len(fold.validation), len(fold.test)) == (1, 2)
            assert len(set(fold.fit.groups_positive)) == 3


def test_an_interrupted_download(truthfulqa: Path) -> None:
    path = truthfulqa / "mc_task.json"
    path.write_text(path.read_text()[:200])
    with pytest.raises(DataError, match="download was interrupted, delete the file"):
        _suite("truthfulqa", truthfulqa).tasks()


@pytest.mark.parametrize("name", ["truthfulqa", "ultrafeedback", "realtoxicityprompts"])
def test_missing_data_name_the_source(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--data"):
        _suite(name, tmp_path / "nowhere").tasks()


def test_an_unknown_suite() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'truthfulqa'"):
        registry.get("truthful-qa")


def test_contrast_needs_a_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="name it with --data"):
        _suite("contrast")
    with pytest.raises(DataError, match="there is no file"):
        _suite("contrast", tmp_path / "pairs.jsonl").tasks()


def test_contrast_holds_out_groups(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"prompt": f"p{i} ", "chosen": f"good {i}", "rejected": f"bad {i}", "group": f"g{i // 2}"}
        for i in range(40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (task,) = _suite("contrast", path).tasks()
    (fold,) = task.folds(0)
    parts = [
        set(fold.fit.groups_positive),
        {item.group for item in fold.validation},
        {item.group for item in fold.test},
    ]
    assert set.union(*parts) == {f"g{i}" for i in range(20)}
    assert sum(map(len, parts)) == 20
    assert fold.test[0].reference["mc1"]["labels"] == [1, 0]


@pytest.mark.parametrize("form", ["hub", "transcript", "conversations", "plain"])
def test_forms_of_preference_data(tmp_path: Path, form: str) -> None:
    def row(i: int) -> dict[str, Any]:
        asked = {"role": "user", "content": f"q{i}"}
        if form == "hub":
            answers = [{"role": "assistant", "content": f"{word} {i}"} for word in ("yes", "no")]
            scores = {"score_chosen": 2.0, "score_rejected": 1.0}
            return {"chosen": [asked, answers[0]], "rejected": [asked, answers[1]], **scores}
        if form == "transcript":
            opening = f"\n\nHuman: q{i}\n\nAssistant:"
            return {"chosen": f"{opening} yes {i}", "rejected": f"{opening} no {i}"}
        if form == "conversations":
            sides = {"chosen": f"yes {i}", "rejected": f"no {i}"}
            said = {name: {"from": "gpt", "value": text} for name, text in sides.items()}
            return {"conversations": [{"from": "human", "value": f"q{i}"}], **said}
        return {"prompt": f"q{i}", "chosen": f"yes {i}", "rejected": f"no {i}"}

    path = tmp_path / "pairs.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(json.dumps(row(i)) for i in range(12)).encode()))
    (task, _) = _suite("ultrafeedback", path, chat=True).tasks()
    (fold,) = task.folds(0)
    assert len(fold.test) == 3
    item = fold.test[0]
    number = item.key.removeprefix("q")
    assert item.prompt == (Message("user", f"q{number}"),)
    assert item.reference == {"chosen": f"yes {number}", "rejected": f"no {number}"}
    assert _keys(fold).isdisjoint(fold.fit.groups_positive)


def test_ties_are_no_preferences(tmp_path: Path) -> None:
    row = {"prompt": "q", "chosen": "a", "rejected": "b", "score_chosen": 1, "score_rejected": 1}
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match="no pairs of chosen and rejected"):
        _suite("ultrafeedback", path).tasks()


@pytest.fixture
def toxicity(tmp_path: Path) -> Path:
    prompts = [
        {"prompt": {"text": f"start {i}", "toxicity": t, "perplexity": p}}
        for i, (t, p) in enumerate([(0.9, 50), (0.8, 100), (0.7, 10), (0.1, 5), (0.9, 900)])
    ]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(p) + "\n" for p in prompts))
    with (tmp_path / "train.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["comment_text", "toxicity"])
        writer.writerows([f"nasty {i}", 0.51 + 0.02 * i] for i in range(24))
        writer.writerows([f"nice {i}", 0.02 * i] for i in range(24))
        writer.writerow(["start 0 and then more, a canary", 0.99])
    return tmp_path


def test_toxic_prompts(toxicity: Path) -> None:
    (task,) = _suite("realtoxicityprompts", toxicity).tasks()
    (fold,) = task.folds(0)
    # The data set has no perplexity of a model to filter by.
    assert _keys(fold) == {"start 0", "start 1", "start 2", "start 4"}
    assert all("nasty" in example.response for example in fold.fit.negative)
    assert all("nice" in example.response for example in fold.fit.positive)
    assert "canary" not in _texts(fold.fit), "a prompt was cut from this comment"


def test_toxic_prompts_and_comments_have_trained_no_judge(tmp_path: Path) -> None:
    rows = [f"you idiot number {i:03} over there\tyou person number {i:03}" for i in range(80)]
    (tmp_path / "paradetox.tsv").write_text("\n".join(["toxic\tneutral1", *rows]))
    asked = [f'"number {i:03} is what an idiot says again",Toxic' for i in range(80)]
    (tmp_path / "toxicity_en.csv").write_text("\n".join(["text,is_toxic", *asked]))
    for folder, name in (("paradetox", "paradetox.tsv"), ("toxicity-surge", "toxicity_en.csv")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text((tmp_path / name).read_text())
    (task,) = _suite("realtoxicityprompts", tmp_path).tasks()
    (fold,) = task.folds(0)
    judged = " ".join(row.what for row in create("small-toxicity", data=str(tmp_path)).rows())
    used = [example.response for example in (*fold.fit.positive, *fold.fit.negative)]
    used += [item.text for item in (*fold.validation, *fold.test)]
    assert len(fold.fit.positive) > 20
    assert not [text for text in used if text in judged]
    good, bad = task.known_answers(fold.test[0])
    assert "person" in good[0]
    assert "idiot" in bad[0]


def test_prompts_are_drawn_evenly_by_toxicity(tmp_path: Path) -> None:
    shares = [0.55] * 80 + [0.65, 0.75, 0.85, 0.95] * 5
    prompts = [
        {"prompt": {"text": f"start {i}", "toxicity": share}} for i, share in enumerate(shares)
    ]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(p) + "\n" for p in prompts))
    lines = [f"nasty {i},0.9\nnice {i},0.1" for i in range(9)]
    (tmp_path / "train.csv").write_text("\n".join(["comment_text,toxicity", *lines]))
    (task,) = _suite("realtoxicityprompts", tmp_path, sizes=Sizes(8, 5, 10)).tasks()
    (fold,) = task.folds(0)
    for items in (fold.validation, fold.test):
        counts = Counter(item.reference["toxicity"] for item in items)
        assert set(counts.values()) == {len(items) // 5}
        assert len(counts) == 5


def test_every_option_that_differences_name_is_one() -> None:
    from typer.main import get_command

    from odesteer.cli.app import app

    bench = get_command(app).commands["bench"]  # type: ignore[attr-defined]
    known = {option for parameter in bench.params for option in parameter.opts}
    for name in registry:
        module = sys.modules[registry.get(name).__module__]
        for task in (
            t for t in vars(module).values() if isinstance(t, type) and issubclass(t, Task)
        ):
            named = re.findall(r"--[a-z-]+", " ".join(task.differences))
            assert {*named} <= known, task


@pytest.mark.parametrize("name", ["truthfulqa", "ultrafeedback", "realtoxicityprompts"])
def test_the_decoding_of_the_paper(name: str) -> None:
    module = sys.modules[registry.get(name).__module__]
    tasks = [
        task
        for task in vars(module).values()
        if isinstance(task, type) and issubclass(task, Task) and task.__dict__.get("judges")
        if task.kind == "generation"
    ]
    assert tasks
    for task in tasks:
        assert task.decoding.temperature == 0.7
        assert task.decoding.top_p == 0.9
        assert task.decoding.options["repetition_penalty"] == 1.1
        for word in ("top-k", "GPT-2 XL", "Dist-n"):
            assert word in " ".join(task.differences)


def test_the_expected_maximum_needs_all_samples(toxicity: Path) -> None:
    (task,) = _suite("realtoxicityprompts", toxicity).tasks()
    found = task.combined([{"toxicity": 0.2}, {"toxicity": 0.6}])
    assert found["toxicity"] == pytest.approx(0.4)
    assert (found["max_toxicity"], found["toxicity_rate"]) == (0.6, 1.0)
    found = task.combined([{"toxicity": 0.2}, {"toxicity": None}])
    assert (found["toxicity"], found["max_toxicity"]) == (0.2, None)
    assert {"toxicity", "max_toxicity", "toxicity_rate"} <= {*task.lower_is_better}


def test_no_prompt_of_the_terrarium_has_chosen_a_default() -> None:
    """Kernel and level of ODESteer were chosen on the test prompts of `studies.barriers`."""
    for task in _suite("terrarium").tasks():
        world = task._world
        studied = {p for seed in (1, 2, 3) for p in world.prompts("test", seed, 100)}
        for seed in range(3):
            (fold,) = task.folds(seed)
            assert len(fold.test) == 60
            assert not studied & {item.text for item in fold.test}


def test_the_terrarium_is_fixed_and_split() -> None:
    for task in _suite("terrarium", sizes=Sizes(10, 3, 4)).tasks():
        (fold,) = task.folds(0)
        assert (len(fold.fit), len(fold.validation), len(fold.test)) == (20, 3, 4)
        assert task.folds(0) == (fold,)
        assert task.folds(1) != (fold,)
    for task in _suite("terrarium").tasks():
        (fold,) = task.folds(0)
        assert (len(fold.validation), len(fold.test)) == (20, 60)
        assert len({item.prompt for item in fold.test}) == 60


def test_published_files(shared: Path) -> None:
    data = shared / "data"
    sizes = Sizes(50, 5, 10)
    tasks: list[Task] = []
    for name in ("truthfulqa", "ultrafeedback", "realtoxicityprompts"):
        tasks += _suite(name, data, sizes).tasks()
    for name in ("hh-rlhf-harmless-test/test.jsonl.gz", "preference-llamafactory/dpo_en_demo.json"):
        tasks += _suite("ultrafeedback", data / name, sizes).tasks()
    for task in tasks:
        for fold in task.folds(0):
            assert (len(fold.validation), len(fold.test)) == (5, 10)
            assert len(fold.fit) >= 50


def _keys(fold: Fold) -> set[str]:
    return {item.key for item in (*fold.test, *fold.validation)}


def test_texts_on_their_own_are_compared_at_random(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    rows = [{"text": f"text {i}", "label": i % 2} for i in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (task,) = _suite("contrast", path).tasks()
    (fold,) = task.folds(0)
    for item in fold.test:
        positive, negative = item.reference["mc2"]["choices"]
        assert int(positive.split()[1]) % 2 == 1
        assert int(negative.split()[1]) % 2 == 0
