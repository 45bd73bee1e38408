"""Every method, barrier and solver has a reference, and what is cited is what was used."""

import re
from pathlib import Path

import pytest
import torch

import odesteer
from odesteer import barriers, flows, methods
from odesteer.artifact import Site, Steerer, SteererSet
from odesteer.citations import citation, reference_keys
from odesteer.citations.citing import _references
from odesteer.citations.keys import FAMILIES
from odesteer.errors import InvalidInputError, UnknownNameError

REGISTRIES = {
    "method": methods.registry,
    "barrier": barriers.registry,
    "solver": flows.registry,
    "metric": flows.metric_registry,
}


def keys(text: str) -> list[str]:
    return re.findall(r"^@\w+\{([\w-]+),", text, re.MULTILINE)


@pytest.mark.parametrize("family", ["method", "barrier", "solver"])
def test_every_registered_class_has_a_reference(family: str) -> None:
    registry = REGISTRIES[family]
    own = [n for n in registry if registry.get(n).__module__.startswith("odesteer.")]
    for name in own:
        assert reference_keys(registry.get(name)), f"{family} {name}: add it to citations/keys.py"
    assert set(FAMILIES[family]) <= set(own)


def test_every_key_has_an_entry_and_every_entry_is_used() -> None:
    used = {key for table in FAMILIES.values() for found in table.values() for key in found}
    later = {"cunningham2024sae", "rajamanoharan2024jumprelu", "gao2024scaling"}
    assert used <= set(_references())
    assert set(_references()) <= used | later


def test_entries_are_whole() -> None:
    path = Path(odesteer.__file__).parent / "citations" / "references.bib"
    text = path.read_text()
    assert len(_references()) == text.count("\n@") + 1
    assert len(set(keys(text))) == len(keys(text))
    for entry in _references().values():
        assert entry.count("{") == entry.count("}")
        for field in ("title", "author", "year"):
            assert re.search(rf"^  {field} = \{{.+\}},?$", entry, re.MULTILINE), entry


@pytest.mark.parametrize("name", list(methods.registry))
def test_arxiv_numbers_agree_with_the_table_of_methods(name: str) -> None:
    cls = methods.registry.get(name)
    said = set(re.findall(r"\d{4}\.\d{5}", cls.reference))
    assert said <= set(re.findall(r"\d{4}\.\d{5}", citation(cls)))


def test_the_parts_inside_are_cited_once() -> None:
    method = methods.ODESteer(barriers.TensorSketchBarrier(), flows.BogackiShampine())
    found = keys(citation(method, methods.CAA(), "caa"))
    assert found[0] == "odesteer"
    assert {"zhao2026odesteer", "pham2013tensorsketch", "bogacki1989", "rimsky2024caa"} <= {*found}
    assert len(found) == len(set(found))
    assert "rahimi2007random" not in found


def test_prior_art_is_credited() -> None:
    assert "2602.08169" in citation(methods.Spherical)
    assert "2602.08169" in citation("geodesic")
    for number in ("2602.20102", "2602.01654", "2505.24535"):
        assert number in citation("odesteer")


def test_steerers_and_sets_and_gates() -> None:
    caa = Steerer(methods.CAA.from_direction(torch.ones(4)), Site(1))
    assert keys(citation(SteererSet([caa]))) == ["odesteer", "rimsky2024caa"]
    gated = Steerer(methods.SubspaceMap().fit(torch.randn(9, 6), torch.randn(9, 6)), Site(2)).when(
        Steerer(methods.CAA.from_direction(torch.ones(6)), Site(1)), below=0.0
    )
    assert {"wu2024reft", "lee2025cast", "rimsky2024caa"} <= {*keys(citation(gated))}


def test_without_arguments_it_is_odesteer_alone() -> None:
    assert keys(odesteer.citation()) == ["odesteer"]


def test_what_has_no_reference() -> None:
    with pytest.raises(UnknownNameError, match="'cca'"):
        citation("cca")
    with pytest.raises(InvalidInputError, match="3"):
        citation(3)


def test_the_citation_file_agrees() -> None:
    path = Path(odesteer.__file__).parents[2] / "CITATION.cff"
    if not path.exists():
        pytest.skip("CITATION.cff is not beside the package")
    text = path.read_text()
    assert "2602.17560" in text
    assert f"version: {odesteer.__version__}" in text
