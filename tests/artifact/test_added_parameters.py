"""Parameters that files of earlier versions lack mean there what these versions did."""

import pytest

from odesteer.artifact.serialization import decode, encode
from odesteer.errors import ArtifactError
from odesteer.flows import Certified, Euler

OLD = {"family": "solver", "name": "euler", "params": {"n_steps": 7}, "learned": {}}


def test_a_file_without_them_is_of_an_earlier_version() -> None:
    solver = decode(OLD, {}, "solver")
    assert repr(solver) == "Euler(n_steps=7, steps_over='cap')"
    assert encode(solver) == (OLD, {})


def test_what_is_new_is_written() -> None:
    for solver in (Euler(7), Certified(Euler(3))):
        spec, tensors = encode(solver)
        assert "distance" in str(spec)
        assert repr(decode(spec, tensors, "solver")) == repr(solver)


def test_other_missing_parameters_are_refused() -> None:
    with pytest.raises(ArtifactError, match="missing: n_steps"):
        decode({**OLD, "params": {}}, {}, "solver")
