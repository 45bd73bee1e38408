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

import threading
from typing import Any

import torch

# Reentrant, since a garbage collection inside may end another hold. An interrupt cannot leave it
# locked: CPython lets none in between the body of a `with` statement and its end.
_lock = threading.RLock()
_holds: set[int] = set()
_stance: Any = None


def hold_eager(key: int) -> None:
    """Run compiled code as plain Python until `release_eager` was called with every held key."""
    global _stance
    with _lock:
        _holds.add(key)
        if _stance is None:
            _stance = torch.compiler.set_stance("force_eager")


def release_eager(key: int) -> None:
    """End one hold; harmless if it has ended."""
    global _stance
    with _lock:
        _holds.discard(key)
        if _stance is not None and not _holds:
            _stance.__exit__(None, None, None)
            _stance = None
