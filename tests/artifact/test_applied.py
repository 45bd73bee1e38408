"""A steerer with how much it steers."""

import pytest
from fitted_methods import clouds

from odesteer.artifact import Applied, Site, Steerer, SteererSet
from odesteer.errors import InvalidInputError
from odesteer.methods import CAA, Amount, LinearAcT, ODESteer


@pytest.fixture(scope="module")
def several() -> SteererSet:
    return SteererSet(
        [
            Steerer(ODESteer().fit(*clouds()), Site(1)),
            Steerer(CAA(T=0.5).fit(*clouds()), Site(2, "all")),
        ]
    )


def test_arguments_are_those_of_steer(several: SteererSet) -> None:
    applied = Applied(several[0], Amount("level", 1.5), "truth")
    assert applied.arguments == {"level": 1.5}
    assert str(applied) == "truth at level=1.5"
    assert Applied(several[0]).arguments == {}
    assert str(Applied(several[0])) == "Steerer"


def test_each_of_a_set_has_an_amount_of_its_own(several: SteererSet) -> None:
    members = Applied(several, name="both").members
    assert [one.steerer for one in members] == list(several)
    assert [one.amount for one in members] == [one.method.default_amount for one in several]
    assert [one.name for one in members] == ["both", "both"]
    given = Applied(several, Amount("T", 2.0))
    assert [str(one.amount) for one in given.members] == ["T=2.0", "T=2.0"]
    assert given.sites == (Site(1), Site(2, "all"))


def test_amounts_that_a_method_lacks_are_refused(several: SteererSet) -> None:
    with pytest.raises(InvalidInputError, match="interpolation"):
        Applied(several, Amount("interpolation", 1.0))


def test_without_effect_nothing_moves(several: SteererSet) -> None:
    assert Applied(several, Amount("level", 1.0)).without_effect().arguments == {"T": 0.0}
    transport = Steerer(LinearAcT().fit(*clouds()))
    assert Applied(transport).without_effect().arguments == {"interpolation": 0.0}
