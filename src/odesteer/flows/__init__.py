"""Flows: vector fields, the solvers that follow them, and where they stop."""

from odesteer.flows.compiled import CompiledFlow, CompilerWarning
from odesteer.flows.event import ReachValue
from odesteer.flows.field import (
    AffineField,
    ConstantField,
    GradientField,
    SumField,
    TangentField,
    VectorField,
)
from odesteer.flows.fused.in_place import FlowInPlace, flow_in_place
from odesteer.flows.metrics import Covariance, Euclidean, MatrixMetric, Metric
from odesteer.flows.solution import Solution
from odesteer.flows.solve import solve
from odesteer.flows.solvers import (
    RK4,
    BogackiShampine,
    Certified,
    EmbeddedPair,
    Euler,
    FixedStep,
    Geodesic,
    Midpoint,
    Solver,
    ThreeEighths,
)
from odesteer.flows.trajectory import Trajectory, trajectory
from odesteer.registry import Registry

registry: Registry[Solver] = Registry(
    "solver",
    {
        "euler": "odesteer.flows.solvers.euler:Euler",
        "midpoint": "odesteer.flows.solvers.midpoint:Midpoint",
        "rk4": "odesteer.flows.solvers.rk4:RK4",
        "three-eighths": "odesteer.flows.solvers.rk4:ThreeEighths",
        "bogacki-shampine": "odesteer.flows.solvers.bogacki_shampine:BogackiShampine",
        "geodesic": "odesteer.flows.solvers.geodesic:Geodesic",
        "certified": "odesteer.flows.solvers.certified:Certified",
    },
    entry_point_group="odesteer.solvers",
)
metric_registry: Registry[Metric] = Registry(
    "metric",
    {
        "euclidean": "odesteer.flows.metrics:Euclidean",
        "covariance": "odesteer.flows.metrics:Covariance",
        "matrix": "odesteer.flows.metrics:MatrixMetric",
    },
    entry_point_group="odesteer.metrics",
)

__all__ = [
    "RK4",
    "AffineField",
    "BogackiShampine",
    "Certified",
    "CompiledFlow",
    "CompilerWarning",
    "ConstantField",
    "Covariance",
    "EmbeddedPair",
    "Euclidean",
    "Euler",
    "FixedStep",
    "FlowInPlace",
    "Geodesic",
    "GradientField",
    "MatrixMetric",
    "Metric",
    "Midpoint",
    "ReachValue",
    "Solution",
    "Solver",
    "SumField",
    "TangentField",
    "ThreeEighths",
    "Trajectory",
    "VectorField",
    "flow_in_place",
    "metric_registry",
    "registry",
    "solve",
    "trajectory",
]
