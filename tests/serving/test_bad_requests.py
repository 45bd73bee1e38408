"""Bad requests: every answer is an error in OpenAI's form, never a server failure."""

import json
from typing import Any

import httpx
import pytest
from servers import Server, completion
from starlette.testclient import TestClient

import tiny_models
from odesteer import SteeredModel
from odesteer.errors import InvalidInputError
from odesteer.serving import Engine, Settings, create_app

JSON = {"Content-Type": "application/json"}


def post(server: Server, path: str, body: Any) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(f"{server.api}/{path}", content=content, headers=JSON, timeout=30)


def check_error(answer: httpx.Response, status: int = 400) -> str:
    """The message of an error response, whose form is checked."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert {*error} == {"message", "type", "param", "code"}
    assert error["message"]
    assert "\n" not in error["message"]
    return str(error["message"])


BODIES: list[Any] = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"text"',
    b"\xff\xfe",
    b"[" * 100_000,
    {},
    {"model": "bundled"},
    {"model": None, "prompt": "a"},
    {"model": 1, "prompt": "a"},
    {"model": "", "prompt": "a"},
    completion("bundled", []),
    completion("bundled", [[]]),
    completion("bundled", [-1]),
    completion("bundled", [10**6]),
    completion("bundled", [10**30]),
    completion("bundled", [1, "a"]),
    completion("bundled", {"a": 1}),
    completion("bundled", "half of a pair: \ud800"),
    completion("bundled\udfff", "a"),
    completion("bundled", "a", stop="\ud800"),
    completion("bundled", "a", stop=""),
    completion("bundled", "a", stop=["a"] * 17),
    completion("bundled", "a", stop=[1]),
    completion("bundled", "a", n=0),
    completion("bundled", "a", n=65),
    completion("bundled", "a", n=2.5),
    completion("bundled", "a", n=True),
    completion("bundled", ["a", "b", "c"], n=64),
    completion("bundled", "a", max_tokens="10"),
    completion("bundled", "a", max_tokens=-1),
    completion("bundled", "a", max_tokens=0),
    completion("bundled", "a", temperature=-1),
    completion("bundled", "a", temperature="hot"),
    completion("bundled", "a", top_p=1.5),
    completion("bundled", "a", top_k=-2),
    completion("bundled", "a", min_p=1.5),
    completion("bundled", "a", repetition_penalty=0),
    completion("bundled", "a", presence_penalty=2.5),
    completion("bundled", "a", frequency_penalty="1"),
    completion("bundled", "a", logprobs=21),
    completion("bundled", "a", logprobs=True),
    completion("bundled", "a", seed=2**64),
    completion("bundled", "a", seed="0"),
    completion("bundled", "a", stream="yes"),
    completion("bundled", "a", stream_options={"more": True}),
    completion("bundled", "a", best_of=3),
    completion("bundled", "a", echo="yes"),
    completion("bundled", "a", prompt_end="a"),
    completion("bundled", "a", echo=True, logprobs=0, prompt_end="not there"),
    completion("bundled", "a", logit_bias={"1": 500}),
    completion("bundled", "a", watermarking_config={"greenlist_ratio": 2}),
    completion("bundled", "a", watermarking_config={"typo": 2}),
    completion("bundled", "a", watermarking_config={"keys": [1]}),
    completion("bundled", "a", watermarking_config={"keys": [1], "ngram_len": 3, "bias": 1}),
    completion("bundled", "a", watermarking_config={"sampling_table_size": 2**40}),
    completion("bundled", "a", logit_bias={"a": 5}),
    completion("bundled", "a", logit_bias={"99999999": 5}),
    completion("bundled", "a", response_format={"type": "json_schema"}),
    completion("bundled", "a", tools=[{"type": "function"}]),
    completion("bundled", "a", steering="truth"),
    completion("bundled", "a", steering=[{}]),
    completion("bundled", "a", steering=[{"name": "truth", "level": "1"}]),
    completion("bundled", "a", steering=[{"name": "truth", "level": 1, "strength": 1}]),
    completion("bundled", "a", steering=[{"name": "truth", "interpolation": 1}]),
    completion("bundled", "a", steering=[{"name": "truth", "observe": True, "level": 1}]),
    completion("bundled", "a", steering=[{"name": "truth"}, {"name": "truth", "level": 1}]),
    completion("bundled", "a", steering=[{"name": "truth"}] * 9),
    completion("bundled+truth@1", "a", steering=[{"name": "truth"}]),
    b'{"model": "bundled", "prompt": "a", "temperature": NaN}',
    b'{"model": "bundled", "prompt": "a", "steering": [{"name": "truth", "level": Infinity}]}',
    b'{"model": "bundled", "prompt": "a", "steering": [{"name": "truth", "level": 1e999}]}',
    *(
        completion(f"bundled{suffix}", "a")
        for suffix in ("+", "++", "+truth@", "+@1", "+truth@nan", "+truth@1e999", "+truth@x=1", " ")
    ),
]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_bad_completion_requests_are_refused(server: Server, body: Any) -> None:
    answer = post(server, "completions", body)
    check_error(answer, 404 if answer.status_code == 404 else 400)


CHATS: list[Any] = [
    [],
    "hello",
    [{}],
    [{"role": "user"}, {"role": "nobody", "content": "a"}],
    [{"role": "user", "content": 1}],
    [{"role": "user", "content": "\udc00"}],
    [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}],
    [{"role": "user", "content": "a", "tool_calls": [{"id": "1"}]}],
]


@pytest.mark.parametrize("messages", CHATS, ids=range(len(CHATS)))
def test_bad_chats_are_refused(server: Server, messages: Any) -> None:
    body = {"model": "bundled", "messages": messages, "max_tokens": 4}
    check_error(post(server, "chat/completions", body))


def test_harmless_fields_of_clients_are_accepted(server: Server) -> None:
    body = {
        "model": "bundled",
        "messages": [
            {"role": "developer", "content": "Be short.", "name": "me"},
            {"role": "user", "content": [{"type": "text", "text": "Who "}]},
            {"role": "assistant", "content": "I", "refusal": None, "tool_calls": None},
            {"role": "user", "content": "are you?"},
        ],
        "max_completion_tokens": 4,
        "user": "somebody",
        "metadata": {"a": "b"},
        "store": False,
        "frequency_penalty": 0,
        "presence_penalty": 0.0,
        "logit_bias": None,
        "tools": [],
        "response_format": {"type": "text"},
        "stop": None,
        "seed": None,
    }
    assert post(server, "chat/completions", body).status_code == 200


@pytest.mark.parametrize(
    "steering",
    [
        {"name": "truth", "T": 1e38},
        {"name": "truth", "T": -1e38},
        {"name": "truth", "level": 1e300},
        {"name": "truth", "level": -1e-300},
        {"name": "truth", "strength": 1e30},
    ],
)
def test_absurd_amounts_affect_their_request_alone(
    server: Server, steering: dict[str, Any]
) -> None:
    plain = completion("bundled", "Q: Who makes honey?\nA:")
    before = post(server, "completions", plain).json()["choices"][0]["text"]
    answer = post(server, "completions", {**plain, "steering": [steering]})
    if answer.status_code != 200:
        check_error(answer)
    json.loads(answer.text, parse_constant=pytest.fail)
    assert post(server, "completions", plain).json()["choices"][0]["text"] == before


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/completions", 405),
        ("GET", "/nothing", 404),
        ("GET", "/v1/steerers/nothing", 404),
        ("GET", "/v1/models/gpt-4", 404),
        ("PUT", "/v1/steerers/new", 403),
        ("DELETE", "/v1/steerers/truth", 403),
    ],
)
def test_missing_resources_and_methods(server: Server, method: str, path: str, status: int) -> None:
    check_error(httpx.request(method, server.url + path), status)


def test_bodies_have_a_limit(server: Server) -> None:
    body = completion("bundled", "a" * 2**20)
    check_error(post(server, "completions", body), 413)

    def chunks() -> Any:
        for _ in range(2**11):
            yield b" " * 2**10

    answer = httpx.post(f"{server.api}/completions", content=chunks(), headers=JSON)
    check_error(answer, 413)


def test_bodies_need_the_content_type_json(server: Server) -> None:
    """A form on a page of another origin can send text, but no JSON."""
    body = json.dumps(completion("bundled", "a"))
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        answer = httpx.post(
            f"{server.api}/completions", content=body, headers={"Content-Type": kind}
        )
        check_error(answer)


def test_without_a_token_the_host_must_be_local(server: Server) -> None:
    """Against DNS rebinding by a page of another origin."""
    for host, status in (("evil.example", 400), ("localhost:1", 200), ("[::1]", 200), ("", 400)):
        assert httpx.get(f"{server.url}/health", headers={"Host": host}).status_code == status


def test_every_response_has_security_headers(server: Server) -> None:
    for path in ("/health", "/v1/models", "/nothing", "/"):
        headers = httpx.get(server.url + path).headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_public_addresses_need_a_token(host: str) -> None:
    with pytest.raises(InvalidInputError, match="token"):
        Settings(host=host)
    assert Settings(host=host, token="secret").token == "secret"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.2"])
def test_local_addresses_need_none(host: str) -> None:
    assert Settings(host=host).is_local


@pytest.mark.parametrize("token", ["", " ", "two words", "grün"])
def test_a_token_is_one_word(token: str) -> None:
    with pytest.raises(InvalidInputError, match="token"):
        Settings(token=token)


@pytest.mark.parametrize(
    ("field", "message"),
    [({"max_tokens": 10**6}, "at most"), ({"verbosity": "low"}, "--strict")],
)
def test_a_strict_server_refuses_what_others_lower_or_ignore(
    field: dict[str, Any], message: str
) -> None:
    engine = Engine(SteeredModel(tiny_models.llama(), tiny_models.tokenizer()), "tiny")
    app = create_app(engine, Settings(strict=True))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        answer = client.post("/v1/completions", json={**completion("tiny", "a"), **field})
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]
