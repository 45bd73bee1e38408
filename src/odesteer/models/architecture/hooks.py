"""Forward hooks that are registered together and always removed again."""

import itertools
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, cast

from torch import nn
from typing_extensions import Self

from odesteer.models.architecture.compile_guards import hold_eager, mark, release_eager, unmark

# Called with the module, its positional arguments, its keyword arguments and (forward hooks) its
# output. A thread that is in the middle of a pass while another registers or removes a hook may
# leave out the keyword arguments: torch records in a table of its own which hooks take them.
Hook = Callable[..., Any]

_numbers = itertools.count(1)


class HookSet:
    """Forward hooks that are on a model between `place` and `remove`.

    Removal looks for the hooks themselves rather than for handles, so that a hook whose handle
    was lost to an interrupt goes too. It may be repeated, and happens at the latest when this
    object is garbage-collected. Compiled models run eagerly meanwhile or, with ``compiled``, in
    graphs that contain the hooks.
    With ``first`` forward hooks run before all others but those of such sets placed before, so that
    whatever looks at outputs sees what these hooks return.
    """

    def __init__(
        self,
        before: Sequence[tuple[nn.Module, Hook]],
        after: Sequence[tuple[nn.Module, Hook]],
        *,
        compiled: bool = False,
        first: bool = False,
    ) -> None:
        self._first = first
        self._before = tuple(before)
        self._after = tuple(after)
        self._compiled = compiled
        self._number = next(_numbers)
        self._classes: list[type] = []
        self._finalizer: weakref.finalize[..., Any] | None = None

    @property
    def is_placed(self) -> bool:
        return self._finalizer is not None

    def place(self) -> None:
        """Put the hooks on their modules; all or none of them."""
        try:
            self._finalizer = weakref.finalize(self, _remove, *self._hooks())
            self._finalizer.atexit = False
            if self._compiled:
                self._classes = [
                    mark(module, self._number) for module, _ in (*self._before, *self._after)
                ]
            elif self._before or self._after:
                hold_eager(self._number)
            for module, pre_hook in self._before:
                module.register_forward_pre_hook(pre_hook, with_kwargs=True)
            for module, hook in self._after:
                module.register_forward_hook(hook, with_kwargs=True)
                if self._first:
                    _move_to_front(hook, cast("OrderedDict[int, Any]", module._forward_hooks))
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Take the hooks off; harmless if they are off."""
        _remove(*self._hooks())
        if self._finalizer is not None:
            self._finalizer.detach()
            self._finalizer = None

    def _hooks(self) -> tuple[Any, Any, int]:
        return self._before, self._after, self._number

    def __enter__(self) -> Self:
        self.place()
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()


def _remove(
    before: Sequence[tuple[nn.Module, Hook]],
    after: Sequence[tuple[nn.Module, Hook]],
    number: int,
) -> None:
    for module, pre_hook in before:
        _discard(pre_hook, module._forward_pre_hooks, module._forward_pre_hooks_with_kwargs)
    for module, hook in after:
        _discard(hook, module._forward_hooks, module._forward_hooks_with_kwargs)
    for module, _ in (*before, *after):
        unmark(module, number)
    release_eager(number)


def _move_to_front(hook: Any, hooks: "OrderedDict[int, Any]") -> None:
    """Let a hook, the last one, run before all but earlier ones of `HookSet` with ``first``."""
    hook.runs_first = True
    for number, other in list(hooks.items()):
        if not getattr(other, "runs_first", False):
            hooks.move_to_end(number)


def _discard(hook: object, hooks: dict[int, Any], with_kwargs: dict[int, bool]) -> None:
    for number in [number for number, other in list(hooks.items()) if other is hook]:
        with_kwargs.pop(number, None)
        hooks.pop(number, None)
