"""The contract of steering methods, for all of them."""

import math

import numpy as np
import pytest
import torch
from method_cases import METHODS, amounts, every_method, steering, steering_massive

import trained
from barrier_cases import WIDTH, contrast, massive_contrast, queries
from odesteer.artifact import load, save
from odesteer.barriers import Barrier
from odesteer.errors import InvalidInputError
from odesteer.flows import VectorField
from odesteer.methods import QUANTITIES, Amount, registry

HALVES = [torch.float16, torch.bfloat16]
FLOATS = [*HALVES, torch.float32, torch.float64]


def test_every_registered_method_is_tested():
    """A method that is registered needs a case in METHODS, and is then in all tests here."""
    classes = {registry.get(name) for name in registry}
    # Those that need a model are tested with one, see tests/models/test_end_to_end_training.py.
    fitted_here = {cls for cls in classes if not cls.needs_model}
    assert fitted_here == {type(m) for m in METHODS.values()}


# These have no field or map of one kind, or none at all.
WITHOUT_BARRIER = {"subspace-map", "linear-act", "truthflow", "query-truthflow", "sum"}
WITHOUT_FIELD = {
    *("ablation", "angular", "gated-direction", "hpr", "linear-act", "mimic"),
    *("setpoint", "spherical-steering", "subspace-map", "truthflow", "query-truthflow"),
}


@pytest.mark.parametrize("name", list(registry))
def test_what_the_table_of_methods_says(name):
    cls = registry.get(name)
    method = cls()
    for text in (cls.dynamics, cls.solver_summary, cls.cost, cls.reference):
        assert isinstance(text, str)
        assert len(text) > 3
        assert "\n" not in text
    assert isinstance(method.keeps_norm, bool)
    if cls.needs_model:
        fitted = trained.fitted(method, *contrast())
    else:
        fitted = steering(next(case for case, m in METHODS.items() if type(m) is cls))
    assert hasattr(fitted, "barrier") == (name not in WITHOUT_BARRIER) == bool(cls.barrier_summary)
    assert hasattr(fitted, "field") == (name not in WITHOUT_FIELD)
    if hasattr(fitted, "barrier"):
        assert isinstance(fitted.barrier, Barrier)
    if hasattr(fitted, "field"):
        assert isinstance(fitted.field, VectorField)
        assert fitted.field(queries()).shape == (7, WIDTH)


@every_method
def test_methods_that_say_so_keep_the_norm(name):
    method, a = steering(name), queries(20)
    changes = [method.solve(a, amount).state.norm(dim=1) for amount in amounts(method)]
    kept = [torch.allclose(norm, a.norm(dim=1), rtol=1e-12) for norm in changes]
    if method.keeps_norm:
        assert all(kept)
    elif name in registry:  # as it comes; a geodesic solver may keep what its method does not
        assert not all(kept)


@every_method
def test_saved_and_loaded_methods_agree_to_the_bit(name, tmp_path):
    for dtype in (torch.float32, torch.float64):
        method, a = steering(name, dtype), queries(6).to(dtype)
        save(method, tmp_path / "method.safetensors")
        loaded = load(tmp_path / "method.safetensors").method
        assert type(loaded) is type(method)
        assert repr(loaded) == repr(method)
        assert loaded.quantities == method.quantities
        for amount in (None, *amounts(method)):
            ours, theirs = method.solve(a, amount), loaded.solve(a, amount)
            assert torch.equal(ours.state, theirs.state)
            assert torch.equal(ours.time, theirs.time)
        if hasattr(method, "barrier"):
            assert torch.equal(loaded.barrier.value(a), method.barrier.value(a))


@every_method
def test_quantities_are_stated(name):
    method = METHODS[name]
    assert method.quantities
    assert set(method.quantities) <= set(QUANTITIES)
    assert len(type(method).reference) > 10
    assert method.default_amount.quantity in method.quantities


@every_method
@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (1, 2, 3), (0,), (2, 0)])
def test_shapes(name, shape):
    method = steering(name)
    a = queries(6)[: math.prod(shape)].reshape(*shape, WIDTH)
    for amount in (None, *amounts(method)):
        solution = method.solve(a, amount)
        assert solution.state.shape == a.shape
        assert solution.time.shape == solution.usable.shape == shape
        assert solution.reached is None or solution.reached.shape == shape
        assert solution.rejected is None or solution.rejected.shape == shape
        assert solution.time.dtype == torch.float64


@every_method
@pytest.mark.parametrize("dtype", FLOATS)
def test_types_are_kept(name, dtype):
    method = steering(name, torch.float32)
    a = queries().to(dtype)
    for amount in (None, *amounts(method)):
        steered = method.solve(a, amount).state
        assert steered.dtype == dtype
        assert bool((steered != a).any())
        if dtype in HALVES:  # computed in float32, rounded once
            assert torch.equal(steered, method.solve(a.float(), amount).state.to(dtype))


@every_method
def test_a_method_in_one_type_steers_activations_in_another(name):
    single, double = steering(name, torch.float32), steering(name)
    a = queries()
    for amount in amounts(single):
        ours, theirs = single.solve(a, amount).state, double.solve(a, amount).state
        if name != "odesteer-neural":  # whose training is not the same in both types
            assert float((ours - theirs).norm() / (theirs - a).norm()) < 1e-2
        assert ours.dtype == torch.float64


@every_method
def test_batches_are_row_by_row(name):
    method, a = steering(name), queries(6)
    for amount in (None, *amounts(method)):
        together = method.solve(a, amount)
        for i in range(6):
            alone = method.solve(a[i], amount)
            torch.testing.assert_close(alone.state, together.state[i], rtol=1e-7, atol=1e-7)
            torch.testing.assert_close(alone.time, together.time[i], rtol=1e-6, atol=1e-7)
        cube = method.solve(a.reshape(2, 3, WIDTH), amount).state
        torch.testing.assert_close(cube.reshape(6, WIDTH), together.state, rtol=1e-7, atol=1e-7)


@every_method
def test_every_row_has_its_own_amount(name):
    method, a = steering(name), queries(6)
    for amount in amounts(method):
        values = amount.value * torch.tensor([1.0, 0.0, -1.0, 0.5, 2.0, -0.3])
        together = method.solve(a, Amount(amount.quantity, values)).state
        for i, value in enumerate(values.tolist()):
            alone = method.solve(a[i], Amount(amount.quantity, value)).state
            torch.testing.assert_close(alone, together[i], rtol=1e-6, atol=1e-6)
        # One value for each of three columns, and one for each of two rows.
        cube = a.reshape(2, 3, WIDTH)
        columns = method.solve(cube, Amount(amount.quantity, values[:3])).state
        torch.testing.assert_close(columns[0], together[:3])
        rows = method.solve(cube, Amount(amount.quantity, values[:2, None])).state
        torch.testing.assert_close(rows[0, 0], together[0])
        one = method.solve(a, Amount(amount.quantity, values[3])).state
        torch.testing.assert_close(one[3], together[3])


@every_method
@pytest.mark.parametrize("dtype", HALVES)
def test_amounts_in_half_precision_lose_nothing_further(name, dtype):
    method, a = steering(name), queries()
    for amount in amounts(method):
        values = torch.full((len(a),), 0.75, dtype=dtype)  # exact in both types
        ours = method.solve(a, Amount(amount.quantity, values)).state
        torch.testing.assert_close(ours, method.solve(a, Amount(amount.quantity, 0.75)).state)


@every_method
@pytest.mark.parametrize("dtype", FLOATS)
def test_nothing_is_identity(name, dtype):
    method, a = steering(name), queries().to(dtype)
    a[0, 0] = -0.0
    for quantity in method.quantities:
        if quantity != "level":
            assert torch.equal(method.steer(a, **{quantity: 0.0}), a)


@every_method
def test_one_parameter_for_how_much(name):
    method, a = steering(name), queries()
    for amount in amounts(method):
        expected = method.solve(a, amount).state
        assert torch.equal(method.steer(a, amount), expected)
        assert torch.equal(method.steer(a, **{amount.quantity: np.float64(amount.value)}), expected)
        if "amount" not in method.get_params():  # the default is that of methods inside
            continue
        natural = amount.quantity == method.quantities[0]
        words = {amount.quantity: amount.value}
        ways = [{"amount": amount}, words, *([{"amount": np.float64(amount.value)}] * natural)]
        for changes in ways:
            changed = METHODS[name].with_params(**changes)
            assert changed.default_amount == amount
            assert changed.clone().default_amount == amount
            assert changed.get_params().keys() == method.get_params().keys()
        made = type(method)(**words)
        assert made.default_amount == amount
        assert repr(made) == repr(type(method)(amount=amount.value if natural else amount))
        with pytest.raises(InvalidInputError, match="not both"):
            type(method)(amount=1.0, **words)


@every_method
def test_the_default_displacement_stays_below_eight_class_distances(name):
    for data, method in (
        (contrast(), steering(name)),
        (massive_contrast(), steering_massive(name)),
    ):
        distance = float((data[0].mean(dim=0) - data[1].mean(dim=0)).norm())
        a = data[1]
        assert float((method.steer(a) - a).norm(dim=1).max()) < 8 * distance


@every_method
def test_a_massive_coordinate(name, tmp_path):
    """One coordinate a thousand times larger, as in early layers of language models."""
    method, (_, negative) = steering_massive(name), massive_contrast()
    for amount in (None, *amounts(method)):
        solution = method.solve(negative, amount)
        assert bool(torch.isfinite(solution.state).all())
        assert bool(solution.usable.all())
        alone = method.solve(negative[3], amount).state
        torch.testing.assert_close(alone, solution.state[3], rtol=1e-6, atol=1e-6)
    save(method, tmp_path / "method.safetensors")
    loaded = load(tmp_path / "method.safetensors").method
    assert torch.equal(loaded.steer(negative), method.steer(negative))


@every_method
def test_the_input_is_not_modified(name):
    method, a = steering(name), queries()
    before = a.clone()
    for amount in (None, *amounts(method)):
        first = method.solve(a, amount).state
        assert torch.equal(a, before)
        assert first.data_ptr() != a.data_ptr()
        assert torch.equal(method.solve(a, amount).state, first)


@every_method
def test_strided_and_expanded_activations(name):
    """Views into a larger tensor, as hooks see them."""
    method = steering(name)
    large = queries(12).reshape(3, 4, WIDTH)
    last = large[:, -1]
    torch.testing.assert_close(method.steer(last), method.steer(last.clone()))
    spread = queries(1).expand(4, WIDTH)
    torch.testing.assert_close(method.steer(spread)[2], method.steer(spread[2]))
    turned = large.transpose(0, 1)
    torch.testing.assert_close(method.steer(turned), method.steer(large).transpose(0, 1))


@every_method
@pytest.mark.parametrize("dtype", FLOATS)
def test_rows_that_cannot_be_steered_are_unchanged_and_counted(name, dtype):
    method = steering(name, torch.float32)
    a = queries(7).to(dtype)
    bad = a.clone()
    bad[1] = 0
    bad[2, 3] = math.nan
    bad[4, 0] = math.inf
    bad[5] = -math.inf
    for amount in (None, *amounts(method)):
        solution, clean = method.solve(bad, amount), method.solve(a, amount)
        assert solution.usable.tolist() == [True, False, False, True, False, False, True]
        assert torch.equal(solution.state.isnan(), bad.isnan())
        rows = [1, 2, 4, 5]
        assert torch.equal(solution.state[rows].nan_to_num(7.0), bad[rows].nan_to_num(7.0))
        assert solution.time[rows].tolist() == [0.0] * 4
        good = [0, 3, 6]
        torch.testing.assert_close(solution.state[good], clean.state[good])
        assert bool(clean.usable.all())
        if solution.reached is not None:
            assert not bool(solution.reached[rows].any())
            assert torch.equal(solution.reached[good], clean.reached[good])
        if solution.rejected is not None:
            assert solution.rejected[rows].tolist() == [0] * 4


@every_method
@pytest.mark.parametrize("size", [1e-42, 1e-25, 1e-17, 1e19, 1e30])
def test_norms_out_of_the_range_of_squares(name, size):
    """Unchanged, and said so, rather than silently lost to underflow or overflow."""
    method = steering(name, torch.float32)
    a = size * queries(3, dtype=torch.float32)
    solution = method.solve(a, amounts(method)[-1])
    assert bool(torch.isfinite(solution.state).all())
    assert not bool(solution.usable.any())
    assert torch.equal(solution.state, a)


@every_method
def test_results_that_do_not_fit_their_type_are_not_used(name):
    """Steered by more than 65504, the largest half; but on a sphere nothing grows."""
    method = steering(name, torch.float32)
    a = queries(4).half()
    for quantity in method.quantities:
        if quantity == "level":
            continue
        solution = method.solve(a, Amount(quantity, 1e6))
        assert bool(torch.isfinite(solution.state).all())
        unusable = ~solution.usable
        assert torch.equal(solution.state[unusable], a[unusable])
        assert bool((solution.time[unusable] == 0).all())
        if name in ("caa", "odesteer-linear"):
            assert bool(unusable.all())
        if method.keeps_norm and quantity != "interpolation":
            assert not bool(unusable.any())


@every_method
def test_gradients_flow_where_they_are_wanted(name):
    method, plain = steering(name), queries()
    for amount in (None, *amounts(method)):
        expected = method.solve(plain, amount).state
        a = plain.clone().requires_grad_()
        result = method.solve(a, amount).state
        assert result.requires_grad
        torch.testing.assert_close(result.detach(), expected)
        result.sum().backward()
        assert a.grad.shape == a.shape
        assert bool(a.grad.any())
        with torch.no_grad():
            result = method.solve(a, amount).state
        assert not result.requires_grad
        torch.testing.assert_close(result, expected)
        with torch.inference_mode():
            result = method.solve(queries(), amount).state
        assert result.is_inference()
        torch.testing.assert_close(result, expected)


@every_method
def test_unusable_activations_and_amounts(name):
    method, a = steering(name), queries()
    quantity = method.quantities[0]
    for wrong in (a[:, 1:], a.long(), torch.tensor(1.0)):
        with pytest.raises(InvalidInputError, match=f"fitted on width {WIDTH}"):
            method.steer(wrong, **{quantity: 1.0})
    with pytest.raises(InvalidInputError, match=f"{quantity} has shape"):
        method.steer(a, **{quantity: torch.ones(3)})
    with pytest.raises(InvalidInputError, match="must be finite"):
        method.steer(a, **{quantity: math.nan})
    if len(method.quantities) > 1:
        second = method.quantities[1]
        with pytest.raises(InvalidInputError, match="give exactly one of"):
            method.steer(a, **{quantity: 1.0, second: 1.0})
    for missing in set(QUANTITIES) - set(method.quantities):
        with pytest.raises(
            InvalidInputError, match=f"has no '{missing}'.*takes {quantity}( or|\\.)"
        ):
            method.steer(a, **{missing: 1.0})
    with pytest.raises(InvalidInputError, match="not both"):
        method.steer(a, 1.0, **{quantity: 1.0})
    with pytest.raises(InvalidInputError, match="must be a number"):
        method.steer(a, "1.0")


@every_method
def test_moving_to_another_type(name):
    method = steering(name)
    single = method.to(dtype=torch.float32)
    a = queries()
    for amount in amounts(method):
        ours, theirs = single.solve(a, amount).state, method.solve(a, amount).state
        assert float((ours - theirs).norm() / (theirs - a).norm()) < 1e-3
        assert torch.equal(method.solve(a, amount).state, theirs)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@every_method
def test_on_a_gpu(name):
    method = steering(name, torch.float32)
    a = queries(dtype=torch.float32)
    moved = method.to("cuda")
    for amount in amounts(method):
        ours = moved.solve(a.cuda(), amount)
        assert ours.state.device.type == ours.time.device.type == "cuda"
        theirs = method.solve(a, amount).state
        assert float((ours.state.cpu() - theirs).norm() / (theirs - a).norm()) < 1e-3
        # A method left on the CPU follows the activations.
        torch.testing.assert_close(method.solve(a.cuda(), amount).state, ours.state)
