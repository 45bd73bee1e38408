"""The neural barrier: training, stopping, seeds."""

import math

import pytest
import torch

from barrier_cases import contrast, queries
from odesteer.barriers import LinearBarrier, NeuralBarrier, Raw, Training, ValueBarrier
from odesteer.barriers.neural import Perceptron
from odesteer.errors import ConvergenceError, InvalidInputError


def crossed(n, generator):
    """Classes that differ only in the sign of the product of two coordinates."""
    x = torch.randn(2, n, 4, generator=generator)
    x[0, :, 1] = x[0, :, 0].sign() * x[0, :, 1].abs()
    x[1, :, 1] = -x[1, :, 0].sign() * x[1, :, 1].abs()
    return x[0], x[1]


def test_it_learns_what_no_linear_barrier_can():
    data = crossed(300, torch.Generator().manual_seed(0))
    neural = NeuralBarrier(hidden=(32,), folds=3).fit(*data)
    linear = LinearBarrier(folds=3).fit(*data)
    assert linear.held_out_["auc"] < 0.6
    assert neural.held_out_["auc"] > 0.95
    assert neural.held_out_["log_loss"] < 0.4


def test_it_fits_sets_of_the_usual_size():
    """600 examples of width 160, as from a small model."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(600, 160, generator=generator)
    x[:300, :8] += 1.2
    barrier = NeuralBarrier(folds=2).fit(x[:300], x[300:])
    assert barrier.held_out_["auc"] > 0.9
    assert barrier.function_.weights_[0].shape == (64, 160)


def test_the_seed_decides_everything_and_the_global_generator_nothing():
    data = contrast(dtype=torch.float32)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = NeuralBarrier(max_epochs=5, seed=4).fit(*data)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    again = NeuralBarrier(max_epochs=5, seed=4).fit(*data)
    other = NeuralBarrier(max_epochs=5, seed=5).fit(*data)
    a = queries(dtype=torch.float32)
    assert torch.equal(first.value(a), again.value(a))
    assert first.held_out_ == again.held_out_
    assert not torch.allclose(first.value(a), other.value(a), rtol=1e-3)


def test_training_stops_where_held_out_groups_say():
    """Labels are noise, so every epoch that learns them makes unseen groups worse."""
    positive, negative = torch.randn(2, 80, 40, generator=torch.Generator().manual_seed(0))
    stopped = NeuralBarrier(learning_rate=1e-2, patience=3, folds=0).fit(positive, negative)
    driven = NeuralBarrier(learning_rate=1e-2, validation=0.0, folds=0).fit(positive, negative)
    assert stopped.n_epochs_ < 20
    assert driven.n_epochs_ == driven.training.max_epochs == 200

    def size(barrier):
        return float(barrier.value(torch.cat([positive, negative])).abs().mean())

    assert size(stopped) < 0.3 * size(driven)


def test_copies_of_an_example_stay_on_one_side_of_the_split():
    """With ten copies of every example, only groups make the held-out loss honest."""
    x = torch.randn(2, 12, 30, generator=torch.Generator().manual_seed(1))
    positive, negative = x.repeat_interleave(10, dim=1)
    owners = torch.arange(12).repeat_interleave(10)
    settings = {"learning_rate": 1e-2, "patience": 5, "folds": 0}
    grouped = NeuralBarrier(**settings).fit(positive, negative, groups=(owners, owners + 12))
    split = NeuralBarrier(**settings).fit(positive, negative)
    assert grouped.n_epochs_ < split.n_epochs_


def test_class_frequencies_do_not_matter():
    """Classes that do not differ, four times as many of one: h is 0 and not log 4."""
    generator = torch.Generator().manual_seed(2)
    a, means = queries(50, width=6, dtype=torch.float32), []
    for _ in range(4):
        x = torch.randn(250, 6, generator=generator)
        means.append(float(NeuralBarrier(folds=0).fit(x[:200], x[200:]).value(a).mean()))
    assert abs(sum(means) / 4) < 0.4 < math.log(4) - 0.4


def test_too_few_groups_to_hold_any_out():
    positive, negative = contrast(2, dtype=torch.float32)
    barrier = NeuralBarrier(max_epochs=7, folds=0).fit(positive, negative)
    assert barrier.n_epochs_ == 7
    assert bool(torch.isfinite(barrier.value(queries())).all())


def test_weight_decay_makes_the_barrier_flatter():
    data = contrast(60, dtype=torch.float32)
    slopes = [
        float(
            NeuralBarrier(weight_decay=decay, validation=0.0, max_epochs=60, folds=0)
            .fit(*data)
            .gradient(queries(20))
            .norm()
        )
        for decay in (0.0, 20.0)
    ]
    assert slopes[1] < 0.8 * slopes[0]


def test_the_learned_tensors_are_plain():
    """Leaves without gradients, so that they can be stored, moved and shared."""
    barrier = NeuralBarrier(hidden=(5, 3), max_epochs=3, folds=0).fit(*contrast())
    function = barrier.function_
    assert isinstance(function, Perceptron)
    assert [tuple(w.shape) for w in function.weights_] == [(5, 12), (3, 5), (1, 3)]
    assert [tuple(b.shape) for b in function.biases_] == [(5,), (3,), (1,)]
    for tensor in (*function.weights_, *function.biases_):
        assert tensor.is_leaf
        assert not tensor.requires_grad
        assert tensor.dtype == torch.float64
    half = barrier.to(dtype=torch.float32)
    assert half.function_.weights_[0].dtype == torch.float32
    a = queries()
    torch.testing.assert_close(half.value(a), barrier.value(a), rtol=1e-4, atol=1e-4)


def test_fitting_and_using_in_inference_mode():
    expected = NeuralBarrier(max_epochs=3, folds=2).fit(*contrast())
    with torch.inference_mode():
        barrier = NeuralBarrier(max_epochs=3, folds=2).fit(*contrast())
        moved = barrier.to(dtype=torch.float32).to(dtype=torch.float64)  # inference tensors
        inside = barrier.gradient(queries())
        inside_moved = moved.gradient(queries())
    torch.testing.assert_close(inside, expected.gradient(queries()))
    torch.testing.assert_close(inside_moved, inside, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(moved.gradient(queries()), inside_moved)


def test_parameters_of_training_are_also_arguments_of_the_barrier():
    """As they were before they had an object of their own."""
    barrier = NeuralBarrier((5,), max_epochs=3, learning_rate=0.01)
    assert barrier.parameter_names() == ("hidden", "training", "inputs", "fitting")
    assert (barrier.training.max_epochs, barrier.training.learning_rate) == (3, 0.01)
    assert barrier.training.keep_best  # the other parameters are those of the default
    assert NeuralBarrier().training.max_epochs == 200
    assert barrier.with_params(patience=2).training.get_params() == {
        **barrier.training.get_params(),
        "patience": 2,
    }
    given = Training(batch_size=7)
    assert ValueBarrier(training=given, max_epochs=9).training.get_params() == {
        **given.get_params(),
        "max_epochs": 9,
    }
    assert given.max_epochs == 1000
    with pytest.raises(TypeError, match="keep_bst"):
        ValueBarrier(keep_bst=True)


def test_a_training_is_used_as_it_is_given():
    data = contrast()
    by_name = NeuralBarrier((5,), max_epochs=3, folds=0).fit(*data)
    training = Training(max_epochs=3, tolerance=0.0, keep_best=True)
    whole = NeuralBarrier((5,), training, folds=0).fit(*data)
    assert torch.equal(by_name.value(queries()), whole.value(queries()))
    with pytest.raises(InvalidInputError, match=r"training must be a Training\(...\), not None"):
        NeuralBarrier(training=None).fit(*data)


def test_default_objects_are_not_shared():
    first = NeuralBarrier()
    first.training.max_epochs = 1
    assert NeuralBarrier().training.max_epochs == 200
    assert "max_epochs=1" in repr(first)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"hidden": (16, 0)}, r"hidden\[1\] must be a positive integer, not 0"),
        ({"hidden": (16.0,)}, r"hidden\[0\] must be a positive integer, not 16.0"),
        ({"batch_size": 0}, "batch_size"),
        ({"max_epochs": -1}, "max_epochs"),
        ({"patience": True}, "patience"),
        ({"learning_rate": 0.0}, "learning_rate > 0"),
        ({"weight_decay": -0.1}, "weight_decay >= 0"),
        ({"validation": 0.7}, r"validation must be in \[0, 0.5\]"),
        ({"training": Training(tolerance=1.0)}, r"tolerance must be in \[0, 1\), not 1.0"),
    ],
)
def test_unusable_parameters(parameters, message):
    with pytest.raises(InvalidInputError, match=message):
        NeuralBarrier(**parameters).fit(*contrast())


def test_a_network_without_hidden_layers_is_linear():
    barrier = NeuralBarrier(hidden=(), max_epochs=20, folds=0).fit(*contrast())
    gradient = barrier.gradient(queries())
    torch.testing.assert_close(gradient, gradient[:1].expand_as(gradient))


def test_divergence_is_an_error():
    data = [1e30 * a for a in contrast(dtype=torch.float32)]
    with pytest.raises(ConvergenceError, match="diverged in epoch"):
        NeuralBarrier(inputs=Raw(), learning_rate=1e10, folds=0).fit(*data)
