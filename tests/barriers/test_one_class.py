"""Neighbour barriers, multi-label barriers and barriers of linear maps, worked by hand."""

import pytest
import torch

from barrier_cases import contrast, fitted, massive_contrast, queries
from odesteer.barriers import (
    LinearBarrier,
    MultiLabelBarrier,
    NeighbourBarrier,
    ProjectedBarrier,
    Raw,
    Standardized,
    Training,
)
from odesteer.errors import InvalidInputError
from odesteer.methods import CAA, Conditional

SHORT = Training(learning_rate=0.05, max_epochs=60, tolerance=0.0, keep_best=True)


def test_a_neighbour_barrier_by_hand() -> None:
    """Examples at 0, 1, 3 and 6 on a line; the second nearest is meant."""
    examples = torch.tensor([[0.0, 0], [1, 0], [3, 0], [6, 0]])
    barrier = NeighbourBarrier(2, share=1.0, inputs=Raw()).fit_queries(examples)
    # Without themselves: 3, 2, 3 and 5.
    h = barrier.value(torch.tensor([[2.0, 0], [3, 4], [21, 0]]))
    torch.testing.assert_close(h, torch.tensor([1.0, 20**0.5, 18]) / 5 - 1)
    slope = barrier.gradient(torch.tensor([[3.0, 4]]))
    torch.testing.assert_close(slope, torch.tensor([[2.0, 4]]) / 20**0.5 / 5)
    assert barrier.threshold(0.0) == 0.0
    assert barrier.threshold(1.0) == 1.0


@pytest.mark.parametrize("data", [contrast(200), massive_contrast(200)], ids=["plain", "massive"])
def test_a_gate_leaves_what_is_unlike_the_negatives(
    data: tuple[torch.Tensor, torch.Tensor],
) -> None:
    gate = NeighbourBarrier(8, share=0.95, inputs=Standardized())
    method = Conditional(CAA(), gate=gate).fit(*data)
    mean, spread = data[1].mean(dim=0), data[1].std(dim=0)
    generator = torch.Generator().manual_seed(3)
    far = mean + 30 * spread * torch.randn(40, len(mean), generator=generator, dtype=mean.dtype)
    assert float(method.acts(data[1]).double().mean()) > 0.9
    assert float(method.acts(far).double().mean()) < 0.3
    left = ~method.acts(far)
    assert torch.equal(method.steer(far)[left], far[left])


def test_neighbour_barriers_refuse() -> None:
    a = torch.randn(5, 4)
    for wrong in ({"n_neighbours": 0}, {"share": 0.0}, {"max_examples": 2.5}):
        with pytest.raises(InvalidInputError, match=next(iter(wrong))):
            NeighbourBarrier(**wrong).fit_queries(a)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="which"):
        NeighbourBarrier(which="positive").fit(*contrast())  # type: ignore[arg-type]
    for bad in (a[:2], a[0], a / 0, a.long()):
        with pytest.raises(InvalidInputError, match="queries"):
            NeighbourBarrier().fit_queries(bad)
    with pytest.raises(InvalidInputError, match="vary"):
        NeighbourBarrier().fit_queries(torch.ones(5, 4))


def _three_attributes() -> tuple[torch.Tensor, list[set[str]]]:
    """Each of three labels is told by the sign of a coordinate of its own."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(300, 5, generator=generator, dtype=torch.float64)
    names = ("a", "b", "c")
    return a, [{name for name, x in zip(names, row, strict=False) if x > 0} for row in a.tolist()]


def test_targets_and_avoidances() -> None:
    a, labels = _three_attributes()
    barrier = MultiLabelBarrier(("a", "b"), ("c",), (), SHORT, folds=2).fit_labels(a, labels)
    slope = barrier.gradient(a[:1])[0]
    assert bool((slope[:2] > 0).all())
    assert float(slope[2]) < 0
    assert float(slope[3:].abs().max()) < 0.2 * float(slope[:3].abs().min())
    assert barrier.labels_ == ["a", "b", "c"]
    assert barrier.held_out_ is not None
    assert barrier.held_out_["auc"] > 0.85
    # Both targets count half, the one avoidance whole.
    only_c = MultiLabelBarrier((), ("c",), (), SHORT, folds=0).fit_labels(a, labels)
    ratio = float(slope[2] / barrier.calibration_ / only_c.gradient(a[:1])[0, 2])
    assert ratio == pytest.approx(1, abs=0.2)


def test_labels_that_exclude_each_other() -> None:
    """No example has all targets: levels count over those that have one."""
    a, _ = _three_attributes()
    names = ["a", "b", "c"]
    labels = [names[int(row[:3].argmax())] for row in a]
    barrier = MultiLabelBarrier(("a", "b"), ("c",), (), SHORT, folds=0).fit_labels(a, labels)
    has_one = torch.tensor([label != "c" for label in labels])
    h = barrier.value(a)
    assert barrier.upper_ == pytest.approx(float(h[has_one].double().quantile(0.9)), rel=1e-4)
    assert float(h[has_one].mean()) > float(h[~has_one].mean())


def test_multi_label_barriers_refuse() -> None:
    a, labels = _three_attributes()
    for targets, avoidances, words in (
        (("d",), (), "'d'"),
        (("a",), ("a",), "'a'"),
        ((), (), "nothing"),
        ("a", (), "targets"),
    ):
        with pytest.raises(InvalidInputError, match=words):
            MultiLabelBarrier(targets, avoidances, (), SHORT).fit_labels(a, labels)
    with pytest.raises(InvalidInputError, match="groups"):
        MultiLabelBarrier(("a",), ()).fit_labels(a, labels[1:])
    with pytest.raises(InvalidInputError, match="at least 2"):
        MultiLabelBarrier(("a",), ()).fit_labels(a, [{"a"}] * 300)


def test_a_projected_barrier_of_all_components_is_the_barrier_of_the_activations() -> None:
    """A rotation changes nothing that a linear barrier of centred inputs learns."""
    projected, linear = fitted("projected-linear"), LinearBarrier(folds=0).fit(*contrast())
    a = queries()
    torch.testing.assert_close(projected.value(a), linear.value(a), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(projected.gradient(a), linear.gradient(a), rtol=1e-6, atol=1e-6)


def test_a_projected_barrier_of_a_given_map() -> None:
    inner = LinearBarrier(folds=0).fit(*contrast())
    matrix, offset = torch.randn(12, 7, dtype=torch.float64), torch.randn(12, dtype=torch.float64)
    barrier, a = ProjectedBarrier.of(inner, matrix, offset), torch.randn(4, 7, dtype=torch.float64)
    torch.testing.assert_close(barrier.value(a), inner.value(a @ matrix.T + offset))
    assert barrier.threshold(1.0) == inner.threshold(1.0)
    with pytest.raises(InvalidInputError, match="12"):
        ProjectedBarrier.of(inner, matrix.T, offset)
