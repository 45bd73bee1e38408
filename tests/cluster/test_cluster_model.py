"""Captures, fits and texts of workers equal those of a single process to the byte."""

from pathlib import Path

import pytest
import torch

from odesteer import ContrastData, Example, ODESteer, SteeredModel, Steerer
from odesteer.cluster import Cluster, ClusterModel, ModelSource
from odesteer.errors import InvalidInputError, ModelError

PROMPTS = [" ".join(["the cat sat", "on a mat"][: 1 + i % 2] * (1 + i % 3)) for i in range(10)]


@pytest.fixture(scope="module")
def pairs() -> ContrastData:
    def example(i: int, word: str) -> Example:
        return Example(PROMPTS[i], f" {word}" * (1 + i % 5))

    positive = tuple(example(i, "sat") for i in range(10))
    negative = tuple(example(i, "mat") for i in range(10))
    groups = tuple(map(str, range(10)))
    return ContrastData(positive, negative, groups, groups)


@pytest.fixture(scope="module")
def steerer(alone: SteeredModel, pairs: ContrastData) -> Steerer:
    return alone.fit(ODESteer(), pairs, 2)


def test_tokens_drawn_from_the_heads_of_several_layers(
    alone: SteeredModel, together: ClusterModel, pairs: ContrastData, tmp_path: Path
) -> None:
    examples = (*pairs.positive, *pairs.negative)
    how = {"part": "heads", "k": 2, "seed": 3, "batch_size": 3}
    one = alone.capture(examples, [1, 3], "random_answer", **how)
    two = together.capture(examples, [1, 3], "random_answer", folder=tmp_path, **how)
    assert torch.equal(one.example, two.example)
    assert len(one.example) > len(examples)
    assert all(torch.equal(one.states[layer], two.states[layer]) for layer in (1, 3))
    # All of it is in the folder: no worker is asked again.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(together, "source", ModelSource.of("nobody/nothing"))
        with pytest.raises(InvalidInputError, match="another capture"):
            together.capture(examples, [1, 3], "random_answer", folder=tmp_path, **how)
        patch.undo()
        patch.setattr("odesteer.cluster.capture.capture", None)
        again = together.capture(examples, [1, 3], "random_answer", folder=tmp_path, **how)
    assert torch.equal(again.states[3], two.states[3])


def test_several_positions_in_one_pass(
    alone: SteeredModel, together: ClusterModel, pairs: ContrastData, tmp_path: Path
) -> None:
    runs: list[int] = []
    inside = Cluster.map
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Cluster, "map", lambda *args: runs.append(len(args[2])) or inside(*args))
        found = together.capture(
            pairs.positive, [1, 3], ("random_answer", "last", "prompt"), batch_size=3, k=2, seed=3
        )
        given = {"batch_size": 3, "folder": tmp_path}
        stored = together.capture(pairs.positive, [1, 3], ("prompt", "answer"), **given)
    assert runs == [4, 4]  # batches of ten examples, whatever the positions
    assert list(found) == ["random_answer", "last", "prompt"]
    assert list(stored) == ["prompt", "answer"]
    for captured in (found, stored):
        for position, own in captured.items():
            drawn = {"k": 2, "seed": 3} if position == "random_answer" else {}
            wanted = alone.capture(pairs.positive, [1, 3], position, batch_size=3, **drawn)
            assert torch.equal(own.example, wanted.example)
            assert all(torch.equal(own.states[layer], wanted.states[layer]) for layer in (1, 3))


def test_greedy_texts_and_receipts_of_rows_steered_differently(
    alone: SteeredModel, together: ClusterModel, steerer: Steerer
) -> None:
    how = {"level": [None, 1.0] * 5, "max_new_tokens": 8, "batch_size": 3, "receipt": True}
    own = [steerer] * 8 + [None] * 2
    one, two = (lm.generate(PROMPTS, own, **how) for lm in (alone, together))
    assert repr(one) == repr(two)
    assert any(text.before != text.after for text in one)


def test_sampled_texts(alone: SteeredModel, together: ClusterModel, steerer: Steerer) -> None:
    how = {"do_sample": True, "seed": 7, "max_new_tokens": 8, "batch_size": 3}
    one, two = (lm.generate(PROMPTS, steerer, T=2.0, **how) for lm in (alone, together))
    assert one == two
    assert one != alone.generate(PROMPTS, steerer, T=2.0, **{**how, "seed": 8})


def test_what_cannot_be_done_is_refused_before_workers_start(
    together: ClusterModel, pairs: ContrastData, steerer: Steerer
) -> None:
    for wrong, said in (
        ({"stream": print}, "do not stream"),
        ({"seed": None}, "give a seed"),
        ({"batch_size": 0}, "batch_size must be a positive integer"),
        ({"level": [1.0]}, "10 prompts and 1 amounts"),
    ):
        with pytest.raises(InvalidInputError, match=said):
            together.generate(PROMPTS, steerer, **wrong)
    with pytest.raises(InvalidInputError, match="at least one layer"):
        together.capture([], 1)
    with pytest.raises(InvalidInputError, match=r"prompt 9 .* context"):
        together.generate([*PROMPTS[:9], "the cat sat " * 1000])


def test_workers_do_not_know_of_contexts(
    alone: SteeredModel, together: ClusterModel, steerer: Steerer, pairs: ContrastData
) -> None:
    held = ClusterModel(alone.model, alone.tokenizer, together.cluster, together.source)
    with held.steering(steerer), held.steering(steerer):
        held.model(torch.tensor([[1, 2]]))
        for use in (lambda: held.generate("the cat"), lambda: held.capture(pairs.positive, 1)):
            with pytest.raises(ModelError, match="leave it, and give steerers to generate"):
                use()
    assert len(held.generate("the cat", max_new_tokens=2)) == 1


def test_divergences_are_measured_here_if_the_weights_are(
    alone: SteeredModel, together: ClusterModel, steerer: Steerer
) -> None:
    held = ClusterModel(alone.model, alone.tokenizer, together.cluster, together.source)
    how = {"prompts": PROMPTS[:4], "max_new_tokens": 4}
    wanted = alone.divergence(steerer, level=1.0, **how)
    assert wanted.mean > 0
    assert torch.equal(held.divergence(steerer, level=1.0, **how).per_text, wanted.per_text)
    with pytest.raises(ModelError, match="measured where the weights are"):
        together.divergence(steerer, level=1.0, **how)
