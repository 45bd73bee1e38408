"""Methods whose flow `torch.compile` compiles steer as they do without."""

import copy
from typing import Any

import pytest
import torch
from method_cases import steering
from torch import Tensor

from barrier_cases import contrast, queries
from odesteer.artifact import Site, Steerer, SteererSet
from odesteer.barriers import NeuralBarrier, PolynomialBarrier
from odesteer.errors import InvalidInputError, NotFittedError
from odesteer.flows import RK4, BogackiShampine, Certified, Midpoint
from odesteer.methods import CAA, Amount, Conditional, Method, NormPreserving, ODESteer

pytestmark = pytest.mark.usefixtures("no_graphs_of_others")


def neural() -> ODESteer:
    barrier = NeuralBarrier(hidden=(16,), max_epochs=30, folds=0)
    return ODESteer(barrier, Midpoint(4)).fit(*contrast())


def compiled(method: ODESteer) -> ODESteer:
    """Without the wait for a C++ compiler."""
    made = method.compiled()
    assert made._flow is not None
    made._flow.backend = "eager"
    return made


def agree(method: Method, other: Method, a: Tensor, amount: Amount) -> None:
    expected, found = method.solve(a, amount), other.solve(a, amount)
    assert found.state.dtype == a.dtype
    tolerance = {"rtol": 1e-2, "atol": 1e-2} if a.dtype == torch.bfloat16 else {}
    torch.testing.assert_close(found.state, expected.state, **tolerance)
    torch.testing.assert_close(found.time, expected.time, rtol=1e-4, atol=1e-5)
    assert torch.equal(found.usable, expected.usable)  # type: ignore[arg-type]
    assert (found.reached is None) == (expected.reached is None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("quantity", ["level", "T", "strength"])
def test_types_and_amounts(dtype: torch.dtype, quantity: str) -> None:
    method, a = neural(), queries().to(dtype)
    other = compiled(method)
    each = torch.linspace(-1, 2, len(a))
    for value in (0.5, -0.5, each):
        agree(method, other, a, Amount(quantity, value))
    agree(method, other, a[:, None], Amount(quantity, each[:, None]))


def test_unusable_rows_come_back() -> None:
    method, a = neural(), queries().float()
    a[0], a[1, 0] = 0.0, float("nan")
    found = compiled(method).solve(a, Amount("level", 1.0))
    assert found.usable is not None
    assert found.usable.tolist() == [False, False] + [True] * (len(a) - 2)
    torch.testing.assert_close(found.state[:2], a[:2], rtol=0, atol=0, equal_nan=True)
    assert not torch.equal(found.state[2:], a[2:])


def test_prepared_for_decoding() -> None:
    method, a = neural(), queries().float()[:, None]
    amount = Amount("level", 1.0)
    expected = method.prepared(amount, a).solve(a).state
    torch.testing.assert_close(compiled(method).prepared(amount, a).solve(a).state, expected)


def test_copies_keep_the_graphs_and_a_fit_drops_them() -> None:
    method = compiled(neural())
    assert method.to("cpu")._flow is method._flow
    assert method.to(dtype=torch.float64)._flow is not method._flow
    assert copy.copy(method).fit(*contrast())._flow is None
    assert method.clone()._flow is None
    assert neural()._flow is None


@pytest.mark.parametrize("wrapper", [NormPreserving, Conditional])
def test_around_it(wrapper: Any) -> None:
    a, amount = queries().float(), Amount("level", 1.0)
    around = wrapper.around(neural())
    other = around.compiled()
    other.method._flow.backend = "eager"
    agree(around, other, a, amount)
    assert around.method._flow is None


def test_what_cannot_be_compiled_says_so() -> None:
    with pytest.raises(InvalidInputError, match=r"CAA moves .* nothing to compile"):
        CAA().fit(*contrast()).compiled()
    for solver in (BogackiShampine(), Certified()):
        method = ODESteer(PolynomialBarrier(folds=0), solver).fit(*contrast())
        with pytest.raises(InvalidInputError, match=r"chooses its steps .* RK4"):
            method.compiled()
    with pytest.raises(NotFittedError):
        ODESteer().compiled()


def test_steerers_and_what_is_saved() -> None:
    steerer = Steerer(neural(), Site(3))
    made = steerer.compiled()
    assert made.method._flow is not None  # type: ignore[attr-defined]
    assert made.digest() == steerer.digest()
    both = SteererSet([steerer, Steerer(neural(), Site(4))]).compiled()
    assert [steerer.site.layer for steerer in both] == [3, 4]  # type: ignore[union-attr]
    assert all(steerer.method._flow is not None for steerer in both)  # type: ignore[attr-defined]


@pytest.mark.parametrize("quantity", ["level", "T"])
@pytest.mark.parametrize("solver", [None, RK4(2)])
def test_users_may_compile_what_calls_it(solver: RK4 | None, quantity: str) -> None:
    method = steering("odesteer") if solver is None else ODESteer(solver=solver).fit(*contrast())
    amount = {quantity: 1.0}

    def steer(a: Tensor) -> Tensor:
        return method.steer(a, **amount)

    a = queries().float()
    whole = torch.compile(steer, backend="eager", fullgraph=True)
    torch.testing.assert_close(whole(a), steer(a), rtol=1e-4, atol=1e-4)
