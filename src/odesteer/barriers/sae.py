"""A barrier on the features of a sparse autoencoder (SAE)."""

import functools
import math
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from odesteer.autoencoders import SparseAutoencoder
from odesteer.barriers.base import Barrier, Restriction
from odesteer.barriers.composed import Function
from odesteer.barriers.contrast import Contrast
from odesteer.barriers.fitting import Fitting
from odesteer.barriers.logistic import check_regularisation, fit_features
from odesteer.errors import InvalidInputError
from odesteer.untrusted import is_integer, is_number

_BLOCK = 1024


class FeatureShare(NamedTuple):
    """A feature that carries a barrier.

    Attributes:
        feature: its number in the autoencoder.
        name: what it is known by; empty where it has no name.
        nats: how much of the mean difference of h between positives and negatives is its own.
        on_in_positives, on_in_negatives: the share of the examples in which it is on.
    """

    feature: int
    name: str
    nats: float
    on_in_positives: float
    on_in_negatives: float


class SAEBarrier(Barrier):
    """h(a) = Σⱼ wⱼφⱼ(a) + b by logistic regression on features of a sparse autoencoder.

    The n_features whose class means differ most, in standard deviations, take part. A feature that
    is off has no gradient, so that no flow could turn it on; here its gate is soft: with the
    pre-activation u and the threshold θ, φ = u·σ((u - θ)/τ), which is the feature itself for τ = 0.
    θ is 0 for ReLU, the feature's own for JumpReLU, and for top-k the mean of the k-th largest u.
    Only the encoder of the chosen features is kept, and the autoencoder is read no more.

    Parameters:
        sae: the folder of the autoencoder, in sae-lens's layout (``odesteer sae`` trains one). The
            path is stored with the steerer as it is given.
        n_features: how many features take part at most.
        softness: τ in standard deviations of u over the examples; 0 for hard gates.
        C: inverse strength of the regularisation, on features of unit variance.
        fitting: see `Fitting`; features are chosen anew in each fold.

    Learned: ``function_``; ``features_``, ``names_``, ``nats_``, ``on_in_positives_`` and
    ``on_in_negatives_``, see `carriers`.
    """

    size_parameters = ("n_features",)

    function_: "SparseFeatureFunction"
    features_: list[int]
    names_: list[str]
    nats_: list[float]
    on_in_positives_: list[float]
    on_in_negatives_: list[float]

    def __init__(
        self,
        sae: str = "",
        n_features: int = 64,
        softness: float = 0.5,
        C: float = 1.0,
        fitting: Fitting = Fitting(),
    ) -> None:
        self.sae = sae
        self.n_features = n_features
        self.softness = softness
        self.C = C
        self.fitting = fitting

    def _is_log_ratio(self) -> bool:
        return True

    def _rescale(self, factor: float) -> None:
        if factor != 1:
            self.function_, self.calibration_ = self.function_.scaled(factor), factor
            self.nats_ = [factor * nats for nats in self.nats_]

    def _fit(self, contrast: Contrast) -> None:
        self._check()
        sae = _read(self.sae)
        a, n = contrast.examples.cpu(), len(contrast.positive)
        thresholds = sae.gate_thresholds(a)
        u = torch.cat([sae.pre_activations(block) for block in torch.split(a, _BLOCK)])
        temperatures = self.softness * u.std(dim=0).clamp_min(torch.finfo(u.dtype).tiny)
        features = gated(u, thresholds, temperatures)
        spread = features.std(dim=0)
        difference = features[:n].mean(dim=0) - features[n:].mean(dim=0)
        # What is on nowhere, or everywhere alike, tells nothing.
        varies = spread > 1e-6 * spread.max()
        effect = torch.where(varies, difference.abs() / spread.clamp_min(1e-30), 0.0)
        chosen = effect.topk(min(self.n_features, int((effect > 0).sum()))).indices
        if not len(chosen):
            raise InvalidInputError(
                f"no feature of {self.sae} differs between the classes; use a sparse autoencoder of"
                " this model and layer, or other examples."
            )
        x, scale = features[:, chosen], spread[chosen]
        y = contrast.labels
        weight, intercept = fit_features(x / scale, y, self.C, balanced=True)
        weight = weight / scale
        offset = sae.encoder_bias[chosen]
        if sae.subtracts_bias:
            offset = offset - sae.decoder_bias @ sae.encoder[:, chosen]
        self.function_ = SparseFeatureFunction.of(
            sae.encoder[:, chosen].clone(),
            offset,
            thresholds[chosen],
            temperatures[chosen],
            weight.to(x),
            intercept,
        ).to(contrast.examples.device, contrast.examples.dtype)
        nats = weight * difference[chosen]
        on = (u > thresholds)[:, chosen].double()
        order = nats.argsort(descending=True).tolist()
        self.features_ = [int(chosen[i]) for i in order]
        self.names_ = [sae.name(feature) for feature in self.features_]
        self.nats_ = [float(nats[i]) for i in order]
        self.on_in_positives_ = on[:n].mean(dim=0)[order].tolist()
        self.on_in_negatives_ = on[n:].mean(dim=0)[order].tolist()

    def _check(self) -> None:
        check_regularisation(self.C)
        if not isinstance(self.sae, (str, Path)) or not str(self.sae):
            raise InvalidInputError(
                "SAEBarrier needs the folder of a sparse autoencoder (sae=), in sae-lens's layout;"
                " odesteer sae trains one."
            )
        if not is_integer(self.n_features, 1):
            raise InvalidInputError(
                f"n_features must be a positive integer, not {self.n_features!r}."
            )
        if not is_number(self.softness) or not 0 <= self.softness < math.inf:
            raise InvalidInputError(f"softness must be a number from 0 on, not {self.softness!r}.")

    def carriers(self, n: int = 10) -> list[FeatureShare]:
        """The ``n`` features that carry most of the difference between the classes."""
        self.check_fitted()
        columns = (
            self.features_,
            self.names_,
            self.nats_,
            self.on_in_positives_,
            self.on_in_negatives_,
        )
        return [FeatureShare(*row) for row in zip(*columns, strict=True)][:n]

    def value(self, a: Tensor) -> Tensor:
        a = self._input(a)
        return self.function_.value(a)

    def gradient(self, a: Tensor) -> Tensor:
        a = self._input(a)
        return self.function_.gradient(a)

    def value_and_gradient(self, a: Tensor) -> tuple[Tensor, Tensor]:
        a = self._input(a)
        return self.function_.value_and_gradient(a)

    def restrict(self, a: Tensor, *, radial: bool = False) -> Restriction | None:
        self._input(a)
        return None


class SparseFeatureFunction(Function):
    """f(a) = Σⱼ wⱼ uⱼ σ((uⱼ - θⱼ)/τⱼ) + b with u = Eᵀa + c.

    Learned: ``encoder_`` E `[d, k]`, ``biases_`` c, ``thresholds_`` θ, ``temperatures_`` τ and
    ``weights_`` w `[k]`, ``offset_`` b.
    """

    encoder_: Tensor
    biases_: Tensor
    thresholds_: Tensor
    temperatures_: Tensor
    weights_: Tensor
    offset_: float

    @classmethod
    def of(
        cls,
        encoder: Tensor,
        biases: Tensor,
        thresholds: Tensor,
        temperatures: Tensor,
        weights: Tensor,
        offset: float,
    ) -> "SparseFeatureFunction":
        function = cls()
        function.encoder_, function.biases_ = encoder, biases
        function.thresholds_, function.temperatures_ = thresholds, temperatures
        function.weights_, function.offset_ = weights, float(offset)
        return function

    def scaled(self, factor: float) -> "SparseFeatureFunction":
        return SparseFeatureFunction.of(
            self.encoder_,
            self.biases_,
            self.thresholds_,
            self.temperatures_,
            factor * self.weights_,
            factor * self.offset_,
        )

    def value(self, x: Tensor) -> Tensor:
        return self.value_and_gradient(x)[0]

    def gradient(self, x: Tensor) -> Tensor:
        return self.value_and_gradient(x)[1]

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        encoder, weights = self.encoder_.to(x), self.weights_.to(x)
        u = x @ encoder + self.biases_.to(x)
        gate, slope = _gate(u, self.thresholds_.to(x), self.temperatures_.to(x))
        value = (weights * u * gate).sum(-1) + self.offset_
        return value, (weights * (gate + u * slope)) @ encoder.T


def gated(u: Tensor, thresholds: Tensor, temperatures: Tensor) -> Tensor:
    """Features from pre-activations, `[..., m] -> [..., m]`."""
    return u * _gate(u, thresholds, temperatures)[0]


def _gate(u: Tensor, thresholds: Tensor, temperatures: Tensor) -> tuple[Tensor, Tensor]:
    """σ((u - θ)/τ) and its derivative in u; the step function and 0 where τ is 0."""
    soft = temperatures > 0
    divisor = torch.where(soft, temperatures, 1.0)
    gate = torch.sigmoid((u - thresholds) / divisor)
    slope = gate * (1 - gate) / divisor
    return torch.where(soft, gate, (u > thresholds).to(u)), torch.where(soft, slope, 0.0)


def _read(folder: str | Path) -> SparseAutoencoder:
    """The autoencoder of a folder, kept for the folds of one fit."""
    path = Path(folder)
    stamps = {file.name: file.stat().st_mtime_ns for file in path.glob("*") if file.is_file()}
    return _loaded(str(path), tuple(sorted(stamps.items())))


@functools.lru_cache(maxsize=1)
def _loaded(folder: str, stamps: tuple[tuple[str, int], ...]) -> SparseAutoencoder:
    return SparseAutoencoder.load(folder)
