"""Connection to Ray: start or join it, and restore environment, loggers and signals after."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from odesteer.errors import ClusterError, MissingDependencyError

_TIMEOUT = 10.0
"""Seconds to wait for an address."""

_DEFAULT_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
"""Environment variables of Ray, unless they are set: no usage statistics, internal logs in files
only."""


def require_ray() -> Any:
    """Ray with Ray Data; raises `MissingDependencyError` without."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingDependencyError(
            f"Ray cannot be imported ({error}); install it with pip install 'odesteer[ray]'."
        ) from error
    return ray


@contextmanager
def connected(address: str | None, cpus: int) -> Iterator[None]:
    """A connection to the Ray at ``address``, else to a new one on this machine with ``cpus``.

    Raises `ClusterError` where there is none.
    """
    if address is not None:
        _check_address(address)
    with ExitStack() as stack:
        stack.enter_context(_environment(_DEFAULT_ENVIRONMENT))
        ray = require_ray()
        stack.enter_context(_quiet("ray"))
        stack.enter_context(_quiet("ray.data"))
        if ray.is_initialized():
            if address is not None:
                raise ClusterError(
                    f"this program is connected to a Ray already; leave out address={address!r},"
                    " or call ray.shutdown() first."
                )
            yield
            return
        stack.enter_context(_sigterm_handler())
        stack.callback(ray.shutdown)
        shared = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address is None:
            ray.init("local", num_cpus=cpus, include_dashboard=False, **shared)
        else:
            try:
                ray.init(address, **shared)
            except (ConnectionError, RuntimeError, ValueError) as error:
                reason = " ".join(str(error).split())
                raise ClusterError(
                    f"there is no Ray to connect to at {address!r}. Start one with `ray start"
                    f" --head`, and call this on one of its machines. ({reason:.300})"
                ) from error
        yield


def _check_address(address: str) -> None:
    """Raise `ClusterError` if nothing listens at an address; Ray itself would try for minutes."""
    if address.startswith("ray://"):
        raise ClusterError(
            f"{address!r} is an address for Ray Client, which does not carry Ray Data; give"
            " host:port of the cluster itself, usually port 6379, on one of its machines."
        )
    host, colon, port = address.rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_TIMEOUT).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ClusterError(
            f"nothing answers at {address!r} ({error}); give host:port of a running Ray, or auto"
            " for the one of this machine. `ray status` tells where it is."
        ) from error


@contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables that are not set, for a while."""
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Set a logger to errors only, for a while."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _sigterm_handler() -> Iterator[None]:
    """Restore the handler of SIGTERM, which Ray replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
