"""Digests of results: classes keep their names in them, wherever they are moved."""

from pathlib import Path
from typing import Any

import pytest

from odesteer import CAA, ODESteer, REControl, barriers, flows, methods
from odesteer.barriers import LinearBarrier, PolynomialBarrier, UnitSphere
from odesteer.evaluation.runner.digests import _FORMER_MODULES, class_path, digest
from odesteer.flows import Euler
from odesteer.registry import Registry

STORED = set((Path(__file__).parent / "stored_class_paths.txt").read_text().split())
REGISTRIES: list[Registry[Any]] = [
    barriers.registry,
    barriers.inputs_registry,
    barriers.function_registry,
    flows.registry,
    flows.metric_registry,
    methods.registry,
]
CLASSES = [registry.get(name) for registry in REGISTRIES for name in registry]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_classes_keep_the_paths_that_results_are_stored_under(cls: type[Any]) -> None:
    """A class that was moved needs an entry in `_FORMER_MODULES`; a new one a line in the file."""
    assert class_path(cls) in STORED


def test_former_modules_are_of_stored_classes() -> None:
    assert {f"{module}.{name}" for name, module in _FORMER_MODULES.items()} <= STORED


def test_classes_of_other_packages_keep_their_own_path() -> None:
    class CAA:
        __module__ = "other.package"
        __qualname__ = "CAA"

    assert class_path(CAA) == "other.package.CAA"


def test_digests_are_those_of_earlier_releases() -> None:
    sphere = PolynomialBarrier(inputs=UnitSphere())
    method = ODESteer(sphere, Euler(10, steps_over="cap"))
    # Steps over the distance end elsewhere, so results of the cap are not theirs; and the default
    # barrier may take other inputs than the sphere.
    assert len({digest(ODESteer()), digest(ODESteer(sphere)), digest(method)}) == 3
    assert digest(LinearBarrier(), 8) == "9b5ec7f6"
    # Methods have other digests since strengths and caps count in class deviations.
    assert digest({"method": method, "cell": [1, "level", 1.5]}) == "9a679a1e730cd094"
    assert digest(REControl()) == "adce0f13f0f50339"
    assert digest(CAA()) == "719e05bbbbdd2909"
