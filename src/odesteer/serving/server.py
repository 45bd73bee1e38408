"""Running the server."""

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from odesteer.errors import InvalidInputError
from odesteer.serving.api.app import create_app
from odesteer.serving.engine import Engine
from odesteer.serving.settings import Settings

_BACKLOG = 2048


@contextmanager
def bound(settings: Settings) -> Iterator[socket.socket]:
    """The address of a server, taken before there is one; connections are refused until it runs.

    Raises `InvalidInputError` if the address cannot be had.
    """
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
        family, *_, address = found[0]
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
    """Serve until the process is told to end, and then finish what runs.

    ``started`` is called with the address once connections are taken.
    """
    config = uvicorn.Config(
        create_app(engine, settings),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=settings.grace,
        backlog=_BACKLOG,
    )
    listener.listen(_BACKLOG)
    host, port = listener.getsockname()[:2]
    started(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    with _signals_pass():
        uvicorn.Server(config).run(sockets=[listener])


@contextmanager
def _signals_pass() -> Iterator[None]:
    """Let signals that end the server do no more than that; it raises them again afterwards."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: None) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
