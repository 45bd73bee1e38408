"""Errors of the command line, and the exit code of each kind of error."""

from collections.abc import Iterator
from contextlib import contextmanager

from odesteer.errors import OdesteerError

SUCCESS, FAILURE, USAGE, INTERRUPTED = 0, 1, 2, 130


class UsageError(OdesteerError, ValueError):
    """An invalid command line."""


@contextmanager
def checking_usage() -> Iterator[None]:
    """Raise errors of odesteer inside as `UsageError`, with exit code 2."""
    try:
        yield
    except OdesteerError as error:
        raise UsageError(str(error)) from error


def exit_status(error: BaseException) -> tuple[int, str]:
    """Exit code and message of an exception."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "interrupted; nothing half written was left."
    if isinstance(error, UsageError):
        return USAGE, str(error)
    if isinstance(error, OdesteerError):
        return FAILURE, str(error)
    if isinstance(error, OSError):
        return FAILURE, f"{error}."
    return FAILURE, (
        f"unexpected {type(error).__name__}: {error}\n"
        "Run the command again with --debug to see where it comes from."
    )
