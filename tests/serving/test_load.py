"""Load: many clients at once, and clients that disconnect.

With ``ODESTEER_LOAD=full`` in the environment: 1,000 requests of 64 clients, 200 disconnections.
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

pytestmark = pytest.mark.slow

FULL = os.environ.get("ODESTEER_LOAD") == "full"
N_CLIENTS = 64
N_REQUESTS = 1000 if FULL else 160
N_DISCONNECTIONS = 200 if FULL else 40
N_PROMPTS = 4 if FULL else 2
MEGABYTE = 2**20


def mixed_bodies() -> list[dict[str, Any]]:
    """Prompts of each world, each steered in several ways, and prompts of hundreds of tokens."""
    steerings: tuple[list[dict[str, Any]], ...] = (
        [],
        [{"name": "truth", "level": 1.5}],
        [{"name": "civility", "level": -1}],
        [{"name": "mood", "T": 3}],
        [{"name": "mood", "level": 1}, {"name": "truth", "level": -1.5}],
        [{"name": "civility", "observe": True}],
    )
    prompts = [prompt for its in worlds() for prompt in its.prompts("test", 9, N_PROMPTS)]
    long = [" ".join(its.prompts("test", 5, 12)) for its in worlds()]
    return [
        *(completion("bundled", prompt, steering=each) for prompt in prompts for each in steerings),
        *(
            completion("bundled", prompt, steering=each)
            for prompt in long
            for each in steerings[:2]
        ),
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
    assert server.metric("odesteer_running") == server.metric("odesteer_queue") == 0


class ThreadServer(uvicorn.Server):
    """A server in a thread of this process."""

    def start(self) -> None:
        self.thread = threading.Thread(target=lambda: asyncio.run(self._run_in_thread()))
        self.thread.start()
        while not self.started:
            assert self.thread.is_alive()
            time.sleep(0.01)

    async def _run_in_thread(self) -> None:
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
) -> Iterator[tuple[ThreadServer, Engine]]:
    engine = Engine(bundled, "bundled")
    for name, steerer in steerers.items():
        engine.steerers.add(name, steerer)
    app = create_app(engine, Settings())
    server = ThreadServer(uvicorn.Config(app, port=0, log_level="error"))
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


def disconnect(port: int, body: dict[str, Any], *, early: bool) -> None:
    """Request a text, and reset the connection after some of it or, if early, before any."""
    request = httpx.Request("POST", f"http://localhost:{port}/v1/completions", json=body)
    lines = ["POST /v1/completions HTTP/1.1", *(f"{k}: {v}" for k, v in request.headers.items())]
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + request.content)
        if not early:
            received = b""
            while received.count(b"data: ") < 3:
                received += connection.recv(4096)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_clients_that_disconnect_leave_nothing(
    in_process: tuple[ThreadServer, Engine], bundled: SteeredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, engine = in_process
    put, n_put = OutputStream.put, 0

    def count(stream: OutputStream, chunk: OutputChunk) -> None:
        nonlocal n_put
        n_put += 1
        put(stream, chunk)

    monkeypatch.setattr(OutputStream, "put", count)
    long = {"max_tokens": 400, "temperature": 2, "n": 2}
    bodies = [body | long | {"stream": i % 4 != 3} for i, body in enumerate(mixed_bodies())]
    process = psutil.Process()
    hooks = n_hooks(bundled)

    def request_and_disconnect(i: int) -> None:
        body = bodies[i % len(bodies)]
        with contextlib.suppress(ConnectionError):
            disconnect(server.port, body, early=not body["stream"])

    def disconnect_all(n: int) -> None:
        for start in range(0, n, 8):
            group = [
                threading.Thread(target=request_and_disconnect, args=(i,))
                for i in range(start, min(start + 8, n))
            ]
            for thread in group:
                thread.start()
            for thread in group:
                thread.join()
        wait_until(lambda: engine.n_running == engine.n_waiting == 0)

    eos_tokens, engine._eos_tokens = engine._eos_tokens, frozenset()  # texts have 400 tokens
    disconnect_all(16)
    wait_until(lambda: server.n_tasks() <= 4)
    tasks, memory = server.n_tasks(), process.memory_info().rss
    disconnect_all(N_DISCONNECTIONS)
    wait_until(lambda: server.n_tasks() <= tasks)
    engine._eos_tokens = eos_tokens
    grown = process.memory_info().rss - memory
    print(f"{N_DISCONNECTIONS} disconnections; {n_put} tokens; memory {grown / MEGABYTE:+.1f} MiB")
    assert n_hooks(bundled) == hooks == 0
    assert n_put < 100 * (16 + N_DISCONNECTIONS)  # of 800 requested tokens each
    assert grown < 64 * MEGABYTE
    with httpx.Client(base_url=f"http://localhost:{server.port}", timeout=30) as client:
        body = completion("bundled+truth@1.5", "Q: Who makes honey?\nA:")
        text = client.post("/v1/completions", json=body).json()["choices"][0]["text"]
    steerer = engine.steerers["truth"].steerer
    assert [text] == bundled.generate(
        "Q: Who makes honey?\nA:", steerer, level=1.5, max_new_tokens=24
    )
