"""The command that starts vLLM's server, and the middleware."""

import asyncio
import json
from typing import Any

import pytest

from odesteer.errors import InvalidInputError, MissingDependencyError
from odesteer.vllm import serve, server_command
from odesteer.vllm.middleware import SteeringFields
from odesteer.vllm.server import is_installed


def test_the_command() -> None:
    command, environment = server_command(
        "owner/model", {"a": "x.safetensors", "b": "y=z"}, port=9, arguments=("--seed", "1")
    )
    assert command[1:5] == ["-m", "vllm.entrypoints.openai.api_server", "--model", "owner/model"]
    assert command[-2:] == ["--seed", "1"]
    assert command[command.index("--port") + 1] == "9"
    assert environment == {"ODESTEER_STEERERS": "a=x.safetensors,b=y=z"}


@pytest.mark.parametrize("steerers", [{"a b": "x"}, {"a": "x,y"}])
def test_names_and_paths_that_the_variable_cannot_hold_are_refused(
    steerers: dict[str, str],
) -> None:
    with pytest.raises(InvalidInputError, match=r"cannot name a steerer|a comma in it"):
        server_command("m", steerers)


@pytest.mark.skipif(is_installed(), reason="vLLM is installed")
def test_without_vllm_the_remedy_is_named() -> None:
    with pytest.raises(MissingDependencyError, match=r"pip install 'odesteer\[vllm\]'"):
        serve("m", {})


def sent(body: Any, path: str = "/v1/completions") -> tuple[Any, dict[str, Any] | None]:
    """The body that the inner app gets, and the error response if it is not called."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    messages = [
        {"type": "http.request", "body": raw[:5], "more_body": True},
        {"type": "http.request", "body": raw[5:]},
        {"type": "http.disconnect"},
    ]
    inner: list[Any] = []
    answers: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        answers.append(message)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        got = b""
        while (message := await receive())["type"] == "http.request":
            got += message["body"]
        length = dict(scope["headers"])[b"content-length"]
        assert int(length) == len(got)
        inner.append(got)

    headers = [(b"content-length", str(len(raw)).encode())]
    scope = {"type": "http", "path": path, "headers": headers}
    asyncio.run(SteeringFields(app)(scope, receive, send))
    refused = (
        {"status": answers[0]["status"], **json.loads(answers[1]["body"])} if answers else None
    )
    return (inner[0] if inner else None), refused


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"model": "m+truth@1.5+tone"}, "truth@1.5+tone"),
        ({"model": "m", "steering": [{"name": "truth", "level": 1.5}]}, "truth@level=1.5"),
        ({"model": "m", "steering": [{"name": "a"}, {"name": "b", "T": 5}]}, "a+b@T=5"),
        ({"model": "m+truth", "vllm_xargs": {"other": 1}}, "truth"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/v1/responses"])
def test_steering_becomes_vllm_xargs(body: dict[str, Any], text: str, path: str) -> None:
    raw, refused = sent({"prompt": "x", **body}, path)
    assert refused is None
    xargs = {**body.get("vllm_xargs", {}), "odesteer": text}
    assert json.loads(raw) == {"prompt": "x", "model": "m", "vllm_xargs": xargs}


@pytest.mark.parametrize(
    "body",
    [
        {"model": "m", "prompt": "x"},
        {"model": "/folder+x/m"},
        {"model": "m", "vllm_xargs": {"odesteer": "truth"}},
        [1],
        b"{ no json",
    ],
)
def test_other_requests_pass_untouched(body: Any) -> None:
    raw, _ = sent(body)
    assert raw == (body if isinstance(body, bytes) else json.dumps(body).encode())


def test_other_paths_pass_untouched() -> None:
    body = {"model": "m+truth"}
    assert json.loads(sent(body, "/v1/embeddings")[0]) == body


def test_an_empty_list_steers_nothing() -> None:
    assert json.loads(sent({"model": "m", "steering": []})[0]) == {"model": "m"}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"model": "m+a", "steering": []}, "in two places"),
        ({"model": "m+a", "vllm_xargs": {"odesteer": "a"}}, "in two places"),
        ({"model": "m", "steering": "a"}, "must be a list"),
        ({"model": "m", "steering": [{"level": 1}]}, "must have a name"),
        ({"model": "m", "steering": [{"name": "a", "observe": True}]}, "must have a name"),
        ({"model": "m", "steering": [{"name": "a", "level": "1+b"}]}, "one number"),
        ({"model": "m", "steering": [{"name": "a", "level": 1, "T": 2}]}, "at most one"),
    ],
)
def test_bad_steering_gets_a_400(body: dict[str, Any], reason: str) -> None:
    raw, refused = sent(body)
    assert raw is None
    assert refused is not None
    assert refused["status"] == 400
    assert reason in refused["error"]["message"]
