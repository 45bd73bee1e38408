"""Suites from their files to their reports, on small models: tests of the machinery."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import tiny_models
from odesteer import SteeredModel
from odesteer.artifact import Steerer
from odesteer.evaluation.config import BenchmarkConfig
from odesteer.evaluation.report import write_report
from odesteer.evaluation.runner import Runner, RunResults, completions
from odesteer.evaluation.runner.plan import CompletionSpec

pytestmark = pytest.mark.slow


def run(lm: SteeredModel, folder: Path, suite: str, data: Path | None, **asked: Any) -> RunResults:
    """A whole benchmark with little of everything."""
    little = {
        "quick": True,
        "limit": 2,
        "methods": ("odesteer-default", "caa"),
        "amounts": {"strength": (0.2,)},
    }
    request = BenchmarkConfig(suite=suite, model="a model", data=data, **{**little, **asked})
    tasks = request.tasks()
    plan = request.plan(tasks, lm.n_layers, lm)
    outcome = Runner(lm, plan, request.judge_panel(lm, tasks, 8), folder, batch_size=8).run()
    write_report(outcome, folder, title=suite, about=request.about())
    return outcome


def metrics(folder: Path, contender: str = "caa") -> dict[str, set[str]]:
    """Names of the metrics of a row that have a value, by task."""
    found: dict[str, set[str]] = {}
    for line in json.loads((folder / "summary.json").read_text())["lines"]:
        if line["contender"] == contender:
            known = {n for n, one in line["metrics"].items() if one["value"] is not None}
            found[line["task"]] = known
    return found


@pytest.mark.parametrize(
    ("suite", "files", "judges", "expected"),
    [
        (
            "truthfulqa",
            "truthfulqa",
            None,
            {"truthfulqa": {"true_info", "true", "info", "nll", "dist-1"},
             "truthfulqa-mc": {"mc1", "mc2", "mc3"}},
        ),
        (
            "ultrafeedback",
            "preference-llamafactory/dpo_en_demo.json",
            ("perplexity", "diversity"),
            {"ultrafeedback": {"nll", "dist-1"}, "ultrafeedback-preference": set()},
        ),
        (
            "ultrafeedback",
            "hh-rlhf-harmless-test/test.jsonl.gz",
            ("diversity",),
            {"ultrafeedback": {"dist-1"}, "ultrafeedback-preference": set()},
        ),
        (
            "realtoxicityprompts",
            "",
            ("small-toxicity", "repetition"),
            {"realtoxicityprompts": {"toxicity", "max_toxicity", "toxicity_rate", "repetition"}},
        ),
    ],
)  # fmt: skip
def test_published_data_on_a_real_model(
    shared: Path,
    tmp_path: Path,
    suite: str,
    files: str,
    judges: tuple[str, ...] | None,
    expected: dict[str, set[str]],
) -> None:
    lm = SteeredModel.from_pretrained(str(shared / "models" / "stories260K-hf"), device="cpu")
    outcome = run(lm, tmp_path, suite, shared / "data" / files, judges=judges)
    found = metrics(tmp_path)
    assert found.keys() == expected.keys()
    for task, names in expected.items():
        assert names <= found[task]
    assert outcome.failures() == []
    # What was trained here says how well it judges, beside every number that it gives.
    if suite == "truthfulqa":
        text = (tmp_path / "summary.md").read_text()
        assert "unseen questions accuracy" in text
        assert "unseen answers accuracy" in text


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"p{i} ", "chosen": f"yes {i}", "rejected": f"no {i}"} for i in range(30)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lm = SteeredModel(tiny_models.llama(), tiny_models.tokenizer())
    run(lm, tmp_path / "out", "contrast", path)
    assert metrics(tmp_path / "out") == {"contrast": {"mc1", "mc2", "mc3"}}


def test_answers_that_a_reward_model_likes(tmp_path: Path, model_folder: str) -> None:
    path = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"q{i}", "chosen": f"yes {i}", "rejected": f"no {i}"} for i in range(30)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    context = 256  # 128 new tokens are part of the protocol
    lm = SteeredModel(tiny_models.llama(max_position_embeddings=context), tiny_models.tokenizer())
    outcome = run(
        lm,
        tmp_path / "out",
        "ultrafeedback",
        path,
        judges=("reward-model",),
        judge_options={"reward-model": {"model": model_folder, "device": "cpu"}},
    )
    assert metrics(tmp_path / "out")["ultrafeedback"] == {"reward", "reward-p90", "win_rate"}
    assert metrics(tmp_path / "out", "none")["ultrafeedback"] == {"reward", "reward-p90"}
    written = [r for r in outcome.results if r.spec.task.name == "ultrafeedback"]
    rewards = [result.scores["reward"] for result in written]
    assert len(set(rewards)) > 1


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A reward model with random weights that reads whole answers."""
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    folder = tmp_path_factory.mktemp("reward")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tiny_models.VOCABULARY, hidden_size=16, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=16, max_position_embeddings=512, pad_token_id=0,
        num_labels=1, initializer_range=0.5,
    )  # fmt: skip
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tiny_models.tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """Twelve questions, each with a word of its own in it and in its answers."""
    folder = tmp_path / "data"
    folder.mkdir()
    rows = ["Question,Best Answer,Correct Answers,Incorrect Answers"]
    choices = []
    for i in range(12):
        own = f"w{i}x"
        rows.append(f"Is {own}?,Yes {own},Yes {own}; Sure {own},No {own}; Not {own}")
        targets = {f"Yes {own}": 1, f"No {own}": 0}
        choices.append({"question": f"Is {own}?", "mc1_targets": targets, "mc2_targets": targets})
    (folder / "TruthfulQA.csv").write_text("\n".join(rows))
    (folder / "mc_task.json").write_text(json.dumps(choices))
    return folder


def test_no_steerer_that_answers_a_question_has_seen_it(
    questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = SteeredModel(tiny_models.llama(max_position_embeddings=2048), tiny_models.tokenizer())
    fitted: dict[str, str] = {}
    tested: list[tuple[str, str]] = []
    generate = completions.generate_completions
    from odesteer.data import ContrastData
    from odesteer.tuning import fit_cache

    fit = fit_cache.fit_steerers

    def fitting(method: Any, activations: Any, data: ContrastData, *rest: Any) -> Any:
        fitted[data.digest()] = repr(
            [(e.prompt, e.response) for e in data.positive + data.negative]
        )
        return fit(method, activations, data, *rest)

    def generating(
        lm: Any, specs: Sequence[CompletionSpec], steerers: Sequence[Steerer | None], *rest: Any
    ) -> Any:
        for spec, steerer in zip(specs, steerers, strict=True):
            if steerer is not None:
                word = spec.item.group.removeprefix("Is ").removesuffix("?")
                tested.append((word, str(steerer.provenance.data_digest)))
        return generate(lm, specs, steerers, *rest)

    monkeypatch.setattr(fit_cache, "fit_steerers", fitting)
    monkeypatch.setattr(completions, "generate_completions", generating)
    run(lm, tmp_path / "out", "truthfulqa", questions, judges=("repetition",), limit=9)
    assert len({word for word, _ in tested}) == 12, "every question was answered under steering"
    assert len(fitted) == 2
    for word, digest in tested:
        assert word not in fitted[digest]
    # The words are there to be found: each was fitted on in the fold that does not ask it.
    for word in {word for word, _ in tested}:
        assert any(word in text for text in fitted.values()) or word in _validated(questions)


def _validated(questions: Path) -> set[str]:
    """Words of questions that settings are chosen on in one fold, and that none is fitted on."""
    tasks = BenchmarkConfig(suite="truthfulqa", model="m", data=questions, quick=True).tasks()
    items = [item for fold in tasks[0].folds(0) for item in fold.validation]
    return {item.group.removeprefix("Is ").removesuffix("?") for item in items}


def test_chats_are_asked_with_one_bos(
    questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = SteeredModel(tiny_models.llama(max_position_embeddings=2048), tiny_models.tokenizer())
    assert lm.tokenizer.chat_template.startswith("{{ bos_token }}")
    assert lm.tokenizer("a")["input_ids"][0] == lm.tokenizer.bos_token_id
    seen: list[int] = []
    forward = lm.model.forward

    def counting(input_ids: Any, *rest: Any, **named: Any) -> Any:
        cache = named.get("past_key_values")  # answers are scored behind their common prompt
        if input_ids.shape[1] > 1 and (cache is None or cache.get_seq_length() == 0):
            seen.extend((input_ids == lm.tokenizer.bos_token_id).sum(dim=1).tolist())
        return forward(input_ids, *rest, **named)

    monkeypatch.setattr(lm.model, "forward", counting)
    run(lm, tmp_path / "out", "truthfulqa", questions, judges=("repetition",), chat=True)
    assert set(seen) == {1}
