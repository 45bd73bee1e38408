"""The command `odesteer serve`: start, token, uploads, limits, shutdown."""

import contextlib
import json
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from servers import Server, completion, serving, steer_options

from odesteer.cli import main
from odesteer.terrarium import world

PROMPT = world("mood").prompts("test", 0, 1)[0]


@pytest.fixture
def limited_server(steerer_files: dict[str, Path]) -> Any:
    """A server with a token, uploads and low limits, which the test may end."""
    options = ["--allow-upload", "--max-batch", 2, "--max-queue", 4, "--max-prompt", 200]
    with serving(
        *options, "--token", "secret", *steer_options({"a": steerer_files["mood"]})
    ) as server:
        yield server


def client(server: Server, token: str | None = "secret") -> httpx.Client:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=server.url, headers=headers, timeout=60)


def test_a_server_with_a_token_and_limits(
    limited_server: Server, steerer_files: dict[str, Path], tmp_path: Path
) -> None:
    _requires_its_token(limited_server)
    _accepts_uploads(limited_server, steerer_files)
    _refuses_bad_uploads(limited_server, tmp_path)
    _refuses_costly_uploads(limited_server, steerer_files)
    _limits_prompts(limited_server)
    _refuses_requests_when_full(limited_server)
    _finishes_running_texts(limited_server)


def _requires_its_token(server: Server) -> None:
    paths = ("/v1/models", "/v1/steerers", "/metrics", "/openapi.json", "/nothing")
    for token, status in ((None, 401), ("Secret", 401), ("secrets", 401), ("secret", None)):
        with client(server, token) as http:
            for path in paths:
                answer = http.get(path)
                expected = status or (404 if path == "/nothing" else 200)
                assert answer.status_code == expected
            if status == 401:
                assert answer.headers["WWW-Authenticate"] == "Bearer"
                assert answer.json()["error"]["code"] == "invalid_api_key"
            assert http.post("/playground/trajectory", json={}).status_code == (status or 400)
    with client(server, None) as http:
        assert http.get("/health").status_code == 200
        assert http.get("/").status_code == 200
        # With a token the server may be reached under any name.
        assert http.get("/health", headers={"Host": "models.example"}).status_code == 200


def _accepts_uploads(server: Server, files: dict[str, Path]) -> None:
    with client(server) as http:
        answer = http.put("/v1/steerers/b", content=files["truth"].read_bytes())
        assert answer.status_code == 200
        assert answer.json()["uploaded"]
        assert [one["id"] for one in http.get("/v1/steerers").json()["data"]] == ["a", "b"]
        info = http.get("/v1/steerers/b").json()
        assert info["held_out"]["auc"] > 0.5
        assert info["provenance"]["n_positive"] > 0
        assert info["card"].startswith("---")
        assert info["barrier"]["upper"] > info["barrier"]["lower"]
        body = completion("bundled+b@1.5", "Q: Who makes honey?\nA:")
        assert http.post("/v1/completions", json=body).status_code == 200
        # It can be replaced and deleted, unlike those of the start.
        assert http.put("/v1/steerers/b", content=files["mood"].read_bytes()).status_code == 200
        assert http.put("/v1/steerers/a", content=files["mood"].read_bytes()).status_code == 400
        assert http.delete("/v1/steerers/a").status_code == 403
        assert http.delete("/v1/steerers/b").status_code == 200
        assert http.post("/v1/completions", json=body).status_code == 404


def _refuses_bad_uploads(server: Server, folder: Path) -> None:
    import torch

    import odesteer

    other = folder / "other.safetensors"
    clouds = torch.randn(20, 32) + 1, torch.randn(20, 32) - 1
    odesteer.Steerer(odesteer.CAA().fit(*clouds), odesteer.Site(1)).save(other)
    nowhere = folder / "nowhere.safetensors"
    odesteer.Steerer(odesteer.CAA().fit(*clouds)).save(nowhere)
    with client(server) as http:
        for content in (b"", b"nothing", b"\0" * 100, other.read_bytes(), nowhere.read_bytes()):
            answer = http.put("/v1/steerers/c", content=content)
            assert answer.status_code == 400
            assert answer.json()["error"]["message"]
        for name in ("a+b", "a@b", "%2e%2e", "x" * 65):
            assert http.put(f"/v1/steerers/{name}", content=b"x").status_code == 400


def _refuses_costly_uploads(server: Server, files: dict[str, Path]) -> None:
    """A billion steps, whose first would keep everybody waiting for good."""
    (length,) = struct.unpack("<Q", files["mood"].read_bytes()[:8])
    data = files["mood"].read_bytes()
    header = json.loads(data[8 : 8 + length])
    described = json.loads(header["__metadata__"]["odesteer"])
    described["method"]["params"]["solver"]["object"]["params"]["n_steps"] = 10**9
    header["__metadata__"]["odesteer"] = json.dumps(described)
    raw = json.dumps(header).encode()
    with client(server) as http:
        forged = struct.pack("<Q", len(raw)) + raw + data[8 + length :]
        answer = http.put("/v1/steerers/c", content=forged)
        assert answer.status_code == 400
        assert "n_steps of Euler is too large" in answer.json()["error"]["message"]
        assert http.get("/health").json()["status"] == "ok"


def _limits_prompts(server: Server) -> None:
    with client(server) as http:
        body = completion("bundled", "word " * 120)
        answer = http.post("/v1/completions", json=body)
        assert answer.status_code == 400
        assert "takes 200" in answer.json()["error"]["message"]


def _refuses_requests_when_full(server: Server) -> None:
    """Two texts run, four wait, the others get 429 with Retry-After."""
    body = completion("bundled", PROMPT, max_tokens=60, n=1, temperature=1)
    answers: list[httpx.Response] = []

    def ask() -> None:
        with client(server) as http:
            answers.append(http.post("/v1/completions", json=body))

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
    with client(server) as http:
        answer = http.post("/v1/completions", json={**body, "n": 8})
        assert answer.status_code == 429


def _finishes_running_texts(server: Server) -> None:
    """At SIGTERM in the middle of a stream the text is finished."""
    body = completion("bundled", PROMPT, max_tokens=80, stream=True, seed=1, temperature=1)
    whole = [{**body, "stream": False}]
    with client(server) as http:
        text = http.post("/v1/completions", json=whole[0]).json()["choices"][0]["text"]
        with http.stream("POST", "/v1/completions", json=body) as answer:
            lines = answer.iter_lines()
            first = next(lines)
            server.process.terminate()
            rest = [line for line in lines if line]
    events = [json.loads(line[6:]) for line in [first, *rest] if line != "data: [DONE]"]
    assert rest[-1] == "data: [DONE]"
    assert "".join(event["choices"][0]["text"] for event in events) == text
    assert server.process.wait(timeout=30) == 0


def test_the_bundled_model_has_its_steerers() -> None:
    with serving() as server:
        listed = httpx.get(f"{server.api}/steerers").json()["data"]
        assert [steerer["id"] for steerer in listed] == ["truth", "civility", "mood"]
        assert all(steerer["held_out"]["auc"] > 0.7 for steerer in listed)
        assert server.end() == 0
        assert server.process.stderr is not None
        assert "Traceback" not in server.process.stderr.read()


@pytest.mark.parametrize(
    ("options", "message"),
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
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *options]) in (1, 2)
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


def test_a_port_in_use_is_an_error(server: Server, steerer_files: dict[str, Path]) -> None:
    port = server.url.rpartition(":")[2]
    options = ["serve", "--port", port, *steer_options(steerer_files)]
    ended = subprocess.run(
        [sys.executable, "-m", "odesteer", *options], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 2 or ended.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_json_output_has_the_address(steerer_files: dict[str, Path]) -> None:
    options = ["serve", "--json", "--port", "0", *steer_options({"truth": steerer_files["truth"]})]
    with subprocess.Popen(
        [sys.executable, "-m", "odesteer", *options], stdout=subprocess.PIPE, text=True
    ) as started:
        assert started.stdout is not None
        lines = iter(started.stdout.readline, "}\n")
        info = json.loads("".join([*lines, "}"]))
        health = httpx.get(f"{info['url']}/health").json()
        started.terminate()
        assert started.stdout.read() == ""
    assert (health["model"], info["model"], info["steerers"]) == ("bundled", "bundled", ["truth"])
    assert started.returncode == 0


def test_vllm_gets_the_same_options(
    monkeypatch: pytest.MonkeyPatch, steerer_files: dict[str, Path]
) -> None:
    import odesteer.vllm

    calls: list[tuple[Any, Any]] = []
    monkeypatch.setattr(odesteer.vllm, "serve", lambda *args, **more: calls.append((args, more)))
    monkeypatch.setenv("VLLM_API_KEY", "")
    file = steerer_files["truth"]
    options = ["serve", "owner/model", "--engine", "vllm", "--steer", f"truth={file}"]
    options += ["--host", "0.0.0.0", "--port", "9000", "--token", "secret", "--dtype", "bfloat16"]
    assert main([*options, "--vllm-arg=--tensor-parallel-size", "--vllm-arg=2"]) == 0
    ((args, more),) = calls
    assert args == ("owner/model", {"truth": str(file)})
    assert (more["host"], more["port"]) == ("0.0.0.0", 9000)
    assert more["arguments"] == ["--tensor-parallel-size", "2", "--dtype", "bfloat16"]
    import os

    assert os.environ["VLLM_API_KEY"] == "secret"
    assert main(["serve", "owner/model", "--engine", "vllm", "--host", "0.0.0.0"]) == 2
    assert len(calls) == 1


def test_health_of_an_engine_that_ended(bundled: Any) -> None:
    import asyncio

    from odesteer.serving import Engine, Settings, create_app

    async def ask() -> list[int]:
        engine = Engine(bundled, "bundled")
        transport = httpx.ASGITransport(create_app(engine, Settings()))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            engine.start()
            healthy = await http.get("/health")
            await engine.close()
            ended = await http.get("/health")
            text = await http.post("/v1/completions", json=completion("bundled", "a"))
            return [healthy.status_code, ended.status_code, text.status_code]

    assert asyncio.run(ask()) == [200, 503, 503]


def test_health_of_a_step_that_takes_too_long(
    bundled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    from odesteer.serving import Engine, Settings, create_app

    async def ask() -> list[Any]:
        engine = Engine(bundled, "bundled")
        transport = httpx.ASGITransport(create_app(engine, Settings(stalled_after=2)))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            engine.start()
            idle = await http.get("/health")
            monkeypatch.setattr(Engine, "heartbeat_age", 2.5)
            stalled = await http.get("/health")
            await engine.close()
            return [idle.status_code, idle.json(), stalled.status_code, stalled.json()]

    code, idle, stalled_code, stalled = asyncio.run(ask())
    assert (code, idle["status"], idle["heartbeat_age"]) == (200, "ok", 0)
    assert (stalled_code, stalled["status"], stalled["heartbeat_age"]) == (503, "stalled", 2.5)


STUCK = """
import sys, time
sys.path.insert(0, sys.argv[1])
import tiny_models
from odesteer import SteeredModel
from odesteer.serving import Engine, Settings, listening_socket, run

lm = SteeredModel(tiny_models.llama(), tiny_models.tokenizer())
engine = Engine(lm, "tiny")

def forward(**kwargs):
    print("stuck", flush=True)
    time.sleep(600)

lm.model.forward = forward
settings = Settings(port=0, grace=1, close_timeout=1)
with listening_socket(settings) as listener:
    run(engine, settings, listener, lambda address: print(address, flush=True))
"""


def test_a_stuck_model_does_not_keep_the_server_from_ending() -> None:
    tests = str(Path(__file__).resolve().parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", STUCK, tests],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            body = completion("tiny", [1, 2, 3], stream=True)

            def request() -> None:
                with contextlib.suppress(httpx.HTTPError):
                    httpx.post(f"{url}/v1/completions", json=body, timeout=60)

            thread = threading.Thread(target=request)
            thread.start()
            assert process.stdout.readline().strip() == "stuck"
            health = httpx.get(f"{url}/health", timeout=30).json()
            assert health["running"] == 0  # it has not come out of its first step
            process.send_signal(signal.SIGINT)
            began = time.monotonic()
            assert process.wait(timeout=60) == 1
            assert time.monotonic() - began < 30
            thread.join(30)
        finally:
            process.kill()


@pytest.mark.parametrize("option", ["--max-new-tokens", "--max-tokens"])
def test_the_limit_of_tokens_has_the_name_of_the_other_commands(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from odesteer.serving import settings

    found: list[int] = []
    monkeypatch.setattr(
        settings.Settings, "__post_init__", lambda self: found.append(self.max_tokens)
    )
    # The file of the steerer is missing, so that no server starts.
    assert main(["serve", option, "7", "--steer", "a=missing.safetensors"]) == 1
    assert found == [7]
    assert main(["serve", "--help"]) == 0
    assert "--max-tokens" not in capsys.readouterr().out
