"""ITI in its two forms."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from barrier_cases import WIDTH, contrast, queries
from odesteer.barriers import (
    HeadBarrier,
    LinearBarrier,
    LinearDiscriminantBarrier,
    LogisticProbeBarrier,
    MeanDifferenceBarrier,
    NeuralBarrier,
    PolynomialBarrier,
    Raw,
    UnitSphere,
)
from odesteer.errors import InvalidInputError
from odesteer.methods import CAA, ITI, HeadITI

N_HEADS, HEAD_WIDTH = 6, 4


def heads_contrast(n=80, telling=(1, 4), seed=5):
    """Outputs of six heads of width 4; only the ``telling`` ones differ between the classes."""
    generator = torch.Generator().manual_seed(seed)
    shape = (2, n, N_HEADS, HEAD_WIDTH)
    draw = torch.randn(shape, generator=generator, dtype=torch.float64)
    draw = draw * torch.linspace(0.3, 3, N_HEADS, dtype=torch.float64)[:, None]
    for head in telling:
        draw[0, :, head, 0] += 4 * draw[0, :, head, 0].std()
    return draw[0].flatten(1), draw[1].flatten(1)


def test_the_residual_form_is_the_normal_of_its_probe():
    method, a = ITI(strength=0.3).fit(*contrast()), queries()
    probe = LogisticProbeBarrier().fit(*contrast())
    gradient = probe.gradient(a[0])
    torch.testing.assert_close(method.direction_, gradient / gradient.norm())
    torch.testing.assert_close(method.steer(a, T=2.0), a + 2 * method.direction_)
    torch.testing.assert_close(method.steer(a), method.steer(a, strength=0.3))
    assert torch.equal(method.barrier.value(a), probe.value(a))
    assert method.barrier.held_out_ == probe.held_out_


def test_the_published_probe_at_its_optimum_is_the_linear_barrier():
    fits = [
        LogisticProbeBarrier(tolerance=1e-10, folds=0).fit(*contrast(200)),
        LinearBarrier(inputs=Raw(), folds=0).fit(*contrast(200)),
    ]
    values = [fit.value(queries()) for fit in fits]
    torch.testing.assert_close(values[0], values[1], rtol=1e-5, atol=1e-5)


def test_unequal_classes_move_the_boundary_but_not_the_published_direction():
    positive, negative = contrast(200)
    negative = negative[:50]
    barrier = LogisticProbeBarrier(folds=0).fit(positive, negative)
    model = LogisticRegression(max_iter=1000)
    model.fit(torch.cat([positive, negative]).numpy(), [1] * 200 + [0] * 50)
    expected = torch.from_numpy(model.coef_[0])
    torch.testing.assert_close(barrier.gradient(queries())[0], expected)
    p = torch.sigmoid(barrier.value(positive)).mean(), torch.sigmoid(barrier.value(negative)).mean()
    assert float(sum(p)) == pytest.approx(1, abs=1e-6)  # no constant has less balanced loss


def test_a_probe_that_runs_out_of_iterations_is_that_at_the_optimum():
    few = ITI(probe=LogisticProbeBarrier(max_iterations=3)).fit(*contrast())
    newton = ITI(probe=LinearBarrier(inputs=Raw())).fit(*contrast())
    assert torch.equal(few.direction_, newton.direction_)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"C": 0.0}, "C must be a positive number"),
        ({"tolerance": 0.0}, "tolerance must be a positive number"),
        ({"max_iterations": 0}, "max_iterations must be a positive integer"),
        ({"max_iterations": True}, "max_iterations must be a positive integer"),
    ],
)
def test_parameters_of_the_probe(parameters, message):
    with pytest.raises(InvalidInputError, match=message):
        ITI(probe=LogisticProbeBarrier(**parameters)).fit(*contrast())


def test_any_linear_probe_will_do():
    mass_mean = ITI(probe=MeanDifferenceBarrier()).fit(*contrast())
    caa = CAA().fit(*contrast()).direction_
    torch.testing.assert_close(mass_mean.direction_, caa / caa.norm())
    ITI(probe=LinearDiscriminantBarrier()).fit(*contrast())
    for bent in (
        PolynomialBarrier(folds=0),
        NeuralBarrier((4,), max_epochs=2, folds=0),
        LinearBarrier(inputs=UnitSphere(), folds=0),
    ):
        with pytest.raises(InvalidInputError, match="is no linear probe; use LogisticProbe"):
            ITI(probe=bent).fit(*contrast())


def test_the_heads_that_tell_are_found_and_only_they_are_shifted():
    method = HeadITI(n_heads=N_HEADS, top_k=2).fit(*heads_contrast())
    assert method.heads_ == [1, 4]
    accuracies = method.accuracies_
    assert accuracies.shape == (N_HEADS,)
    assert bool((accuracies[[1, 4]] > 0.85).all())
    assert bool((accuracies[[0, 2, 3, 5]] < 0.75).all())
    a = heads_contrast(5, seed=9)[0]
    moved = (method.steer(a, T=1.0) - a).reshape(-1, N_HEADS, HEAD_WIDTH)
    assert torch.equal(moved[:, [0, 2, 3, 5]], torch.zeros(5, 4, HEAD_WIDTH, dtype=a.dtype))
    assert bool((moved[:, [1, 4], 0] > 0).all())


@pytest.mark.parametrize("probe", [LinearBarrier(C=3.0), MeanDifferenceBarrier()])
def test_a_head_moves_by_deviations_of_its_projection(probe):
    data = heads_contrast()
    method = HeadITI(n_heads=N_HEADS, heads=(4, 1), probe=probe).fit(*data)
    examples = torch.cat(data)
    moved = (method.steer(examples, T=2.5) - examples).reshape(-1, N_HEADS, HEAD_WIDTH)
    for head in (1, 4):
        part = slice(head * HEAD_WIDTH, (head + 1) * HEAD_WIDTH)
        alone = probe.with_params(folds=0).fit(data[0][:, part], data[1][:, part])
        normal = torch.nn.functional.normalize(alone.gradient(examples[0, part]), dim=0)
        deviation = (examples[:, part] @ normal).std(correction=0)
        torch.testing.assert_close(moved[0, head], 2.5 * deviation * normal)
        i = method.heads_.index(head)
        torch.testing.assert_close(method.barrier.normals_[i], normal)
        torch.testing.assert_close(method.barrier.deviations_[i], deviation)
    torch.testing.assert_close(
        method.with_params(T=15).fit(*data).steer(examples),
        examples + 15 * method.direction_,
        rtol=1e-12,
        atol=1e-12,
    )


@settings(deadline=None, max_examples=20)
@given(st.sets(st.integers(0, N_HEADS - 1), min_size=1))
def test_naming_heads_restricts_the_shift_to_them(heads):
    data = heads_contrast()
    every = HeadBarrier(N_HEADS, folds=0).fit(*data).direction().reshape(N_HEADS, -1)
    method = HeadITI(n_heads=N_HEADS, heads=tuple(heads), folds=0).fit(*data)
    assert method.heads_ == sorted(heads)
    assert method.accuracies_ is None
    mask = torch.tensor([head in heads for head in range(N_HEADS)], dtype=torch.float64)
    torch.testing.assert_close(method.direction_, (every * mask[:, None]).flatten())


def test_ranking_and_naming_agree():
    data = heads_contrast()
    ranked = HeadITI(n_heads=N_HEADS, top_k=2).fit(*data)
    accuracies = HeadITI(n_heads=N_HEADS).head_accuracies(*data)
    assert torch.equal(accuracies, ranked.accuracies_)
    best = accuracies.argsort(descending=True, stable=True)[:2].tolist()
    named = HeadITI(n_heads=N_HEADS, heads=best).fit(*data)
    a = heads_contrast(5, seed=9)[0]
    for amount in ({"T": 3.0}, {"level": 1.0}):
        assert torch.equal(named.steer(a, **amount), ranked.steer(a, **amount))


def test_accuracies_are_those_of_groups_that_no_probe_has_seen():
    """Labels are noise, and each group repeats one example: memory would give 1, and chance ½."""
    generator = torch.Generator().manual_seed(4)
    draw = torch.randn(2, 30, 2 * 64, generator=generator, dtype=torch.float64)
    data = draw.repeat_interleave(4, dim=1)
    owners = torch.arange(60).repeat_interleave(4).reshape(2, -1)
    method = HeadITI(n_heads=2, probe=LinearBarrier(C=1e4), validation=0.5)
    split = method.head_accuracies(data[0], data[1])
    grouped = method.head_accuracies(data[0], data[1], (owners[0], owners[1]))
    assert bool((split > 0.85).all())
    assert bool((grouped < 0.8).all())


def test_the_same_groups_are_held_out_whatever_the_layer():
    """A layer with twice the other's activations has the same accuracies."""
    data = heads_contrast()
    method = HeadITI(n_heads=N_HEADS, seed=3)
    one = method.head_accuracies(*data)
    assert torch.equal(one, method.head_accuracies(*(2 * a for a in data)))
    assert not method.is_fitted
    others = [method.with_params(seed=seed).head_accuracies(*data) for seed in range(4, 8)]
    assert any(not torch.equal(one, other) for other in others)


def test_classes_of_different_size_count_alike():
    positive, negative = heads_contrast(400, telling=())
    accuracies = HeadITI(n_heads=N_HEADS).head_accuracies(positive, negative[:40])
    assert bool(((accuracies - 0.5).abs() < 0.25).all())


def test_a_head_that_says_the_same_of_everything():
    """Neither chosen before others nor moved, and no reason to fail."""
    positive, negative = heads_contrast()
    for data in (positive, negative):
        data[:, :HEAD_WIDTH] = 1.5
    method = HeadITI(n_heads=N_HEADS).fit(positive, negative)
    assert float(method.accuracies_[0]) == 0.5
    every = HeadITI(n_heads=N_HEADS, heads=range(N_HEADS)).fit(positive, negative)
    assert not bool(every.direction_[:HEAD_WIDTH].any())
    assert float(every.barrier.deviations_[0]) == 0
    with pytest.raises(InvalidInputError, match=r"heads \[0\] do not tell the classes apart"):
        HeadITI(n_heads=N_HEADS, heads=(0,)).fit(positive, negative)


def test_a_quarter_of_the_heads_by_default():
    data = heads_contrast()
    assert len(HeadITI(n_heads=N_HEADS).fit(*data).heads_) == 1
    assert len(HeadITI(n_heads=12).fit(*data).heads_) == 3


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_heads": None}, "n_heads is not set"),
        ({"n_heads": 5}, "not the outputs of n_heads=5 heads"),
        ({"n_heads": 0}, "n_heads must be a positive integer"),
        ({"n_heads": 2.0}, "n_heads must be a positive integer"),
        ({"top_k": 0}, "top_k must be an integer from 1 to 3"),
        ({"top_k": 4}, "top_k must be an integer from 1 to 3"),
        ({"top_k": True}, "top_k must be an integer from 1 to 3"),
        ({"heads": ()}, "heads must be one head or more"),
        ({"heads": (1, 1)}, "heads must be one head or more, each once"),
        ({"heads": (0, 3)}, "integers from 0 to 2.*not 3"),
        ({"heads": (-1,)}, "integers from 0 to 2"),
        ({"heads": ("a",)}, "integers from 0 to 2"),
        ({"heads": (0,), "top_k": 1}, "not both"),
        ({"validation": 0.0}, "validation must be above 0"),
        ({"validation": 0.6}, "validation must be above 0"),
        ({"probe": PolynomialBarrier()}, "no linear probe"),
    ],
)
def test_unusable_parameters(parameters, message):
    with pytest.raises(InvalidInputError, match=message):
        HeadITI(**{"n_heads": 3, **parameters}).fit(*contrast())


def test_too_few_groups_to_rank_heads():
    positive, negative = heads_contrast(10)
    for n, groups in (9, ([0] * 10, [0] * 9)), (10, ([0] * 10, [1] * 10)):
        data = positive, negative[:n]
        with pytest.raises(InvalidInputError, match=r"groups are too few.*name the heads"):
            HeadITI(n_heads=N_HEADS).fit(*data, groups=groups)
        HeadITI(n_heads=N_HEADS, heads=(1,)).fit(*data, groups=groups)


def test_the_mean_norm_is_that_of_all_heads_together():
    method = HeadITI(n_heads=3).fit(*contrast())
    moved = method.steer(queries(), strength=0.2) - queries()
    assert moved.shape[1] == WIDTH
    torch.testing.assert_close(
        moved.norm(dim=1), torch.full((7,), 0.2 * method.strength_unit, dtype=torch.float64)
    )
