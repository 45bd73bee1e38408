"""Hooks on decoder layers: finding the layers, and what these may return."""

from pathlib import Path

import pytest
import torch
from engines import engine, needs_vllm
from references import Reference, Request
from torch import nn

import tiny_models
from odesteer.errors import ModelError
from odesteer.models import SteeredModel
from odesteer.vllm import custom_op
from odesteer.vllm.hooks import add_hooks, find_layers


class Model(nn.Module):
    """Lists of modules; keywords give names and lengths."""

    def __init__(self, **lengths: int) -> None:
        super().__init__()
        for name, length in lengths.items():
            self.add_module(name, nn.ModuleList(nn.Linear(1, 1) for _ in range(length)))


def test_the_layers_are_the_list_of_that_length() -> None:
    model = nn.ModuleDict({"inner": Model(layers=4, norms=3), "head": nn.Linear(1, 1)})
    assert find_layers(model, 4) == list(model["inner"].layers)


def test_lists_inside_a_layer_are_skipped() -> None:
    model = nn.Module()
    model.layers = nn.ModuleList(Model(experts=2) for _ in range(2))
    assert find_layers(model, 2) == list(model.layers)


@pytest.mark.parametrize(("lengths", "found"), [({"layers": 3}, "none"), ({"a": 4, "b": 4}, "2")])
def test_other_models_are_refused(lengths: dict[str, int], found: str) -> None:
    with pytest.raises(ModelError, match=f"has {found}.*not supported"):
        find_layers(Model(**lengths), 4)


class Layer(nn.Module):
    def forward(self, output: object) -> object:
        return output


class PPMissingLayer(Layer):
    """The placeholder of vLLM for a layer on another rank."""


H, R = torch.ones(3, 2), torch.zeros(3, 2)


@pytest.mark.parametrize(
    ("output", "seen"), [(H, (H, None)), ((H, R), (H, R)), ((H, None), (H, None))]
)
def test_layers_return_one_tensor_or_two(
    output: object, seen: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(custom_op, "steer", lambda *given: calls.append(given))
    layers = [PPMissingLayer(), Layer(), Layer()]
    assert add_hooks(layers, [0, 2]) == (2,)
    for layer in layers:
        layer(output)
    assert calls == [(*seen, 2)]


@pytest.mark.parametrize("output", [(H, R, R), {"hidden": H}, (H, "x"), None, (H,)])
def test_other_outputs_are_refused(output: object) -> None:
    layer = Layer()
    add_hooks([layer], [0])
    with pytest.raises(ModelError, match=r"Layer returns .*the plugin steers layers that"):
        layer(output)


@needs_vllm
@pytest.mark.parametrize("eager", [True, False], ids=["eager", "compiled"])
def test_a_model_whose_layers_return_one_tensor(
    eager: bool, environment: dict[str, str], steerers: Path, tmp_path: Path
) -> None:
    """GPT-2, with random weights and the width of the bundled model, whose steerers it takes."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=512, n_embd=160, n_layer=4, n_head=5, n_positions=160, initializer_range=0.2
    )
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    model = GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    reference = Reference(SteeredModel(model, tiny_models.tokenizer()), steerers)
    requests = [
        Request((5, 6, 7, 8), "terrarium-kernel@T=5"),
        Request((5, 6, 7, 8)),
        Request((9, 10, 11), "terrarium-caa@strength=0.5"),
    ]
    expected = reference.answers(requests)
    assert not expected[0].agrees(expected[1], 0.01)
    with engine(tmp_path, skip_tokenizer_init=True, enforce_eager=eager) as running:
        for answer, right in zip(running.answers(requests), expected, strict=True):
            assert answer.agrees(right)
