"""Public functions of barriers, flows and methods take and return tensors of the stated shapes."""

from collections.abc import Iterator

import pytest
import torch

pytest.importorskip("jaxtyping", reason="shapes are checked by jaxtyping and beartype")
pytest.importorskip("beartype", reason="shapes are checked by jaxtyping and beartype")

from beartype.roar import BeartypeDoorHintViolation

import trained
from barrier_cases import BARRIERS, WIDTH, contrast, fitted, queries
from flow_cases import SOLVERS
from odesteer.barriers import Barrier, Contrast, TensorSketchBarrier, check_contrast
from odesteer.flows import (
    Covariance,
    Euclidean,
    Euler,
    GradientField,
    MatrixMetric,
    ReachValue,
    solve,
    trajectory,
)
from odesteer.methods import (
    HPR,
    Amount,
    Conditional,
    HeadITI,
    Method,
    ODESteer,
    REControl,
    registry,
)
from shape_checks import SHAPES, WITHOUT_SHAPES, checked, public_functions, shapes_checked

BATCHES = [(), (0,), (3,), (2, 3)]


@pytest.fixture(autouse=True, scope="module")
def _checked() -> Iterator[None]:
    with shapes_checked():
        yield


def batch(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> torch.Tensor:
    a = queries(6, dtype=dtype)
    return a[: torch.Size(shape).numel()].reshape(*shape, WIDTH)


def test_every_public_function_has_its_shapes() -> None:
    known = {key for key in SHAPES if not key.endswith(".__init__")} | WITHOUT_SHAPES
    assert set(public_functions()) == known


def test_wrong_shapes_are_seen() -> None:
    def transposed(a: torch.Tensor) -> torch.Tensor:
        return a.T

    with pytest.raises(BeartypeDoorHintViolation):
        checked(transposed, SHAPES["VectorField.__call__"])(queries())
    with pytest.raises(BeartypeDoorHintViolation):
        Contrast(*contrast(), torch.zeros(3))


@pytest.mark.parametrize("name", list(BARRIERS))
def test_barriers(name: str) -> None:
    barrier = BARRIERS[name].clone().fit(*contrast(24))
    for shape in BATCHES:
        a = batch(shape)
        barrier.value(a)
        barrier.gradient(a)
        barrier.value_and_gradient(a)
        barrier.restrict(a)
        barrier.threshold(torch.ones(shape))
    barrier.threshold(0.5)


@pytest.mark.parametrize("solver", list(SOLVERS))
def test_flows(solver: str) -> None:
    metrics = Euclidean(), Covariance().fit(*contrast()), MatrixMetric(torch.eye(WIDTH).double())
    for name in ("polynomial-2", "neural"):
        for metric in metrics:
            field = GradientField(fitted(name), metric)
            for shape in BATCHES[1:]:
                a = batch(shape)
                solve(field, a, 0.5, SOLVERS[solver])
                solve(field, a, torch.ones(shape), SOLVERS[solver], until=ReachValue(0.1))
            field.with_value(batch(()))
    trajectory(field, batch((3,)), 0.5, SOLVERS[solver])


@pytest.mark.parametrize("name", list(registry))
def test_methods(name: str) -> None:
    method = registry.get(name)()
    if isinstance(method, HeadITI):
        method = HeadITI(n_heads=3)
        method.head_accuracies(*contrast(24))
    method = trained.fitted(method, *contrast(24))
    for shape in BATCHES:
        a = batch(shape)
        method.steer(a)
        for quantity in method.quantities:
            method.solve(a, Amount(quantity, 0.3))
    use_what_only_one_has(method)
    a = batch((3,), torch.float32)[:, None]
    method.prepared(method.default_amount, a).solve(a)


def use_what_only_one_has(method: Method) -> None:
    if isinstance(method, Conditional):
        method.acts(batch((2, 3)))
    if isinstance(method, HPR):
        method.angle(batch((2, 3)))
    if isinstance(method, ODESteer):
        method.trajectory(batch((3,)))


def test_what_else_takes_activations() -> None:
    positive, negative = contrast(24)
    data = check_contrast(positive, negative)
    mask = torch.arange(48) % 3 > 0
    data.prior_of(mask)
    data.split(mask)
    REControl().fit_rewards(positive, positive[:, 0])
    tables = torch.zeros(2, WIDTH + 1, dtype=torch.long), torch.ones(2, WIDTH + 1)
    barrier = TensorSketchBarrier.from_tables(
        *tables, torch.ones(10), 0.0, gamma=0.1, c0=1.0, class_counts=(3, 4)
    )
    assert isinstance(barrier, Barrier)
    solve(GradientField(barrier), batch((3,), torch.float32), 0.1, Euler(2))
