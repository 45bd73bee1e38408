"""Pages in a browser: foreign origins are refused by the server itself; CORS for those named."""

import json

import httpx
import pytest
from fastapi import FastAPI
from servers import Server, completion
from starlette.testclient import TestClient

from odesteer.errors import InvalidInputError
from odesteer.serving import Settings
from odesteer.serving.api.app import add_middleware
from odesteer.serving.api.middleware import OriginMiddleware

BODY = json.dumps(completion("bundled", "a", max_tokens=1)).encode()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),  # another port is another origin
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({}, 200),
    ],
)
def test_what_pages_of_other_origins_send_is_refused(
    server: Server, headers: dict[str, str], status: int
) -> None:
    answer = httpx.post(
        f"{server.api}/completions",
        content=BODY,
        headers={"Content-Type": "application/json", **headers},
    )
    assert answer.status_code == status, answer.text
    if status == 403:
        assert answer.json()["error"]["code"] == "origin_not_allowed"


def test_the_page_of_the_server_itself_is_answered(server: Server) -> None:
    headers = {"Origin": server.url, "Content-Type": "application/json"}
    answer = httpx.post(f"{server.api}/completions", content=BODY, headers=headers)
    assert answer.status_code == 200
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert httpx.get(server.url + "/", headers=link).status_code == 200
    assert httpx.get(server.url + "/v1/models", headers=link).status_code == 403


def test_a_blob_is_refused_whatever_the_framework_makes_of_it() -> None:
    """A body without a content type, which some versions of FastAPI read as JSON."""
    app = FastAPI()
    app.post("/v1/completions")(lambda: "answered")
    app.add_middleware(OriginMiddleware, allowed=())
    client = TestClient(app, base_url="http://127.0.0.1:8000")
    headers = {"Origin": "https://evil.example"}
    assert client.post("/v1/completions", content=BODY, headers=headers).status_code == 403


def test_named_origins_may_use_it() -> None:
    app = FastAPI()
    app.get("/v1/models")(lambda: "answered")
    add_middleware(app, Settings(cors_origins=("https://chat.example",)))
    client = TestClient(app, base_url="http://127.0.0.1:8000")
    for origin, status in (("https://chat.example", 200), ("https://evil.example", 403)):
        headers = {"Origin": origin, "Sec-Fetch-Site": "cross-site"}
        answer = client.get("/v1/models", headers=headers)
        assert answer.status_code == status
        allowed = answer.headers.get("Access-Control-Allow-Origin")
        assert allowed == (origin if status == 200 else None)
        asking = {**headers, "Access-Control-Request-Method": "POST"}
        answer = client.options("/v1/models", headers=asking)
        assert answer.status_code == (200 if status == 200 else 400)


@pytest.mark.parametrize("origin", ["chat.example", "https://chat.example/", "*", ""])
def test_origins_have_a_scheme_and_all_need_a_token(origin: str) -> None:
    with pytest.raises(InvalidInputError, match=r"origin|token"):
        Settings(cors_origins=(origin,))
    assert Settings(cors_origins=("*",), token="secret").hosts == ("*",)
