"""Several positions take one pass, and each gives what it gives alone."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from steerers import Watch, caa, pairs

import tiny_models
from odesteer.data import Example
from odesteer.errors import InvalidInputError
from odesteer.methods import CAA
from odesteer.models import CAPTURE_POSITIONS, Activations, SteeredModel
from odesteer.models.capture import spill
from odesteer.tuning.fit_cache import FitCache

WORDS = "the dog and the cat or who is it"
LAYERS = [3, 0]
EXAMPLES = [Example(WORDS[: 3 * i], f" {WORDS[i : 5 * i + 4]}") for i in range(7)]


def assert_equal(found: Activations, wanted: Activations) -> None:
    assert list(found.states) == list(wanted.states)
    assert torch.equal(found.example, wanted.example)
    for layer, states in wanted.states.items():
        assert torch.equal(found.states[layer], states)


_TEXTS = st.tuples(st.integers(0, 20), st.integers(2, 30)).map(
    lambda n: Example(WORDS[: n[0]], f" {WORDS[: n[1]]}")
)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_each_position_is_what_it_is_alone(lm: SteeredModel, data: st.DataObject) -> None:
    draw = data.draw
    examples = draw(st.lists(_TEXTS, min_size=1, max_size=6))
    positions: Any = tuple(draw(st.lists(st.sampled_from(CAPTURE_POSITIONS), min_size=1)))
    k = draw(st.none() | st.integers(1, 9)) if "random_answer" in positions else None
    how: dict[str, Any] = {
        "part": draw(st.sampled_from(["residual", "heads"])),
        "side": draw(st.sampled_from(["left", "right"])),
        "batch_size": draw(st.none() | st.integers(1, 4)),
        "seed": draw(st.integers(0, 3)),
    }
    with tempfile.TemporaryDirectory() as folder:
        stored = Path(folder) / "new" if draw(st.booleans()) else None
        found = lm.capture(examples, LAYERS, positions, k=k, folder=stored, **how)
        assert list(found) == list(dict.fromkeys(positions))
        for position, own in found.items():
            drawn = {"k": k} if position == "random_answer" else {}
            alone = lm.capture(examples, LAYERS, position, **drawn, **how)  # type: ignore[call-overload]
            assert_equal(own, alone)


def test_three_positions_take_the_passes_of_one(lm: SteeredModel, tmp_path: Path) -> None:
    for folder in (None, tmp_path):
        with Watch(lm.layers.at(0)) as ran:
            lm.capture(EXAMPLES, LAYERS, ("last", "answer", "prompt"), batch_size=3, folder=folder)
        assert len(ran.states) == 3


def test_one_position_in_a_list_comes_by_its_name(lm: SteeredModel) -> None:
    (found,) = lm.capture(EXAMPLES, 1, ["prompt"]).items()
    assert found[0] == "prompt"
    assert_equal(found[1], lm.capture(EXAMPLES, 1, "prompt"))


def test_positions_of_a_steered_model(lm: SteeredModel) -> None:
    with lm.steering(caa(layer=0, position="all")):
        found = lm.capture(EXAMPLES, 2, ("answer", "last"))
        assert_equal(found["last"], lm.capture(EXAMPLES, 2, "last"))
    assert not torch.allclose(
        found["last"].states[2], lm.capture(EXAMPLES, 2, "last").states[2], atol=1e-3
    )


def test_what_is_there_is_not_computed_again(
    lm: SteeredModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill.ActivationShards.__init__, "__defaults__", (1,))
    how: dict[str, Any] = {"batch_size": 2, "seed": 5, "k": 2, "folder": tmp_path}
    wanted = lm.capture(EXAMPLES, LAYERS, ("prompt", "random_answer"), **how)
    kept = {
        name: Activations(dict(own.states), own.example.clone()) for name, own in wanted.items()
    }
    (tmp_path / "shard-00002.safetensors").unlink()
    for n_passes in (1, 0):
        with Watch(lm.layers.at(0)) as ran:
            again = lm.capture(EXAMPLES, LAYERS, ("random_answer", "prompt"), **how)
        assert len(ran.states) == n_passes
        assert list(again) == ["random_answer", "prompt"]
        for name, own in again.items():
            assert_equal(own, kept[name])
    others: tuple[Any, ...] = ("prompt", "random_answer", ("random_answer", "last"))
    for other in others:
        given = {**how, "k": None} if other == "prompt" else how
        with pytest.raises(InvalidInputError, match="holds the activations of another capture"):
            lm.capture(EXAMPLES, LAYERS, other, **given)


def test_a_layer_of_a_folder_is_read_when_it_is_asked_for(lm: SteeredModel, tmp_path: Path) -> None:
    found = lm.capture(EXAMPLES, LAYERS, ("last", "answer"), folder=tmp_path)["last"]
    first = found.states[0]
    assert torch.equal(first, found.states[0])
    (tmp_path / "shard-00000.safetensors").unlink()
    with pytest.raises(FileNotFoundError):
        found.states[0]
    with pytest.raises(KeyError):
        lm.capture(EXAMPLES, LAYERS, ("last", "answer"))["last"].states[1]


def test_what_cannot_be_captured(lm: SteeredModel) -> None:
    wrong: dict[Any, str] = {
        (): "give at least one position to capture at",
        ("last", "middle"): "position must be one of last, .*, not 'middle'",
        ("last", ("answer",)): r"position must be one of last, .*, not \('answer',\)",
        frozenset({"last"}): "position must be one of last, .*, not frozenset",
        None: "position must be one of last, .*, not None",
    }
    for positions, said in wrong.items():
        with pytest.raises(InvalidInputError, match=said):
            lm.capture(EXAMPLES, 1, positions)
    with pytest.raises(InvalidInputError, match=r"k=3 has no use with position=\('last', 'an"):
        lm.capture(EXAMPLES, 1, ("last", "answer"), k=3)
    with pytest.raises(InvalidInputError, match="k must be a positive integer, not 0"):
        lm.capture(EXAMPLES, 1, ("last", "random_answer"), k=0)
    bare = SteeredModel(tiny_models.llama(), tiny_models.tokenizer(adds_bos=False))
    with pytest.raises(InvalidInputError, match="example 0 has no prompt token"):
        bare.capture(EXAMPLES, 1, ("last", "prompt"))


def test_a_fit_takes_one_position(lm: SteeredModel) -> None:
    both: Any = ("last", "answer")
    for fit in (
        lambda: lm.fit(CAA(), pairs(), 1, position=both),
        lambda: FitCache(lm, pairs(), both),
    ):
        with pytest.raises(InvalidInputError, match=r"must be one of last, .*, not \('last', 'an"):
            fit()
