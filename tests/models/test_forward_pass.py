"""What a forward pass is given: its padding, and how much came before."""

from typing import Any

import pytest
import torch
from steerers import caa
from torch import Tensor, nn

import tiny_models
from odesteer.models import SteeredModel
from odesteer.models.steering.pass_reader import ForwardPassReader

CPU = torch.device("cpu")


class Transformer(nn.Module):
    def forward(
        self,
        input_ids: Any = None,
        past_key_values: Any = None,
        attention_mask: Any = None,
        use_cache: Any = None,
    ) -> None: ...


class Recurrent(nn.Module):
    def forward(self, input_ids: Any = None, state: Any = None) -> None: ...


class Hidden(nn.Module):
    """Keeps what it has seen to itself."""

    def forward(self, input_ids: Any = None) -> None: ...


class Counts:
    """A cache that knows its length."""

    def __init__(self, length: int | Tensor) -> None:
        self.length = length
        self.n_asked = 0

    def get_seq_length(self) -> int | Tensor:
        return self.length


class Unread(Tensor):
    """A number on a device that must not be waited for."""

    def __int__(self) -> int:
        raise AssertionError("waited for the device")


def ids(length: int) -> Tensor:
    return torch.zeros(2, length, dtype=torch.long)


def test_positional_and_named_arguments_are_the_same() -> None:
    mask = torch.ones(2, 9)
    for args, kwargs in (
        ((ids(4), Counts(5), mask), {}),
        ((ids(4),), {"past_key_values": Counts(5), "attention_mask": mask}),
    ):
        now = ForwardPassReader(Transformer()).read(args, kwargs)
        assert now.past == 5
        assert now.mask is mask
        assert now.ends == (9,)


def test_a_static_cache_is_counted_along_while_tokens_come_one_by_one() -> None:
    reader, cache = ForwardPassReader(Transformer()), Counts(0)
    assert reader.read((ids(6), cache), {}).past == 0
    cache.length = torch.tensor(0).as_subclass(Unread)
    assert [reader.read((ids(1), cache), {}).past for _ in range(3)] == [6, 7, 8]
    cache.length = torch.tensor(9)
    assert reader.read((ids(2), cache), {}).past == 9
    other = Counts(torch.tensor(4))
    assert reader.read((ids(1), other), {}).past == 4


def test_a_recurrent_state_is_counted_along() -> None:
    reader = ForwardPassReader(Recurrent())
    assert reader.read((ids(6),), {}).past == 0
    assert reader.read((ids(1),), {"state": [1]}).past == 6
    assert reader.read((ids(1),), {"state": [1]}).past == 7
    assert reader.read((ids(5),), {}).past == 0


def test_a_state_from_elsewhere_is_a_continuation() -> None:
    assert ForwardPassReader(Recurrent()).read((ids(1),), {"state": [1]}).past == 1


def test_a_hidden_state_is_counted_too() -> None:
    reader = ForwardPassReader(Hidden())
    first = reader.read((ids(6),), {})
    assert (first.past, first.ends) == (0, (6,))
    assert [reader.read((ids(1),), {}).past for _ in range(2)] == [6, 7]


def test_the_first_pass_over_a_sequence_is_its_prompt() -> None:
    """And what follows, with the cache or behind the same tokens, is generated."""
    reader, cache = ForwardPassReader(Transformer()), Counts(0)
    assert reader.read((ids(6), cache), {}).ends == (6,)
    for length, past in ((1, 6), (3, 7), (2, 6)):
        cache.length = past
        assert reader.read((ids(length), cache), {}).ends == (6,)
    other = Counts(0)
    assert reader.read((ids(4), other), {}).ends == (4,)
    other.length, cache.length = 4, 8
    assert reader.read((ids(2), cache), {}).ends == (6,)
    assert reader.read((ids(2), other), {}).ends == (4,)
    assert reader.read((ids(3),), {"use_cache": False}).ends == (3,)
    assert reader.read((ids(5),), {"use_cache": False}).ends == (3,)
    assert reader.read((ids(2),), {"use_cache": False}).ends == (2,)
    assert reader.read((1 + ids(5),), {"use_cache": False}).ends == (5,)


def test_a_cache_that_was_in_use_before() -> None:
    """One token behind it was generated; several are the rest of the prompt."""
    for length, end in ((1, 3), (2, 5)):
        assert ForwardPassReader(Transformer()).read((ids(length), Counts(3)), {}).ends == (end,)


def active(mask: Any, length: int, past: int = 0) -> Any:
    cache = Counts(past)
    now = ForwardPassReader(Transformer()).read((ids(length), cache, mask), {})
    found = now.active(length, CPU)
    assert now.active(length, CPU) is found
    return None if found is None else found.tolist()


def test_masks_of_every_form_tell_the_padding() -> None:
    plain = torch.tensor([[0, 1, 1], [1, 1, 1]])
    wanted = [[False, True, True], [True, True, True]]
    allowed = (plain[:, None, None, :] > 0) & torch.ones(3, 3, dtype=torch.bool).tril()
    added = torch.zeros(2, 1, 3, 3).masked_fill(~allowed, -torch.inf)
    static = torch.nn.functional.pad(allowed, (0, 5))
    for mask in (
        plain,
        plain.bool(),
        plain.float(),
        torch.nn.functional.pad(plain, (0, 4)),
        allowed,
        added,
        static,
        {"sliding_attention": None, "full_attention": allowed},
    ):
        assert active(mask, 3) == wanted
    assert active(torch.cat([torch.ones(2, 2), plain], dim=1), 3, past=2) == wanted


def test_no_mask_and_single_tokens_have_no_padding() -> None:
    assert active(None, 3) is None
    assert active(torch.tensor([[0, 1], [1, 1]]), 1, past=1) is None
    assert active({"full_attention": None}, 3) is None


def test_a_model_without_any_cache() -> None:
    from transformers import AutoModelForCausalLM, OpenAIGPTConfig

    config = OpenAIGPTConfig(
        vocab_size=tiny_models.VOCABULARY, n_embd=32, n_layer=3, n_head=4, n_positions=64
    )
    lm = SteeredModel(AutoModelForCausalLM.from_config(config).eval(), tiny_models.tokenizer())
    steerer = caa(1, "generated")
    (one,) = lm.generate("the dog", steerer, max_new_tokens=4, receipt=True)
    assert [b is None for b in one.before] == [True, False, False, False]
    prompt = torch.tensor([lm.encode("the dog").ids])
    with lm.steering(steerer, receipt=True) as steering:
        out = lm.model.generate(prompt, max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert lm.tokenizer.decode(out[0, prompt.shape[1] :], skip_special_tokens=True) in one.text
    first = prompt.shape[1]
    assert set(steering.receipt().column.tolist()) == set(range(first, first + 3))


def test_a_recurrent_model_generates_as_it_reads() -> None:
    from transformers import AutoModelForCausalLM, RwkvConfig

    config = RwkvConfig(
        vocab_size=tiny_models.VOCABULARY, hidden_size=32, num_hidden_layers=3, context_length=64,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    lm = SteeredModel(AutoModelForCausalLM.from_config(config).eval(), tiny_models.tokenizer())
    options: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False, "receipt": True}
    cached, whole = (
        lm.generate("the dog", caa(1), T=0.2, use_cache=cached, **options)[0]
        for cached in (True, False)
    )
    assert cached.text == whole.text
    assert cached.after == pytest.approx(whole.after, rel=1e-4)


def test_layers_that_a_module_without_token_ids_runs(lm: SteeredModel) -> None:
    """As the encoder of BERT, used as a decoder, which is given hidden states."""
    from transformers import BertConfig, BertLMHeadModel

    sizes = {"hidden_size": tiny_models.WIDTH, "num_hidden_layers": 3, "num_attention_heads": 4}
    torch.manual_seed(0)
    model = BertLMHeadModel(
        BertConfig(**sizes, vocab_size=64, intermediate_size=48, is_decoder=True)
    ).eval()
    own = SteeredModel(model, tiny_models.tokenizer())
    with own.steering(caa(layer=1), receipt=True) as steering, torch.no_grad():
        model(torch.tensor([[1, 20, 30, 40]]))
    assert steering.receipt().column.tolist() == [3]
