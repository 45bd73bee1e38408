"""A rubric judged by a server that is thrown away, which fails in every way that servers do."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import openai
import pytest
from judge_models import make_item

from odesteer.errors import DataError, InvalidInputError, ModelError
from odesteer.evaluation.judges import create
from odesteer.evaluation.judges.rubric_file import read_criteria

CRITERIA = [
    {"name": "true", "question": "Is it true?", "weight": 3},
    {"name": "kind", "question": "How kind is it?", "points": 4},
]
GOOD = json.dumps({"true": 1, "kind": 2})
MISSING = {"rubric": None, "rubric.true": None, "rubric.kind": None}
FULL = {"rubric": 0.875, "rubric.true": 1.0, "rubric.kind": 0.5}


class Server:
    """Answers request after request as a script says, the last line of it for ever."""

    def __init__(self, script: list[Any]) -> None:
        self.script = script
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self._lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                owner.answer(self, body)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,))
        self.thread.start()

    def answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        with self._lock:
            step = self.script[min(len(self.requests), len(self.script) - 1)]
            self.requests.append({"path": handler.path, **body})
            self.keys.append(handler.headers.get("Authorization"))
        if step == "hang up":
            handler.close_connection = True
            return
        status, said = step if isinstance(step, tuple) else (200, step)
        content = said(body) if callable(said) else said
        reply = json.dumps({"choices": [{"message": {"content": content}}]})
        if status == "garbage":
            status, reply = 200, content
        handler.send_response(status)
        if status == 429:
            handler.send_header("Retry-After", "7")
        handler.end_headers()
        handler.wfile.write(reply.encode())

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers = []

    def start(*script: Any) -> Server:
        servers.append(Server(list(script)))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def rubric(tmp_path: Path) -> str:
    path = tmp_path / "rubric.json"
    path.write_text(json.dumps({"criteria": CRITERIA}))
    return str(path)


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the judge would have waited."""
    waited: list[float] = []
    monkeypatch.setattr(openai._base_client.time, "sleep", waited.append)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    return waited


def _judge(server: Server, rubric: str, **options: Any) -> Any:
    return create("rubric", rubric=rubric, model="m", url=server.url, attempts=3, **options)


def test_verdicts_are_kept_and_weighed(serve: Callable[..., Server], rubric: str) -> None:
    server = serve(f"Here you are: ```json\n{GOOD}\n```")
    judge = _judge(server, rubric)
    assert judge.metrics == ("rubric", "rubric.true", "rubric.kind")
    assert judge.judge([make_item(prompt="Who {are} you?")], ["I am {a} model"]) == [FULL]
    [request] = server.requests
    assert request["path"] == "/v1/chat/completions"
    assert (request["model"], request["temperature"]) == ("m", 0.0)
    said = request["messages"][0]["content"]
    for part in ("Who {are} you?", "I am {a} model", "Is it true?", "kind (0 to 4)"):
        assert part in said
    assert server.keys == ["Bearer none"]
    assert judge.about()["criteria"][1]["points"] == 4


def test_scores_stay_with_their_items(serve: Callable[..., Server], rubric: str) -> None:
    def echo(body: dict[str, Any]) -> str:
        number = int(body["messages"][0]["content"].split("response number ")[1][0])
        return json.dumps({"true": number % 2, "kind": number % 5})

    found = _judge(serve(echo), rubric, workers=4).judge(
        [make_item(str(i)) for i in range(10)], [f"response number {i}" for i in range(10)]
    )
    assert [scores["rubric.true"] for scores in found] == [i % 2 for i in range(10)]
    assert [scores["rubric.kind"] for scores in found] == [i % 5 / 4 for i in range(10)]


@pytest.mark.parametrize(
    "failure",
    [
        (500, ""),
        (503, ""),
        (429, ""),
        "hang up",
        ("garbage", "<html>"),
        ("garbage", "[]"),
        ("garbage", '{"choices": []}'),
        (200, None),
        "no verdict",
        '{"true": 7, "kind": "2"}',
    ],
)
def test_a_failure_that_passes_costs_nothing(
    serve: Callable[..., Server], rubric: str, failure: Any
) -> None:
    server = serve(failure, GOOD)
    assert _judge(server, rubric).judge([make_item()], ["a"]) == [FULL]
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "failure", [(500, ""), "hang up", ("garbage", "<html>"), "no verdict", '{"true": true}']
)
def test_a_failure_that_stays_is_missing(
    serve: Callable[..., Server], rubric: str, failure: Any
) -> None:
    server = serve(failure)
    assert _judge(server, rubric).judge([make_item()], ["a"]) == [MISSING]
    assert len(server.requests) == 3


def test_half_a_verdict_is_half_missing(serve: Callable[..., Server], rubric: str) -> None:
    found = _judge(serve('{"kind": 4}'), rubric).judge([make_item()], ["a"])
    assert found == [{"rubric": None, "rubric.true": None, "rubric.kind": 1.0}]


def test_a_refused_request_is_missing_and_not_repeated(
    serve: Callable[..., Server], rubric: str
) -> None:
    server = serve((400, "too long"))
    assert _judge(server, rubric).judge([make_item()], ["a"]) == [MISSING]
    assert len(server.requests) == 1


def test_pauses_double_and_are_as_long_as_asked(
    serve: Callable[..., Server], rubric: str, waits: list[float]
) -> None:
    _judge(serve((500, "")), rubric).judge([make_item()], ["a"])
    assert len(waits) == 2
    assert waits[0] < waits[1]
    waits.clear()
    _judge(serve((429, "")), rubric).judge([make_item()], ["a"])
    assert waits == [7.0, 7.0]


def test_nobody_listens(serve: Callable[..., Server], rubric: str) -> None:
    server = serve(GOOD)
    judge = _judge(server, rubric)
    server.http.server_close()
    assert judge.judge([make_item()], ["a"]) == [MISSING]


@pytest.mark.parametrize(
    ("status", "match"), [(401, "refuses the key"), (403, "refuses the key"), (404, "no model 'm'")]
)
def test_what_can_never_work_stops_the_run(
    serve: Callable[..., Server], rubric: str, status: int, match: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    server = serve((status, "sk-secret is wrong"))
    with pytest.raises(ModelError, match=match) as error:
        _judge(server, rubric).judge([make_item()], ["a"])
    assert "sk-secret" not in str(error.value)
    assert server.keys == ["Bearer sk-secret"]


def test_a_key_is_needed_elsewhere(rubric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = create("rubric", rubric=rubric, model="m")
    with pytest.raises(InvalidInputError, match="environment variable OPENAI_API_KEY"):
        judge.judge([make_item()], ["a"])
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    assert judge.unavailable() is None
    assert "sk-secret" not in json.dumps(judge.about())
    assert "MY_KEY" in str(
        create("rubric", rubric=rubric, model="m", key_variable="MY_KEY").unavailable()
    )


def test_what_else_is_needed(rubric: str, tmp_path: Path) -> None:
    assert "rubric=" in str(create("rubric", model="m").unavailable())
    assert "model=" in str(create("rubric", rubric=rubric).unavailable())
    assert "none.json" in str(create("rubric", rubric=str(tmp_path / "none.json")).unavailable())
    for name in ("attempts", "workers"):
        judge = create("rubric", rubric=rubric, model="m", **{name: 0})
        assert f"{name} is 0" in str(judge.unavailable())
    assert "http" in str(create("rubric", rubric=rubric, model="m", url="file:///x").unavailable())


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "not valid JSON"),
        ("[]", "must read"),
        ('{"criteria": []}', "one criterion at least"),
        ('{"criteria": [{"name": "a", "question": "b"}], "extra": 1}', "must read"),
        ('{"criteria": [{"name": "A b", "question": "b"}]}', "criterion 1: the name is 'A b'"),
        ('{"criteria": [{"name": "a", "question": " "}]}', "the question"),
        ('{"criteria": [{"name": "a", "question": "b", "weight": 0}]}', "the weight is 0"),
        ('{"criteria": [{"name": "a", "question": "b", "points": 0.5}]}', "points is 0.5"),
        ('{"criteria": [{"name": "a", "question": "b", "wieght": 1}]}', "nothing else"),
        ('{"criteria": [{"name": "a", "question": "b"}, {"name": "a", "question": "c"}]}', "two"),
    ],
)
def test_a_rubric_that_cannot_be_used(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(DataError, match=match):
        read_criteria(path)
    assert match in str(create("rubric", rubric=str(path), model="m").unavailable())
