"""Control vectors in GGUF files: round trips, layers, and what is refused."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from odesteer.artifact import Site, Steerer, SteererSet
from odesteer.errors import ArtifactError, InvalidInputError
from odesteer.interchange import (
    ControlVector,
    mean_displacement,
    read_gguf,
    read_steerer,
    write_gguf,
)
from odesteer.interchange.gguf_file import EverywhereWarning
from odesteer.methods import CAA, Amount, HeadITI, ODESteer, RepE

WIDTH = 8


def vector(seed: int = 0) -> torch.Tensor:
    return torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed))


def clouds() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    positive = torch.randn(30, WIDTH, generator=generator) + 0.7
    return positive, torch.randn(28, WIDTH, generator=generator)


def given(layer: int, seed: int = 0, position: str = "all") -> Steerer:
    return Steerer(CAA.from_direction(vector(seed)), Site(layer, position))


def raw_gguf(path: Path, tensors: dict[str, Any], architecture: str = "controlvector") -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_string(f"{architecture}.model_hint", "llama")
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_what_is_imported_is_what_was_exported(tmp_path: Path) -> None:
    for steerer in (given(3), SteererSet([given(1, 1), given(12, 2)])):
        write_gguf(ControlVector.of(steerer), tmp_path / "v.gguf")
        assert read_steerer(tmp_path / "v.gguf").digest() == steerer.digest()


def test_tokens_that_are_steered_come_back(tmp_path: Path) -> None:
    steerer = SteererSet([given(1), given(2, position="generated")])
    with pytest.warns(EverywhereWarning, match="'generated' tokens.*all tokens"):
        write_gguf(ControlVector.of(steerer), tmp_path / "v.gguf")
    assert read_steerer(tmp_path / "v.gguf").digest() == steerer.digest()
    moved = read_steerer(tmp_path / "v.gguf", position="last")
    assert {member.site.position for member in moved.members if member.site} == {"last"}


def test_amounts_are_multiplied_in(tmp_path: Path) -> None:
    method = RepE().fit(*clouds())
    steerer, amount = Steerer(method, Site(2, "all")), Amount("strength", -1.25)
    write_gguf(ControlVector.of(steerer, amount), tmp_path / "v.gguf")
    a = torch.randn(4, WIDTH)
    back = read_steerer(tmp_path / "v.gguf")
    torch.testing.assert_close(back.steer(a), method.steer(a, amount))


def test_the_layout_is_that_of_llama_cpp(tmp_path: Path) -> None:
    """F32 tensors direction.N for the output of block N, and the keys that repeng asks for."""
    write_gguf(ControlVector.of(given(7), model_hint="llama"), tmp_path / "v.gguf")
    reader = gguf.GGUFReader(tmp_path / "v.gguf")
    assert [tensor.name for tensor in reader.tensors] == ["direction.7"]
    assert reader.tensors[0].tensor_type.name == "F32"
    assert reader.tensors[0].shape.tolist() == [WIDTH]
    assert np.array_equal(reader.tensors[0].data, vector().numpy())
    assert bytes(reader.fields["general.architecture"].parts[-1]) == b"controlvector"
    assert bytes(reader.fields["controlvector.model_hint"].parts[-1]) == b"llama"
    assert reader.fields["controlvector.layer_count"].parts[-1].tolist() == [1]


def test_block_0_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"layer 0.*begin at layer 1"):
        write_gguf(ControlVector.of(given(0)), tmp_path / "v.gguf")
    assert not (tmp_path / "v.gguf").exists()


def test_steerers_that_are_no_constant_vector() -> None:
    ode = Steerer(ODESteer().fit(*clouds()), Site(2))
    with pytest.raises(InvalidInputError, match=r"ODESteer at .* mean displacement"):
        ControlVector.of(ode)
    with pytest.raises(InvalidInputError, match=r"CAA at level=1\.0"):
        ControlVector.of(Steerer(CAA().fit(*clouds()), Site(2)), Amount("level", 1.0))
    with pytest.raises(InvalidInputError, match="not bound to a layer"):
        ControlVector.of(Steerer(CAA.from_direction(vector())))
    with pytest.raises(InvalidInputError, match="gate"):
        ControlVector.of(given(2).when(ode, below=0.0))
    heads = Steerer(HeadITI(n_heads=2, top_k=1).fit(*clouds()), Site(2, part="heads"))
    with pytest.raises(InvalidInputError, match="attention heads"):
        ControlVector.of(heads)
    final = Steerer(CAA.from_direction(vector()), Site(2, part="final"))
    with pytest.raises(InvalidInputError, match="behind the last norm"):
        ControlVector.of(final)
    with pytest.raises(InvalidInputError, match="two steerers act at layer 2"):
        ControlVector.of(SteererSet([given(2), given(2, position="prompt")]))
    with pytest.raises(InvalidInputError, match="zero"):
        ControlVector.of(given(2), Amount("T", 0.0))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"blk.0.attn_q.weight": np.ones((2, 2), "f4")}, "no control vector"),
        ({"direction.0": np.ones(4, "f4")}, r"direction\.0"),
        ({"direction.1": np.ones(4, "f4"), "direction.x": np.ones(4, "f4")}, "direction.x"),
        ({"direction.1": np.ones(4, "f4"), "direction.2": np.ones(5, "f4")}, "widths 4, 5"),
        ({"direction.1": np.ones((2, 4), "f4")}, "shape"),
        ({"direction.1": np.full(4, np.nan, "f4")}, "NaN"),
        ({"direction.1": np.zeros(4, "f4")}, "zero"),
        ({"direction.1": np.ones(4, "i4")}, "I32"),
    ],
)
def test_files_that_are_no_control_vector(
    tensors: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = raw_gguf(tmp_path / "v.gguf", tensors)
    with pytest.raises(ArtifactError, match=message):
        read_gguf(path)


def test_a_model_in_gguf_is_no_control_vector(tmp_path: Path) -> None:
    path = raw_gguf(tmp_path / "m.gguf", {"token_embd.weight": np.ones((3, 4), "f4")}, "llama")
    with pytest.raises(ArtifactError, match=r"'llama'.*no control vector"):
        read_gguf(path)


@pytest.mark.parametrize("size", [0, 3, 8, 40, 100, -8])
def test_damaged_files(size: int, tmp_path: Path) -> None:
    path = tmp_path / "v.gguf"
    write_gguf(ControlVector.of(given(1)), path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ArtifactError, match=r"cannot read .*v\.gguf"):
        read_gguf(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="No such file"):
        read_gguf(tmp_path / "none.gguf")


def test_the_mean_displacement_is_nearest_and_says_what_it_keeps() -> None:
    method = ODESteer().fit(*clouds())
    a = torch.randn(40, WIDTH)
    mean = mean_displacement(Steerer(method, Site(2)), {2: a}, Amount("level", 1.0))
    moves = (method.steer(a, level=1.0) - a).double()
    torch.testing.assert_close(mean.vector.directions[2], moves.mean(0).float())
    left = (moves - moves.mean(0)).square().sum(1).mean() / moves.square().sum(1).mean()
    assert mean.kept[2] == pytest.approx(1 - float(left))
    constant = mean_displacement(given(2), {2: a})
    assert constant.kept[2] == pytest.approx(1.0, abs=1e-6)
    torch.testing.assert_close(constant.vector.directions[2], vector())
    with pytest.raises(InvalidInputError, match="moves none"):
        mean_displacement(Steerer(method, Site(2)), {2: a}, Amount("T", 0.0))
    with pytest.raises(InvalidInputError, match="no activations of layer 2"):
        mean_displacement(given(2), {1: a})
