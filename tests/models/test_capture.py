"""Captured activations are those of a plain forward pass over each example alone."""

import threading
from typing import Any

import pytest
import torch
from steerers import Watch, hooks_of
from torch import Tensor

import tiny_models
from odesteer.data import Example, Message
from odesteer.errors import InvalidInputError, ModelError
from odesteer.models import CAPTURE_POSITIONS, SteeredModel
from odesteer.models.tokens.capture_positions import captured_tokens

EXAMPLES = [
    Example("who is there?", " it is the dog and the cat"),
    Example("", "short"),
    Example("a prompt of medium length:", " yes"),
    Example((Message("user", "and now?"),), "nothing at all"),
    Example("the the the", " and"),
]


def plain_forward(lm: SteeredModel, layer: int, example: Example) -> Tensor:
    """All hidden states `[columns, d]` of one example, without batch, padding or early stop."""
    with Watch(lm.layers.at(layer)) as watch, torch.no_grad():
        lm.model(torch.tensor([lm.encode(example).ids]))
    return watch.states[0][0]


@pytest.mark.parametrize("side", ["right", "left"])
def test_every_architecture_layer_and_padding_side(any_lm: SteeredModel, side: Any) -> None:
    layers = [0, 2, 3]
    captured = any_lm.capture(EXAMPLES, layers, "answer", batch_size=3, side=side)
    for layer in layers:
        wanted = [
            plain_forward(any_lm, layer, example)[any_lm.encode(example).n_prompt :]
            for example in EXAMPLES
        ]
        torch.testing.assert_close(captured.states[layer], torch.cat(wanted), rtol=1e-3, atol=1e-4)
        counts = torch.tensor([len(part) for part in wanted])
        assert torch.equal(captured.example, torch.arange(5).repeat_interleave(counts))


def test_last_is_the_last_token_in_the_order_given(lm: SteeredModel) -> None:
    captured = lm.capture(EXAMPLES, 1)
    wanted = torch.stack([plain_forward(lm, 1, example)[-1] for example in EXAMPLES])
    torch.testing.assert_close(captured.states[1], wanted, rtol=1e-4, atol=1e-5)
    assert captured.example.tolist() == [0, 1, 2, 3, 4]


def test_prompt_is_the_last_token_before_the_response(lm: SteeredModel) -> None:
    captured = lm.capture(EXAMPLES, 1, "prompt")
    wanted = [plain_forward(lm, 1, e)[lm.encode(e).n_prompt - 1] for e in EXAMPLES]
    torch.testing.assert_close(captured.states[1], torch.stack(wanted), rtol=1e-4, atol=1e-5)


def test_random_answer_takes_k_of_the_response_by_seed(lm: SteeredModel) -> None:
    encoded = [lm.encode(example) for example in EXAMPLES]
    tokens, again, others = (
        captured_tokens(encoded, "random_answer", k=3, seed=seed)["random_answer"]
        for seed in (7, 7, 8)
    )
    assert tokens == again
    assert tokens != others
    for example, chosen in zip(encoded, tokens, strict=True):
        assert len(set(chosen)) == len(chosen) == min(3, len(example.response))
        assert set(chosen) <= set(example.response)
        assert chosen == sorted(chosen)
    captured = lm.capture(EXAMPLES, 1, "random_answer", k=3, seed=7)
    wanted = [plain_forward(lm, 1, e)[chosen] for e, chosen in zip(EXAMPLES, tokens, strict=True)]
    torch.testing.assert_close(captured.states[1], torch.cat(wanted), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("position", CAPTURE_POSITIONS)
def test_neither_batches_nor_layers_in_one_pass_matter(lm: SteeredModel, position: Any) -> None:
    whole = lm.capture(EXAMPLES, [3, 0], position, batch_size=16)
    for layer in (0, 3):
        alone = lm.capture(EXAMPLES, layer, position, batch_size=1)
        torch.testing.assert_close(whole.states[layer], alone.states[layer], rtol=1e-4, atol=1e-5)
        assert torch.equal(whole.example, alone.example)


def test_the_pass_ends_after_the_highest_wanted_layer(lm: SteeredModel) -> None:
    with Watch(lm.layers.at(0), lm.layers.at(1)) as ran, Watch(lm.layers.at(2)) as not_run:
        lm.capture(EXAMPLES[:1], [1, 0])
    assert len(ran.states) == 2
    assert len(not_run.states) == 0


def test_the_model_is_left_as_it_was(lm: SteeredModel) -> None:
    before, ids = hooks_of(lm.model), torch.tensor([[1, 20, 30, 40]])
    logits = lm.model(ids).logits
    lm.capture(EXAMPLES, [0, 2])
    assert hooks_of(lm.model) == before
    assert torch.equal(lm.model(ids).logits, logits)


def test_another_thread_is_neither_captured_nor_stopped(lm: SteeredModel) -> None:
    ids = torch.tensor([[1, 20, 30, 40]])
    wanted = lm.model(ids).logits
    captured = lm.capture(EXAMPLES[:1], 1)
    found: list[Tensor] = []

    def in_between(module: Any, args: Any, output: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            other = threading.Thread(target=lambda: found.append(lm.model(ids).logits))
            other.start()
            other.join()

    handle = lm.layers.at(0).register_forward_hook(in_between)
    again = lm.capture(EXAMPLES[:1], 1)
    handle.remove()
    assert torch.equal(found[0], wanted)
    assert torch.equal(again.states[1], captured.states[1])


def test_half_precision_comes_back_as_float32() -> None:
    lm = SteeredModel(tiny_models.llama().bfloat16(), tiny_models.tokenizer())
    assert lm.capture(EXAMPLES, 1).states[1].dtype == torch.float32


class ShortOfMemory:
    """Makes the forward pass fail for more than a few rows."""

    def __init__(self, model: Any, limit: int, message: str) -> None:
        self._model, self._limit, self._message = model, limit, message
        self._forward = model.forward
        self.sizes: list[int] = []
        model.forward = self

    def __call__(self, input_ids: Tensor, **kwargs: Any) -> Any:
        self.sizes.append(len(input_ids))
        if len(input_ids) > self._limit:
            raise torch.OutOfMemoryError(self._message)
        return self._forward(input_ids=input_ids, **kwargs)

    def __enter__(self) -> "ShortOfMemory":
        return self

    def __exit__(self, *exception: object) -> None:
        del self._model.forward


def test_batches_are_halved_where_memory_runs_out(lm: SteeredModel) -> None:
    wanted = lm.capture(EXAMPLES, 2)
    with ShortOfMemory(lm.model, 2, "CUDA out of memory.") as short:
        captured = lm.capture(EXAMPLES, 2)
    torch.testing.assert_close(captured.states[2], wanted.states[2], rtol=1e-4, atol=1e-5)
    assert short.sizes[0] == 5
    assert max(short.sizes[-2:]) <= 2


def test_memory_for_not_even_one_example(lm: SteeredModel) -> None:
    before = hooks_of(lm.model)
    with (
        ShortOfMemory(lm.model, 0, "CUDA out of memory."),
        pytest.raises(ModelError, match=r"does not fit in memory even alone.*CUDA out of"),
    ):
        lm.capture(EXAMPLES, 2)
    assert hooks_of(lm.model) == before


def test_activations_that_are_not_finite_are_counted() -> None:
    lm = SteeredModel(tiny_models.llama(), tiny_models.tokenizer())
    word = lm.encode("z").ids[-1]
    with torch.no_grad():
        lm.model.model.embed_tokens.weight[word] = torch.inf
    with pytest.raises(ModelError, match=r"2 of 3 activations after layer 1 are NaN.*bfloat16"):
        lm.capture([Example("", "z"), Example("", "a"), Example("", "az")], 1)


def test_what_cannot_be_captured(lm: SteeredModel) -> None:
    with pytest.raises(ModelError, match="no layer 4"):
        lm.capture(EXAMPLES, [1, 4])
    with pytest.raises(ModelError, match=r"layer must be an integer, not 1\.5"):
        lm.capture(EXAMPLES, 1.5)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="at least one layer and one example"):
        lm.capture([], 1)
    with pytest.raises(InvalidInputError, match=r"example 0 is 'text'; plain text is Example"):
        lm.capture(["text"], 1)  # type: ignore[list-item]
    with pytest.raises(InvalidInputError, match="position must be one of last, answer"):
        lm.capture(EXAMPLES, 1, "middle")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="k=3 has no use with position='last'"):
        lm.capture(EXAMPLES, 1, k=3)
    with pytest.raises(InvalidInputError, match="k must be a positive integer, not 0"):
        lm.capture(EXAMPLES, 1, "random_answer", k=0)
    with pytest.raises(InvalidInputError, match="batch_size must be a positive integer, not 0"):
        lm.capture(EXAMPLES, 1, batch_size=0)
    with pytest.raises(InvalidInputError, match=r"example 1 has 121 tokens .* context 96"):
        lm.capture([EXAMPLES[0], Example("", "x" * 120)], 1)


def test_no_prompt_token_to_capture_at() -> None:
    lm = SteeredModel(tiny_models.llama(), tiny_models.tokenizer(adds_bos=False))
    with pytest.raises(InvalidInputError, match="example 1 has no prompt token"):
        lm.capture(EXAMPLES, 1, "prompt")


def test_a_model_in_training_mode_is_refused(lm: SteeredModel) -> None:
    lm.model.train()
    try:
        with pytest.raises(ModelError, match=r"call model.eval\(\) first"):
            lm.capture(EXAMPLES, 1)
    finally:
        lm.model.eval()


def test_a_progress_bar_on_request(lm: SteeredModel, capsys: pytest.CaptureFixture[str]) -> None:
    lm.capture(EXAMPLES, 1)
    assert capsys.readouterr().err == ""
    lm.capture(EXAMPLES, 1, progress=True)
    assert "activations" in capsys.readouterr().err
