"""Parsing of arguments: prompts, models, amounts, method parameters."""

import json
import re

import pytest
from command import Run
from hypothesis import given
from hypothesis import strategies as st

from odesteer import CAA, Amount, Conditional, ODESteer, Sum
from odesteer.barriers import LinearBarrier, TensorSketchBarrier
from odesteer.cli.arguments.parameters import build_method, pairs_of
from odesteer.cli.arguments.prompts import model_and_prompts, read_prompts, unescaped
from odesteer.cli.errors import UsageError
from odesteer.cli.model.opening import looks_like_model
from odesteer.errors import InvalidInputError, OdesteerError
from odesteer.flows import RK4
from odesteer.methods import REControl


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"Q: Who?\nA:", "Q: Who?\nA:"),
        (r"a\tb", "a\tb"),
        (r"C:\\new", r"C:\new"),
        (r"\d and \x", r"\d and \x"),
        ("a\\", "a\\"),
        ("a\nb", "a\nb"),
    ],
)
def test_escapes(written: str, meant: str) -> None:
    assert unescaped(written) == meant
    assert read_prompts([written], raw=False) == [meant]
    assert read_prompts([written], raw=True) == [written]


@given(st.text())
def test_whatever_is_escaped_comes_back(text: str) -> None:
    assert unescaped(text.replace("\\", "\\\\").replace("\n", "\\n")) == text


def test_a_prompt_that_is_no_text_is_refused() -> None:
    with pytest.raises(UsageError, match="prompt 2 is not UTF-8"):
        read_prompts(["fine", "caf\udce9"], raw=False)


@pytest.mark.parametrize(
    ("word", "is_model"),
    [
        ("Qwen/Qwen2.5-0.5B", True),
        ("./models/mine", True),
        ("/models/mine", True),
        ("~/mine", True),
        ("model.Q4_K_M.gguf", True),
        ("owner/name/sub/model.GGUF", True),
        ("gpt2", False),
        ("what is a .gguf file", False),
        ("Once upon a time", False),
        ("yes / no", False),
        ("Q: and/or?", False),
        ("", False),
        ("x" * 5000, False),
    ],
)
def test_which_words_name_a_model(word: str, is_model: bool) -> None:
    assert looks_like_model(word) is is_model


def test_two_words_with_a_slash_are_no_model_unless_the_hub_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import huggingface_hub

    def repo_exists(self: object, name: str) -> bool:
        if name == "he/she":
            raise OSError("no connection")
        return name == "bigscience/bloom"

    monkeypatch.setattr(huggingface_hub.HfApi, "repo_exists", repo_exists)
    assert looks_like_model("bigscience/bloom")
    for words in ("and/or", "AC/DC", "he/she", "24/7"):
        assert model_and_prompts([words, "x"], None) == (None, [words, "x"])
    for cached in ("and/or", "he/she"):
        with monkeypatch.context() as patch:
            patch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: "config.json")
            assert model_and_prompts([cached, "x"], None) == (cached, ["x"])


def test_the_first_word_may_be_the_model(tmp_path) -> None:
    folder = str(tmp_path)
    assert model_and_prompts([folder, "a", "b"], None) == (folder, ["a", "b"])
    assert model_and_prompts(["a", "b"], None) == (None, ["a", "b"])
    assert model_and_prompts(["owner/name", "b"], "gpt2") == ("gpt2", ["owner/name", "b"])
    for words in ([], [folder]):
        with pytest.raises(UsageError, match="no PROMPT"):
            model_and_prompts(words, None)


def test_parameters_are_set_by_name_in_the_parts_too() -> None:
    words = ["barrier.C=10", "level=none", "T=2.5", "solver.n_steps=7", "barrier=linear"]
    method = build_method("odesteer", [*words, "solver=rk4"], seed=3)
    assert isinstance(method, ODESteer)
    assert isinstance(method.barrier, LinearBarrier)
    assert isinstance(method.solver, RK4)
    assert (method.barrier.C, method.solver.n_steps) == (10, 7)
    assert method.amount == Amount("T", 2.5)
    assert method.barrier.seed == 3


def test_the_defaults_are_those_of_the_class() -> None:
    assert repr(build_method("odesteer", [], seed=0)) == repr(ODESteer())
    assert repr(build_method("caa", [], seed=0)) == repr(CAA())


def test_parameters_of_training_are_found_where_they_moved() -> None:
    method = build_method("recontrol", ["barrier.keep_best=true", "barrier.max_epochs=7"], seed=0)
    assert isinstance(method, REControl)
    assert method.barrier.training.keep_best
    assert method.barrier.training.max_epochs == 7


def test_the_seed_goes_everywhere_but_where_another_is_said() -> None:
    method = build_method("odesteer", ["barrier=tensor-sketch"], seed=5)
    assert isinstance(method, ODESteer)
    assert isinstance(method.barrier, TensorSketchBarrier)
    assert method.barrier.seed == 5
    other = build_method("odesteer", ["barrier=tensor-sketch", "barrier.seed=6"], seed=5)
    assert isinstance(other, ODESteer)
    assert other.barrier.seed == 6


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("levl=2", "Did you mean 'level'"),
        ("barrier.Cc=2", "'Cc'"),
        ("level.x=2", "'x'"),
        ("level=high", "a number"),
        ("level=nan", "a number"),
        ("level=1e999", "a number"),
        ("solver.n_steps=2.5", "an integer"),
        ("barrier=lineer", "Did you mean 'linear'"),
        ("barrier=none", "none"),
        ("level", "name=value"),
        ("=2", "name=value"),
        ("level=", "name=value"),
    ],
)
def test_parameters_that_are_refused(word: str, said: str) -> None:
    with pytest.raises((InvalidInputError, UsageError), match=said.replace("'", ".")):
        build_method("odesteer", [word], seed=0)


def test_a_name_that_is_given_twice_is_refused() -> None:
    with pytest.raises(UsageError, match=r"twice.*'2'.*'3'"):
        pairs_of(["level=2", "level=3"], "--param")


def test_prompts_from_stdin(run: Run, model: str) -> None:
    words = ["generate", model, "first", "-", "last", "--max-new-tokens", 1, "--json"]
    outcome = run(*words, stdin="a\\nb\n\nc\n")
    assert [each["prompt"] for each in outcome.document["results"]] == [
        "first",
        "a\nb",
        "c",
        "last",
    ]
    empty = run("generate", model, "-", stdin="\n")
    assert empty.code == 2
    assert empty.says("no prompt on stdin")


def test_one_part_or_several() -> None:
    several = build_method("odesteer", ["barrier.inputs=raw,standardized"], seed=0)
    assert repr(several.barrier) == "PolynomialBarrier(inputs=(Raw(), Standardized()))"
    words = ["barrier.inputs=standardized", "barrier.inputs.damping=2", "barrier.C=1,10"]
    one = build_method("odesteer", words, seed=0)
    assert repr(one.barrier) == "PolynomialBarrier(C=(1, 10), inputs=Standardized(damping=2))"


def test_parts_of_composites() -> None:
    words = ["methods=caa,odesteer", "methods.0.T=2", "methods.1.barrier=linear", "weights=1,0.5"]
    method = build_method("sum", words, seed=3)
    assert isinstance(method, Sum)
    first, second = method.methods
    assert repr(first) == "CAA(amount=Amount('T', 2), fitting=Fitting(seed=3))"
    assert repr(second) == "ODESteer(barrier=LinearBarrier(fitting=Fitting(seed=3)))"
    assert method.weights == (1, 0.5)
    words = ["method=sum", "gate=minimum", "gate.barriers=linear,polynomial", "gate.barriers.0.C=9"]
    gated = build_method("conditional", [*words, "below=-0.5"], seed=0)
    assert isinstance(gated, Conditional)
    assert repr(gated.method) == "Sum()"
    assert repr(gated.gate).startswith("MinimumBarrier(barriers=(LinearBarrier(C=9)")
    assert gated.below == -0.5
    assert repr(build_method("sum", [], seed=0)) == "Sum()"  # nothing shared was changed


@pytest.mark.parametrize(
    ("method", "word", "said"),
    [
        ("sum", "methods=caa,odester", "Did you mean 'odesteer'"),
        ("sum", "methods.2.T=1", "holds 2 parts"),
        ("sum", "methods.T=1", "methods.0.PARAMETER=VALUE"),
        ("sum", "methods.0=caa", "methods.0.PARAMETER=VALUE"),
        ("sum", "methods.0.t=1", "CAA has no parameter 't'"),
        ("sum", "weights=high", "takes several with commas"),
        ("odesteer", "barrier=frozen", "'frozen' needs barrier, which cannot be written"),
        ("odesteer", "metric=matrix", "'matrix' needs matrix, which cannot be written"),
    ],
)
def test_parts_that_cannot_be(method: str, word: str, said: str) -> None:
    with pytest.raises(OdesteerError, match=re.escape(said)):
        build_method(method, [word], seed=0)


def test_methods_lists_every_method_with_what_it_takes(run: Run) -> None:
    from odesteer.methods import registry

    outcome = run("methods", "--json")
    rows = {row["name"]: row for row in outcome.document["methods"]}
    assert list(rows) == list(registry)
    for name in registry:
        cls = registry.get(name)
        assert rows[name]["quantities"] == list(cls().quantities)
        assert tuple(rows[name]["parameters"]) == cls.parameter_names()
        assert rows[name]["cost"] == cls.cost
        assert rows[name]["keeps_norm"] == cls().keeps_norm
    table = run("methods").out
    assert all(name in table for name in registry)
    json.dumps(rows)


def test_methods_writes_the_tables_of_the_documentation(run: Run) -> None:
    from odesteer.methods.table import markdown

    assert run("methods", "--markdown").out == markdown()
    both = run("methods", "--markdown", "--json")
    assert both.code == 2
    assert both.says("exclude each other")
