"""Barrier functions: log-density ratios of desirable to undesirable activations."""

from odesteer.barriers.base import Barrier, Restriction
from odesteer.barriers.contrast import Contrast, Groups, check_contrast
from odesteer.barriers.covariance import pooled_covariance
from odesteer.barriers.fourier import RandomFourierBarrier
from odesteer.barriers.inputs import Centred, Inputs, Raw, UnitSphere
from odesteer.barriers.linear import (
    LinearBarrier,
    LinearDiscriminantBarrier,
    MeanDifferenceBarrier,
)
from odesteer.barriers.neural import NeuralBarrier
from odesteer.barriers.polynomial import PolynomialBarrier
from odesteer.barriers.sketch import TensorSketchBarrier
from odesteer.registry import Registry

registry: Registry[Barrier] = Registry(
    "barrier",
    {
        "linear": "odesteer.barriers.linear:LinearBarrier",
        "mean-difference": "odesteer.barriers.linear:MeanDifferenceBarrier",
        "linear-discriminant": "odesteer.barriers.linear:LinearDiscriminantBarrier",
        "polynomial": "odesteer.barriers.polynomial:PolynomialBarrier",
        "tensor-sketch": "odesteer.barriers.sketch:TensorSketchBarrier",
        "random-fourier": "odesteer.barriers.fourier:RandomFourierBarrier",
        "neural": "odesteer.barriers.neural:NeuralBarrier",
    },
    entry_point_group="odesteer.barriers",
)
inputs_registry: Registry[Inputs] = Registry(
    "inputs",
    {
        "raw": "odesteer.barriers.inputs:Raw",
        "unit-sphere": "odesteer.barriers.inputs:UnitSphere",
        "centred": "odesteer.barriers.inputs:Centred",
    },
)
function_registry: Registry[object] = Registry(
    "function",
    {
        "quadratic": "odesteer.barriers.quadratic:QuadraticFunction",
        "kernel-expansion": "odesteer.barriers.polynomial:KernelExpansion",
        "tensor-sketch": "odesteer.barriers.sketch:TensorSketch",
        "random-fourier": "odesteer.barriers.fourier:RandomFourierFunction",
        "perceptron": "odesteer.barriers.neural:Perceptron",
    },
)

__all__ = [
    "Barrier",
    "Centred",
    "Contrast",
    "Groups",
    "Inputs",
    "LinearBarrier",
    "LinearDiscriminantBarrier",
    "MeanDifferenceBarrier",
    "NeuralBarrier",
    "PolynomialBarrier",
    "RandomFourierBarrier",
    "Raw",
    "Restriction",
    "TensorSketchBarrier",
    "UnitSphere",
    "check_contrast",
    "function_registry",
    "inputs_registry",
    "pooled_covariance",
    "registry",
]
