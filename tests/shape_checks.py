"""Shapes of the public functions of barriers, flows and methods, checked while they run.

`SHAPES` has the shape of every tensor that such a function takes or returns, by jaxtyping; beartype
checks them at each call. The same axis name is the same size within a call, ``*b`` any batch.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from beartype.door import die_if_unbearable
from jaxtyping import Bool, Float, Int, jaxtyped
from torch import Tensor

from odesteer import barriers, flows, methods


def floats(axes: str) -> Any:
    """Floating-point tensors with these axes."""
    return Float[Tensor, axes]


def ints(axes: str) -> Any:
    return Int[Tensor, axes]


def bools(axes: str) -> Any:
    return Bool[Tensor, axes]


Batch, Rows, States = floats("*b"), floats("*b d"), floats("n k")
Number = float | int | floats("...")
FIT = {"positive": floats("n_positive d"), "negative": floats("n_negative d")}
REWARDS = {"activations": floats("n d"), "rewards": floats("n")}
VALUE_AND_GRADIENT = {"a": Rows, "return": tuple[Batch, Rows]}
STEP = {"a": States, "dt": floats("n 1"), "slope": States}

SHAPES: dict[str, dict[str, Any]] = {
    "Barrier.fit": FIT,
    "Method.fit": FIT,
    "Metric.fit": FIT,
    "Inputs.fit": {"a": floats("n d"), "weights": floats("n") | None},
    "check_contrast": FIT,
    "pooled_covariance": {**FIT, "return": floats("d d")},
    "Barrier.value": {"a": Rows, "return": Batch},
    "Barrier.gradient": {"a": Rows, "return": Rows},
    "Barrier.value_and_gradient": VALUE_AND_GRADIENT,
    "Barrier.restrict": {"a": Rows},
    "Barrier.threshold": {"level": float | int | Batch, "return": float | int | Batch},
    "Barrier.check_level": {"level": Number},
    "Restriction.__init__": {"state": floats("*b k")},
    "PolynomialBarrier.kernel": {
        "x": floats("n d"),
        "y": floats("m d"),
        "return": floats("n m"),
    },
    "TensorSketchBarrier.from_tables": {
        "hashes": ints("p columns"),
        "signs": ints("p columns") | floats("p columns"),
        "coefficients": floats("n_components"),
    },
    "HeadBarrier.direction": {"return": floats("k")},
    "ValueBarrier.fit_rewards": REWARDS,
    "NeighbourBarrier.fit_queries": {"activations": floats("n d")},
    "MultiLabelBarrier.fit_labels": {"activations": floats("n d")},
    "ProjectedBarrier.of": {"matrix": floats("r d"), "offset": floats("r")},
    "ProjectedBarrier.mapped": {"a": Rows, "return": floats("*b r")},
    "REControl.fit_rewards": REWARDS,
    "Inputs.__call__": {"a": Rows, "return": Rows},
    "Inputs.pull_back": {"a": Rows, "x": Rows, "g": Rows, "return": Rows},
    "Inputs.restrict": {"basis": floats("d r")},
    "Metric.apply": {"g": Rows, "return": Rows},
    "VectorField.__call__": {"a": Rows, "return": Rows},
    "GradientField.with_value": VALUE_AND_GRADIENT,
    "GradientField.with_value_and_rate": {"a": Rows, "return": tuple[Batch, Rows, Batch]},
    "FixedStep.step": {**STEP, "return": States},
    "EmbeddedPair.step_with_error": {**STEP, "return": tuple[States, States]},
    "ReachValue.holds": {"h": Batch, "sign": Batch, "return": bools("*b")},
    "ReachValue.excess": {"h": Batch, "sign": Batch, "return": Batch},
    "Solution.__init__": {
        "state": Rows,
        "time": Batch,
        "reached": bools("*b") | None,
        "rejected": ints("*b") | None,
        "usable": bools("*b") | None,
    },
    "Solution.keep_unusable": {"a": Rows, "usable": bools("*b")},
    "solve": {"a": Rows, "T": Number},
    "trajectory": {"a": Rows, "T": Number},
    "ODESteer.trajectory": {"a": Rows},
    "flow_in_place": {"duration": Number},
    "FlowInPlace.over": {"rows": ints("n") | None},
    "FlowInPlace.move": {"states": floats("n 1 d")},
    "FlowInPlace.account": {"return": tuple[floats("n"), bools("n") | None, bools("n")]},
    "FlowInPlace.solve": {"a": floats("n 1 d")},
    "Method.steer": {"a": Rows, "return": Rows},
    "Method.solve": {"a": Rows},
    "Method.solve_usable": {"a": Rows},
    "Method.prepared": {"a": Rows},
    "Prepared.solve": {"a": Rows},
    "Potential.begun": {"activations": floats("n d")},
    "EndToEnd.begun": {"activations": floats("n d")},
    "Method.constant_displacement": {"return": floats("d") | None},
    "SubspaceMap.from_edit": {
        "rotation": floats("r d"),
        "source": floats("r d"),
        "bias": floats("r"),
    },
    "QueryTruthFlow.fit_triples": {
        "queries": floats("m d"),
        "positive": floats("m d"),
        "negative": floats("m d"),
    },
    "QueryTruthFlow.correction": {"query": Rows, "return": Rows},
    "QueryTruthFlow.at_query": {"query": floats("d")},
    "CombinedBarrier.parts_and_gradients": {
        "a": Rows,
        "return": tuple[floats("k *b"), floats("k *b d")],
    },
    "Setpoint.along": {"direction": floats("d")},
    "Conditional.acts": {"a": Rows, "return": bools("*b")},
    "SphericalSteering.acts": {"a": Rows, "return": bools("*b")},
    "GatedDirection.acts": {"a": Rows, "return": bools("*b")},
    "HPR.angle": {"a": Rows, "return": Batch},
    "HeadITI.head_accuracies": {**FIT, "return": floats("heads")},
    "Contrast.__init__": {
        **FIT,
        "groups": ints("n"),
    },
    "Pairing.sides": {"return": tuple[floats("m d"), floats("m d")]},
    "Rewarded.part": {"mask": bools("n")},
    "LabelledContrast.part": {"mask": bools("n")},
    "Contrast.prior_of": {"mask": bools("n")},
    "Contrast.split": {"mask": bools("n")},
}
# Of these the tensors are numbers, or of a shape that depends on the arguments.
WITHOUT_SHAPES = {
    "EndToEnd.with_leaves",
    "Potential.adopt",
    "Amount.given",
    "Amount.of",
    "Amount.short",
    "Barrier.fit_layers",
    "CombinedBarrier.of",
    "Method.fit_layers",
    "Training.held_out",
    "Training.held_out_pairs",
    "Training.run",
}

PACKAGES = barriers, flows, methods


def public_functions() -> dict[str, list[tuple[Any, str]]]:
    """Where each public function that takes or returns a tensor is defined, by its name.

    A method has the name of the class that defines it first, and all its overrides.
    """
    found: dict[str, list[tuple[Any, str]]] = {}
    for package in PACKAGES:
        for name in package.__all__:
            value = getattr(package, name)
            if inspect.isclass(value):
                for cls in (value, *_subclasses(value)):
                    _add_methods(found, cls)
            elif inspect.isfunction(value) and _has_tensors(value):
                found.setdefault(name, []).append((package, name))
    return found


def _subclasses(cls: type) -> list[type]:
    below = [c for c in cls.__subclasses__() if c.__module__.startswith("odesteer")]
    return [*below, *(c for child in below for c in _subclasses(child))]


def _add_methods(found: dict[str, list[tuple[Any, str]]], cls: type) -> None:
    for owner in cls.__mro__:
        if not owner.__module__.startswith("odesteer"):
            continue
        for name, member in vars(owner).items():
            public = name == "__call__" or not name.startswith("_")
            if not public or not _has_tensors(getattr(member, "__func__", member)):
                continue
            first = next(c for c in reversed(cls.__mro__) if name in vars(c))
            places = found.setdefault(f"{first.__name__}.{name}", [])
            if (owner, name) not in places:
                places.append((owner, name))


def _has_tensors(function: Any) -> bool:
    return inspect.isfunction(function) and "Tensor" in str(inspect.signature(function))


def checked(function: Callable[..., Any], hints: dict[str, Any]) -> Callable[..., Any]:
    """``function`` with its arguments and what it returns checked against ``hints``."""
    signature = inspect.signature(function)
    unknown = hints.keys() - signature.parameters.keys() - {"return"}
    assert not unknown, f"{function.__qualname__} has no arguments {unknown}"

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        with jaxtyped("context"):
            for name, hint in hints.items():
                if name in bound.arguments:
                    die_if_unbearable(bound.arguments[name], hint)
            result = function(*args, **kwargs)
            if "return" in hints:
                die_if_unbearable(result, hints["return"])
        return result

    return call


@contextmanager
def shapes_checked() -> Iterator[None]:
    """Within it every public function with a shape checks it."""
    places = public_functions()
    with pytest.MonkeyPatch.context() as patch:
        for key, hints in SHAPES.items():
            if key.endswith(".__init__"):
                cls = key.split(".")[0]
                owner = next(getattr(p, cls) for p in PACKAGES if hasattr(p, cls))
                patch.setattr(owner, "__init__", checked(owner.__init__, hints))
                continue
            for owner, name in places[key]:
                member = vars(owner)[name]
                function = checked(getattr(member, "__func__", member), hints)
                wrapped = type(member)(function) if hasattr(member, "__func__") else function
                patch.setattr(owner, name, wrapped)
        yield
