"""Running the server (uvicorn): its socket, its signals."""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from odesteer.errors import InvalidInputError
from odesteer.serving.api.app import create_app
from odesteer.serving.connections import bounded_protocol
from odesteer.serving.engine import Engine
from odesteer.serving.settings import Settings

_log = logging.getLogger("odesteer.serving")

_BACKLOG = 2048


@contextmanager
def listening_socket(settings: Settings) -> Iterator[socket.socket]:
    """The socket of a server, bound to its address before the model is loaded.

    Connections are refused until `run`. Raises `InvalidInputError` if the address cannot be bound.
    """
    try:
        infos = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
        family, *_, address = infos[0]
        listener = socket.socket(family)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except BaseException:
            listener.close()
            raise
    except (OSError, OverflowError) as error:
        raise InvalidInputError(
            f"cannot listen on {settings.host} port {settings.port}: {error}; choose another."
        ) from error
    with listener:
        yield listener


def run(
    engine: Engine, settings: Settings, listener: socket.socket, started: Callable[[str], None]
) -> None:
    """Serve until SIGINT or SIGTERM, and then finish running requests.

    If the model does not end its step in time, the process ends with status 1.

    ``started`` is called with the address once connections are accepted.
    """
    config = uvicorn.Config(
        create_app(engine, settings),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=settings.grace,
        backlog=_BACKLOG,
    )
    config.load()
    config.http_protocol_class = bounded_protocol(
        config.http_protocol_class, settings.request_timeout, settings.max_connections
    )
    listener.listen(_BACKLOG)
    host, port = listener.getsockname()[:2]
    started(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    with _signals_ignored():
        uvicorn.Server(config).run(sockets=[listener])
    # After a second signal uvicorn does not wait for the engine.
    if engine.is_alive and not asyncio.run(engine.close(1)):
        _log.error("the model does not end its step; the process ends without it.")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


@contextmanager
def _signals_ignored() -> Iterator[None]:
    """Keep signals from ending the process; uvicorn raises them again after its shutdown."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.signal(number, lambda *_: None) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)
