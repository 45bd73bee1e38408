"""Flows: vector fields, the solvers that follow them, and where they stop."""

from odesteer.flows.field import (
    ConstantField,
    GradientField,
    PlainGradientField,
    SumField,
    TangentField,
    VectorField,
)
from odesteer.flows.fused import FlowInPlace, flow_in_place
from odesteer.flows.metrics import Covariance, Euclidean, MatrixMetric, Metric, NullSpace
from odesteer.flows.problem import ReachValue, Solution
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
        "euler": "odesteer.flows.solvers.explicit:Euler",
        "midpoint": "odesteer.flows.solvers.explicit:Midpoint",
        "rk4": "odesteer.flows.solvers.explicit:RK4",
        "three-eighths": "odesteer.flows.solvers.explicit:ThreeEighths",
        "bogacki-shampine": "odesteer.flows.solvers.explicit:BogackiShampine",
        "geodesic": "odesteer.flows.solvers.explicit:Geodesic",
        "certified": "odesteer.flows.solvers.certified:Certified",
    },
    entry_point_group="odesteer.solvers",
)
metric_registry: Registry[Metric] = Registry(
    "metric",
    {
        "euclidean": "odesteer.flows.metrics:Euclidean",
        "covariance": "odesteer.flows.metrics:Covariance",
        "null-space": "odesteer.flows.metrics:NullSpace",
        "matrix": "odesteer.flows.metrics:MatrixMetric",
    },
    entry_point_group="odesteer.metrics",
)

__all__ = [
    "RK4",
    "BogackiShampine",
    "Certified",
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
    "NullSpace",
    "PlainGradientField",
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
