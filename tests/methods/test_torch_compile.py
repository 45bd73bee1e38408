"""Functions that steer can be compiled by `torch.compile` in one graph."""

import pytest
import torch
from method_cases import steering
from torch import Tensor

from barrier_cases import contrast, queries
from odesteer.flows import RK4
from odesteer.methods import ODESteer

pytestmark = pytest.mark.slow


@pytest.mark.usefixtures("no_graphs_of_others")
@pytest.mark.parametrize("quantity", ["level", "T"])
@pytest.mark.parametrize("solver", [None, RK4(2)])
def test_a_compiled_function_steers_in_one_graph(solver: RK4 | None, quantity: str) -> None:
    method = steering("odesteer") if solver is None else ODESteer(solver=solver).fit(*contrast())
    amount = {quantity: 1.0}

    def steer(a: Tensor) -> Tensor:
        return method.steer(a, **amount)

    a = queries().float()
    whole = torch.compile(steer, backend="eager", fullgraph=True)
    torch.testing.assert_close(whole(a), steer(a), rtol=1e-4, atol=1e-4)
