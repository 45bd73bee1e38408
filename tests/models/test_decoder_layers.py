"""Decoder layers are found by structure."""

import pytest
import torch
from torch import nn

import tiny_models
from odesteer.errors import ModelError
from odesteer.models import SteeredModel, find_decoder_layers
from odesteer.models.architecture.layers import LayerList, choose_layers, named_layers


def test_as_many_layers_as_the_configuration_says_in_the_order_they_run(
    any_lm: SteeredModel,
) -> None:
    assert any_lm.n_layers == any_lm.model.config.num_hidden_layers == tiny_models.N_LAYERS
    assert any_lm.width == tiny_models.WIDTH
    ran: list[nn.Module] = []
    handles = [
        layer.register_forward_hook(lambda module, args, out: ran.append(module))
        for layer in any_lm.layers.modules
    ]
    any_lm.model(torch.tensor([[1, 20, 30]]))
    for handle in handles:
        handle.remove()
    assert ran == list(any_lm.layers.modules)


def test_the_language_model_inside_a_multimodal_one() -> None:
    model = tiny_models.llava()
    layers = find_decoder_layers(model)
    assert layers.path == "model.language_model.layers"
    assert layers.owner is model.model.language_model


def test_an_encoder_decoder_is_refused() -> None:
    with pytest.raises(ModelError, match="T5ForConditionalGeneration is an encoder-decoder"):
        find_decoder_layers(tiny_models.t5())


def _lists(*lists: tuple[str, int]) -> list[LayerList]:
    return [LayerList(path, ("Block",) * n) for path, n in lists]


def test_experts_inside_layers_are_not_layers() -> None:
    lists = _lists(("model.layers", 4), ("model.layers.0.experts", 4), ("model.layers.1.mlp", 2))
    assert choose_layers(lists, 4).path == "model.layers"
    assert choose_layers(lists, None).path == "model.layers"


def test_the_length_that_the_configuration_says_decides() -> None:
    lists = _lists(("vision.layers", 6), ("text.layers", 4))
    assert choose_layers(lists, 4).path == "text.layers"


def test_without_a_list_of_that_length_the_only_one_is_taken() -> None:
    assert choose_layers(_lists(("model.layers", 5)), 4).path == "model.layers"


def test_the_part_called_decoder_decides_between_equals() -> None:
    lists = _lists(("vision.layers", 4), ("text.layers", 4))
    assert choose_layers(lists, 4, "text").path == "text.layers"


def test_ambiguity_lists_the_candidates_and_how_to_name_one() -> None:
    with pytest.raises(ModelError) as caught:
        choose_layers(_lists(("a.layers", 4), ("b.layers", 4)), 4)
    message = str(caught.value)
    assert "'a.layers' (4 x Block), 'b.layers' (4 x Block)" in message
    assert "layers='a.layers'" in message


def test_no_list_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"found no list of decoder layers \(4 by"):
        choose_layers([], 4)
    with pytest.raises(ModelError, match="found no list"):
        find_decoder_layers(nn.Linear(2, 2))


def test_a_wrong_name_lists_the_right_ones() -> None:
    with pytest.raises(ModelError, match=r"layers='h' .* has 'model.layers' \(4 x Block\)"):
        named_layers(_lists(("model.layers", 4)), "h")


class Twins(nn.Module):
    """Two stacks, either of which could be the decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.ModuleList(nn.Sequential(nn.Linear(4, 4)) for _ in range(3))
        self.right = nn.ModuleList(nn.Sequential(nn.Linear(4, 4)) for _ in range(3))


def test_naming_one_resolves_ambiguity() -> None:
    model = Twins()
    with pytest.raises(ModelError, match="several lists"):
        find_decoder_layers(model)
    assert find_decoder_layers(model, "right").modules == tuple(model.right)


@pytest.mark.parametrize("layer", [4, -1, 1000])
def test_a_layer_out_of_range_names_the_range(lm: SteeredModel, layer: int) -> None:
    with pytest.raises(ModelError, match=rf"no layer {layer}: .*0 to 3"):
        lm.layers.at(layer)


@pytest.mark.parametrize("layer", [1.0, "1", True, None])
def test_a_layer_is_an_integer(lm: SteeredModel, layer: object) -> None:
    with pytest.raises(ModelError, match="layer must be an integer"):
        lm.layers.at(layer)  # type: ignore[arg-type]
