"""Steerers of an engine: the environment variable, requests, cache keys."""

from pathlib import Path

import pytest
import torch

from odesteer.artifact import Site, Steerer, SteererSet
from odesteer.errors import ArtifactError, InvalidInputError, ModelError, UnknownNameError
from odesteer.methods import CAA, Amount, ODESteer
from odesteer.vllm.request_steering import requested_steering
from odesteer.vllm.steerers import ModelShape, PluginSteerers

D = 8
MODEL = ModelShape(D, 4)


def steerer(layer: int = 1, position: str = "last", part: str = "residual", d: int = D) -> Steerer:
    generator = torch.Generator().manual_seed(layer)
    clouds = [torch.randn(40, d, generator=generator) + shift for shift in (1.0, 0.0)]
    return Steerer(ODESteer().fit(*clouds), Site(layer, position, part))


def caa(layer: int = 2) -> Steerer:
    clouds = [torch.randn(20, D, generator=torch.Generator().manual_seed(5)) + s for s in (1, 0)]
    return Steerer(CAA().fit(*clouds), Site(layer))


STEERERS = PluginSteerers(
    {"truth": steerer(), "tone": caa(), "both": SteererSet([steerer(0), caa(3)])}
)


def test_a_folder_names_its_files(tmp_path: Path) -> None:
    for name in ("truth", "tone.v2"):
        steerer().save(tmp_path / f"{name}.safetensors")
    assert set(PluginSteerers.from_environment(str(tmp_path))) == {"truth", "tone.v2"}


def test_names_and_paths(tmp_path: Path) -> None:
    path = tmp_path / "a=b.safetensors"
    steerer().save(path)
    found = PluginSteerers.from_environment(f" truth={path}, other = {path}")
    assert [each.digest() for each in found.values()] == [steerer().digest()] * 2


def test_positions_that_depend_on_the_text_are_refused_where_there_is_none() -> None:
    found = PluginSteerers({"a": steerer(position="thinking"), "b": steerer(position="last::3")})
    assert not found.incompatible(MODEL)
    without = ModelShape(D, 4, has_texts=False)
    assert list(found.incompatible(without)) == ["a"]
    with pytest.raises(ModelError, match=r"position 'thinking' depends on the text.*tokenizer"):
        found.check("a@1", without)


@pytest.mark.parametrize("value", ["truth", "=x", "a=x,b", "a=", "a=x,a=y"])
def test_other_forms_are_refused(value: str) -> None:
    with pytest.raises(InvalidInputError, match="must be a folder of steerers, or NAME=PATH"):
        PluginSteerers.from_environment(value)


def test_missing_files_are_an_error(tmp_path: Path) -> None:
    assert len(PluginSteerers.from_environment("  ")) == 0
    with pytest.raises(ArtifactError, match="none"):
        PluginSteerers.from_environment(f"a={tmp_path / 'none.safetensors'}")
    with pytest.raises(InvalidInputError, match=r"no \*\.safetensors in this folder"):
        PluginSteerers.from_environment(str(tmp_path))
    with pytest.raises(InvalidInputError, match="cannot name a steerer"):
        PluginSteerers({"a b": steerer()})


def test_a_request_names_steerers_and_amounts() -> None:
    found = STEERERS.steering("truth@2+tone@strength=0.5+both").applied
    assert [each.site.layer for each in found] == [1, 2, 0, 3]
    assert [each.amount for each in found[:2]] == [Amount("level", 2.0), Amount("strength", 0.5)]
    assert found[2].amount == found[2].steerer.method.default_amount
    assert STEERERS.steering(("truth@2", "tone@strength=0.5", "both")).applied == found


@pytest.mark.parametrize(
    ("text", "error", "reason"),
    [
        ("nobody@1", UnknownNameError, "no steerer 'nobody'; this engine has truth, tone, both"),
        ("truth@x", InvalidInputError, "'x' is not an amount; write a number"),
        ("truth@inf", InvalidInputError, "finite"),
        ("tone@interpolation=1", InvalidInputError, "no 'interpolation'"),
    ],
)
def test_bad_requests_are_refused(text: str, error: type, reason: str) -> None:
    with pytest.raises(error, match=reason):
        STEERERS.check(text, MODEL)


def test_without_steerers_the_remedy_is_named() -> None:
    with pytest.raises(UnknownNameError, match="has none; name them in ODESTEER_STEERERS"):
        PluginSteerers({}).check("truth", MODEL)


@pytest.mark.parametrize(
    ("each", "reason"),
    [
        (steerer(d=16), "width 16"),
        (steerer(4), "acts on layer 4, and the model has 4"),
        (Steerer(steerer().method), "not bound to a layer"),
        (steerer(part="heads"), "attention heads"),
        (steerer().when(steerer(0), above=0.0), "a condition on the prompt"),
    ],
)
def test_steerers_that_do_not_fit_the_model(each: Steerer, reason: str) -> None:
    steerers = PluginSteerers({"good": steerer(2), "bad": each})
    assert list(steerers.incompatible(MODEL)) == ["bad"]
    assert steerers.layers(MODEL) == (2,)
    assert [applied.site.layer for applied in steerers.all_steering(MODEL).applied] == [2]
    steerers.check("good@1", MODEL)
    with pytest.raises(ModelError, match=f"steerer 'bad': .*{reason}"):
        steerers.check("good@1+bad", MODEL)


def test_sampling_parameters() -> None:
    class Params:
        extra_args = None

    assert requested_steering(Params()) is None
    Params.extra_args = {"other": 1}
    assert requested_steering(Params()) is None
    Params.extra_args = {"odesteer": ["a", "b"]}
    assert requested_steering(Params()) == ("a", "b")
    assert requested_steering(None) is None
    for bad in (7, [], ["a", 1], None):
        Params.extra_args = {"odesteer": bad}
        with pytest.raises(InvalidInputError, match="does not ask for steerers"):
            requested_steering(Params())


def test_keys_of_blocks_depend_on_how_their_tokens_are_moved() -> None:
    def key(text: str, start: int, prompt_length: int = 40) -> str | None:
        return STEERERS.steering(text).block_key(start, start + 16, prompt_length)

    assert key("truth@2", 16) is None  # before the end of the prompt nothing moves
    assert key("truth@2", 32) is not None
    assert key("truth@2", 32) == key("truth@level=2.0", 32)
    different = [key("truth@2", 32), key("truth@1", 32), key("tone@2", 32), key("truth@T=2", 32)]
    different += [key("truth@2", 32, 41), key("truth@2+tone", 32), key("tone+truth@2", 32)]
    assert len(set(different)) == len(different)
    # Blocks after the prompt are moved whole, wherever it ended.
    assert key("truth@2", 48) == key("truth@2", 48, 47)
