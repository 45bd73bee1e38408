"""Half-sent requests end after a time and in number; long waits of streams are bridged by pings."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn

import tiny_models
from odesteer import SteeredModel
from odesteer.serving import Engine, Settings
from odesteer.serving.api.app import create_app
from odesteer.serving.api.streaming import _with_pings
from odesteer.serving.connections import bounded_protocol


@contextmanager
def served(settings: Settings) -> Iterator[int]:
    """A server in a thread of this process; its port."""
    engine = Engine(SteeredModel(tiny_models.llama(), tiny_models.tokenizer()), "tiny")
    config = uvicorn.Config(create_app(engine, settings), log_level="error", port=0)
    config.load()
    config.http_protocol_class = bounded_protocol(
        config.http_protocol_class, settings.request_timeout, settings.max_connections
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(30)


def answer(connection: socket.socket) -> bytes:
    """What comes until the server closes the connection."""
    found = b""
    connection.settimeout(30)
    try:
        while part := connection.recv(4096):
            found += part
    except ConnectionResetError:
        pass
    return found


HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with served(Settings(request_timeout=0.5, max_connections=8)) as port:
        yield port


@pytest.mark.parametrize("sent", [b"", b"POST /v1/comp", HEAD])
def test_a_head_that_does_not_end_is_cut(port: int, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(sent)
        assert answer(connection) == b""


def test_a_body_that_does_not_end_is_refused(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
        assert answer(connection).startswith(b"HTTP/1.1 408")


def test_a_second_request_has_its_time_too(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /hea")
        assert answer(connection).count(b"HTTP/1.1 200") == 1


def test_open_connections_have_a_number(port: int) -> None:
    def ok(connection: socket.socket) -> bool:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        connection.settimeout(10)
        try:
            return connection.recv(4096).startswith(b"HTTP/1.1 200")
        except ConnectionError:
            return False

    held = [socket.create_connection(("127.0.0.1", port)) for _ in range(8)]
    with socket.create_connection(("127.0.0.1", port)) as one_more:
        assert answer(one_more) == b""
    for each in held:
        answer(each)  # cut, one and all
        each.close()
    with socket.create_connection(("127.0.0.1", port)) as later:
        assert ok(later)


def test_silent_streams_send_comments() -> None:
    async def events() -> Any:
        yield b"data: 1\n\n"
        await asyncio.sleep(0.2)
        yield b"data: 2\n\n"

    async def scenario() -> list[bytes]:
        return [each async for each in _with_pings(events(), 0.05)]

    found = asyncio.run(scenario())
    assert found[0] == b"data: 1\n\n"
    assert found[-1] == b"data: 2\n\n"
    assert {*found[1:-1]} == {b": ping\n\n"}
