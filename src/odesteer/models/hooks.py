"""Placing hooks on a model such that every one of them goes away again."""

import weakref
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from typing_extensions import Self

from odesteer.models.eager import hold_eager, release_eager

# Called with the module, its arguments, its named arguments and (after the pass) its output. A
# thread that is in the middle of a pass while another places or removes a hook may leave out the
# named arguments: torch keeps the wish for them in a table of its own.
Hook = Callable[..., Any]


class Placed:
    """Forward hooks that are on a model between `place` and `remove`.

    Removal looks for the hooks themselves rather than for handles, so that a hook whose handle
    was lost to an interrupt goes too. It may be repeated, and happens at the latest when this
    object is collected.
    """

    def __init__(
        self,
        before: Sequence[tuple[nn.Module, Hook]],
        after: Sequence[tuple[nn.Module, Hook]],
    ) -> None:
        self._before = tuple(before)
        self._after = tuple(after)
        self._last_resort: weakref.finalize[..., Any] | None = None

    @property
    def is_placed(self) -> bool:
        return self._last_resort is not None

    def place(self) -> None:
        """Put the hooks on their modules; all or none of them."""
        try:
            self._last_resort = weakref.finalize(self, _remove, self._before, self._after, id(self))
            self._last_resort.atexit = False
            if self._before or self._after:
                hold_eager(id(self))
            for module, pre_hook in self._before:
                module.register_forward_pre_hook(pre_hook, with_kwargs=True)
            for module, hook in self._after:
                module.register_forward_hook(hook, with_kwargs=True)
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Take the hooks off; harmless if they are off."""
        _remove(self._before, self._after, id(self))
        if self._last_resort is not None:
            self._last_resort.detach()
            self._last_resort = None

    def __enter__(self) -> Self:
        self.place()
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()


def _remove(
    before: Sequence[tuple[nn.Module, Hook]],
    after: Sequence[tuple[nn.Module, Hook]],
    key: int,
) -> None:
    for module, pre_hook in before:
        _discard(pre_hook, module._forward_pre_hooks, module._forward_pre_hooks_with_kwargs)
    for module, hook in after:
        _discard(hook, module._forward_hooks, module._forward_hooks_with_kwargs)
    release_eager(key)


def _discard(hook: object, hooks: dict[int, Any], with_kwargs: dict[int, bool]) -> None:
    for number in [number for number, other in list(hooks.items()) if other is hook]:
        with_kwargs.pop(number, None)
        hooks.pop(number, None)
