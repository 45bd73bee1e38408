"""Requests for steerers by name."""

import pytest
import torch

from odesteer.artifact import Site, Steerer, SteererRequest, SteererSet, check_name, parse_requests
from odesteer.errors import InvalidInputError
from odesteer.methods import CAA, Amount, ODESteer


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("truthful", [SteererRequest("truthful")]),
        ("truthful@1.5", [SteererRequest("truthful", "1.5")]),
        (" truthful @ T=5 ", [SteererRequest("truthful", "T=5")]),
        (
            "a@1.5+b-2@T=5+c.d",
            [SteererRequest("a", "1.5"), SteererRequest("b-2", "T=5"), SteererRequest("c.d")],
        ),
        ("a@1e+2+b@T=2.E+1", [SteererRequest("a", "1e+2"), SteererRequest("b", "T=2.E+1")]),
        ("tone+truth", [SteererRequest("tone"), SteererRequest("truth")]),
        ("a@-1", [SteererRequest("a", "-1")]),
        ("a@high", [SteererRequest("a", "high")]),
    ],
)
def test_several_are_joined_by_a_plus_sign(text: str, asked: list[SteererRequest]) -> None:
    assert list(parse_requests(text)) == asked
    assert parse_requests("+".join(map(str, asked))) == tuple(asked)


@pytest.mark.parametrize("text", ["", "@1", "a@", "a+", "+a", "a b@1", "a@1++b", "ä", "a" * 65])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"does not ask for steerers; write a name"):
        parse_requests(text)


def test_names() -> None:
    check_name("Truth-2.5_b")
    with pytest.raises(InvalidInputError, match="'a@b' cannot name a steerer"):
        check_name("a@b")


def test_a_bare_number_is_in_the_quantity_of_the_method() -> None:
    positive, negative = torch.randn(2, 30, 4) + torch.tensor([1.0, 0.0]).view(2, 1, 1)
    ode = Steerer(ODESteer().fit(positive, negative), Site(0))
    caa = Steerer(CAA().fit(positive, negative), Site(1))
    assert SteererRequest("x", "1.5").amount_of(ode) == Amount("level", 1.5)
    assert SteererRequest("x", "1.5").amount_of(SteererSet([ode])) == Amount("level", 1.5)
    assert SteererRequest("x", "0.5").amount_of(caa) == Amount("strength", 0.5)
    assert SteererRequest("x").amount_of(caa) is None
    with pytest.raises(InvalidInputError, match="CAA has no 'interpolation'"):
        SteererRequest("x", "interpolation=1").amount_of(caa)
    with pytest.raises(InvalidInputError, match="'high' is not an amount"):
        SteererRequest("x", "high").amount_of(caa)
