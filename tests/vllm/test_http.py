"""vLLM's server over HTTP, with the unmodified OpenAI client."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engines import ARGUMENTS, needs_vllm
from references import LENGTH, Case, Request

pytestmark = needs_vllm

PROMPT = (5, 6, 7, 8)
STEERED = "terrarium-kernel@1.5"
CHAT = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


@pytest.fixture(scope="module")
def client(
    terrarium: Case, steerers: Path, environment: dict[str, str], tmp_path_factory: Any
) -> Iterator[Any]:
    from openai import OpenAI

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    sizes = [name for name in ARGUMENTS if name.startswith("max_")]
    options = [f"--{name.replace('_', '-')}={ARGUMENTS[name]}" for name in sizes]
    options += ["--dtype=float32", "--block-size=32", "--enforce-eager", f"--chat-template={CHAT}"]
    options += ["--served-model-name=m", "--generation-config=vllm"]
    named = {path.stem: str(path) for path in steerers.glob("*.safetensors")}
    code = "import json, sys; from odesteer.vllm import serve; serve(**json.loads(sys.argv[1]))"
    job = {"model": str(terrarium.path), "steerers": named, "port": port, "arguments": options}
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("w") as written:
        server = subprocess.Popen(
            [sys.executable, "-c", code, json.dumps(job)],
            env={**os.environ, **environment},
            stdout=written,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait(f"http://127.0.0.1:{port}/health", server, log)
            with OpenAI(
                base_url=f"http://127.0.0.1:{port}/v1", api_key="-", max_retries=0
            ) as client:
                yield client
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=60)


def _wait(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(480):
        assert server.poll() is None, log.read_text()[-3000:]
        try:
            urllib.request.urlopen(url, timeout=5)
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise AssertionError(log.read_text()[-3000:])


def complete(client: Any, **more: Any) -> Any:
    return client.completions.create(
        **{"model": "m", "prompt": list(PROMPT), "max_tokens": LENGTH, "temperature": 0, **more}
    )


def extra(**fields: Any) -> dict[str, Any]:
    return {"extra_body": {"ignore_eos": True, **fields}}


@pytest.fixture(scope="module")
def texts(terrarium: Case, environment: dict[str, str]) -> dict[str | None, str]:
    """What the reference writes, steered and not."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(terrarium.path)
    answers = {s: terrarium.reference.answer(Request(PROMPT, s)) for s in (None, STEERED)}
    found = {s: tokenizer.decode(list(answer.tokens)) for s, answer in answers.items()}
    assert found[None] != found[STEERED]
    return found


def test_a_completion_is_steered(client: Any, texts: dict[str | None, str]) -> None:
    for xargs, text in ((None, texts[None]), ({"odesteer": STEERED}, texts[STEERED])):
        answer = complete(client, **extra(vllm_xargs=xargs))
        assert answer.choices[0].text == text


def test_a_stream_is_steered(client: Any, texts: dict[str | None, str]) -> None:
    chunks = complete(client, stream=True, **extra(vllm_xargs={"odesteer": STEERED}))
    pieces = [chunk.choices[0].text for chunk in chunks]
    assert len(pieces) > 1
    assert "".join(pieces) == texts[STEERED]


def test_steering_in_the_model_name_and_in_a_field(
    client: Any, texts: dict[str | None, str]
) -> None:
    by_name = complete(client, model=f"m+{STEERED}", **extra())
    field = [{"name": "terrarium-kernel", "level": 1.5}]
    by_field = complete(client, **extra(steering=field))
    assert [a.choices[0].text for a in (by_name, by_field)] == [texts[STEERED]] * 2


def test_a_chat_is_steered(client: Any) -> None:
    def chat(**more: Any) -> Any:
        messages = [{"role": "user", "content": "the"}]
        return client.chat.completions.create(
            messages=messages, max_tokens=LENGTH, temperature=0, **{"model": "m", **more}
        )

    plain = chat(**extra()).choices[0].message.content
    steered = chat(**extra(vllm_xargs={"odesteer": STEERED})).choices[0].message.content
    chunks = chat(stream=True, **extra(vllm_xargs={"odesteer": STEERED}))
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert plain != steered == streamed


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nobody@1.5", "there is no steerer 'nobody'"),
        ("terrarium-kernel@high", "'high' is not an amount"),
        (5, "does not ask for steerers"),
    ],
)
def test_a_bad_request_gets_a_400_and_the_next_one_works(
    client: Any, texts: dict[str | None, str], text: object, reason: str, stream: bool
) -> None:
    from openai import BadRequestError

    with pytest.raises(BadRequestError, match=reason) as caught:
        list(complete(client, stream=stream, **extra(vllm_xargs={"odesteer": text})))
    assert caught.value.status_code == 400
    again = complete(client, **extra(vllm_xargs={"odesteer": STEERED}))
    assert again.choices[0].text == texts[STEERED]


def test_a_bad_steering_field_gets_a_400(client: Any) -> None:
    from openai import BadRequestError

    with pytest.raises(BadRequestError, match="must be a list"):
        complete(client, **extra(steering="truthful"))
