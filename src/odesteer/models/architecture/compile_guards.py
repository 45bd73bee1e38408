"""Compiled models while hooks are on them.

`torch.compile` does not look at hooks that come or go after it compiled
(``torch._dynamo.config.skip_nnmodule_hook_guards``): a graph compiled before would run without
our hooks, and one compiled with them would go on steering for ever. Guarding on hooks instead
would need another setting at the time of the user's compilation, and tracing our hooks would put
the identity of the thread into the graph. So while any of our hooks is placed, compiled modules
and functions run their Python code: slower, never wrong. This also covers the static-cache
decoding that transformers compiles by itself. Graphs compiled before are used again afterwards.

The stance of the compiler belongs to the process. Other threads run uncompiled meanwhile too.
"""

import sys
import threading
import warnings
import weakref
from typing import Any

import torch
from torch import nn

# Reentrant, since a garbage collection inside may end another hold. An interrupt cannot leave it
# locked: CPython lets none in between the body of a `with` statement and its end.
_lock = threading.RLock()
_holds: set[int] = set()
_stance: Any = None
_has_warned = False


class UncompiledWarning(UserWarning):
    """Compiled code of the process runs uncompiled while steering is enabled."""


def hold_eager(key: int) -> None:
    """Run compiled code as plain Python until `release_eager` was called with every held key."""
    global _stance
    with _lock:
        _holds.add(key)
        _warn_once()
        if _stance is None:
            _stance = torch.compiler.set_stance("force_eager")


def _warn_once() -> None:
    """Say once that compiled code of the process runs uncompiled, if there is any."""
    global _has_warned
    dynamo = sys.modules.get("torch._dynamo.utils")
    if _has_warned or dynamo is None or not dynamo.counters["stats"]["unique_graphs"]:
        return
    _has_warned = True
    warnings.warn(
        "while steering is enabled, code that torch.compile compiled runs uncompiled in the whole"
        " process; steering(..., compiled=True) keeps it compiled.",
        UncompiledWarning,
        stacklevel=2,
    )


def release_eager(key: int) -> None:
    """End one hold; harmless if it has ended."""
    global _stance
    with _lock:
        _holds.discard(key)
        if _stance is not None and not _holds:
            _stance.__exit__(None, None, None)
            _stance = None


_MARKS = "_odesteer_marks"  # of a marked class: the class as it was, and who marked it

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
