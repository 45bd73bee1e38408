"""``odesteer fit`` and ``odesteer inspect``."""

import dataclasses
import inspect
import json
import shutil
import typing
from pathlib import Path

import pytest
from command import Run

from gguf_files import save_gguf
from odesteer import Amount, Steerer, load, load_contrast
from odesteer.artifact import PARTS, POSITIONS
from odesteer.cli.arguments import options
from odesteer.cli.commands import fit as fit_module
from odesteer.cli.commands.tune import command as tune_module
from odesteer.models import CAPTURE_POSITIONS


def test_what_is_saved_is_what_was_asked_for(run: Run, model: str, pairs: str) -> None:
    words = ["--method", "caa", "--param", "T=2", "--seed", 4, "--json"]
    where = ["--layer", 1, "--position", "answer", "--steer-position", "all"]
    outcome = run("fit", model, "--data", pairs, "-o", "s.safetensors", *where, *words)
    assert outcome.code == 0
    steerer = load("s.safetensors")
    assert (steerer.site.layer, steerer.site.position) == (1, "all")
    assert (steerer.method.amount, steerer.method.seed) == (Amount("T", 2), 4)
    origin = steerer.provenance
    assert (origin.model_id, origin.capture_position, origin.seed) == ("tiny-llama", "answer", 4)
    assert (origin.n_positive, origin.n_negative) == (12, 12)
    assert origin.data_digest == load_contrast(pairs).digest()

    told = outcome.document
    assert told["digest"] == steerer.digest()
    assert told["bytes"] == Path("s.safetensors").stat().st_size
    assert told["held_out"] == dict(origin.held_out)
    assert told["warnings"] == []


def test_people_are_told_the_figures_and_what_to_do_next(run: Run, model: str, pairs: str) -> None:
    outcome = run("fit", model, "--data", pairs, "--layer", 2, "-o", "my steerer.safetensors")
    assert outcome.code == 0
    for part in ("AUC", "log loss", "12 positive, 12 negative", "layer 2", "level 1.5", "Next:"):
        assert part in outcome.out.replace("=", " ")
    command = next(line for line in outcome.out.splitlines() if "--compare" in line)
    assert f"odesteer generate {model} --steer 'my steerer.safetensors' --compare" in command
    assert outcome.out.splitlines()[-1].strip() == "odesteer inspect 'my steerer.safetensors'"


def test_a_gguf_file_is_fitted_and_generated_with(run: Run, pairs: str) -> None:
    pytest.importorskip("gguf", reason="writing a GGUF file needs gguf")
    save_gguf(Path("tiny.gguf"))
    words = ["--method", "caa", "--layer", 2, "-o", "s.safetensors"]
    assert run("fit", "tiny.gguf", "--data", pairs, *words).code == 0
    assert load("s.safetensors").provenance.model_id == "tiny.gguf"
    steered = ["--steer", "s.safetensors", "--max-new-tokens", 2, "--json"]
    outcome = run("generate", "tiny.gguf", *steered, "the dog")
    assert outcome.code == 0
    assert outcome.document["warnings"] == []
    assert run("fit", "tiny.gguf", "--data", pairs, "--layer", 4, "-o", "t").says(
        "4 decoder layers"
    )


def test_the_same_words_give_the_same_bytes(run: Run, model: str, pairs: str) -> None:
    for name in ("a", "b"):
        words = ["fit", model, "--data", pairs, "--layer", 2, "--position", "random_answer"]
        assert run(*words, "-o", name).code == 0
    assert Path("a").read_bytes() == Path("b").read_bytes()


def test_an_existing_file_is_replaced_only_by_force(run: Run, model: str, pairs: str) -> None:
    output = Path("s.safetensors")
    output.write_text("precious")
    words = ["fit", model, "--data", pairs, "--layer", 2, "-o", output]
    refused = run(*words)
    assert refused.code == 1
    assert refused.says("s.safetensors", "exists", "--force")
    assert output.read_text() == "precious"
    assert run(*words, "--force").code == 0
    assert isinstance(load(output), Steerer)


def test_columns_of_other_names(run: Run, model: str) -> None:
    rows = [{"good": f"warm {i}", "bad": f"cold {i}"} for i in range(8)]
    Path("d.json").write_text(json.dumps(rows))
    words = ["fit", model, "--data", "d.json", "--layer", 0, "-o", "s", "--column", "positive=good"]
    assert run(*words, "--column", "negative=bad").code == 0
    assert load("s").provenance.n_positive == 8


def test_a_file_for_each_side(run: Run, model: str) -> None:
    Path("a.txt").write_text("".join(f"warm {i}\n\n" for i in range(8)))
    Path("b.json").write_text(json.dumps([f"cold {i}" for i in range(6)]))
    words = ["fit", model, "--layer", 1, "--method", "caa", "-o", "s", "--positive", "a.txt"]
    for more, said in (
        ((), "--negative FILE"),
        (("--negative", "b.json", "--data", "a.txt"), "--data has both sides"),
    ):
        refused = run(*words, *more)
        assert refused.code == 2
        assert refused.says(said)
    assert run(*words, "--negative", "b.json").code == 0
    origin = load("s").provenance
    assert (origin.n_positive, origin.n_negative) == (8, 6)
    assert origin.data_digest == load_contrast(positive="a.txt", negative="b.json").digest()


def test_defaults_are_those_of_the_library() -> None:
    theirs = inspect.signature(load_contrast).parameters
    for command in (fit_module.fit, tune_module.tune):
        ours = inspect.signature(command).parameters
        for name in ("duplicates", "identical"):
            assert ours[name].default == theirs[name].default


@pytest.mark.parametrize(
    ("rows", "words", "advice"),
    [
        ('{"statement": "a", "true": 1}', (), "with --column text=statement."),
        ('{"text": "a"}', (), "with --column text=statement."),
        ('{"positive": "a", "negative": "a"}', (), "with --identical drop."),
        (
            '{"text": "a", "label": 1}\n{"text": "a", "label": 1}',
            ("--duplicates", "error"),
            "with --duplicates drop.",
        ),
        ('{"a": "b"}', ("--column", "texts=a"), "--column texts=a has the unknown field 'texts'"),
        ('{"a": "b"}', ("--split", "test"), "--split test is for data sets on the hub"),
        ('{"a": "b"}', ("--subset", "en"), "--subset en is for data sets on the hub"),
    ],
)
def test_errors_of_data_advise_options(
    run: Run, rows: str, words: tuple[str, ...], advice: str
) -> None:
    Path("d.jsonl").write_text(rows)
    refused = run("fit", "nowhere", "--data", "d.jsonl", "--layer", 1, "-o", "s", *words)
    assert refused.code == 1
    assert refused.says(advice)
    for argument in ("columns=", "identical=", "duplicates=", "split=", "name="):
        assert argument not in refused.err


def test_repeated_rows_are_dropped_unless_refused(run: Run, model: str, pairs: str) -> None:
    text = Path(pairs).read_text()
    Path("d.jsonl").write_text(text + text.splitlines()[3] + "\n")
    words = ["fit", model, "--data", "d.jsonl", "--layer", 2, "-o", "s", "--json"]
    refused = run(*words, "--duplicates", "error")
    assert refused.code == 1
    assert refused.says("line 13 repeats line 4", "drop")
    assert not Path("s").exists()
    dropped = run(*words)
    assert dropped.code == 0
    assert "warning: d.jsonl: dropped 1 of 13 rows" in dropped.err
    assert dropped.document["provenance"]["n_positive"] == 12
    assert sum("dropped 1" in text for text in dropped.document["warnings"]) == 1


def test_chats_that_the_template_refuses_before_weights_are_loaded(run: Run, model: str) -> None:
    folder = Path("refusing")
    shutil.copytree(model, folder)
    (folder / "chat_template.jinja").write_text(
        "{{ raise_exception('System role not supported') }}"
    )
    (folder / "model.safetensors").unlink()
    chat = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"}]
    row = {
        "prompt": chat,
        "chosen": [{"role": "assistant", "content": "a"}],
        "rejected": [{"role": "assistant", "content": "b"}],
    }
    Path("d.jsonl").write_text(json.dumps(row) + "\n")
    refused = run("fit", folder, "--data", "d.jsonl", "--layer", 2, "-o", "s")
    assert refused.code == 1
    assert refused.says("the chat template refuses example 0", "roles system, user", "head of the")
    unknown = run(
        "fit",
        model,
        "--data",
        "d.jsonl",
        "--layer",
        2,
        "-o",
        "s",
        "--chat-template-kwargs",
        '{"enable_thinking": false}',
    )
    assert unknown.says("does not mention 'enable_thinking'")
    assert (
        run(
            "fit",
            model,
            "--data",
            "d.jsonl",
            "--layer",
            2,
            "-o",
            "s",
            "--chat-template-kwargs",
            "[1]",
        ).code
        == 2
    )


def test_steering_positions_are_checked_before_anything_is_read(run: Run, model: str) -> None:
    words = ["fit", model, "--data", "none.jsonl", "--layer", 2, "-o", "s", "--steer-position"]
    for position, message in (
        ("first", "must be one of last, generated"),
        ("generated:-3:", "counts from the end of the text"),
        ("after:", "has no marker"),
    ):
        refused = run(*words, position)
        assert refused.code == 2
        assert refused.says(message)


def test_the_choices_in_the_help_are_those_of_the_library() -> None:
    assert all(word in options.STEER_POSITION_HELP for word in POSITIONS)
    assert typing.get_args(options.CapturePosition) == CAPTURE_POSITIONS
    assert typing.get_args(fit_module.LayerPart) == PARTS


def test_inspect_shows_everything_that_is_in_the_file(run: Run, steerer: str) -> None:
    found = load(steerer)
    document = run("inspect", steerer, "--json").document
    assert document["digest"] == found.digest()
    assert document["site"] == {"layer": 2, "position": "last", "part": "residual"}
    assert document["width"] == found.width
    assert document["levels"] == {"1": found.barrier.upper_, "-1": found.barrier.lower_}
    assert document["held_out"] == dict(found.provenance.held_out)
    assert document["provenance"]["model_id"] == "tiny-llama"
    n_numbers = sum(_count(tensor["shape"]) for tensor in document["tensors"].values())
    assert n_numbers * 4 < document["bytes"]
    text = run("inspect", steerer).out
    figures = ("held-out AUC", "of a standardised linear probe")
    for part in (found.digest(), "ODESteer", "tiny-llama", "layer 2", *figures):
        assert part in text
    for part in document["tensors"]:
        assert part in text


def _count(shape: list[int]) -> int:
    n = 1
    for length in shape:
        n *= length
    return n


def test_inspect_shows_a_bare_method(run: Run) -> None:
    import torch

    from odesteer import CAA, save

    fitted = CAA().fit(torch.randn(20, 4) + 1, torch.randn(20, 4) - 1)
    save(fitted, "bare.safetensors")
    outcome = run("inspect", "bare.safetensors")
    assert outcome.code == 0
    assert "not bound to a layer" in outcome.out
    refused = run("generate", "--steer", "bare.safetensors", "Once")
    assert refused.code == 2
    assert refused.says("bare.safetensors", "not bound to a layer")


@pytest.mark.parametrize("broken", ["", "not a steerer", "half"])
def test_inspect_refuses_what_is_no_steerer(run: Run, steerer: str, broken: str) -> None:
    whole = Path(steerer).read_bytes()
    Path("x").write_bytes(whole[: len(whole) // 2] if broken == "half" else broken.encode())
    outcome = run("inspect", "x")
    assert outcome.code == 1
    assert outcome.says("cannot load x: ")


def test_inspect_says_what_held_out_figures_say_against_a_fit(run: Run, steerer: str) -> None:
    found = load(steerer)
    figures = {"auc": 0.56, "auc_error": 0.02}
    probe = {"linear_probe_auc": 0.86, "linear_probe_auc_error": 0.01}
    origin = dataclasses.replace(found.provenance, held_out={**figures, **probe})
    Steerer(found.method, found.site, origin).save("blind.safetensors")
    text = " ".join(run("inspect", "blind.safetensors").out.split())
    assert "0.560 ± 0.020" in text
    assert "0.860 ± 0.010, of a standardised linear probe" in text
    assert "AUC 0.56: levels are near noise" in text
    assert "--position, --layer" in text
    assert "far behind the 0.86" in text


def test_a_barrier_is_learned_end_to_end(run: Run, model: str, pairs: str) -> None:
    Path("neutral.txt").write_text("Hello\nWhy?\nWho is it?\nGood day\nHow so?\nA river\n")
    quick = ["--param", "training.max_epochs=1", "--param", "barrier=gated-potential"]
    words = ["--method", "end-to-end", "--kl", 0.05, "--neutral", "neutral.txt", *quick, "--json"]
    outcome = run("fit", model, "--data", pairs, "--layer", 1, "-o", "s.safetensors", *words)
    assert outcome.code == 0
    steerer = load("s.safetensors")
    assert type(steerer.method).__name__ == "EndToEnd"
    assert type(steerer.method.barrier).__name__ == "GatedPotential"
    assert steerer.provenance.held_out["kl_asked_for"] == 0.05
    assert outcome.document["held_out"] == dict(steerer.provenance.held_out)
    shown = run("inspect", "s.safetensors")
    assert "kl asked for" in shown.out.replace("_", " ")


def test_a_system_prompt_is_distilled(run: Run, model: str) -> None:
    Path("prompts.txt").write_text("Who?\nWhy?\nWhen?\nWhere?\nWhat?\nHow?\n")
    quick = ["--param", "training.max_epochs=1", "--neutral", "prompts.txt"]
    where = ["--layer", 1, "-o", "s.safetensors", *quick]
    words = ["--distil", "Say yes.", "--prompts", "prompts.txt"]
    assert run("fit", model, *words, *where).code == 0
    steerer = load("s.safetensors")
    assert steerer.method.objective.system == "Say yes."
    assert steerer.provenance.n_positive == 6


def test_options_of_training_that_do_not_go_together(run: Run, model: str, pairs: str) -> None:
    Path("prompts.txt").write_text("Who?\n")
    Path("empty.txt").write_text("\n")
    where = ["--layer", 1, "-o", "s.safetensors"]
    data = ["--data", pairs]
    for words, said in (
        (["--distil", "Be kind."], "belong together"),
        ([*data, "--prompts", "prompts.txt"], "belong together"),
        ([*data, "--distil", "a", "--prompts", "prompts.txt"], "leave the data out"),
        ([*data, "--method", "caa", "--kl", 0.1], "--method end-to-end"),
        ([*data, "--neutral", "prompts.txt"], "is for --method end-to-end"),
        ([*data, "--choose-layer"], "is for --method end-to-end"),
        ([*data, "--method", "end-to-end", "--choose-layer"], "repeat --layer"),
        ([*data, "--method", "end-to-end", "--kl", -1], "positive number"),
        (["--distil", "a", "--prompts", "empty.txt"], "has no text"),
        (["--distil", "a", "--prompts", "missing.txt"], "missing.txt"),
        (["--distil", " ", "--prompts", "prompts.txt"], "needs a system prompt"),
    ):
        outcome = run("fit", model, *words, *where)
        assert outcome.code == 2, words
        assert said in " ".join(outcome.err.split()), outcome.err
    assert not Path("s.safetensors").exists()
