"""Invalid input: exit code, error message, and files left unchanged."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from command import CommandResult, Run, files_in, save_model

import tiny_models
from odesteer.cli.output import files as output_files


@pytest.fixture
def refused(run: Run, tmp_path: Path):
    """Runs a command that must fail and leave every file as it was."""

    def _refused(*words: object) -> CommandResult:
        before = files_in(tmp_path)
        outcome = run(*words)
        assert files_in(tmp_path) == before
        assert outcome.code != 0
        assert outcome.out == ""
        return outcome

    return _refused


@pytest.fixture
def fit(refused, model: str, pairs: str):
    """``odesteer fit`` with one thing changed."""

    def _fit(model: str = model, data: object = pairs, layer: object = 2, *more: object):
        words = ("--data", data, "--layer", layer, "-o", "s.safetensors")
        return refused("fit", model, *words, *more)

    return _fit


def test_no_such_file_of_data(fit) -> None:
    Path("pears.jsonl").write_text("{}")
    outcome = fit(data="pairs.jsonl")
    assert outcome.code == 1
    assert outcome.says("pairs.jsonl", "pears.jsonl")


def test_no_such_folder_of_a_model(fit, refused, steerer: str) -> None:
    outcome = fit("./models/mine")
    assert outcome.code == 1
    assert outcome.says("no folder ./models/mine")
    again = refused("generate", "./models/mine", "--steer", steerer, "Once")
    assert again.says("no folder ./models/mine")


def test_no_such_gguf_file(fit) -> None:
    for name in ("mine.gguf", "./models/mine.gguf"):
        outcome = fit(name)
        assert outcome.code == 1
        assert outcome.says(f"no file {name}")


def test_a_folder_that_holds_no_model(fit) -> None:
    Path("empty").mkdir()
    outcome = fit("empty")
    assert outcome.code == 1
    assert outcome.says("'empty'", "config.json")


def test_no_such_model_on_the_hub(fit, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    def _offline(*args: object, **options: object) -> None:
        raise OSError("We couldn't connect to 'https://huggingface.co'")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", _offline)
    outcome = fit("nobody/nothing")
    assert outcome.code == 1
    assert outcome.says("'nobody/nothing'", "connection")


@pytest.mark.parametrize("layer", [4, -1, 1000])
def test_layer_out_of_range(fit, layer: int) -> None:
    outcome = fit(layer=layer)
    assert outcome.code == 2
    assert outcome.says(f"--layer {layer}", "from zero")


def test_a_layer_is_refused_before_the_weights_are_read(fit, model: str, tmp_path: Path) -> None:
    folder = tmp_path / "config-only"
    folder.mkdir()
    shutil.copy(Path(model) / "config.json", folder)
    assert fit(str(folder), layer=4).says("4 decoder layers", "0 to 3")


def test_unknown_methods_and_parameters(fit) -> None:
    method = fit("nowhere", "nothing", 2, "--method", "odester")
    assert method.code == 2
    assert method.says("'odester'", "Did you mean 'odesteer'")
    parameter = fit("nowhere", "nothing", 2, "--param", "levl=2")
    assert parameter.code == 2
    assert parameter.says("'levl'", "Did you mean 'level'")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no rows"),
        (b'{"text": "a", "label": 1}\n{"text": "b", "label": 1}\n', "negative"),
        (b'{"positive": "caf\xe9", "negative": "b"}\n', "not UTF-8"),
        (b'{"positive": "a", "negative": "a"}\n', "both sides"),
        (b'{"positive": "a", "negative": "a"}\n', "with --identical drop."),
        (b'{"statement": "a", "label": 1}\n', "with --column text=statement."),
        (b'["a", "b"]', "name a file for each side, positive and negative"),
        (b'{"positive": "a", "negative": 3}\n', "'negative'"),
        (b'{"positive": "a"', "JSON"),
        (b'{"chosen": "a"}\n', "'rejected'"),
    ],
)
def test_data_that_cannot_be_used(fit, content: bytes, said: str) -> None:
    Path("d.jsonl").write_bytes(content)
    outcome = fit(data="d.jsonl")
    assert outcome.code == 1
    assert outcome.says("d.jsonl", said)


def test_a_line_of_two_gigabytes(run: Run, model: str) -> None:
    with Path("d.jsonl").open("wb") as file:
        file.write(b'{"positive": "')
        file.truncate(2_000_000_000)  # sparse: takes no room on the disk
    outcome = run("fit", model, "--data", "d.jsonl", "--layer", 2, "-o", "s")
    assert outcome.code == 1
    assert outcome.says("d.jsonl, line 1", "longer than")
    assert not Path("s").exists()


def test_too_few_examples(fit) -> None:
    Path("d.jsonl").write_text('{"positive": "warm", "negative": "cold"}\n')
    outcome = fit(data="d.jsonl")
    assert outcome.code == 1
    assert outcome.says("1")


def test_an_example_longer_than_the_context(fit) -> None:
    Path("d.jsonl").write_text(json.dumps({"positive": "warm " * 50, "negative": "cold"}) + "\n")
    outcome = fit(data="d.jsonl")
    assert outcome.code == 1
    assert outcome.says("context", str(tiny_models.CONTEXT))


def test_activations_that_are_not_finite(fit, tmp_path: Path) -> None:
    broken = tiny_models.llama()
    with torch.no_grad():
        broken.model.layers[1].mlp.down_proj.weight[3, 3] = torch.nan
    broken.save_pretrained(tmp_path / "broken")
    tiny_models.tokenizer().save_pretrained(tmp_path / "broken")
    outcome = fit(str(tmp_path / "broken"))
    assert outcome.code == 1
    assert outcome.says("NaN", "layer 2")


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("a-file/s.safetensors", "is a file, not a folder"),
        ("nowhere/s.safetensors", "there is no folder"),
        ("a-folder", "it is a folder"),
        ("a-file", "exists"),
    ],
)
def test_an_output_that_cannot_be_written(
    refused, model: str, pairs: str, output: str, said: str
) -> None:
    Path("a-file").write_text("precious")
    Path("a-folder").mkdir()
    outcome = refused("fit", "nowhere", "--data", pairs, "--layer", 2, "-o", output)
    assert outcome.code == 1
    assert outcome.says(output, said)


def test_a_read_only_output(refused, pairs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("old").write_text("precious")
    Path("locked").mkdir()
    # The superuser may write everywhere, so permissions of real files would not tell.
    read_only = {str(Path("old").resolve()), str(Path("locked").resolve())}
    access = os.access
    monkeypatch.setattr(
        output_files.os,
        "access",
        lambda path, mode: str(path) not in read_only and access(path, mode),
    )
    words = ["fit", "nowhere", "--data", pairs, "--layer", 2, "-o"]
    assert refused(*words, "locked/s").says("locked/s", "read-only")
    assert refused(*words, "old", "--force").says("old", "read-only")
    assert refused("demo", "-o", "locked/new").says("locked/new", "read-only")


def test_the_width_of_another_model(refused, steerer: str, tmp_path: Path) -> None:
    wide = save_model(tmp_path / "wide", hidden_size=64)
    outcome = refused("generate", wide, "--steer", steerer, "Once")
    assert outcome.code == 1
    assert outcome.says("width 32", "'tiny-llama'", "width 64")


def test_a_layer_that_another_model_does_not_have(refused, steerer: str, tmp_path: Path) -> None:
    shallow = save_model(tmp_path / "shallow", num_hidden_layers=2)
    outcome = refused("generate", shallow, "--steer", steerer, "Once")
    assert outcome.code == 1
    assert outcome.says("no layer 2", "0 to 1")


def test_a_steerer_of_another_model_where_none_is_named(refused, steerer: str) -> None:
    outcome = refused("generate", "--steer", steerer, "Once")
    assert outcome.code == 2
    assert outcome.says("'tiny-llama'", "odesteer generate MODEL --steer")


def test_no_such_steerer(refused, model: str, steerer: str) -> None:
    shutil.copy(steerer, "sunny.safetensors")
    outcome = refused("generate", model, "--steer", "suny.safetensors", "Once")
    assert outcome.code == 1
    assert outcome.says("suny.safetensors", "no such file", "sunny.safetensors")


def test_a_truncated_steerer(refused, model: str, steerer: str) -> None:
    Path("s").write_bytes(Path(steerer).read_bytes()[:-100])
    outcome = refused("generate", model, "--steer", "s", "Once")
    assert outcome.code == 1
    assert outcome.says("cannot load s", "truncated")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--level", "nan"), "finite"),
        (("--level", "inf"), "finite"),
        (("--level", "1", "--T", "5"), "level=1.0 and T=5.0"),
        (("--strength", "1", "--T", "5"), "T=5.0 and strength=1.0"),
        (("--interpolation", "0.5"), "level or T or strength"),
        (("--temperature", "0"), "--greedy"),
        (("--temperature", "nan"), "--temperature nan"),
        (("--top-p", "1.5"), "--top-p 1.5"),
        (("--greedy", "--temperature", "1"), "--temperature"),
        (("--greedy", "--seed", "1"), "--seed"),
        (("--stream", "--json"), "--stream"),
        (("--stream", "another"), "--stream"),
        (("--max-new-tokens", "0"), "max-new-tokens"),
        (("--max-new-tokens", "96"), "context of 96"),
        (("--device", "gpu"), "'gpu'"),
        (("--dtype", "float8"), "'float8'"),
        (("--revision", "main"), "--revision"),
        (("x" * 100,), "prompt 2"),
    ],
)
def test_options_that_cannot_be_honoured(
    run: Run, model: str, steerer: str, words: tuple[str, ...], said: str
) -> None:
    outcome = run("generate", model, "--steer", steerer, "Once", *words)
    assert outcome.code == 2
    assert outcome.says(said)


@pytest.mark.parametrize(
    ("amount", "said"),
    [("@high", "'high'"), ("@speed=3", "'speed'"), ("@nan", "finite"), ("@T=", "'T='")],
)
def test_amounts_behind_files(refused, model: str, steerer: str, amount: str, said: str) -> None:
    outcome = refused("generate", model, "--steer", steerer + amount, "Once")
    assert outcome.code == 2
    assert outcome.says(said)


def test_two_amounts_for_one_steerer(refused, model: str, steerer: str) -> None:
    outcome = refused("generate", model, "--steer", f"{steerer}@1", "--level", 2, "Once")
    assert outcome.code == 2
    assert outcome.says("@1", "--level")


@pytest.mark.parametrize("words", [("--level", "2"), ("--compare",)])
def test_options_that_need_a_steerer(refused, model: str, words: tuple[str, ...]) -> None:
    outcome = refused("generate", model, "Once", *words)
    assert outcome.code == 2
    assert outcome.says(words[0], "--steer")


def test_no_prompt(refused, model: str, steerer: str) -> None:
    for words in ((), (model,)):
        outcome = refused("generate", *words, "--steer", steerer)
        assert outcome.code == 2
        assert outcome.says("no PROMPT")
