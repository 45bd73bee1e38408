"""Natural coordinates of training: what a step costs, in any direction."""

import pytest
import torch

import tiny_models
from odesteer.models import SteeredModel
from odesteer.models.training import coordinates as coordinates_module
from odesteer.models.training.coordinates import natural_coordinates, output_information
from odesteer.models.training.replay import Replay
from odesteer.models.training.tasks import NeutralCost


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
def test_every_direction_costs_the_same(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    d, kl = 12, 0.2
    factor = torch.randn(d, d, generator=generator, dtype=torch.float64)
    factor[:, 0] *= 30  # a coordinate that costs far more than the others
    information = scale * (factor.T @ factor)
    found = natural_coordinates(information, kl)
    u = torch.randn(d, 50, generator=generator)
    w = found.basis.double() @ (u / u.norm(dim=0) * d**0.5).double()
    costs = 0.5 * (w * (information @ w)).sum(0)
    assert (costs <= kl * 1.001).all()
    # Directions of which little is known are damped, the others cost all of it.
    sure = torch.linalg.eigh(information).eigenvectors[:, -1]
    along = torch.linalg.solve(found.basis.double(), sure[:, None])
    along *= d**0.5 / along.norm()
    w = found.basis.double() @ along
    assert float(0.5 * (w * (information @ w)).sum()) == pytest.approx(kl, rel=0.2)


def test_leaves_and_back() -> None:
    generator = torch.Generator().manual_seed(0)
    factor = torch.randn(6, 6, generator=generator)
    found = natural_coordinates(factor.T @ factor, 0.1)
    leaves = {
        "weight_": torch.randn(6, generator=generator),
        "directions_": torch.randn(2, 6, generator=generator),
    }
    back = found.leaves(found.moved(leaves))
    for name, leaf in leaves.items():
        torch.testing.assert_close(back[name], leaf, atol=1e-5, rtol=1e-4)


def test_texts_that_nothing_moves_give_plain_coordinates() -> None:
    found = natural_coordinates(torch.zeros(3, 3), 0.1)
    assert torch.isfinite(found.basis).all()
    assert torch.equal(found.basis, found.basis.diagonal().diag())


def test_the_information_is_the_curvature_of_the_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinates_module, "_SAMPLES", 120)
    lm = SteeredModel(tiny_models.llama(), tiny_models.tokenizer())
    sites = [lm._sites.at(1), lm._sites.at(2)]
    replay = Replay(lm, sites)
    cost = NeutralCost(replay, lm.neutral_texts([f"Hello {i}!" for i in range(12)]), 4)
    unit = 2.0
    found = output_information(replay, cost.batches, dict.fromkeys(sites, unit), seed=0)
    generator = torch.Generator().manual_seed(1)
    for site, information in found.items():
        assert torch.allclose(information, information.T)
        w = torch.randn(site.width, generator=generator)
        w *= 0.02 / w.norm()
        total, n = 0.0, 0
        with torch.no_grad():
            for batch in cost.batches:
                each = cost.of_texts(batch, {site: lambda a, w=w: a + unit * w})
                total += float((each * batch.n_tokens).sum())
                n += int(batch.n_tokens.sum())
        expected = 0.5 * float(w.double() @ information @ w.double())
        assert total / n == pytest.approx(expected, rel=0.15)
    again = output_information(replay, cost.batches, dict.fromkeys(sites, unit), seed=0)
    assert all(torch.equal(found[site], again[site]) for site in sites)
