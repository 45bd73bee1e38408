"""Many clients at once, and clients that go away.

With ``ODESTEER_LOAD=full`` in the environment: 1,000 requests of 64 clients, and 200 that go away.
"""

import asyncio
import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest
import uvicorn
from servers import Server, completion

from odesteer import SteeredModel, Steerer
from odesteer.serving import Engine, Settings, create_app
from odesteer.serving.engine.output import OutputChunk, OutputStream
from odesteer.terrarium import worlds

FULL = os.environ.get("ODESTEER_LOAD") == "full"
N_CLIENTS = 64
N_REQUESTS = 1000 if FULL else 160
N_GONE = 200 if FULL else 40
N_PROMPTS = 4 if FULL else 2
MEGABYTE = 2**20


def mixed_bodies() -> list[dict[str, Any]]:
    """Prompts of each world, each with several steerings."""
    ways: tuple[list[dict[str, Any]], ...] = (
        [],
        [{"name": "truth", "level": 1.5}],
        [{"name": "civility", "level": -1}],
        [{"name": "mood", "T": 3}],
        [{"name": "mood", "level": 1}, {"name": "truth", "level": -1.5}],
        [{"name": "civility", "observe": True}],
    )
    return [
        completion("bundled", prompt, steering=way)
        for world in worlds()
        for prompt in world.prompts("test", 9, N_PROMPTS)
        for way in ways
    ]


def test_many_clients_get_the_texts_of_one(server: Server) -> None:
    bodies = mixed_bodies()
    url = f"{server.api}/completions"
    with httpx.Client(timeout=60) as client:
        alone = [client.post(url, json=body).json()["choices"][0]["text"] for body in bodies]
    left = [i % len(bodies) for i in range(N_REQUESTS)]
    found: list[tuple[int, str]] = []
    memory = [server.memory()]

    async def work(client: httpx.AsyncClient) -> None:
        while left:
            i = left.pop()
            answer = await client.post(url, json=bodies[i])
            while answer.status_code == 429:
                await asyncio.sleep(float(answer.headers["Retry-After"]))
                answer = await client.post(url, json=bodies[i])
            assert answer.status_code == 200, answer.text
            found.append((i, answer.json()["choices"][0]["text"]))
            if len(found) % (N_REQUESTS // 4) == 0:
                memory.append(server.memory())

    async def load() -> None:
        limits = httpx.Limits(max_connections=N_CLIENTS)
        async with httpx.AsyncClient(timeout=120, limits=limits) as client:
            await asyncio.gather(*(work(client) for _ in range(N_CLIENTS)))

    began = time.perf_counter()
    asyncio.run(load())
    seconds = time.perf_counter() - began
    shown = ", ".join(f"{size / MEGABYTE:.1f}" for size in memory)
    print(f"{N_REQUESTS} requests in {seconds:.1f} s; MiB at each quarter: {shown}")
    assert len(found) == N_REQUESTS
    assert all(text == alone[i] for i, text in found)
    assert len({*alone}) > len(alone) // 3
    assert memory[-1] - memory[2] < 16 * MEGABYTE  # of the second half
    assert server.figure("odesteer_running") == server.figure("odesteer_queue") == 0


class InThread(uvicorn.Server):
    """A server in a thread, whose tasks and hooks can be looked at."""

    def start(self) -> None:
        self.thread = threading.Thread(target=lambda: asyncio.run(self._serve_here()))
        self.thread.start()
        while not self.started:
            assert self.thread.is_alive()
            time.sleep(0.01)

    async def _serve_here(self) -> None:
        self.loop = asyncio.get_running_loop()
        await self.serve()

    @property
    def port(self) -> int:
        return int(self.servers[0].sockets[0].getsockname()[1])

    def n_tasks(self) -> int:
        async def count() -> int:
            return len(asyncio.all_tasks())

        return asyncio.run_coroutine_threadsafe(count(), self.loop).result(10)


@pytest.fixture
def in_process(
    bundled: SteeredModel, steerers: dict[str, Steerer]
) -> Iterator[tuple[InThread, Engine]]:
    engine = Engine(bundled, "bundled")
    for name, steerer in steerers.items():
        engine.steerers.add(name, steerer)
    app = create_app(engine, Settings())
    server = InThread(uvicorn.Config(app, port=0, log_level="error"))
    server.start()
    yield server, engine
    server.should_exit = True
    server.thread.join(30)
    assert not server.thread.is_alive()


def n_hooks(lm: SteeredModel) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in lm.model.modules()
    )


def wait_until(condition: Any) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def go_away_in_the_middle(port: int, body: dict[str, Any], *, early: bool) -> None:
    """Ask for a text and drop the connection, without a word, after some of it or before any."""
    request = httpx.Request("POST", f"http://localhost:{port}/v1/completions", json=body)
    lines = ["POST /v1/completions HTTP/1.1", *(f"{k}: {v}" for k, v in request.headers.items())]
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + request.content)
        if not early:
            received = b""
            while received.count(b"data: ") < 3:
                received += connection.recv(4096)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_clients_that_go_away_leave_nothing(
    in_process: tuple[InThread, Engine], bundled: SteeredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, engine = in_process
    put, n_put = OutputStream.put, 0

    def counted(stream: OutputStream, piece: OutputChunk) -> None:
        nonlocal n_put
        n_put += 1
        put(stream, piece)

    monkeypatch.setattr(OutputStream, "put", counted)
    long = {"max_tokens": 400, "temperature": 2, "n": 2}
    bodies = [body | long | {"stream": i % 4 != 3} for i, body in enumerate(mixed_bodies())]
    process = psutil.Process()
    hooks = n_hooks(bundled)

    def go(i: int) -> None:
        body = bodies[i % len(bodies)]
        with contextlib.suppress(ConnectionError):
            go_away_in_the_middle(server.port, body, early=not body["stream"])

    def go_all(n: int) -> None:
        for start in range(0, n, 8):
            group = [
                threading.Thread(target=go, args=(i,)) for i in range(start, min(start + 8, n))
            ]
            for thread in group:
                thread.start()
            for thread in group:
                thread.join()
        wait_until(lambda: engine.n_running == engine.n_waiting == 0)

    stops, engine._stops = engine._stops, frozenset()  # texts would go on for 400 tokens
    go_all(16)
    wait_until(lambda: server.n_tasks() <= 4)
    tasks, memory = server.n_tasks(), process.memory_info().rss
    go_all(N_GONE)
    wait_until(lambda: server.n_tasks() <= tasks)
    engine._stops = stops
    grown = process.memory_info().rss - memory
    print(f"{N_GONE} clients went away; {n_put} tokens; memory {grown / MEGABYTE:+.1f} MiB")
    assert n_hooks(bundled) == hooks == 0
    assert n_put < 100 * (16 + N_GONE)  # of 800 tokens that each asked for
    assert grown < 64 * MEGABYTE
    with httpx.Client(base_url=f"http://localhost:{server.port}", timeout=30) as client:
        body = completion("bundled+truth@1.5", "Q: Who makes honey?\nA:")
        text = client.post("/v1/completions", json=body).json()["choices"][0]["text"]
    steerer = engine.steerers["truth"].steerer
    assert [text] == bundled.generate(
        "Q: Who makes honey?\nA:", steerer, level=1.5, max_new_tokens=24
    )
