"""Directions that users bring, and edits with given matrices."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from odesteer.artifact import Site, Steerer, load
from odesteer.errors import InvalidInputError
from odesteer.methods import CAA, ITI, Amount, NormPreserving, ODESteer, RepE, SubspaceMap, Sum

WIDTH = 6


def direction(seed: int = 0) -> torch.Tensor:
    return torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed))


def clouds() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    positive = torch.randn(30, WIDTH, generator=generator) + 0.7
    return positive, torch.randn(28, WIDTH, generator=generator)


def test_the_default_adds_the_direction_as_it_is() -> None:
    v, a = direction(), torch.randn(3, WIDTH)
    method = CAA.from_direction(v)
    assert torch.equal(method.steer(a), a + v)
    assert torch.equal(method.steer(a, T=-2.0), a - 2 * v)
    # Without a unit of its own, strength counts lengths of v.
    torch.testing.assert_close(method.steer(a, strength=2.0), a + 2 * v)
    with_unit = CAA.from_direction(v, strength_unit=3.0)
    moved = with_unit.steer(a, strength=2.0) - a
    torch.testing.assert_close(moved.norm(dim=1), torch.full((3,), 6.0))


def test_a_massive_coordinate_stays_exact() -> None:
    v = torch.zeros(WIDTH)
    v[0], v[1] = 3e4, 1e-3
    assert torch.equal(CAA.from_direction(v).constant_displacement(), v)


def test_the_given_tensor_is_copied() -> None:
    v = direction()
    method = CAA.from_direction(v)
    v.zero_()
    assert bool(method.direction_.any())


@pytest.mark.parametrize(
    "source",
    [
        direction().numpy(),
        direction().double().numpy(),
        direction().tolist(),
        direction()[None],
        direction().requires_grad_(),
    ],
)
def test_arrays_lists_and_rows_of_one(source: Any) -> None:
    torch.testing.assert_close(
        CAA.from_direction(source).direction_.float(), direction(), rtol=0, atol=0
    )


def test_half_precision_becomes_float32() -> None:
    assert CAA.from_direction(direction().bfloat16()).direction_.dtype == torch.float32


def test_a_file_and_a_row_of_a_decoder(tmp_path: Path) -> None:
    decoder = torch.randn(5, WIDTH)
    save_file({"W_dec": decoder, "b_dec": torch.zeros(WIDTH)}, tmp_path / "sae.safetensors")
    save_file({"v": direction()}, tmp_path / "v.safetensors")
    assert torch.equal(CAA.from_direction(tmp_path / "v.safetensors").direction_, direction())
    row = CAA.from_direction(str(tmp_path / "sae.safetensors"), tensor="W_dec", row=3)
    assert torch.equal(row.direction_, decoder[3])
    with pytest.raises(InvalidInputError, match=r"2 tensors.*tensor="):
        CAA.from_direction(tmp_path / "sae.safetensors")
    with pytest.raises(InvalidInputError, match=r"no tensor 'w'.*W_dec"):
        CAA.from_direction(tmp_path / "sae.safetensors", tensor="w")
    with pytest.raises(InvalidInputError, match=r"no row 5.*5 rows"):
        CAA.from_direction(tmp_path / "sae.safetensors", tensor="W_dec", row=5)
    with pytest.raises(InvalidInputError, match="take one row"):
        CAA.from_direction(tmp_path / "sae.safetensors", tensor="W_dec")


@pytest.mark.parametrize("name", ["v.pt", "v.PTH", "v.bin", "v.pkl"])
def test_pickles_are_refused_unopened(name: str, tmp_path: Path) -> None:
    torch.save(direction(), tmp_path / name)
    with pytest.raises(InvalidInputError, match=r"pickle.*safetensors"):
        CAA.from_direction(tmp_path / name)


def test_a_pickle_by_another_name_is_refused(tmp_path: Path) -> None:
    torch.save(direction(), tmp_path / "v.safetensors")
    with pytest.raises(InvalidInputError, match="cannot read"):
        CAA.from_direction(tmp_path / "v.safetensors")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(WIDTH), "zero"),
        (torch.tensor([1.0, float("nan")]), "NaN"),
        (torch.tensor([1.0, float("inf")]), "NaN or infinities"),
        (torch.ones(2, 3), r"\(2, 3\).*row="),
        (torch.tensor(1.0), r"shape \(\)"),
        (torch.zeros(0), r"shape \(0,\)"),
        (torch.tensor([True, False]), "bool"),
        (torch.ones(3, dtype=torch.complex64), "complex"),
        (["a", "b"], "numbers"),
        (None, "numbers"),
        (np.array(["x"]), "numbers"),
    ],
)
def test_what_is_no_direction(bad: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        CAA.from_direction(bad)


@pytest.mark.parametrize("unit", [0, -1.0, float("nan"), float("inf"), True, "1"])
def test_units_that_are_none(unit: Any) -> None:
    with pytest.raises(InvalidInputError, match="strength_unit"):
        CAA.from_direction(direction(), strength_unit=unit)


def test_a_level_has_no_meaning_without_examples() -> None:
    with pytest.raises(InvalidInputError, match="given, not fitted"):
        CAA.from_direction(direction()).steer(torch.randn(2, WIDTH), level=1.0)


def test_it_is_saved_and_loaded_to_the_bit(tmp_path: Path) -> None:
    steerer = Steerer(CAA.from_direction(direction(), T=1.5), Site(2))
    steerer.save(tmp_path / "s.safetensors")
    loaded = load(tmp_path / "s.safetensors")
    assert loaded.digest() == steerer.digest()
    a = torch.randn(4, WIDTH)
    assert torch.equal(loaded.steer(a), steerer.steer(a))
    assert "unknown" in steerer.card()


def test_constant_displacements_are_what_steering_adds() -> None:
    a = torch.randn(5, WIDTH, dtype=torch.float64)
    for method in (
        CAA(),
        RepE(),
        ITI(),
        Sum((CAA(), RepE()), weights=(2.0, -0.5)),
        Sum((RepE(strength=1.0), Sum((CAA(), ITI())))),
    ):
        method.fit(*clouds())
        for name in set(method.quantities) - {"level"}:
            amount = Amount(name, 1.7)
            added = method.constant_displacement(amount)
            assert added is not None
            torch.testing.assert_close(
                method.steer(a, amount) - a, added.double().expand_as(a), rtol=1e-5, atol=1e-6
            )
        default = method.constant_displacement()
        assert default is not None
        torch.testing.assert_close((method.steer(a) - a)[0], default.double(), rtol=1e-5, atol=1e-6)


def test_displacements_that_depend_on_the_activation_are_not_constant() -> None:
    for method in (ODESteer(), NormPreserving(CAA()), Sum((CAA(), ODESteer())), SubspaceMap()):
        assert method.fit(*clouds()).constant_displacement() is None
    assert CAA().fit(*clouds()).constant_displacement(Amount("level", 1.0)) is None
    rows = Amount("T", torch.tensor([1.0, 2.0]))
    assert CAA().fit(*clouds()).constant_displacement(rows) is None


def test_a_given_edit_is_loreft() -> None:
    rotation = torch.linalg.qr(torch.randn(WIDTH, 2))[0].T
    source, bias = torch.randn(2, WIDTH), torch.randn(2)
    edit = SubspaceMap.from_edit(rotation, source, bias)
    a = torch.randn(7, WIDTH)
    wanted = a + (a @ source.T + bias - a @ rotation.T) @ rotation
    torch.testing.assert_close(edit.steer(a), wanted)
    torch.testing.assert_close(edit.steer(a, interpolation=0.5), (a + wanted) / 2)
    with pytest.raises(InvalidInputError, match=r"\(2, 6\)"):
        SubspaceMap.from_edit(rotation, source.T, bias)
    with pytest.raises(InvalidInputError, match="W of the edit"):
        SubspaceMap.from_edit(rotation, source * float("inf"), bias)


def test_a_fitted_edit_transports_mean_and_covariance_in_its_subspace() -> None:
    positive, negative = clouds()
    edit = SubspaceMap(rank=3, shrinkage=0.0).fit(positive, negative)
    rotation = edit.rotation_.double()
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3).double(), atol=1e-6, rtol=0)
    moved, target = (side.double() @ rotation.T for side in (edit.steer(negative), positive))
    torch.testing.assert_close(moved.mean(0), target.mean(0), atol=1e-5, rtol=0)
    covariances = (side.T.cov(correction=0) for side in (moved, target))
    torch.testing.assert_close(*covariances, atol=1e-4, rtol=0)
    # Nothing moves outside the subspace.
    outside = torch.eye(WIDTH).double() - rotation.T @ rotation
    difference = (edit.steer(negative) - negative).double() @ outside
    assert float(difference.abs().max()) < 1e-5
