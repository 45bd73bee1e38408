"""Steerer objects: delegation to the method, validation, cards."""

import copy
import pickle
from dataclasses import asdict, replace

import pytest
import torch
from fitted_methods import WIDTH, Collector, clouds

from odesteer.artifact import POSITIONS, Provenance, Site, Steerer
from odesteer.errors import InvalidInputError, ModelError
from odesteer.methods import CAA, Amount, Method


def test_steering_is_the_methods(steerer: Steerer) -> None:
    a = torch.randn(3, WIDTH)
    assert torch.equal(steerer.steer(a, level=1.0), steerer.method.steer(a, level=1.0))
    assert torch.equal(
        steerer.solve(a, Amount("T", 2.0)).state, steerer.method.solve(a, Amount("T", 2.0)).state
    )
    with pytest.raises(InvalidInputError, match="exactly one"):
        steerer.steer(a, level=1.0, T=2.0)


def test_barrier_is_the_methods(steerer: Steerer, collector: Collector) -> None:
    assert steerer.barrier is steerer.method.barrier  # type: ignore[attr-defined]
    del collector.barrier
    assert not hasattr(Steerer(collector), "barrier")


def test_other_widths_are_refused(steerer: Steerer) -> None:
    steerer.check_width(WIDTH)
    with pytest.raises(ModelError, match=r"width 12 \(model 'org/some-model'\).*width 7"):
        steerer.check_width(7)


def test_moving_keeps_the_original(steerer: Steerer) -> None:
    moved = steerer.to(dtype=torch.float64)
    assert moved.barrier.function_.slope_.dtype == torch.float64
    assert steerer.barrier.function_.slope_.dtype == torch.float32
    assert moved.site == steerer.site


def test_digest_is_of_method_and_site(steerer: Steerer, caa: Method) -> None:
    digest = steerer.digest()
    assert len(digest) == 64
    assert replace(steerer, provenance=Provenance(model_id="other")).digest() == digest
    others = {
        replace(steerer, site=Site(1, "generated")).digest(),
        replace(steerer, site=None).digest(),
        replace(steerer, method=caa).digest(),
        Steerer(CAA(T=2.0).fit(*clouds())).digest(),
        Steerer(caa).digest(),
    }
    assert len(others | {digest}) == 6


def test_steerers_copy_and_pickle(steerer: Steerer) -> None:
    for other in (copy.deepcopy(steerer), pickle.loads(pickle.dumps(steerer))):
        assert other.digest() == steerer.digest()
        assert other.provenance == steerer.provenance


@pytest.mark.parametrize("position", POSITIONS)
def test_sites_accept_every_position(position: str) -> None:
    site = Site(0, position)
    assert asdict(site) == {"layer": 0, "position": position, "part": "residual"}
    assert site.described() == {"layer": 0, "position": position}


@pytest.mark.parametrize("layer", [-1, 1.0, "1", True, None])
def test_sites_refuse_other_layers(layer: object) -> None:
    with pytest.raises(InvalidInputError, match="layer must be"):
        Site(layer)  # type: ignore[arg-type]


def test_sites_refuse_other_positions() -> None:
    with pytest.raises(InvalidInputError, match=r"last, generated, prompt, all, .* not 'first'"):
        Site(0, "first")


def test_sites_accept_every_part() -> None:
    heads = Site(3, part="heads")
    assert heads.described() == {"layer": 3, "position": "last", "part": "heads"}
    assert str(heads) == "layer 3, heads, positions: last"
    assert Site(2).depth < heads.depth < Site(3).depth
    assert heads.depth < Site(3).depth < Site(3, part="final").depth
    with pytest.raises(
        InvalidInputError, match=r"part must be one of residual, heads, final, not 'mlp'"
    ):
        Site(0, part="mlp")


@pytest.mark.parametrize(
    "wrong",
    [
        {"model_id": 3},
        {"model_width": "12"},
        {"n_positive": True},
        {"n_layers": -1},
        {"held_out": [("auc", 1.0)]},
        {"held_out": {"auc": float("nan")}},
        {"held_out": {"auc": "1"}},
    ],
    ids=str,
)
def test_provenance_is_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(wrong))):
        Provenance(**wrong)  # type: ignore[arg-type]


def test_provenance_is_a_value() -> None:
    one = Provenance(held_out={"auc": 1, "log_loss": 0.5})
    other = Provenance(held_out={"log_loss": 0.5, "auc": 1.0})
    assert one == other
    assert hash(one) == hash(other)
    assert list(one.held_out) == ["auc", "log_loss"]


def test_cards_tell_what_is_recorded(steerer: Steerer) -> None:
    card = steerer.card()
    for told in (
        'base_model: "org/some-model"',
        "library_name: odesteer",
        "| layer (from zero) | `2` |",
        "| positions steered | `generated` |",
        "| positive examples | `30` |",
        "| auc | 0.875 |",
        steerer.digest(),
        "steerer, level=1.5)",
    ):
        assert told in card
    assert "chat template" not in card


def test_cards_of_bare_methods_claim_nothing(caa: Method) -> None:
    card = Steerer(caa).card()
    assert "base_model" not in card
    assert "Held-out" not in card
    assert "layer (from zero)" not in card


def test_cards_do_not_call_a_folder_a_base_model(steerer: Steerer) -> None:
    local = replace(steerer, provenance=replace(steerer.provenance, model_id="./models/mine"))
    assert "base_model" not in local.card()


def test_cards_keep_strange_names_in_their_cells(steerer: Steerer) -> None:
    strange = "a|b`c\n# heading <script> ---"
    card = replace(steerer, provenance=Provenance(model_id=strange)).card()
    assert "\n# heading" not in card
    assert "<script>" not in card
    assert all(line.count("|") == 3 for line in card.splitlines() if line.startswith("|"))
