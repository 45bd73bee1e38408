"""Pairs for a concept: what is kept, what is dropped, and both kinds of writers."""

import json
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

import tiny_models
from odesteer.concepts import Concept, EndpointWriter, ModelWriter, PairWriter, write_pairs
from odesteer.data import load_contrast
from odesteer.errors import InvalidInputError, ModelError
from odesteer.evaluation.judges.chat_endpoint import Endpoint
from odesteer.models import SteeredModel

CONCEPT = Concept("polite", "rude")


class Scripted(PairWriter):
    def __init__(self, good: Sequence[str | None], bad: Sequence[str | None]) -> None:
        self.sides = {"polite": list(good), "rude": list(bad)}

    def answers(self, concept: Concept, side: str, prompts: Sequence[str]) -> list[str | None]:
        return self.sides[side]

    def margins(self, concept: Concept, rows: Any) -> list[float | None]:
        return [{"x": -1.0, "?": None}.get(good[-1], float(len(good))) for _, good, _ in rows]


def test_what_is_kept_and_why_others_are_not() -> None:
    good = ["Sure!", None, "Same.", "Sure!", "wrong x", "who knows?", "Of course, with pleasure"]
    bad = ["No.", "No way", "same. ", "Never", "Go away", "Hm", "Leave me alone\n\nUser: more"]
    found = write_pairs(CONCEPT, Scripted(good, bad), [f"prompt {i}" for i in range(7)])
    assert [row[0] for row in found.rows] == ["prompt 6", "prompt 0"]
    assert found.rows[0][2] == "Leave me alone"
    assert found.dropped == {
        "without an answer": 1,
        "both sides equal": 1,
        "repeated": 1,
        "not told apart": 2,
    }
    assert found.n_asked == 7


def test_nothing_left_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"1 both sides equal.*larger"):
        write_pairs(CONCEPT, Scripted(["a"], ["A"]), ["p"])


@pytest.mark.parametrize("text", ["polite", "polite:", ":rude", "a:b:c", "same:Same", " : "])
def test_what_names_no_concept(text: str) -> None:
    with pytest.raises(InvalidInputError):
        Concept.parse(text)


@pytest.mark.parametrize("chats", [True, False])
def test_the_file_is_the_data(chats: bool, tmp_path: Path) -> None:
    found = write_pairs(CONCEPT, Scripted(["Sure", "Yes"], ["No", "Never"]), ["one", "two"])
    (tmp_path / "pairs.jsonl").write_text(found.to_jsonl(chats=chats))
    data, own = load_contrast(str(tmp_path / "pairs.jsonl")), found.contrast(chats=chats)
    assert data.positive == own.positive
    assert data.negative == own.negative
    assert data.positive[0].is_chat is chats


@pytest.mark.parametrize("chats", [True, False])
def test_a_model_writes_and_judges(chats: bool) -> None:
    model = tiny_models.llama(max_position_embeddings=512)
    lm = SteeredModel(model, tiny_models.tokenizer(chats=chats))
    writer = ModelWriter(lm, max_new_tokens=8)
    answers = [writer.answers(CONCEPT, side, ["one", "two"]) for side in ("polite", "rude")]
    assert [len(side) for side in answers] == [2, 2]
    rows = [("one", "fine and good", "bad and ugly"), ("two", "bad and ugly", "fine and good")]
    margins = writer.margins(CONCEPT, rows)
    assert all(isinstance(margin, float) for margin in margins)
    # Each answer is judged under its own instruction: exchanging the sides of the concept turns
    # the differences round, so that the smaller of both cannot be above zero both times.
    other = writer.margins(Concept("rude", "polite"), rows)
    assert all(min(a, b) <= 0 for a, b in zip(margins, other, strict=True))  # type: ignore[type-var]


class Handler(BaseHTTPRequestHandler):
    replies = staticmethod(lambda prompt: "A")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        content = type(self).replies(body["messages"][0]["content"])
        reply = json.dumps(
            {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": "m",
                "choices": [
                    {
                        "index": 0,
                        "finish_reason": "stop",
                        "message": {"role": "assistant", "content": content},
                    }
                ],
            }
            if content is not None
            else {"nonsense": True}
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, type[Handler]]]:
    handler = type("Own", (Handler,), {})
    with HTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}/v1", handler
        httpd.shutdown()


def test_an_endpoint_writes_and_judges(server: Any) -> None:
    url, handler = server

    def reply(prompt: str) -> str:
        if prompt.startswith("Two answers"):
            return "A." if "A: kind" in prompt else "b"
        return ("kind" if "You are polite" in prompt else "nasty") + prompt[-1]

    handler.replies = staticmethod(reply)
    writer = EndpointWriter(Endpoint(url, "m", "NO_KEY", attempts=1))
    found = write_pairs(CONCEPT, writer, ["prompt 1", "prompt 2", "prompt 3"])
    assert {row[1] for row in found.rows} == {"kind1", "kind2", "kind3"}
    assert set(found.margins) == {1.0}


def test_an_endpoint_that_talks_nonsense(server: Any) -> None:
    url, handler = server
    handler.replies = staticmethod(lambda prompt: None)
    writer = EndpointWriter(Endpoint(url, "m", "NO_KEY", attempts=1))
    with pytest.raises(ModelError, match="gives no answer"):
        write_pairs(CONCEPT, writer, ["one"])
    handler.replies = staticmethod(lambda prompt: "perhaps" + prompt[:18])
    with pytest.raises(ModelError, match="not told apart"):
        write_pairs(CONCEPT, writer, ["one"])


def test_an_endpoint_that_is_down() -> None:
    writer = EndpointWriter(Endpoint("http://127.0.0.1:9/v1", "m", "NO_KEY", attempts=1))
    with pytest.raises(ModelError, match=r"127\.0\.0\.1:9/v1 gives no answer"):
        write_pairs(CONCEPT, writer, ["one"])
