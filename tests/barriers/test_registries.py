"""Looking things up by name."""

import subprocess
import sys

import pytest

from odesteer.barriers import registry as barriers
from odesteer.errors import InvalidInputError, UnknownNameError
from odesteer.flows import metric_registry
from odesteer.flows import registry as solvers
from odesteer.methods import registry as methods
from odesteer.registry import Registry

ALL = [barriers, solvers, metric_registry, methods]


@pytest.mark.parametrize("registry", ALL, ids=lambda registry: registry.kind)
def test_every_name_leads_to_a_class_and_back(registry):
    names = list(registry)
    assert names == sorted(names)
    for name in names:
        assert name in registry
        cls = registry.get(name)
        assert registry.name_of(cls) == name
        assert cls.family == registry.kind


@pytest.mark.parametrize("registry", ALL, ids=lambda registry: registry.kind)
def test_unknown_names_come_with_the_known_ones(registry):
    name = next(iter(registry))
    with pytest.raises(UnknownNameError, match=f"Did you mean '{name}'") as caught:
        registry.get(name + "x")
    assert all(known in str(caught.value) for known in registry)
    assert isinstance(caught.value, ValueError)
    with pytest.raises(UnknownNameError, match=f"unknown {registry.kind} 'zzzzzzzzzz'"):
        registry.get("zzzzzzzzzz")


def example():
    return Registry[object]("thing", {"counter": "collections:Counter"})


def test_registering():
    registry = example()
    registry.register("ordered", "collections:OrderedDict")
    assert list(registry) == ["counter", "ordered"]
    registry.register("ordered", "collections:OrderedDict")  # the same again is harmless
    with pytest.raises(InvalidInputError, match="already 'collections:OrderedDict'"):
        registry.register("ordered", "collections:deque")
    assert registry.name_of(registry.get("ordered")) == "ordered"


@pytest.mark.parametrize("name", ["", "Upper", "with space", "under_score", "-"])
def test_malformed_names(name):
    with pytest.raises(InvalidInputError, match="lower case"):
        example().register(name, "collections:deque")


@pytest.mark.parametrize("path", ["collections", ":deque", "collections:", ""])
def test_malformed_paths(path):
    with pytest.raises(InvalidInputError, match=r"package\.module:Class"):
        example().register("thing", path)


def test_classes_that_are_not_registered():
    with pytest.raises(UnknownNameError, match=r"register\('?name|register\(name"):
        example().name_of(dict)


def test_registries_share_no_state():
    first, second = example(), example()
    first.register("deque", "collections:deque")
    assert "deque" not in second


def test_listing_names_imports_none_of_the_classes():
    code = (
        "import sys\n"
        "from odesteer.registry import Registry\n"
        "registry = Registry('thing', {'tk': 'tkinter.ttk:Style', 'xml': 'xml.sax:handler'})\n"
        "assert list(registry) == ['tk', 'xml'] and 'tk' in registry\n"
        "assert 'xml.sax' not in sys.modules\n"
        "registry.get('xml')\n"
        "assert 'xml.sax' in sys.modules and 'tkinter' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_plugins_enter_by_entry_points(monkeypatch):
    import odesteer.registry as module

    class Entry:
        name, value = "plugged", "collections:deque"

    asked = []

    def entry_points(group):
        asked.append(group)
        return [Entry()]

    monkeypatch.setattr(module, "entry_points", entry_points)
    registry = Registry("thing", {"counter": "collections:Counter"}, "odesteer.things")
    assert asked == []  # not at import
    assert list(registry) == ["counter", "plugged"]
    assert registry.get("plugged").__name__ == "deque"
    assert asked == ["odesteer.things"]
