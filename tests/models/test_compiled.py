"""Steering inside graphs of the compiler: no break, the same results, and gone when it is gone."""

import contextvars
import gc
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from steerers import IDS, Shift, activations, caa, hooks_of, ode, steerer
from torch import Tensor

import tiny_models
from odesteer.artifact import PARTS, Site, Steerer
from odesteer.errors import InvalidInputError
from odesteer.models import SteeredModel, SteeringWarning
from odesteer.models.architecture import compile_guards
from odesteer.models.architecture.compile_guards import mark, unmark


class Compiler:
    """A backend that runs graphs as they are, and counts graphs and the operations in them."""

    def __init__(self) -> None:
        self.steers: list[int] = []

        def backend(graph: Any, inputs: Any) -> Any:
            called = [node.target for node in graph.graph.nodes if node.op == "call_function"]
            self.steers.append(called.count(torch.ops.odesteer.steer))
            return graph.forward

        self.backend = backend


@pytest.fixture
def compiler() -> Iterator[Compiler]:
    torch._dynamo.reset()
    yield Compiler()
    torch._dynamo.reset()


def wrapped(model: Any, backend: Any) -> Any:
    return torch.compile(model, backend=backend, fullgraph=True)


def in_place(model: Any, backend: Any) -> Any:
    model.compile(backend=backend, fullgraph=True)
    return model


def its_forward(model: Any, backend: Any) -> Any:
    model.forward = torch.compile(model.forward, backend=backend, fullgraph=True)
    return model


def each_layer(model: Any, backend: Any) -> Any:
    for layer in model.model.layers:
        layer.compile(backend=backend, fullgraph=True)
    return model


FORMS = [wrapped, in_place, its_forward, each_layer]


def model(compiled: Callable[..., Any] | None = None, backend: Any = None) -> SteeredModel:
    made = tiny_models.llama(num_hidden_layers=3)
    return SteeredModel(compiled(made, backend) if compiled else made, tiny_models.tokenizer())


def logits(lm: SteeredModel, **inputs: Tensor) -> Tensor:
    with torch.no_grad():
        out: Tensor = lm.model(**{"input_ids": IDS, **inputs}).logits
    return out


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("form", FORMS)
def test_whole_graphs_with_and_without_steering(
    form: Callable[..., Any], part: str, compiler: Compiler
) -> None:
    plain, lm = model(), model(form, compiler.backend)
    moving = steerer(part=part)
    before, classes = hooks_of(lm.model), [type(module) for module in lm.model.modules()]
    base = logits(lm)
    with plain.steering(moving):
        expected = logits(plain)
    handle = lm.steering(moving, compiled=True)
    with handle:
        steered = logits(lm)
    torch.testing.assert_close(steered, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(steered, base, atol=1e-3)
    # Behind the last norm, outside of all graphs of layers, Python steers.
    in_graph = not (part == "final" and form is each_layer)
    assert sum(compiler.steers) == in_graph
    assert torch.equal(logits(lm), base)
    n_graphs = len(compiler.steers)
    with handle:
        assert torch.equal(logits(lm), steered)
    assert torch.equal(logits(lm), base)
    assert len(compiler.steers) == n_graphs  # both are used again
    assert hooks_of(lm.model) == before
    assert [type(module) for module in lm.model.modules()] == classes


def test_first_steered_then_not(compiler: Compiler) -> None:
    lm, other = model(wrapped, compiler.backend), caa(seed=1)
    with lm.steering(caa(), compiled=True):
        first = logits(lm)
    with lm.steering(other, compiled=True):
        second = logits(lm)
    base = logits(lm)
    assert compiler.steers == [1, 1, 0]
    assert not torch.allclose(first, second, atol=1e-3)
    assert torch.equal(base, logits(model()))


@pytest.mark.parametrize("outer_compiled", [False, True])
def test_nested(outer_compiled: bool, compiler: Compiler) -> None:
    plain, lm = model(), model(wrapped, compiler.backend)
    outer, inner = caa(), caa(seed=1)
    with plain.steering(outer), plain.steering(inner):
        both = logits(plain)
    with plain.steering(outer):
        one = logits(plain)
    with lm.steering(outer, compiled=outer_compiled):
        with lm.steering(inner, compiled=True):
            torch.testing.assert_close(logits(lm), both, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(logits(lm), one, rtol=1e-4, atol=1e-5)
    assert torch.equal(logits(lm), logits(plain))
    assert (2 in compiler.steers) == outer_compiled


@pytest.mark.parametrize(
    ("position", "width"),
    [("last", None), ("last", 4), ("prompt", 3), ("all", None), ("last:0:2", 3), ("last:1:2", 3)],
)
def test_padding_rows_and_positions(position: str, width: int | None, compiler: Compiler) -> None:
    plain, lm = model(), model(wrapped, compiler.backend)
    mask = torch.ones_like(IDS)
    mask[1, :2] = 0
    moving = ode(position=position)
    options: dict[str, Any] = {"level": [2.0, None, -1.0], "prompt_width": width}
    with plain.steering(moving, **options):
        expected = logits(plain, attention_mask=mask)
    with lm.steering(moving, **options, compiled=True):
        found = logits(lm, attention_mask=mask)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(found, logits(plain, attention_mask=mask), atol=1e-3)


@pytest.mark.parametrize(
    ("position", "width"),
    [("last", None), ("last", 5), ("generated", 5), ("prompt", 6), ("all", None)],
)
def test_decoding_with_a_static_cache(position: str, width: int | None, compiler: Compiler) -> None:
    from transformers import CompileConfig

    compiling = CompileConfig(backend=compiler.backend, fullgraph=True, mode=None)
    compiling._compile_all_devices = True
    options: dict[str, Any] = {
        "max_new_tokens": 5, "do_sample": False, "pad_token_id": 0,
        "cache_implementation": "static",
    }  # fmt: skip
    lm, moving = model(), steerer(position=position)
    base = lm.model.generate(IDS, **options, compile_config=compiling)
    with lm.steering(moving, prompt_width=width):
        wanted = lm.model.generate(IDS, **options)
    with lm.steering(moving, prompt_width=width, compiled=True):
        found = lm.model.generate(IDS, **options, compile_config=compiling)
    assert torch.equal(found, wanted)
    assert not torch.equal(found, base)
    assert torch.equal(lm.model.generate(IDS, **options, compile_config=compiling), base)
    # One graph for all tokens of a form, whatever the length of the text.
    assert len(compiler.steers) == 2


def test_threads_are_steered_or_warned_as_without_compiling(compiler: Compiler) -> None:
    lm = model(wrapped, compiler.backend)
    base = logits(lm)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()  # which starts the thread
        with lm.steering(caa(), compiled=True):
            steered = logits(lm)
            context = contextvars.copy_context()
            assert torch.equal(pool.submit(context.run, logits, lm).result(), steered)
            with pytest.warns(SteeringWarning, match="is not steered") as warnings:
                found = [pool.submit(logits, lm).result() for _ in range(2)]
            assert len(warnings) == 1
            with ThreadPoolExecutor(1) as inside:
                assert torch.equal(inside.submit(logits, lm).result(), steered)
            assert torch.equal(logits(lm), steered)
        assert torch.equal(pool.submit(logits, lm).result(), base)
    assert all(torch.equal(one, base) for one in found)
    assert not torch.allclose(steered, base, atol=1e-3)


def test_a_handle_that_goes_to_another_thread(compiler: Compiler) -> None:
    lm = model(wrapped, compiler.backend)
    base, handle, found = logits(lm), lm.steering(caa(), compiled=True), list[Tensor]()
    with handle:
        steered = logits(lm)

    def work() -> None:
        handle.enable()
        found.append(logits(lm))

    other = threading.Thread(target=work)
    other.start()
    other.join()
    with pytest.warns(SteeringWarning, match="is not steered"):
        assert torch.equal(logits(lm), base)
    handle.remove()
    assert torch.equal(found[0], steered)
    assert torch.equal(logits(lm), base)


def test_receipts_and_gates_are_refused(compiler: Compiler) -> None:
    lm = model()
    for own, options in ((caa(), {"receipt": True}), (caa().when(ode(), above=0), {})):
        with pytest.raises(InvalidInputError, match="neither a receipt nor a gate"):
            lm.steering(own, **options, compiled=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # of inductor
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_ahead_of_time_and_to_machine_code(backend: str, compiler: Compiler) -> None:
    if backend == "inductor" and shutil.which("g++") is None:
        pytest.skip("inductor needs a C++ compiler")
    plain, lm, moving = model(), model(wrapped, backend), ode()
    base = logits(lm)
    with plain.steering(moving, level=2.0):
        expected = logits(plain)
    with lm.steering(moving, level=2.0, compiled=True):
        found = logits(lm)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(found, base, atol=1e-3)
    assert torch.equal(logits(lm), base)


def test_marks_in_any_order_leave_the_class_as_it_was() -> None:
    module = torch.nn.Linear(2, 2)
    one = mark(module, -1)
    assert (one.__name__, one.__module__) == ("Linear", torch.nn.Linear.__module__)
    two = mark(module, -2)
    assert isinstance(module, torch.nn.Linear)
    unmark(module, -1)
    assert type(module) not in (torch.nn.Linear, one, two)
    unmark(module, -1)
    unmark(module, -2)
    assert type(module) is torch.nn.Linear
    assert mark(module, -1) is one
    unmark(module, -1)


def test_methods_are_called_as_they_are(compiler: Compiler) -> None:
    """A plugin's method may do what no compiler understands."""

    class Odd(Shift):
        def _solve(self, a: Tensor, amount: Any) -> Any:
            seen.append(float(a.sum()))
            return super()._solve(a, amount)

    seen: list[float] = []
    lm = model(wrapped, compiler.backend)
    with lm.steering(Steerer(Odd().fit(*activations()), Site(2)), compiled=True):
        logits(lm)
        logits(lm)
    assert len(seen) == 2


def test_neither_an_error_nor_forgetting_leaves_a_mark() -> None:
    lm = model()
    before, classes = hooks_of(lm.model), [type(module) for module in lm.model.modules()]

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise ArithmeticError

    lm.layers.at(1).forward = broken
    with pytest.raises(ArithmeticError), lm.steering(caa(), compiled=True):
        logits(lm)
    del lm.layers.at(1).forward
    handle = lm.steering(caa(), compiled=True).enable()
    assert [type(module) for module in lm.model.modules()] != classes
    del handle
    gc.collect()
    assert [type(module) for module in lm.model.modules()] == classes
    assert hooks_of(lm.model) == before


def test_it_is_said_once_that_other_compiled_code_runs_uncompiled(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compile_guards, "_has_warned", False)
    lm, other = model(), torch.compile(torch.neg, backend=compiler.backend)

    def said() -> int:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            with lm.steering(caa()):
                logits(lm)
                other(torch.ones(2))
        return sum(issubclass(each.category, compile_guards.UncompiledWarning) for each in found)

    torch._dynamo.utils.counters.clear()
    assert said() == 0  # nothing is compiled yet
    other(torch.ones(2))
    assert [said(), said()] == [1, 0]
    other(torch.ones(2))
    assert len(compiler.steers) == 1  # compiled before, and used again
