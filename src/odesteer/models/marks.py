"""Modules that tell compiled code of their hooks.

`torch.compile` does not look whether hooks have come to a module that had none
(``torch._dynamo.config.skip_nnmodule_hook_guards``), but it always looks at the module's class. So
while compiled code is to run our hooks, the modules that carry them are of a class of their own,
which is the module's class in all but identity. Graphs compiled without the hooks do not fit then,
and those compiled with them fit no longer when they are gone.
"""

import threading
import weakref
from typing import Any

from torch import nn

_MARKS = "_odesteer_marks"  # of a marked class: the class as it was, and who marked it

_lock = threading.RLock()
_classes: weakref.WeakValueDictionary[tuple[type, frozenset[int]], type] = (
    weakref.WeakValueDictionary()
)


def mark(module: nn.Module, number: int) -> type:
    """Give ``module`` the class of its marks and ``number``, which the caller keeps alive.

    The same marks give the same class, so that graphs are used again.
    """
    with _lock:
        base, numbers = _marks(type(module))
        return _set(module, base, numbers | {number})


def unmark(module: nn.Module, number: int) -> None:
    """Take the mark off; harmless if it is off."""
    with _lock:
        base, numbers = _marks(type(module))
        if number in numbers:
            _set(module, base, numbers - {number})


def _marks(cls: type) -> tuple[type, frozenset[int]]:
    marks: tuple[type, frozenset[int]] = vars(cls).get(_MARKS, (cls, frozenset()))
    return marks


def _set(module: nn.Module, base: type, numbers: frozenset[int]) -> type:
    cls = base
    if numbers:
        made = _classes.get((base, numbers))
        if made is None:
            same: dict[str, Any] = {
                name: getattr(base, name) for name in ("__module__", "__qualname__", "__doc__")
            }
            made = type(base)(base.__name__, (base,), {**same, _MARKS: (base, numbers)})
            _classes[base, numbers] = made
        cls = made
    # Not through the module's own __setattr__, which wrappers send on to what they wrap.
    object.__setattr__(module, "__class__", cls)
    return cls
