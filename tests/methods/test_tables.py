"""The tables of methods, made from the code."""

import pytest
from scripts.write_method_tables import pages

from odesteer.methods import QUANTITIES, registry
from odesteer.methods.table import describe, markdown


def test_the_pages_have_what_the_code_says():
    for path, text in pages():
        assert path.read_text() == text, "run: python scripts/write_method_tables.py"


def test_every_method_has_a_section_of_its_own():
    text = "\n".join(text for _, text in pages())
    for name in registry:
        assert text.count(f"\n## {name}\n") == 1
        assert text.count(f"[`{name}`](methods/") == 1
        for parameter in describe(name).parameters:
            assert f"| `{parameter.name}` | `{parameter.default}`" in text


@pytest.mark.parametrize("name", list(registry))
def test_every_parameter_is_explained(name):
    description = describe(name)
    assert [each.name for each in description.parameters] == list(description.cls.parameter_names())
    for parameter in description.parameters:
        assert len(parameter.meaning) > 10, f"{name}.{parameter.name}"
    assert description.summary.endswith(".") or len(description.summary) > 20


@pytest.mark.parametrize("name", list(registry))
def test_the_class_docstring_explains_no_parameter_that_is_not_there(name):
    from odesteer.methods.table import _meanings

    cls = registry.get(name)
    assert set(_meanings(cls)) == set(cls.parameter_names())


def test_tables_have_a_row_for_everything():
    lines = markdown().splitlines()
    for name in registry:
        assert sum(line.startswith(f"| `{name}` |") for line in lines) >= 3
    for quantity in QUANTITIES:
        assert sum(line.startswith(f"| `{quantity}` |") for line in lines) == 1
    # Two tables of four columns, one of two and one of seven: no cell has a bar of its own.
    assert {line.count(" | ") + 1 for line in lines if line.startswith("|")} == {2, 4, 7}
