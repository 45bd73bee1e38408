"""`SAEBarrier`: which features are chosen, soft and hard gates, what carries it, bad input."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from barrier_cases import TINY_SAE, WIDTH
from odesteer.artifact import load, save
from odesteer.autoencoders import SparseAutoencoder
from odesteer.barriers import SAEBarrier
from odesteer.errors import InvalidInputError
from odesteer.methods import ODESteer

ORTHOGONAL = 8
PLAIN, SIGNAL = torch.arange(3, 8), 2


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """An autoencoder whose features are the coordinates, one of which has a name."""
    eye = torch.eye(ORTHOGONAL)
    SparseAutoencoder(
        eye, torch.zeros(ORTHOGONAL), eye, torch.zeros(ORTHOGONAL), names={SIGNAL: "sun, smile"}
    ).save(tmp_path / "sae")
    return str(tmp_path / "sae")


def examples(n: int = 150) -> tuple[torch.Tensor, torch.Tensor]:
    """Feature SIGNAL is on in half of the positives and in few negatives."""
    generator = torch.Generator().manual_seed(4)
    a = torch.randn(2, n, ORTHOGONAL, generator=generator, dtype=torch.float64)
    a[0, ::2, SIGNAL] += 4
    a[1, :, SIGNAL] -= 1
    return a[0], a[1]


def test_the_feature_that_differs_carries_it(folder: str) -> None:
    barrier = SAEBarrier(folder, n_features=3).fit(*examples())
    first, *others = barrier.carriers()
    assert (first.feature, first.name) == (SIGNAL, "sun, smile")
    assert len(others) == 2
    assert first.nats > 5 * max(abs(share.nats) for share in others)
    assert first.on_in_positives > 0.6 > 0.3 > first.on_in_negatives
    # Shares add up to what h differs by between the classes.
    positive, negative = examples()
    gap = float(barrier.value(positive).mean() - barrier.value(negative).mean())
    assert sum(share.nats for share in barrier.carriers()) == pytest.approx(gap, rel=1e-4)
    assert barrier.held_out_ is not None
    assert barrier.held_out_["auc"] > 0.75


def test_hard_gates_are_the_features_themselves(folder: str) -> None:
    barrier = SAEBarrier(folder, n_features=8, softness=0.0, folds=0).fit(*examples())
    sae, (a, _) = SparseAutoencoder.load(folder), examples()
    function = barrier.function_
    weights = torch.zeros(ORTHOGONAL, dtype=torch.float64)
    for column, weight in zip(function.encoder_.T, function.weights_, strict=True):
        weights[int(column.argmax())] = weight
    expected = sae.encode(a).double() @ weights + function.offset_
    torch.testing.assert_close(barrier.value(a), expected, rtol=1e-5, atol=1e-5)
    off = torch.full((1, ORTHOGONAL), -1.0, dtype=torch.float64)
    assert not barrier.gradient(off).any()
    soft = SAEBarrier(folder, n_features=8, folds=0).fit(*examples())
    assert soft.gradient(off).any(), "a flow could not turn a feature on"


def test_the_flow_turns_the_feature_on(folder: str) -> None:
    method = ODESteer(SAEBarrier(folder, n_features=3)).fit(*examples())
    _, negative = examples()
    moved = method.steer(negative, level=1.0)
    assert float((moved - negative)[:, SIGNAL].mean()) > 0
    assert bool((method.barrier.value(moved) > method.barrier.value(negative)).all())


@pytest.mark.parametrize("kind", ["relu", "jumprelu", "topk"])
def test_every_architecture_at_another_dtype_and_scale(kind: str, tmp_path: Path) -> None:
    sae = replace(
        SparseAutoencoder.load(TINY_SAE),
        activation=kind,
        thresholds=torch.full((30,), 0.2) if kind == "jumprelu" else None,
        k=5 if kind == "topk" else None,
    )
    sae.save(tmp_path)
    generator = torch.Generator().manual_seed(2)
    positive = torch.randn(40, WIDTH, generator=generator) + 0.5
    negative = torch.randn(40, WIDTH, generator=generator) - 0.5
    barrier = SAEBarrier(str(tmp_path), folds=0).fit(positive, negative)
    assert barrier.value(positive).dtype == torch.float32
    assert float((barrier.value(positive) > 0).float().mean()) > 0.8
    assert barrier.value(positive.bfloat16()).dtype == torch.float32
    if kind == "topk":
        threshold = sae.pre_activations(torch.cat([positive, negative])).topk(5).values[:, -1]
        expected = float(threshold.clamp_min(0).mean())
        assert float(barrier.function_.thresholds_[0]) == pytest.approx(expected, rel=1e-5)


def test_a_loaded_steerer_needs_the_autoencoder_no_more(folder: str, tmp_path: Path) -> None:
    method = ODESteer(SAEBarrier(folder, n_features=3)).fit(*examples())
    save(method, tmp_path / "s.safetensors")
    for file in Path(folder).iterdir():
        file.unlink()
    loaded = load(tmp_path / "s.safetensors").method
    assert loaded.barrier.carriers() == method.barrier.carriers()
    a = examples()[1][:3]
    assert torch.equal(loaded.steer(a, level=1.0), method.steer(a, level=1.0))
    with pytest.raises(InvalidInputError, match="odesteer sae"):
        method.clone().fit(*examples())


@pytest.mark.parametrize(
    ("barrier", "told"),
    [
        (SAEBarrier(), "needs the folder"),
        (SAEBarrier("no-such-folder"), "no-such-folder has no cfg.json"),
        (SAEBarrier(TINY_SAE, n_features=0), "n_features"),
        (SAEBarrier(TINY_SAE, softness=-1.0), "softness"),
        (SAEBarrier(TINY_SAE, C=0.0), "C must be"),
        (SAEBarrier(TINY_SAE), f"width {ORTHOGONAL}.*width {WIDTH}"),
    ],
)
def test_what_cannot_be_fitted(barrier: SAEBarrier, told: str) -> None:
    with pytest.raises(InvalidInputError, match=told):
        barrier.fit(*examples(20))
    assert not barrier.is_fitted


def test_no_feature_differs(tmp_path: Path) -> None:
    eye = torch.eye(ORTHOGONAL)
    never_on = SparseAutoencoder(eye, torch.full((ORTHOGONAL,), -1e9), eye, torch.zeros(ORTHOGONAL))
    never_on.save(tmp_path)
    with pytest.raises(InvalidInputError, match="no feature of"):
        SAEBarrier(str(tmp_path), softness=0.0).fit(*examples(20))
