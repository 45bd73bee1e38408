"""Linear barriers through the origin."""

import pytest
import torch

from barrier_cases import contrast, fitted, queries
from odesteer.barriers import HomogeneousBarrier, LinearBarrier, Raw
from odesteer.errors import InvalidInputError


def test_there_is_no_constant():
    for name in ("homogeneous", "homogeneous-raw"):
        barrier, a = fitted(name), queries(20)
        assert barrier.function_.offset_ == 0.0
        torch.testing.assert_close(barrier.value(-a), -barrier.value(a))


def test_it_is_the_minimum_of_the_balanced_log_loss():
    """∇(½‖w‖² + C Σᵢ sᵢ log(1 + exp(-yᵢw·xᵢ))) vanishes, with weights sᵢ = n/(2 n_class)."""
    positive, negative = contrast()
    negative = negative[:15]
    barrier = HomogeneousBarrier(C=0.3, inputs=Raw(), folds=0).fit(positive, negative)
    w = barrier.gradient(positive[0]).clone().requires_grad_()
    loss = 0.5 * w.square().sum()
    n = len(positive) + len(negative)
    for sign, side in ((1, positive), (-1, negative)):
        weight = 0.3 * n / (2 * len(side))
        loss = loss + weight * torch.nn.functional.softplus(-sign * (side @ w)).sum()
    loss.backward()
    assert float(w.grad.norm()) < 1e-4


def test_class_frequencies_do_not_count():
    """Four times as many positives, far from the origin: the boundary stays between the classes."""
    x = 0.5 * torch.randn(500, 6, generator=torch.Generator().manual_seed(0))
    x[:, 0] += 5
    x[:400, 1] += 1
    x[400:, 1] -= 1
    barrier = HomogeneousBarrier(C=100.0, inputs=Raw(), folds=0).fit(x[:400], x[400:])
    middle = torch.zeros(6)
    middle[0] = 5
    assert abs(float(barrier.value(middle))) < 1.0
    free = LinearBarrier(C=100.0, inputs=Raw(), folds=0).fit(x[:400], x[400:])
    assert float(torch.cosine_similarity(barrier.gradient(x[0]), free.gradient(x[0]), dim=0)) > 0.7


def test_bad_regularisation():
    with pytest.raises(InvalidInputError, match="C must be"):
        HomogeneousBarrier(C=0.0).fit(*contrast())
