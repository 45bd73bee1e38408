"""Helpers: servers in a process of their own, and engines in this one."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from odesteer import SteeredModel, Steerer, SteererSet
from odesteer.serving import Engine, GenerationRequest
from odesteer.serving.engine.output import OutputChunk, OutputStream

WORLDS = ("truth", "civility", "mood")


@dataclass
class Server:
    """A running ``odesteer serve``."""

    url: str
    process: "subprocess.Popen[str]"

    @property
    def api(self) -> str:
        return f"{self.url}/v1"

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        found = [line for line in lines if re.match(rf"{name}(_total)?[ {{]", line)]
        return sum(float(line.rpartition(" ")[2]) for line in found)

    def memory(self) -> int:
        """Resident bytes."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def end(self) -> int:
        """Send SIGTERM, and wait for its end."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


@contextmanager
def serving(*options: object) -> Iterator[Server]:
    """``odesteer serve`` with these options, on a free port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "odesteer", "serve", "--port", "0", *map(str, options)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "ODESTEER_TOKEN": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield Server(_address(process), process)
        finally:
            process.kill()


def _address(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    assert process.stderr is not None
    for line in process.stdout:
        found = re.search(r"page +(http://\S+)/", line)
        if found:
            return found[1]
    raise AssertionError(f"the server did not start: {process.stderr.read()}")


def steer_options(files: Mapping[str, Path]) -> list[str]:
    """The options that name steerers."""
    return [option for name, file in files.items() for option in ("--steer", f"{name}={file}")]


@asynccontextmanager
async def running(
    lm: SteeredModel, steerers: Mapping[str, Steerer | SteererSet], **limits: int
) -> AsyncIterator[Engine]:
    """An engine in the process."""
    engine = Engine(lm, "tiny", **limits)
    for name, steerer in steerers.items():
        engine.steerers.add(name, steerer)
    engine.start()
    try:
        yield engine
    finally:
        await engine.close()


@dataclass
class Text:
    """The output of one request."""

    text: str
    chunks: list[OutputChunk]

    @property
    def last(self) -> OutputChunk:
        return self.chunks[-1]


async def read(stream: OutputStream) -> Text:
    """Read a text to its end."""
    chunks = [chunk async for chunk in stream]
    return Text("".join(chunk.text for chunk in chunks), chunks)


def generated(
    lm: SteeredModel,
    requests: Sequence[GenerationRequest],
    steerers: Mapping[str, Steerer | SteererSet] | None = None,
    **limits: int,
) -> list[Text]:
    """The texts of requests that are submitted together."""

    async def generate() -> list[Text]:
        async with running(lm, steerers or {}, **limits) as engine:
            return list(await asyncio.gather(*map(read, engine.submit(requests))))

    return asyncio.run(generate())


def completion(model: str, prompt: Any, **more: Any) -> dict[str, Any]:
    """The body of a request, greedy unless it says otherwise."""
    return {"model": model, "prompt": prompt, "temperature": 0, "max_tokens": 24, **more}
