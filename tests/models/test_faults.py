"""A thousand faults, anywhere: no hook is left, and the model computes what it did before."""

import gc
import linecache
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from steerers import Shift, hooks_of, ode, steerer

import odesteer
import tiny_models
from odesteer.artifact import SteererSet
from odesteer.data import ContrastData, Example
from odesteer.models import SteeredModel
from odesteer.models.architecture import compile_guards as eager
from odesteer.models.architecture import compile_guards as marks

N = 250  # of each of the four kinds
IDS = torch.tensor([[1, 20, 30], [1, 60, 70]])
PACKAGE = str(Path(odesteer.__file__).parent / "models")


class Fault(Exception):  # noqa: N818
    """Something breaks."""


class Interrupt(KeyboardInterrupt):
    """Somebody presses Ctrl-C. Our own, so that a real one ends the tests."""


class Fragile:
    """A tokenizer that breaks at its n-th use."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.uses_left: int | None = None
        self.error: type[BaseException] = Fault

    def _use(self) -> None:
        if self.uses_left is not None:
            self.uses_left -= 1
            if self.uses_left < 0:
                raise self.error

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._use()
        return self._tokenizer(*args, **kwargs)

    def decode(self, *args: Any, **kwargs: Any) -> Any:
        self._use()
        return self._tokenizer.decode(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


class FragileShift(Shift):
    """A method that breaks at its n-th use (of all copies)."""

    uses_left: int | None = None
    error: type[BaseException] = Fault

    def _solve(self, a: Any, amount: Any) -> Any:
        cls = FragileShift
        if cls.uses_left is not None:
            cls.uses_left -= 1
            if cls.uses_left < 0:
                raise cls.error
        return super()._solve(a, amount)


@contextmanager
def breaking_module(model: Any, rng: random.Random, error: type[BaseException]) -> Iterator[None]:
    """One module breaks at its n-th call, before or after it has computed."""
    module = rng.choice([m for m in model.modules() if not isinstance(m, torch.nn.ModuleList)])
    calls, after = rng.choice([0, 0, 0, 1, 2]), rng.random() < 0.5
    forward = module.forward

    def broken(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        out = forward(*args, **kwargs) if after else None
        calls -= 1
        if calls < 0:
            raise error
        return out if after else forward(*args, **kwargs)

    module.forward = broken
    try:
        yield
    finally:
        del module.forward


def _lets_go_of_a_lock(frame: FrameType) -> bool:
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
    return line.strip() == "with _lock:" and frame.f_globals["_lock"]._is_owned()


@contextmanager
def breaking_line(rng: random.Random, error: type[BaseException]) -> Iterator[None]:
    """The n-th line that runs in `odesteer.models` is not reached, wherever it is: also inside
    hooks and clean-up. Harsher than signals, which come between fewer instructions; only where a
    lock is let go do we keep to what CPython promises about them."""
    lines = int(10 ** rng.uniform(0, 2.9))

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal lines
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line" and not _lets_go_of_a_lock(frame):
            lines -= 1
            if lines == 0:
                raise error
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


@pytest.fixture(scope="module")
def fragile() -> SteeredModel:
    return SteeredModel(tiny_models.llama(num_hidden_layers=2), Fragile(tiny_models.tokenizer()))


A = steerer(FragileShift(), 0)
B = steerer(FragileShift(1), 1, "all")
C = ode(1, "generated")
HEADS = steerer(FragileShift(2), 1, part="heads")
PHASE = SteererSet(
    [steerer(FragileShift(3), 0, "answer:a..b"), steerer(FragileShift(3), 1, "last:1:2")]
)
EXAMPLES = [Example("", "ab"), Example("c", "d")]
DATA = ContrastData.from_texts(["good", "fine"], ["bad", "evil"])


def use_in_context(lm: SteeredModel) -> None:
    with lm.steering([A, None], strength=0.5, receipt=True) as steering, torch.no_grad():
        lm.model(IDS)
        steering.receipt()


def use_nested(lm: SteeredModel) -> None:
    with lm.steering(A, B), torch.no_grad():
        lm.model(IDS)
        with lm.steering(C):
            lm.model(IDS)
        lm.model(IDS)


def use_handle(lm: SteeredModel) -> None:
    handle = lm.steering(B).enable()
    try:
        lm.model(IDS)
    finally:
        handle.remove()


def use_generate(lm: SteeredModel) -> None:
    lm.generate(
        ["ab", "c"], [A, C], max_new_tokens=2, do_sample=True, stream=lambda row, text: None
    )


def use_capture(lm: SteeredModel) -> None:
    lm.capture(EXAMPLES, [0, 1], batch_size=1)
    lm.capture(EXAMPLES, 1, part="heads")


def use_heads(lm: SteeredModel) -> None:
    lm.generate(["ab", "c"], SteererSet([A, HEADS]), max_new_tokens=2)


def use_gate(lm: SteeredModel) -> None:
    with lm.steering(A.when(C, above=0), HEADS.when(C, below=0), receipt=True) as steering:
        lm.model(IDS)
        steering.receipt()


def use_phase(lm: SteeredModel) -> None:
    lm.generate(["ab", "c"], PHASE, max_new_tokens=3)


def use_fit(lm: SteeredModel) -> None:
    lm.fit(FragileShift(), DATA, [0, 1])


USES = (
    use_in_context,
    use_nested,
    use_handle,
    use_generate,
    use_capture,
    use_heads,
    use_gate,
    use_phase,
    use_fit,
)


def _in_module(lm: SteeredModel, rng: random.Random, error: type[BaseException]) -> Any:
    return breaking_module(lm.model, rng, error)


@contextmanager
def _in_steerer(lm: SteeredModel, rng: random.Random, error: type[BaseException]) -> Iterator[None]:
    FragileShift.uses_left, FragileShift.error = rng.choice([0, 0, 1, 2]), error
    try:
        yield
    finally:
        FragileShift.uses_left = None


@contextmanager
def _in_tokenizer(
    lm: SteeredModel, rng: random.Random, error: type[BaseException]
) -> Iterator[None]:
    lm.tokenizer.uses_left, lm.tokenizer.error = rng.choice([0, 1, 2, 4, 6]), error
    try:
        yield
    finally:
        lm.tokenizer.uses_left = None


def _in_our_code(lm: SteeredModel, rng: random.Random, error: type[BaseException]) -> Any:
    return breaking_line(rng, error)


@pytest.mark.parametrize("kind", [_in_module, _in_steerer, _in_tokenizer, _in_our_code])
def test_no_fault_leaves_a_trace(fragile: SteeredModel, kind: Callable[..., Any]) -> None:
    lm = fragile
    with torch.no_grad():
        wanted = lm.model(IDS).logits
    before = hooks_of(lm.model)
    rng = random.Random(kind.__name__)
    n_raised = 0
    for i in range(N):
        use, error = rng.choice(USES), rng.choice([Fault, Interrupt])
        try:
            with kind(lm, rng, error):
                use(lm)
        except (Fault, Interrupt):
            n_raised += 1
        if hooks_of(lm.model) != before or torch._dynamo.eval_frame._stance.stance != "default":
            # Clean-up itself was hit. What is left goes with the object it belongs to.
            gc.collect()
        where = f"fault {i} ({error.__name__}, {kind.__name__}, {use.__name__})"
        assert hooks_of(lm.model) == before, where
        assert torch._dynamo.eval_frame._stance.stance == "default", where
        assert lm._prompt_width.ends is None, where
        for lock in (eager._lock, marks._lock):
            assert not lock._is_owned(), where  # type: ignore[attr-defined]
        with torch.no_grad():
            assert torch.equal(lm.model(IDS).logits, wanted), where
    assert n_raised > N / 4
