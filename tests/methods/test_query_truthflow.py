"""TruthFlow as published: from the state of a query to a correction vector."""

import pytest
import torch

from odesteer.barriers import Training
from odesteer.errors import InvalidInputError
from odesteer.flows import Midpoint
from odesteer.methods import CAA, QueryTruthFlow, TruthFlow

WIDTH = 6
QUICK = Training(0.02, max_epochs=150, keep_best=True)


def triples(n: int, seed: int = 0, massive: float = 1.0) -> tuple[torch.Tensor, ...]:
    """The correction is a linear map of the query, of rank 2, and of another length."""
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randn(n, WIDTH, generator=generator) + 1
    queries[:, 0] *= massive
    wrong = torch.randn(n, WIDTH, generator=generator)
    correction = torch.zeros(n, WIDTH)
    correction[:, 3] = 0.5 + 0.4 * queries[:, 1]
    correction[:, 4] = 0.4 * queries[:, 2]
    return queries, wrong + correction, wrong, correction


def test_corrections_of_new_queries_are_learned() -> None:
    *fit, _ = triples(300)
    method = QueryTruthFlow(hidden=(32,), training=QUICK).fit_triples(*fit)
    assert method.n_epochs_ > 0
    assert method.basis_.shape == (WIDTH, 2)  # corrections span two directions
    queries, _, _, truth = triples(100, seed=1)
    found = method.correction(queries)
    mean = truth.mean(dim=0)
    assert float((found - truth).square().mean()) < 0.4 * float((mean - truth).square().mean())
    # The end point itself is added, not what it differs by from the query.
    torch.testing.assert_close(method.steer(queries), queries + 1.5 * found)
    torch.testing.assert_close(method.steer(queries, interpolation=0.5), queries + 0.5 * found)
    assert torch.equal(method.steer(queries, interpolation=0.0), queries)


def test_where_nothing_is_learned_the_correction_is_about_the_mean() -> None:
    """Queries that say nothing about a correction, with one massive coordinate."""
    generator = torch.Generator().manual_seed(2)
    queries, _, wrong, _ = triples(40, massive=1000.0)
    correction = torch.randn(40, WIDTH, generator=generator) + 1
    method = QueryTruthFlow(training=Training(1e-3, max_epochs=3, keep_best=True))
    method.fit_triples(queries, wrong + correction, wrong)
    mean = correction.mean(dim=0)
    off, spread = method.correction(queries) - mean, correction - mean
    assert float(off.square().mean()) < 0.25 * float(spread.square().mean())


def test_one_vector_for_a_request() -> None:
    *fit, _ = triples(60)
    method = QueryTruthFlow(hidden=(8,), solver=Midpoint(4), training=QUICK).fit_triples(*fit)
    query, others = fit[0][3], triples(5, seed=4)[0]
    constant = method.at_query(query)
    assert isinstance(constant, CAA)
    expected = 1.5 * method.correction(query)
    torch.testing.assert_close(constant.steer(others), others + expected)
    torch.testing.assert_close(method.at_query(query, 0.5).steer(others), others + expected / 3)
    with pytest.raises(InvalidInputError, match="one activation"):
        method.at_query(others)


def test_without_queries_negatives_stand_for_them() -> None:
    _, positive, negative, _ = triples(40)
    groups = list(range(40)), list(range(40))
    parameters = {"hidden": (4,), "training": Training(0.02, max_epochs=5, keep_best=True)}
    paired = QueryTruthFlow(**parameters).fit(positive, negative, groups)
    triple = QueryTruthFlow(**parameters).fit_triples(negative, positive, negative)
    torch.testing.assert_close(paired.steer(negative), triple.steer(negative))
    assert not torch.allclose(
        paired.steer(negative),
        TruthFlow(**parameters).fit(positive, negative, groups).steer(negative),
    )


def test_what_are_no_triples() -> None:
    queries, positive, negative, _ = triples(10)
    method = QueryTruthFlow()
    for arguments, words in (
        ((queries[1:], positive, negative), "alike"),
        ((queries, positive, positive), "equal"),
        ((queries * float("nan"), positive, negative), "NaN"),
    ):
        with pytest.raises(InvalidInputError, match=words):
            method.fit_triples(*arguments)
    assert not method.is_fitted
