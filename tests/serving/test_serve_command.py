"""Starting and ending servers, and what they keep to themselves."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from servers import Server, completion, serving, steer_words

from odesteer.cli import main
from odesteer.terrarium import world

PROMPT = world("mood").prompts("test", 0, 1)[0]


@pytest.fixture
def closed(steerer_files: dict[str, Path]) -> Any:
    """A server with a token, uploads and little room, that a test may end."""
    words = ["--allow-upload", "--max-batch", 2, "--max-queue", 4, "--max-prompt", 200]
    with serving(*words, "--token", "secret", *steer_words({"a": steerer_files["mood"]})) as made:
        yield made


def client(server: Server, token: str | None = "secret") -> httpx.Client:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=server.url, headers=headers, timeout=60)


def test_a_server_that_is_closed_and_small(
    closed: Server, steerer_files: dict[str, Path], tmp_path: Path
) -> None:
    _asks_for_its_token(closed)
    _takes_uploads(closed, steerer_files)
    _refuses_bad_uploads(closed, tmp_path)
    _limits_prompts(closed)
    _sends_away_when_full(closed)
    _finishes_what_runs(closed)


def _asks_for_its_token(server: Server) -> None:
    paths = ("/v1/models", "/v1/steerers", "/metrics", "/openapi.json", "/nothing")
    for token, status in ((None, 401), ("Secret", 401), ("secrets", 401), ("secret", None)):
        with client(server, token) as asking:
            for path in paths:
                answer = asking.get(path)
                expected = status or (404 if path == "/nothing" else 200)
                assert answer.status_code == expected
            if status == 401:
                assert answer.headers["WWW-Authenticate"] == "Bearer"
                assert answer.json()["error"]["code"] == "invalid_api_key"
            assert asking.post("/playground/trajectory", json={}).status_code == (status or 400)
    with client(server, None) as asking:
        assert asking.get("/health").status_code == 200
        assert asking.get("/").status_code == 200
        # With a token the server may be reached under any name.
        assert asking.get("/health", headers={"Host": "models.example"}).status_code == 200


def _takes_uploads(server: Server, files: dict[str, Path]) -> None:
    with client(server) as asking:
        answer = asking.put("/v1/steerers/b", content=files["truth"].read_bytes())
        assert answer.status_code == 200
        assert answer.json()["uploaded"]
        assert [one["id"] for one in asking.get("/v1/steerers").json()["data"]] == ["a", "b"]
        told = asking.get("/v1/steerers/b").json()
        assert told["held_out"]["auc"] > 0.5
        assert told["provenance"]["n_positive"] > 0
        assert told["card"].startswith("---")
        assert told["barrier"]["upper"] > told["barrier"]["lower"]
        body = completion("bundled+b@1.5", "Q: Who makes honey?\nA:")
        assert asking.post("/v1/completions", json=body).status_code == 200
        # It may be replaced and taken away, unlike those of the start.
        assert asking.put("/v1/steerers/b", content=files["mood"].read_bytes()).status_code == 200
        assert asking.put("/v1/steerers/a", content=files["mood"].read_bytes()).status_code == 400
        assert asking.delete("/v1/steerers/a").status_code == 403
        assert asking.delete("/v1/steerers/b").status_code == 200
        assert asking.post("/v1/completions", json=body).status_code == 404


def _refuses_bad_uploads(server: Server, folder: Path) -> None:
    import torch

    import odesteer

    other = folder / "other.safetensors"
    clouds = torch.randn(20, 32) + 1, torch.randn(20, 32) - 1
    odesteer.Steerer(odesteer.CAA().fit(*clouds), odesteer.Site(1)).save(other)
    nowhere = folder / "nowhere.safetensors"
    odesteer.Steerer(odesteer.CAA().fit(*clouds)).save(nowhere)
    with client(server) as asking:
        for content in (b"", b"nothing", b"\0" * 100, other.read_bytes(), nowhere.read_bytes()):
            answer = asking.put("/v1/steerers/c", content=content)
            assert answer.status_code == 400
            assert answer.json()["error"]["message"]
        for name in ("a+b", "a@b", "%2e%2e", "x" * 65):
            assert asking.put(f"/v1/steerers/{name}", content=b"x").status_code == 400


def _limits_prompts(server: Server) -> None:
    with client(server) as asking:
        body = completion("bundled", "word " * 120)
        answer = asking.post("/v1/completions", json=body)
        assert answer.status_code == 400
        assert "takes 200" in answer.json()["error"]["message"]


def _sends_away_when_full(server: Server) -> None:
    """Two texts are written, four wait, and the others hear when to come again."""
    body = completion("bundled", PROMPT, max_tokens=60, n=1, temperature=1)
    answers: list[httpx.Response] = []

    def ask() -> None:
        with client(server) as asking:
            answers.append(asking.post("/v1/completions", json=body))

    threads = [threading.Thread(target=ask) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    status = [answer.status_code for answer in answers]
    assert {*status} == {200, 429}
    for answer in answers:
        if answer.status_code == 429:
            assert int(answer.headers["Retry-After"]) >= 1
            assert answer.json()["error"]["type"] == "rate_limit_error"
    with client(server) as asking:
        answer = asking.post("/v1/completions", json={**body, "n": 8})
        assert answer.status_code == 429


def _finishes_what_runs(server: Server) -> None:
    """Told to end in the middle of a stream, it takes no more and writes on."""
    body = completion("bundled", PROMPT, max_tokens=80, stream=True, seed=1, temperature=1)
    whole = [{**body, "stream": False}]
    with client(server) as asking:
        text = asking.post("/v1/completions", json=whole[0]).json()["choices"][0]["text"]
        with asking.stream("POST", "/v1/completions", json=body) as answer:
            lines = answer.iter_lines()
            first = next(lines)
            server.process.terminate()
            rest = [line for line in lines if line]
    events = [json.loads(line[6:]) for line in [first, *rest] if line != "data: [DONE]"]
    assert rest[-1] == "data: [DONE]"
    assert "".join(event["choices"][0]["text"] for event in events) == text
    assert server.process.wait(timeout=30) == 0


def test_the_bundled_model_brings_its_steerers() -> None:
    with serving() as server:
        listed = httpx.get(f"{server.api}/steerers").json()["data"]
        assert [steerer["id"] for steerer in listed] == ["truth", "civility", "mood"]
        assert all(steerer["held_out"]["auc"] > 0.7 for steerer in listed)
        assert server.end() == 0
        assert server.process.stderr is not None
        assert "Traceback" not in server.process.stderr.read()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "0.0.0.0"], "set a token"),
        (["--steer", "truth"], "NAME=FILE"),
        (["--steer", "a+b=x.safetensors"], "cannot name a steerer"),
        (["--steer", "a=x", "--steer", "a=y"], "twice"),
        (["--steer", "a=nothing.safetensors"], "nothing.safetensors"),
        (["--max-batch", "0"], "max-batch"),
        (["--port", "70000"], "port"),
        (["--vllm-arg=--seed"], "--engine vllm"),
        (["./nothing-here"], "nothing-here"),
    ],
)
def test_bad_command_lines_are_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *words]) in (1, 2)
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err


def test_a_port_that_is_taken_is_said(server: Server, steerer_files: dict[str, Path]) -> None:
    port = server.url.rpartition(":")[2]
    words = ["serve", "--port", port, *steer_words(steerer_files)]
    ended = subprocess.run(
        [sys.executable, "-m", "odesteer", *words], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 2 or ended.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_address_is_told_to_machines(steerer_files: dict[str, Path]) -> None:
    words = ["serve", "--json", "--port", "0", *steer_words({"truth": steerer_files["truth"]})]
    with subprocess.Popen(
        [sys.executable, "-m", "odesteer", *words], stdout=subprocess.PIPE, text=True
    ) as started:
        assert started.stdout is not None
        lines = iter(started.stdout.readline, "}\n")
        told = json.loads("".join([*lines, "}"]))
        health = httpx.get(f"{told['url']}/health").json()
        started.terminate()
        assert started.stdout.read() == ""
    assert (health["model"], told["model"], told["steerers"]) == ("bundled", "bundled", ["truth"])
    assert started.returncode == 0


def test_vllm_gets_the_same_words(
    monkeypatch: pytest.MonkeyPatch, steerer_files: dict[str, Path]
) -> None:
    import odesteer.vllm

    calls: list[tuple[Any, Any]] = []
    monkeypatch.setattr(odesteer.vllm, "serve", lambda *args, **more: calls.append((args, more)))
    monkeypatch.setenv("VLLM_API_KEY", "")
    file = steerer_files["truth"]
    words = ["serve", "owner/model", "--engine", "vllm", "--steer", f"truth={file}"]
    words += ["--host", "0.0.0.0", "--port", "9000", "--token", "secret", "--dtype", "bfloat16"]
    assert main([*words, "--vllm-arg=--tensor-parallel-size", "--vllm-arg=2"]) == 0
    ((args, more),) = calls
    assert args == ("owner/model", {"truth": str(file)})
    assert (more["host"], more["port"]) == ("0.0.0.0", 9000)
    assert more["arguments"] == ["--tensor-parallel-size", "2", "--dtype", "bfloat16"]
    import os

    assert os.environ["VLLM_API_KEY"] == "secret"
    assert main(["serve", "owner/model", "--engine", "vllm", "--host", "0.0.0.0"]) == 2
    assert len(calls) == 1


def test_health_tells_of_an_engine_that_ended(bundled: Any) -> None:
    import asyncio

    from odesteer.serving import Engine, Settings, create_app

    async def ask() -> list[int]:
        engine = Engine(bundled, "bundled")
        transport = httpx.ASGITransport(create_app(engine, Settings()))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as asking:
            engine.start()
            well = await asking.get("/health")
            await engine.close()
            ill = await asking.get("/health")
            text = await asking.post("/v1/completions", json=completion("bundled", "a"))
            return [well.status_code, ill.status_code, text.status_code]

    assert asyncio.run(ask()) == [200, 503, 503]
