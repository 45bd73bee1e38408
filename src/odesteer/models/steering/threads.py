"""Which threads a steering covers: its context (contextvars), and threads started inside it."""

import threading
import warnings
from contextvars import ContextVar
from typing import Any

_covered: ContextVar[frozenset[int]] = ContextVar("odesteer_steering", default=frozenset())
_INHERITED = "_odesteer_steering"  # attribute of threads: numbers of the steerings they inherit
_install_lock = threading.Lock()
_installed = False


class SteeringWarning(UserWarning):
    """A forward pass is not steered although steering is enabled, or a block steered no pass."""


def cover(number: int) -> None:
    """Let the current context, and threads that are started in it, be steered by a number."""
    _inherit_in_new_threads()
    _covered.set(_covered.get() | {number})


def uncover(number: int) -> None:
    """End `cover` in the current context."""
    _covered.set(_covered.get() - {number})


def covering() -> frozenset[int]:
    """Numbers of the steerings that cover the current context, in any thread."""
    own = _covered.get()
    inherited: frozenset[int] | None = getattr(threading.current_thread(), _INHERITED, None)
    return own if inherited is None else own | inherited


def warn_uncovered() -> None:
    """Warn of a forward pass in a thread that is not covered."""
    warnings.warn(
        f"a forward pass in thread {threading.current_thread().name!r} is not steered: steering"
        " covers the context that enabled it, copies of that context (asyncio.to_thread,"
        " contextvars.copy_context().run) and threads started inside it. Enable it where the model"
        " runs.",
        SteeringWarning,
        stacklevel=2,
    )


def _inherit_in_new_threads() -> None:
    """Let threads inherit coverage from the context that starts them, as contextvars do not.

    `threading.Thread.start` is wrapped once, when the first steering is enabled.
    """
    global _installed
    with _install_lock:
        if _installed:
            return
        start = threading.Thread.start

        def start_with_coverage(self: threading.Thread, *args: Any, **kwargs: Any) -> None:
            numbers = covering()
            if numbers:
                setattr(self, _INHERITED, numbers)
            start(self, *args, **kwargs)

        threading.Thread.start = start_with_coverage  # type: ignore[method-assign]
        _installed = True
