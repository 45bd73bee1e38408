"""Steering vectors and edits in files of other projects."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from odesteer.artifact import Provenance, Site, Steerer, SteererSet, load
from odesteer.errors import ArtifactError, InvalidInputError
from odesteer.interchange import ControlVector, read_steerer, write_lm_eval
from odesteer.methods import CAA, NormPreserving, SubspaceMap

WIDTH = 6


def vectors(n: int) -> torch.Tensor:
    return torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(n))


def layers(steerer: Steerer | SteererSet) -> list[int]:
    return [member.site.layer for member in steerer.members if member.site is not None]


@pytest.mark.parametrize(
    "form", ["layer.{}", "layers.{}.v", "{}", "direction.{}", "model.layers.{}", "layer_{}"]
)
def test_a_vector_for_each_layer_by_name(form: str, tmp_path: Path) -> None:
    v = vectors(2)
    save_file({form.format(i): v[k] for k, i in enumerate((11, 4))}, tmp_path / "v.safetensors")
    found = read_steerer(tmp_path / "v.safetensors")
    assert layers(found) == [4, 11]
    a = torch.randn(2, WIDTH)
    assert torch.equal(found.members[0].steer(a), a + v[1])
    assert {member.site.position for member in found.members if member.site} == {"all"}


def test_one_vector_whose_layer_is_given(tmp_path: Path) -> None:
    save_file({"direction": vectors(1)[0]}, tmp_path / "v.safetensors")
    with pytest.raises(ArtifactError, match=r"'direction' does not say.*--layer"):
        read_steerer(tmp_path / "v.safetensors")
    found = read_steerer(tmp_path / "v.safetensors", layer=9, position="generated")
    assert isinstance(found, Steerer)
    assert found.site == Site(9, "generated")


def test_a_row_of_a_decoder(tmp_path: Path) -> None:
    decoder = vectors(5)
    save_file({"W_dec": decoder, "W_enc": decoder.T.contiguous()}, tmp_path / "sae.safetensors")
    found = read_steerer(tmp_path / "sae.safetensors", layer=3, tensor="W_dec", row=2)
    assert torch.equal(found.members[0].method.direction_, decoder[2])
    with pytest.raises(ArtifactError, match="needs its layer"):
        read_steerer(tmp_path / "sae.safetensors", tensor="W_dec", row=2)


def test_edits_of_loreft(tmp_path: Path) -> None:
    """``rotate_layer`` is [d, r]: a' = a + (Wa + b - aR)Rᵀ, as pyreft computes it."""
    rotation = torch.linalg.qr(torch.randn(WIDTH, 2))[0].contiguous()
    weight, bias = torch.randn(2, WIDTH), torch.randn(2)
    for names in (("weight", "bias"), ("learned_source.weight", "learned_source.bias")):
        key = "intkey_layer.15.comp.block_output.unit.pos.nunit.1#0"
        tensors = {"rotate_layer": rotation, names[0]: weight, names[1]: bias}
        save_file({f"{key}.{k}": v for k, v in tensors.items()}, tmp_path / "edit.safetensors")
        found = read_steerer(tmp_path / "edit.safetensors")
        assert layers(found) == [15]
        assert isinstance(found.members[0].method, SubspaceMap)
        a = torch.randn(3, WIDTH)
        wanted = a + (torch.nn.functional.linear(a, weight, bias) - a @ rotation) @ rotation.T
        torch.testing.assert_close(found.members[0].steer(a), wanted)
        save_file(tensors, tmp_path / "bare.safetensors")
        assert layers(read_steerer(tmp_path / "bare.safetensors", layer=4)) == [4]
    save_file({"1.rotate_layer": rotation, "1.weight": weight}, tmp_path / "half.safetensors")
    with pytest.raises(ArtifactError, match=r"no '1\.bias'"):
        read_steerer(tmp_path / "half.safetensors")


def lens(path: Path, v: torch.Tensor, **changes: Any) -> Path:
    encoded = {
        "data": base64.b64encode(v.numpy().tobytes()).decode(),
        "dtype": "float32",
        "original_dtype": "torch.float32",
        "shape": list(v.shape),
    }
    content = {"activations": encoded, "layer_indices": [5, 2], "scale": 2.0, "norm_match": False}
    path.write_text(json.dumps({**content, "position_indices": None, **changes}))
    return path


def test_steering_vectors_of_vllm_lens(tmp_path: Path) -> None:
    v, a = vectors(2), torch.randn(3, WIDTH)
    found = read_steerer(lens(tmp_path / "v.json", v))
    assert layers(found) == [2, 5]
    torch.testing.assert_close(found.members[0].steer(a), a + 2 * v[1])
    kept = read_steerer(lens(tmp_path / "v.json", v, norm_match=True)).members[0]
    assert isinstance(kept.method, NormPreserving)
    torch.testing.assert_close(kept.steer(a).norm(dim=1), a.norm(dim=1))


def test_half_precision_and_compression_of_vllm_lens(tmp_path: Path) -> None:
    v = vectors(2).bfloat16()
    raw = v.view(torch.int16).numpy().tobytes()
    encoded = {"dtype": "int16", "original_dtype": "torch.bfloat16", "shape": [2, WIDTH]}
    plain = {**encoded, "data": base64.b64encode(raw).decode()}
    found = read_steerer(lens(tmp_path / "v.json", v.float(), activations=plain, scale=1.0))
    assert torch.equal(found.members[0].method.direction_, v[1].float())
    zstandard = pytest.importorskip("zstandard", reason="zstandard is not installed")
    packed = base64.b64encode(zstandard.compress(raw)).decode()
    zipped = {**encoded, "data": packed, "compression": "zstd"}
    found = read_steerer(lens(tmp_path / "v.json", v.float(), activations=zipped, scale=1.0))
    assert torch.equal(found.members[0].method.direction_, v[1].float())
    bomb = {**zipped, "data": base64.b64encode(zstandard.compress(bytes(10**6))).decode()}
    with pytest.raises(ArtifactError, match="bytes"):
        read_steerer(lens(tmp_path / "v.json", v.float(), activations=bomb))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_indices": [1]}, "2 vectors for the layers"),
        ({"layer_indices": [1, 1]}, "one for each"),
        ({"layer_indices": [1, -2]}, "no list of layers"),
        ({"layer_indices": [1, True]}, "no list of layers"),
        ({"scale": "2"}, "scale"),
        ({"scale": 0.0}, "zero"),
        ({"position_indices": [3]}, "single token positions"),
        ({"activations": [1.0]}, "no encoded tensor"),
        ({"activations": {"data": "!", "dtype": "float32", "shape": [2, 6]}}, "base64"),
        ({"activations": {"data": "", "dtype": "float32", "shape": [2, 6]}}, "0 bytes"),
        ({"activations": {"data": "", "dtype": "object", "shape": [2, 6]}}, "unknown type"),
        ({"activations": {"data": "", "dtype": "float32", "shape": [2, -6]}}, "shape"),
        (
            {"activations": {"data": "", "dtype": "float32", "shape": [2], "compression": "x"}},
            "compression",
        ),
    ],
)
def test_json_that_makes_no_sense(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=message):
        read_steerer(lens(tmp_path / "v.json", vectors(2), **changes))


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(ArtifactError, match="no steering vector of vllm-lens"):
        read_steerer(tmp_path / "a.json")
    torch.save({"layer.1": vectors(1)[0]}, tmp_path / "a.pt")
    with pytest.raises(ArtifactError, match=r"pickle.*save_file"):
        read_steerer(tmp_path / "a.pt")
    (tmp_path / "a.txt").write_text("1 2 3")
    with pytest.raises(ArtifactError, match="no safetensors file"):
        read_steerer(tmp_path / "a.txt")
    Steerer(CAA.from_direction(vectors(1)[0]), Site(1)).save(tmp_path / "s.safetensors")
    with pytest.raises(ArtifactError, match="a steerer already"):
        read_steerer(tmp_path / "s.safetensors")
    with pytest.raises(ArtifactError, match="No such file"):
        read_steerer(tmp_path / "none.safetensors")
    save_file({"layer.1.a": vectors(1)[0], "layer.1.b": vectors(1)[0]}, tmp_path / "t.safetensors")
    with pytest.raises(ArtifactError, match="two tensors are of layer 1"):
        read_steerer(tmp_path / "t.safetensors")


def test_the_model_is_checked_and_remembered(tmp_path: Path) -> None:
    save_file({"layer.4": vectors(1)[0], "layer.7": vectors(1)[0]}, tmp_path / "v.safetensors")
    model = Provenance(model_id="org/model", model_width=WIDTH, n_layers=8)
    found = read_steerer(tmp_path / "v.safetensors", provenance=model)
    assert {member.provenance.model_id for member in found.members} == {"org/model"}
    found.save(tmp_path / "s.safetensors")
    assert load(tmp_path / "s.safetensors").digest() == found.digest()
    for wrong, message in (
        ({"model_width": 5, "n_layers": 8}, "width 6, and org/model has 5"),
        ({"model_width": WIDTH, "n_layers": 7}, "layer 7, and org/model has 7 layers.*0 to 6"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            read_steerer(
                tmp_path / "v.safetensors", provenance=Provenance(model_id="org/model", **wrong)
            )


def test_the_file_of_lm_eval(tmp_path: Path) -> None:
    steerer = Steerer(CAA.from_direction(vectors(1)[0], T=0.5), Site(3, "all"))
    write_lm_eval(ControlVector.of(steerer), tmp_path / "v.pt")
    content = torch.load(tmp_path / "v.pt", weights_only=True)
    assert list(content) == ["layers.3"]
    entry = content["layers.3"]
    assert np.allclose(entry.pop("steering_vector"), 0.5 * vectors(1)[0])
    assert entry == {
        "steering_coefficient": 1.0,
        "action": "add",
        "bias": None,
        "head_index": None,
    }
