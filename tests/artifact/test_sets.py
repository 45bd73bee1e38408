"""SteererSet in files, gates, and sites at the attention heads."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fitted_methods import WIDTH, clouds
from test_hostile_files import pack, refused, unpack

from odesteer.artifact import Gate, Provenance, Site, Steerer, SteererSet, load
from odesteer.errors import ArtifactError, InvalidInputError
from odesteer.methods import CAA, LinearAcT, ODESteer


def members(provenance: Provenance) -> list[Steerer]:
    kinds = [(ODESteer(), Site(2)), (CAA(T=0.5), Site(1, "all")), (CAA(), Site(2, part="heads"))]
    return [Steerer(method.fit(*clouds()), site, provenance) for method, site in kinds]


@pytest.fixture(scope="module")
def several(provenance: Provenance) -> SteererSet:
    return SteererSet(members(provenance))


@pytest.fixture
def saved_set(several: SteererSet, tmp_path: Path) -> Path:
    several.save(tmp_path / "set.safetensors")
    return tmp_path / "set.safetensors"


@pytest.fixture(scope="module")
def condition() -> Steerer:
    return Steerer(ODESteer().fit(*clouds()), Site(1, part="heads"))


def steers_the_same(one: Steerer, other: Steerer) -> bool:
    a = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(1))
    return torch.equal(one.steer(a, strength=0.4), other.steer(a, strength=0.4))


def test_sets_are_in_the_order_of_a_forward_pass(several: SteererSet) -> None:
    assert several.sites == (Site(1, "all"), Site(2, part="heads"), Site(2))
    assert several.members == tuple(several) == several.steerers
    assert several[-1].site == Site(2)
    assert several.quantities == ("strength", "level", "T")


def test_sets_come_back_to_the_bit(several: SteererSet, saved_set: Path, tmp_path: Path) -> None:
    loaded = load(saved_set)
    assert isinstance(loaded, SteererSet)
    assert loaded.sites == several.sites
    assert all(map(steers_the_same, loaded, several))
    assert [one.provenance.held_out for one in loaded] == [
        one.provenance.held_out for one in several
    ]
    assert loaded.digest() == several.digest()
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == saved_set.read_bytes()
    assert SteererSet.load(saved_set).digest() == several.digest()


def test_digests_tell_sets_apart(several: SteererSet, provenance: Provenance) -> None:
    fewer = SteererSet(several.steerers[:2])
    moved = SteererSet([*several.steerers[:2], replace(several[2], site=Site(3))])
    alone = SteererSet(several.steerers[:1])
    digests = {one.digest() for one in (several, fewer, moved, alone, alone[0])}
    assert len(digests) == 5
    unknown = SteererSet(replace(one, provenance=Provenance()) for one in several)
    assert unknown.digest() == several.digest()


def test_what_is_no_set(several: SteererSet) -> None:
    with pytest.raises(InvalidInputError, match="at least one"):
        SteererSet([])
    with pytest.raises(InvalidInputError, match="holds steerers, not 'a'"):
        SteererSet("a")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="needs a site"):
        SteererSet([replace(several[0], site=None)])
    with pytest.raises(InvalidInputError, match=r"at the same site \(layer 1, positions: all\)"):
        SteererSet([several[0], several[0]])


def test_files_of_sets_and_of_steerers_are_told_apart(
    saved_set: Path, saved: Path, steerer: Steerer
) -> None:
    with pytest.raises(ArtifactError, match=r"a set of 3 steerers; open it with odesteer\.load"):
        Steerer.load(saved_set)
    with pytest.raises(ArtifactError, match="one steerer, no set"):
        SteererSet.load(saved)
    assert load(saved).digest() == steerer.digest()


def test_sites_of_the_residual_stream_are_written_as_before(steerer: Steerer, saved: Path) -> None:
    """Files from before there were other parts are of this kind."""
    _, described, _ = unpack(saved.read_bytes())
    assert described["format"] == 1
    assert described["site"] == {"layer": 2, "position": "generated"}
    loaded = load(saved)
    assert isinstance(loaded, Steerer)
    assert loaded.site == steerer.site == Site(2, "generated", "residual")


def test_sites_among_the_heads_come_back(steerer: Steerer, tmp_path: Path) -> None:
    of_heads = replace(steerer, site=Site(2, part="heads"))
    assert of_heads.digest() != replace(steerer, site=Site(2)).digest()
    of_heads.save(tmp_path / "heads.safetensors")
    assert Steerer.load(tmp_path / "heads.safetensors").site == Site(2, part="heads")
    assert "| part of the layer | `heads` |" in of_heads.card()


def test_heads_may_have_another_width_than_the_model(provenance: Provenance) -> None:
    narrow = replace(provenance, model_width=7, n_heads=4)
    of_heads = Steerer(CAA().fit(*clouds()), Site(1, part="heads"), narrow)
    assert of_heads.provenance.n_heads == 4
    with pytest.raises(InvalidInputError, match=r"width 12.* width 7"):
        replace(of_heads, site=Site(1))


def test_gates_come_back(steerer: Steerer, condition: Steerer, tmp_path: Path) -> None:
    gated = steerer.when(condition, below=-0.5, pool="mean")
    gated.save(tmp_path / "gated.safetensors")
    loaded = Steerer.load(tmp_path / "gated.safetensors")
    assert loaded.gate is not None
    assert (loaded.gate.below, loaded.gate.above, loaded.gate.pool) == (-0.5, None, "mean")
    assert loaded.gate.site == condition.site
    assert steers_the_same(loaded.gate.condition, condition)
    assert loaded.gate.threshold == gated.gate.threshold  # type: ignore[union-attr]
    assert steers_the_same(loaded, steerer)
    assert loaded.digest() == gated.digest()
    others = [steerer, steerer.when(condition, above=-0.5, pool="mean")]
    others += [steerer.when(condition, below=0), steerer.when(condition, below=0.1)]
    assert len({one.digest() for one in (*others, gated)}) == 5
    loaded.save(tmp_path / "again.safetensors")
    again = (tmp_path / "again.safetensors").read_bytes()
    assert again == (tmp_path / "gated.safetensors").read_bytes()


def test_gates_of_a_set_share_their_condition(
    several: SteererSet, condition: Steerer, tmp_path: Path
) -> None:
    gated = several.when(condition, above=0)
    gated.save(tmp_path / "gated.safetensors")
    loaded = SteererSet.load(tmp_path / "gated.safetensors")
    assert len({id(one.gate.condition) for one in loaded if one.gate}) == 1
    assert len({one.gate for one in loaded}) == 1
    assert loaded.digest() == gated.digest() != several.digest()


BAD_GATES: list[tuple[dict[str, Any], str]] = [
    ({}, "one of below and above, not below=None and above=None"),
    ({"below": 0, "above": 1}, "one of below and above"),
    ({"below": float("nan")}, "must be a number, not nan"),
    ({"above": "high"}, "must be a number, not 'high'"),
    ({"above": True}, "must be a number, not True"),
    ({"above": 0, "pool": "first"}, "pool must be one of last, mean, not 'first'"),
]


@pytest.mark.parametrize(("options", "message"), BAD_GATES)
def test_what_is_no_gate(
    steerer: Steerer, condition: Steerer, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        steerer.when(condition, **options)


def test_what_is_no_condition(steerer: Steerer, condition: Steerer) -> None:
    with pytest.raises(InvalidInputError, match="a condition is a Steerer"):
        steerer.when(condition.method, below=0)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="not bound to a layer"):
        steerer.when(replace(condition, site=None), below=0)
    with pytest.raises(InvalidInputError, match="cannot have a condition itself"):
        steerer.when(condition.when(condition, below=0), below=0)
    without = Steerer(LinearAcT().fit(*clouds()), Site(1))
    with pytest.raises(InvalidInputError, match="LinearAcT has no barrier"):
        steerer.when(without, below=0)
    with pytest.raises(InvalidInputError, match="gate must be a Gate or None"):
        replace(steerer, gate=0)  # type: ignore[arg-type]


def test_gates_say_what_they_do(steerer: Steerer, condition: Steerer) -> None:
    gate = Gate(condition, above=0.5)
    told = "only where ODESteer at layer 1, heads finds the last token of the prompt above level"
    assert str(gate).startswith(told)
    assert told in replace(steerer, gate=gate).card()


def test_the_card_of_a_set(several: SteererSet, tmp_path: Path) -> None:
    card = several.card()
    for told in (
        "A set of 3 activation steerers of the method CAA and ODESteer",
        "SteererSet.from_pretrained",
        "| layer (from zero) | `1, 2, 2` |",
        "| model | `org/some-model` |",
        "| layer 2, heads, positions: last: auc | 0.875 |",
        several.digest(),
    ):
        assert told in card
    several.save_pretrained(tmp_path / "folder")
    assert SteererSet.from_pretrained(tmp_path / "folder").digest() == several.digest()


def set_to(*path: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(described: dict[str, Any]) -> None:
        spot: Any = described
        for key in path[:-1]:
            spot = spot[key]
        spot[path[-1]] = value

    return change


def dropped(*path: str | int) -> Callable[[dict[str, Any]], None]:
    def change(described: dict[str, Any]) -> None:
        spot: Any = described
        for key in path[:-1]:
            spot = spot[key]
        del spot[path[-1]]

    return change


def doubled(described: dict[str, Any]) -> None:
    described["steerers"].append(json.loads(json.dumps(described["steerers"][0])))


LIES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "no list": (set_to("steerers", value={}), "no list of steerers"),
    "no kind": (set_to("kind", value="bag"), "'bag'"),
    "a list as kind": (set_to("kind", value=["set"]), "no list of steerers"),
    "no steerers": (set_to("steerers", value=[]), "a set of 0 steerers"),
    "one that is several": (set_to("kind", value="steerer"), "a steerer of 3 steerers"),
    "numbers as steerers": (set_to("steerers", value=[1, 2]), "fields method, site"),
    "numbers as conditions": (set_to("conditions", value=[1]), "fields method, site"),
    "no gate": (dropped("steerers", 0, "gate"), "fields method, site, provenance, gate"),
    "text as gate": (set_to("steerers", 0, "gate", value="below"), "a gate expected"),
    "condition that is not there": (
        set_to("steerers", 0, "gate", "condition", value=1),
        "the condition 1 of 1",
    ),
    "boolean condition": (set_to("steerers", 0, "gate", "condition", value=True), "condition True"),
    "gate without a level": (dropped("steerers", 0, "gate", "below"), "a gate makes no sense"),
    "gate with more": (set_to("steerers", 0, "gate", "mood", value=1), "a gate makes no sense"),
    "strange part": (set_to("steerers", 1, "site", "part", value="mlp"), "part must be one of"),
    "no site": (set_to("steerers", 0, "site", value=None), "needs a site"),
    "twice the same": (doubled, "is missing"),
    "unused condition": (
        lambda d: [part.update(gate=None) for part in d["steerers"]] and None,
        "belong to no gate",
    ),
    "steerer left out": (dropped("steerers", 2), "belong to nothing"),
    "condition without barrier": (
        lambda d: d["conditions"][0].update(site=None),
        "a gate makes no sense",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_refused_with_the_reason(
    lie: str, several: SteererSet, condition: Steerer, tmp_path: Path
) -> None:
    several.when(condition, below=0.5).save(tmp_path / "set.safetensors")
    header, described, tensors = unpack((tmp_path / "set.safetensors").read_bytes())
    change, told = LIES[lie]
    change(described)
    assert told in refused(pack(header, described, tensors), tmp_path)
