"""Calls of `generate` of transformers while steering: their inputs tell where the prompt ends."""

import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from odesteer.errors import InvalidInputError
from odesteer.models.steering.positions import PromptWidth, ThreadPromptWidth
from odesteer.models.steering.threads import covering

_lock = threading.RLock()


class GenerateCall:
    """Stands in for the method `generate` of one model while steerings are enabled on it.

    The number of columns of the prompt is set in the calling thread during each call, unless a
    call around it has set it (self-speculation calls `generate` inside `generate`).
    """

    def __init__(self, module: nn.Module) -> None:
        self._original: Callable[..., Any] = getattr(module, "generate")  # noqa: B009
        self._own = vars(module).get("generate")
        self._widths: dict[int, ThreadPromptWidth] = {}
        self._refusing_beams: set[int] = set()
        self._module = weakref.ref(module)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._refusing_beams & covering():
            _check_beams(self._module(), kwargs)
        columns = _prompt_columns(args, kwargs)
        if columns is None:
            return self._original(*args, **kwargs)
        width = PromptWidth(columns)
        widths = [one for one in dict.fromkeys([*self._widths.values()]) if one.ends is None]
        for one in widths:
            one.set(width)
        try:
            return self._original(*args, **kwargs)
        finally:
            for one in widths:
                one.set(None)


def watch_generate(
    modules: Sequence[nn.Module],
    number: int,
    width: ThreadPromptWidth,
    *,
    refuses_beams: bool = False,
) -> None:
    """Set ``width`` during calls of `generate` of ``modules``, until `unwatch_generate`.

    With ``refuses_beams`` calls with beams raise `InvalidInputError`.
    """
    with _lock:
        for module in modules:
            call = vars(module).get("generate")
            if not isinstance(call, GenerateCall):
                call = GenerateCall(module)
                vars(module)["generate"] = call
            call._widths[number] = width
            if refuses_beams:
                call._refusing_beams.add(number)


def unwatch_generate(modules: Sequence[nn.Module], number: int) -> None:
    """End `watch_generate`; harmless if it has ended."""
    with _lock:
        for module in modules:
            call = vars(module).get("generate")
            if isinstance(call, GenerateCall):
                call._widths.pop(number, None)
                call._refusing_beams.discard(number)
                if not call._widths:
                    if call._own is None:
                        vars(module).pop("generate", None)
                    else:
                        vars(module)["generate"] = call._own


def _check_beams(module: Any, kwargs: dict[str, Any]) -> None:
    """Beams change places while they grow, and what was read of their texts does not follow."""
    config = kwargs.get("generation_config") or getattr(module, "generation_config", None)
    n = kwargs.get("num_beams") or getattr(config, "num_beams", None) or 1
    if n > 1:
        raise InvalidInputError(
            f"positions that depend on the text, such as 'thinking', do not go with num_beams={n}:"
            " beams change places while they grow. Sample, or decode greedily."
        )


def _prompt_columns(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
    """Number of columns of the inputs of a call of `generate`; None where it cannot be told."""
    candidates = [kwargs.get("inputs_embeds"), *args[:1], kwargs.get("inputs")]
    for given in (*candidates, kwargs.get("input_ids")):
        if isinstance(given, Tensor) and given.ndim >= 2 and given.shape[1] > 0:
            return int(given.shape[1])
    return None
