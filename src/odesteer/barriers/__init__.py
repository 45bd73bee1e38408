"""Barrier functions: log-density ratios of desirable to undesirable activations."""

from odesteer.barriers.base import Barrier, Restriction
from odesteer.barriers.combined import FrozenBarrier, MinimumBarrier, ProductBarrier
from odesteer.barriers.contrast import Contrast, FitArguments, Groups, check_contrast
from odesteer.barriers.fitting import Fitting
from odesteer.barriers.gaussian import (
    LinearDiscriminantBarrier,
    QuadraticDiscriminantBarrier,
    pooled_covariance,
)
from odesteer.barriers.heads import HeadBarrier
from odesteer.barriers.inputs import (
    Centred,
    Inputs,
    Raw,
    Standardized,
    StandardizedSphere,
    UnitSphere,
)
from odesteer.barriers.linear import (
    HomogeneousBarrier,
    LinearBarrier,
    LogisticProbeBarrier,
    MeanDifferenceBarrier,
    PrincipalDifferenceBarrier,
)
from odesteer.barriers.multi_label import MultiLabelBarrier
from odesteer.barriers.neighbours import NeighbourBarrier
from odesteer.barriers.neural import NeuralBarrier
from odesteer.barriers.pairing import Pairing, pair
from odesteer.barriers.polynomial import KernelApproximation, PolynomialBarrier
from odesteer.barriers.potential import (
    GatedPotential,
    LinearPotential,
    NeuralPotential,
    Potential,
    QuadraticPotential,
)
from odesteer.barriers.projected import ProjectedBarrier
from odesteer.barriers.random_features import RandomFourierBarrier, TensorSketchBarrier
from odesteer.barriers.sae import FeatureShare, SAEBarrier
from odesteer.barriers.shared_projection import SharedProjectionBarrier
from odesteer.barriers.training import Training
from odesteer.barriers.value import ValueBarrier
from odesteer.registry import Registry

registry: Registry[Barrier] = Registry(
    "barrier",
    {
        "linear": "odesteer.barriers.linear:LinearBarrier",
        "logistic-probe": "odesteer.barriers.linear:LogisticProbeBarrier",
        "homogeneous": "odesteer.barriers.linear:HomogeneousBarrier",
        "mean-difference": "odesteer.barriers.linear:MeanDifferenceBarrier",
        "linear-discriminant": "odesteer.barriers.gaussian:LinearDiscriminantBarrier",
        "quadratic-discriminant": "odesteer.barriers.gaussian:QuadraticDiscriminantBarrier",
        "principal-difference": "odesteer.barriers.linear:PrincipalDifferenceBarrier",
        "heads": "odesteer.barriers.heads:HeadBarrier",
        "polynomial": "odesteer.barriers.polynomial:PolynomialBarrier",
        "tensor-sketch": "odesteer.barriers.random_features:TensorSketchBarrier",
        "random-fourier": "odesteer.barriers.random_features:RandomFourierBarrier",
        "sae": "odesteer.barriers.sae:SAEBarrier",
        "neural": "odesteer.barriers.neural:NeuralBarrier",
        "value": "odesteer.barriers.value:ValueBarrier",
        "linear-potential": "odesteer.barriers.potential:LinearPotential",
        "gated-potential": "odesteer.barriers.potential:GatedPotential",
        "quadratic-potential": "odesteer.barriers.potential:QuadraticPotential",
        "neural-potential": "odesteer.barriers.potential:NeuralPotential",
        "product": "odesteer.barriers.combined:ProductBarrier",
        "minimum": "odesteer.barriers.combined:MinimumBarrier",
        "frozen": "odesteer.barriers.combined:FrozenBarrier",
        "multi-label": "odesteer.barriers.multi_label:MultiLabelBarrier",
        "neighbours": "odesteer.barriers.neighbours:NeighbourBarrier",
        "projected": "odesteer.barriers.projected:ProjectedBarrier",
        "shared-projection": "odesteer.barriers.shared_projection:SharedProjectionBarrier",
    },
    entry_point_group="odesteer.barriers",
)
inputs_registry: Registry[Inputs] = Registry(
    "inputs",
    {
        "raw": "odesteer.barriers.inputs:Raw",
        "unit-sphere": "odesteer.barriers.inputs:UnitSphere",
        "centred": "odesteer.barriers.inputs:Centred",
        "standardized": "odesteer.barriers.inputs:Standardized",
        "standardized-sphere": "odesteer.barriers.inputs:StandardizedSphere",
    },
)
training_registry: Registry[Training] = Registry(
    "training", {"adamw": "odesteer.barriers.training:Training"}
)
function_registry: Registry[object] = Registry(
    "function",
    {
        "quadratic": "odesteer.barriers.quadratic:QuadraticFunction",
        "kernel-expansion": "odesteer.barriers.polynomial:KernelExpansion",
        "tensor-sketch": "odesteer.barriers.random_features:TensorSketch",
        "random-fourier": "odesteer.barriers.random_features:RandomFourierFunction",
        "sparse-feature": "odesteer.barriers.sae:SparseFeatureFunction",
        "neighbour-distance": "odesteer.barriers.neighbours:NeighbourDistance",
        "perceptron": "odesteer.barriers.neural:Perceptron",
        "modulated-perceptron": "odesteer.barriers.shared_projection:ModulatedPerceptron",
        "linear": "odesteer.barriers.potential:LinearFunction",
        "gated": "odesteer.barriers.potential:GatedFunction",
        "low-rank": "odesteer.barriers.potential:LowRankFunction",
        "softplus": "odesteer.barriers.potential:SoftplusFunction",
    },
)

__all__ = [
    "Barrier",
    "Centred",
    "Contrast",
    "FeatureShare",
    "FitArguments",
    "Fitting",
    "FrozenBarrier",
    "GatedPotential",
    "Groups",
    "HeadBarrier",
    "HomogeneousBarrier",
    "Inputs",
    "KernelApproximation",
    "LinearBarrier",
    "LinearDiscriminantBarrier",
    "LinearPotential",
    "LogisticProbeBarrier",
    "MeanDifferenceBarrier",
    "MinimumBarrier",
    "MultiLabelBarrier",
    "NeighbourBarrier",
    "NeuralBarrier",
    "NeuralPotential",
    "Pairing",
    "PolynomialBarrier",
    "Potential",
    "PrincipalDifferenceBarrier",
    "ProductBarrier",
    "ProjectedBarrier",
    "QuadraticDiscriminantBarrier",
    "QuadraticPotential",
    "RandomFourierBarrier",
    "Raw",
    "Restriction",
    "SAEBarrier",
    "SharedProjectionBarrier",
    "Standardized",
    "StandardizedSphere",
    "TensorSketchBarrier",
    "Training",
    "UnitSphere",
    "ValueBarrier",
    "check_contrast",
    "function_registry",
    "inputs_registry",
    "pair",
    "pooled_covariance",
    "registry",
    "training_registry",
]
