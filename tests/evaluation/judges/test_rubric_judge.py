"""A rubric judged by a server that is thrown away, which fails in every way that servers do."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from judge_models import make_item

from odesteer.errors import DataError, InvalidInputError, ModelError
from odesteer.evaluation.judges import create
from odesteer.evaluation.judges.rubric_file import read_rubric

if find_spec("autorubric") is None:
    pytest.skip("needs autorubric: pip install 'odesteer[rubric]'", allow_module_level=True)

OPTIONS = [{"label": f"{n} of 4", "value": n / 4} for n in range(5)]
CRITERIA = [
    {"name": "true", "requirement": "It is true.", "weight": 3},
    {"name": "kind", "requirement": "How kind is it?", "options": OPTIONS, "weight": 2},
    {"name": "rude", "requirement": "It is rude.", "weight": -1},
]
MISSING = {"rubric": None, "rubric.true": None, "rubric.kind": None, "rubric.rude": None}
FULL = {"rubric": 0.6, "rubric.true": 1.0, "rubric.kind": 0.5, "rubric.rude": 1.0}


def verdict(body: dict[str, Any], true: bool = True, kind: int = 2, rude: bool = True) -> str:
    """The reply of a judge; options come in any order, so their number is read off the prompt."""
    asked = body["messages"][-1]["content"]
    if "How kind" in asked:
        [number] = re.findall(rf"(\d+)[.:)] *{kind} of 4", asked)
        return json.dumps({"selected_option": int(number), "explanation": "so"})
    met = true if "It is true." in asked else rude
    return json.dumps({"criterion_status": "MET" if met else "UNMET", "explanation": "so"})


REFUSALS = tuple((status, "sk-secret is wrong") for status in (401, 403, 404))


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
        if body.get("max_tokens") == 1 and self.script[0] not in REFUSALS:
            handler.send_response(200)
            handler.end_headers()
            handler.wfile.write(b'{"choices": [{"message": {"content": "a"}}]}')
            return
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
            handler.send_header("Retry-After", "0.01")
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
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.01)


def _judge(server: Server, rubric: str, **options: Any) -> Any:
    options = {"model": "m", "attempts": 3, **options}
    return create("rubric", rubric=rubric, url=server.url, **options)


def test_verdicts_are_kept_and_weighed(serve: Callable[..., Server], rubric: str) -> None:
    server = serve(verdict)
    judge = _judge(server, rubric)
    assert judge.metrics == tuple(FULL)
    assert judge.judge([make_item(prompt="Who {are} you?")], ["I am {a} model"]) == [FULL]
    assert len(server.requests) == 3
    for request in server.requests:
        assert request["path"] == "/v1/chat/completions"
        assert (request["model"], request["temperature"]) == ("m", 0.0)
        assert request["response_format"]["type"] == "json_schema"
        said = request["messages"][-1]["content"]
        assert "Who {are} you?" in said
        assert "I am {a} model" in said
    assert {*server.keys} == {"Bearer none"}
    assert judge.about()["criteria"][2]["weight"] == -1


def test_scores_stay_with_their_items(serve: Callable[..., Server], rubric: str) -> None:
    def echo(body: dict[str, Any]) -> str:
        said = body["messages"][-1]["content"]
        number = int(said.split("response number ")[1][0])
        return verdict(body, true=number % 2 == 1, kind=number % 5)

    found = _judge(serve(echo), rubric, workers=4).judge(
        [make_item(str(i)) for i in range(10)], [f"response number {i}" for i in range(10)]
    )
    assert [scores["rubric.true"] for scores in found] == [i % 2 for i in range(10)]
    assert [scores["rubric.kind"] for scores in found] == [i % 5 / 4 for i in range(10)]


def test_several_models_vote(serve: Callable[..., Server], rubric: str) -> None:
    def differ(body: dict[str, Any]) -> str:
        number = " abc".index(body["model"])
        return verdict(body, true=number < 3, kind=number)

    judge = _judge(serve(differ), rubric, model="a, b,c")
    [scores] = judge.judge([make_item()], ["x"])
    assert scores["rubric.agreement"] == pytest.approx((2 / 3 + 1 / 3 + 1) / 3)
    assert {**scores, "rubric.agreement": None} == {**FULL, "rubric.agreement": None}
    assert judge.metrics == ("rubric", "rubric.agreement", *list(FULL)[1:])


def test_what_cannot_be_assessed_is_left_out(serve: Callable[..., Server], rubric: str) -> None:
    def unsure(body: dict[str, Any]) -> str:
        text = verdict(body)
        return text.replace("MET", "CANNOT_ASSESS") if "It is true." in str(body) else text

    [scores] = _judge(serve(unsure), rubric).judge([make_item()], ["a"])
    assert scores == {**FULL, "rubric.true": None, "rubric": 0.0}


@pytest.mark.parametrize("failure", [(500, ""), (503, ""), (429, ""), "hang up"])
def test_a_failure_that_passes_costs_nothing(
    serve: Callable[..., Server], rubric: str, failure: Any
) -> None:
    server = serve(failure, verdict)
    assert _judge(server, rubric).judge([make_item()], ["a"]) == [FULL]
    assert len(server.requests) == 4


@pytest.mark.parametrize(("attempts", "n_requests"), [(1, 3), (3, 9)])
def test_each_attempt_is_one_request(
    serve: Callable[..., Server], rubric: str, attempts: int, n_requests: int
) -> None:
    server = serve((500, ""))
    _judge(server, rubric, attempts=attempts).judge([make_item()], ["a"])
    assert len(server.requests) == n_requests


@pytest.mark.parametrize(
    "failure",
    [(500, ""), "hang up", ("garbage", "<html>"), "no verdict", '{"true": 1}', (400, "too long")],
)
def test_a_failure_that_stays_is_missing(
    serve: Callable[..., Server], rubric: str, failure: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _judge(serve(failure), rubric).judge([make_item()], ["a"]) == [MISSING]
    assert capsys.readouterr().out == ""


def test_half_a_verdict_is_half_missing(serve: Callable[..., Server], rubric: str) -> None:
    def half(body: dict[str, Any]) -> str:
        return verdict(body) if "How kind" in str(body) else "no verdict"

    found = _judge(serve(half), rubric).judge([make_item()], ["a"])
    assert found == [{**MISSING, "rubric.kind": 0.5}]


def test_nobody_listens(serve: Callable[..., Server], rubric: str) -> None:
    server = serve(verdict)
    judge = _judge(server, rubric, attempts=1)
    server.http.server_close()
    assert judge.judge([make_item()], ["a"]) == [MISSING]


@pytest.mark.parametrize(
    ("refusal", "match"),
    [(r, "no model 'm'" if r[0] == 404 else "refuses the key") for r in REFUSALS],
)
def test_what_can_never_work_stops_the_run(
    serve: Callable[..., Server], rubric: str, refusal: Any, match: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    server = serve(refusal)
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
    assert "name each once" in str(create("rubric", rubric=rubric, model="a,a").unavailable())
    for name in ("attempts", "workers"):
        judge = create("rubric", rubric=rubric, model="m", **{name: 0})
        assert f"{name} is 0" in str(judge.unavailable())
    assert "http" in str(create("rubric", rubric=rubric, model="m", url="file:///x").unavailable())


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "not valid JSON"),
        ("3", "Expected a list"),
        ("[]", "No criteria"),
        ('{"criteria": []}', "No criteria"),
        ('[{"name": "a", "question": "b"}]', "requirement"),
        ('[{"requirement": "b"}]', "criterion 1: the name is None"),
        ('[{"name": "A b", "requirement": "b"}]', "criterion 1: the name is 'A b'"),
        ('[{"name": "a", "requirement": " "}]', "the requirement is empty"),
        ('[{"name": "a", "requirement": "b", "weight": 0}]', "the weight is 0"),
        ('[{"name": "a", "requirement": "b", "wieght": 1}]', "unknown field 'wieght'"),
        ('[{"name": "a", "requirement": "b"}, {"name": "a", "requirement": "c"}]', "two"),
        ('[{"name": "a", "requirement": "b", "options": [{"label": "x", "value": 1}]}]', "options"),
    ],
)
def test_a_rubric_that_cannot_be_used(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(DataError, match=match):
        read_rubric(path)
    assert match in str(create("rubric", rubric=str(path), model="m").unavailable())


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_a_rubric_in_either_format(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"r{suffix}"
    whole = {"guidelines": "Be strict.", "criteria": CRITERIA}
    path.write_text(json.dumps(whole) if suffix == ".json" else yaml.safe_dump(whole))
    read = read_rubric(path)
    assert read.guidelines == "Be strict."
    assert [each.name for each in read.rubric] == ["true", "kind", "rude"]
