"""Barriers of every kind, fitted on small synthetic activations."""

from functools import cache
from pathlib import Path

import torch

from odesteer.barriers import (
    Barrier,
    Centred,
    FrozenBarrier,
    HeadBarrier,
    HomogeneousBarrier,
    LinearBarrier,
    LinearDiscriminantBarrier,
    LogisticProbeBarrier,
    MeanDifferenceBarrier,
    MinimumBarrier,
    MultiLabelBarrier,
    NeighbourBarrier,
    NeuralBarrier,
    PolynomialBarrier,
    PrincipalDifferenceBarrier,
    ProductBarrier,
    ProjectedBarrier,
    QuadraticDiscriminantBarrier,
    RandomFourierBarrier,
    Raw,
    SAEBarrier,
    SharedProjectionBarrier,
    Standardized,
    StandardizedSphere,
    TensorSketchBarrier,
    Training,
    UnitSphere,
    ValueBarrier,
)

WIDTH = 12
MASSIVE = 3  # the coordinate that is large in `massive_contrast`
EXACT = {"rank_tolerance": 0.0, "folds": 0}

# A JumpReLU autoencoder of 30 features, with random weights, that knows this width alone.
TINY_SAE = str(Path(__file__).parent / "barriers" / "tiny_sae")

BARRIERS: dict[str, Barrier] = {
    "linear-centred": LinearBarrier(folds=0),
    "linear-raw": LinearBarrier(inputs=Raw(), folds=0),
    "linear-sphere": LinearBarrier(inputs=UnitSphere(), C=10.0, folds=0),
    "linear-own-spreads": LinearBarrier(10.0, Standardized(), folds=0),
    "linear-standardized": LinearBarrier(10.0, StandardizedSphere(), folds=0),
    "linear-coordinatewise": LinearBarrier(10.0, StandardizedSphere(True), folds=0),
    "logistic-probe": LogisticProbeBarrier(folds=0),
    "logistic-probe-centred": LogisticProbeBarrier(inputs=Centred(), folds=0),
    "homogeneous": HomogeneousBarrier(folds=0),
    "homogeneous-raw": HomogeneousBarrier(0.1, inputs=Raw(), folds=0),
    # With centred differences it need not tell the classes apart.
    "principal-difference": PrincipalDifferenceBarrier(False, folds=0),
    "heads": HeadBarrier(3, folds=0),
    "heads-chosen": HeadBarrier(3, (2, 0), MeanDifferenceBarrier(), folds=0),
    "mean-difference-raw": MeanDifferenceBarrier(folds=0),
    "mean-difference-sphere": MeanDifferenceBarrier(UnitSphere(), folds=0),
    "linear-discriminant": LinearDiscriminantBarrier(folds=0),
    "linear-discriminant-sphere": LinearDiscriminantBarrier(inputs=UnitSphere(), folds=0),
    "quadratic-discriminant": QuadraticDiscriminantBarrier(folds=0),
    "quadratic-discriminant-raw": QuadraticDiscriminantBarrier(0.1, 0.5, Raw(), folds=0),
    "polynomial-1": PolynomialBarrier(degree=1, **EXACT),
    "polynomial-2": PolynomialBarrier(C=100.0, **EXACT),
    "polynomial-2-raw": PolynomialBarrier(inputs=Raw(), gamma=0.01, **EXACT),
    "polynomial-2-centred": PolynomialBarrier(inputs=Centred(), gamma=1.0, C=10.0, **EXACT),
    "polynomial-2-truncated": PolynomialBarrier(rank_tolerance=0.2, folds=0),
    "polynomial-2-landmarks": PolynomialBarrier(max_exact=20, n_landmarks=16, **EXACT),
    "polynomial-2-own-spreads": PolynomialBarrier(C=100.0, inputs=Standardized(), **EXACT),
    "polynomial-2-damped": PolynomialBarrier(C=10.0, inputs=Standardized(1.0), **EXACT),
    "polynomial-3-own-spreads": PolynomialBarrier(3, inputs=Standardized(), **EXACT),
    "polynomial-2-standardized": PolynomialBarrier(C=10.0, inputs=StandardizedSphere(), **EXACT),
    "polynomial-2-coordinatewise": PolynomialBarrier(
        C=10.0, inputs=StandardizedSphere(True), **EXACT
    ),
    "polynomial-3-standardized": PolynomialBarrier(3, inputs=StandardizedSphere(), **EXACT),
    "polynomial-3": PolynomialBarrier(degree=3, gamma=1.0, **EXACT),
    "polynomial-4-centred": PolynomialBarrier(degree=4, gamma=1.0, inputs=Centred(), **EXACT),
    "sketch-1": TensorSketchBarrier(degree=1, n_components=40, folds=0),
    "sketch-2": TensorSketchBarrier(n_components=90, C=100.0, folds=0),
    "sketch-2-centred": TensorSketchBarrier(n_components=90, inputs=Centred(), gamma=1.0, folds=0),
    "sketch-3": TensorSketchBarrier(degree=3, n_components=91, C=100.0, folds=0),
    "sketch-4-raw": TensorSketchBarrier(4, gamma=0.01, n_components=90, inputs=Raw(), folds=0),
    "fourier": RandomFourierBarrier(n_components=100, folds=0),
    "fourier-sphere": RandomFourierBarrier(n_components=100, inputs=UnitSphere(), folds=0),
    "neural": NeuralBarrier(hidden=(16,), max_epochs=30, folds=0),
    "neural-deep-sphere": NeuralBarrier((8, 8), max_epochs=30, inputs=UnitSphere(), folds=0),
    "sae": SAEBarrier(TINY_SAE, folds=0),
    "sae-few": SAEBarrier(TINY_SAE, n_features=5, softness=0.2, folds=0),
    "value": ValueBarrier(hidden=(16,), folds=0),
    "value-deep-sphere": ValueBarrier((8, 8), inputs=UnitSphere(), folds=0),
    "neighbours": NeighbourBarrier(5),
    "neighbours-standardized": NeighbourBarrier(3, 0.9, "all", 30, StandardizedSphere()),
    "multi-label": MultiLabelBarrier(
        hidden=(8,), training=Training(max_epochs=30, keep_best=True), folds=0
    ),
    "projected": ProjectedBarrier(PolynomialBarrier(folds=0), 5, folds=0),
    "shared-projection": SharedProjectionBarrier(
        3, (4,), Training(max_epochs=20, keep_best=True), folds=0
    ),
    "projected-linear": ProjectedBarrier(LinearBarrier(folds=0), 99, folds=0),
    "product": ProductBarrier((LinearBarrier(folds=0), PolynomialBarrier(folds=0)), folds=0),
    "product-weighted": ProductBarrier(
        (LinearBarrier(folds=0), MeanDifferenceBarrier(folds=0)), (2.0, 0.01), folds=0
    ),
    "minimum": MinimumBarrier((LinearBarrier(folds=0), PolynomialBarrier(folds=0)), folds=0),
    "minimum-smooth": MinimumBarrier(
        (LinearBarrier(folds=0), PolynomialBarrier(3, folds=0)), (0.5, 1.0), 0.3, folds=0
    ),
}


def contrast(
    n: int = 40, width: int = WIDTH, seed: int = 1, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor]:
    """Positives and negatives `[n, width]` with a common mean and unequal variances."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(2, n, width, generator=generator, dtype=torch.float64)
    centre = torch.linspace(-1, 1.5, width, dtype=torch.float64)
    scale = torch.linspace(1.6, 0.5, width, dtype=torch.float64)
    shift = 0.6 * torch.cos(torch.arange(width, dtype=torch.float64))
    positive = draw[0] * scale + centre + shift
    negative = draw[1] * scale.flip(0) + centre - shift
    return positive.to(dtype), negative.to(dtype)


def massive_contrast(
    n: int = 40, seed: int = 1, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `contrast`, with one coordinate a thousand times as large as it is there.

    So it is in residual streams, where a few coordinates hold most of the norm.
    """
    positive, negative = contrast(n, seed=seed)
    for states in (positive, negative):
        states[:, MASSIVE] *= 1000
    return positive.to(dtype), negative.to(dtype)


def massive_queries(n: int = 7, seed: int = 2, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """As `queries`, of the kind of `massive_contrast`."""
    a = queries(n, seed=seed)
    a[:, MASSIVE] *= 1000
    return a.to(dtype)


def queries(
    n: int = 7, width: int = WIDTH, seed: int = 2, dtype: torch.dtype = torch.float64
) -> torch.Tensor:
    """Activations `[n, width]` that no barrier was fitted on."""
    positive, negative = contrast(n, width, seed, dtype)
    return torch.cat([positive, negative])[torch.arange(2 * n).reshape(2, n).T.flatten()[:n]]


@cache
def fitted(name: str, dtype: torch.dtype = torch.float64) -> Barrier:
    """A barrier of the list after `fit`; not to be changed."""
    return BARRIERS[name].clone().fit(*contrast(dtype=dtype))


@cache
def fitted_massive(name: str, dtype: torch.dtype = torch.float64) -> Barrier:
    """A barrier of the list, fitted to activations with a massive coordinate; not to be changed."""
    return BARRIERS[name].clone().fit(*massive_contrast(dtype=dtype))


# Fitted to examples of their own.
BARRIERS["frozen"] = FrozenBarrier(PolynomialBarrier(folds=0).fit(*contrast(seed=5)))
BARRIERS["product-frozen"] = ProductBarrier((BARRIERS["frozen"], LinearBarrier(folds=0)))
