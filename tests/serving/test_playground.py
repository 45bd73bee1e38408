"""Playground: static files and trajectories."""

import re
from importlib.resources import files
from typing import Any

import httpx
import pytest
import torch
from servers import Server

from odesteer import Amount, Example, SteeredModel, Steerer
from odesteer.serving.playground.plot_data import RESOLUTION, trajectory_plot

PROMPT = "Guest: I need help with my pillow.\nClerk:"
TEXT = " Oh great, another guest."


def _post_trajectory(server: Server, **body: Any) -> httpx.Response:
    fields = {
        "prompt": PROMPT,
        "text": TEXT,
        "steering": [{"name": "civility", "level": 1.5}],
        "shown": "civility",
        **body,
    }
    fields = {name: value for name, value in fields.items() if value is not None}
    return httpx.post(f"{server.url}/playground/trajectory", json=fields)


def _tokens(lm: SteeredModel) -> int:
    return len(lm.encode(Example(PROMPT, TEXT)).response)


def test_every_file_that_the_page_uses_is_served_with_its_type(server: Server) -> None:
    types = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    folder = files("odesteer.serving.playground") / "static"
    page = httpx.get(server.url)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    wanted = set(re.findall(r'(?:href|src)="playground/([^"]+)"', page.text))
    while wanted:
        name = wanted.pop()
        answer = httpx.get(f"{server.url}/playground/{name}")
        assert answer.status_code == 200, name
        assert answer.headers["content-type"].startswith(types[name.rpartition(".")[2]])
        assert answer.text == (folder / name).read_text()
        found = re.findall(r'^(?:import|\} from) .*"\./([^"]+)";', answer.text, re.M)
        wanted |= set(found)
    assert httpx.get(f"{server.url}/playground/nothing.js").status_code == 404
    assert httpx.get(f"{server.url}/playground/..%2frouter.py").status_code == 404


def test_nothing_is_inline_or_of_another_origin(server: Server) -> None:
    page = httpx.get(server.url)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=|https?:", page.text)


def test_browsers_revalidate_files_by_etag(server: Server) -> None:
    address = f"{server.url}/playground/main.js"
    first = httpx.get(address)
    assert first.headers["cache-control"] == "no-cache"
    again = httpx.get(address, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert httpx.get(address, headers={"if-none-match": '"other"'}).status_code == 200
    head = httpx.head(address)
    assert (head.status_code, head.content) == (200, b"")


def test_a_trajectory_equals_that_of_the_method(
    server: Server, bundled: SteeredModel, steerers: dict[str, Steerer]
) -> None:
    steerer = steerers["civility"]
    layer = steerer.site.layer  # type: ignore[union-attr]
    states = bundled.capture([Example(PROMPT, TEXT)], layer).states[layer]
    path = steerer.method.trajectory(states[-1].double(), level=1.5)  # type: ignore[attr-defined]
    plot = _post_trajectory(server).json()
    assert plot["values"] == pytest.approx(path.values.tolist(), rel=1e-4, abs=1e-4)
    assert plot["times"] == pytest.approx(path.times.tolist(), rel=1e-4)
    assert plot["threshold"] == pytest.approx(steerer.barrier.threshold(1.5))
    assert len(plot["starts"]) == len(plot["ends"]) == _tokens(bundled)
    assert [len(row) for row in plot["level_sets"]] == [RESOLUTION] * RESOLUTION


def test_each_token_has_the_trajectory_that_led_to_it(
    server: Server, bundled: SteeredModel
) -> None:
    n = _tokens(bundled)
    prompt = _post_trajectory(server, text="").json()
    first = _post_trajectory(server, token=0).json()
    assert first["values"] == pytest.approx(prompt["values"], rel=1e-4)
    assert first["values"] != _post_trajectory(server, token=1).json()["values"]
    assert _post_trajectory(server, token=n).json() == _post_trajectory(server).json()
    refused = _post_trajectory(server, token=n + 1)
    assert refused.status_code == 400
    assert f"the text has {n} tokens" in refused.json()["error"]["message"]


def test_earlier_steerers_act_too(server: Server) -> None:
    truth = {"name": "truth", "level": 2}
    civility = {"name": "civility", "level": 1.5}
    alone = _post_trajectory(server).json()["values"]
    assert _post_trajectory(server, steering=[civility, truth]).json()["values"] == alone
    assert _post_trajectory(server, steering=[truth, civility]).json()["values"] != alone
    observed = [{"name": "truth", "observe": True}, civility]
    assert _post_trajectory(server, steering=observed).json()["values"] == alone


def test_a_chat_has_trajectories(server: Server) -> None:
    chat = [{"role": "user", "content": "What is the capital of Australia?"}]
    answer = _post_trajectory(server, prompt=None, messages=chat, text=" Sydney, I believe.")
    assert answer.status_code == 200
    assert answer.json()["reached"] is True


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": None}, "give either a prompt or messages"),
        ({"shown": "truth"}, "'truth', is not one of those that act"),
        ({"steering": [{"name": "humble"}], "shown": "humble"}, "no steerer 'humble'"),
        ({"steering": [{"name": "civility", "interpolation": 1}]}, "has no 'interpolation'"),
        ({"steering": [{"name": "civility", "strength": 1.7e308}]}, "range of numbers"),
        ({"prompt": "pillow " * 600}, "context"),
        ({"prompt": "", "text": ""}, "response"),
        ({"colour": "blue"}, "no such field"),
    ],
)
def test_trajectories_that_cannot_be_drawn_are_refused(
    server: Server, change: dict[str, Any], message: str
) -> None:
    answer = _post_trajectory(server, **change)
    assert answer.status_code in (400, 404)
    assert message in answer.json()["error"]["message"]


def test_level_sets_are_exact_where_the_path_starts_and_ends(
    bundled: SteeredModel, steerers: dict[str, Steerer]
) -> None:
    steerer = steerers["mood"]
    layer = steerer.site.layer  # type: ignore[union-attr]
    states = bundled.capture([Example("", TEXT)], layer, "answer").states[layer]
    for level in (1.5, -1.0):
        plot = trajectory_plot(steerer.method, states, 2, Amount("level", level))
        # The path has its full length in the plane, and rises to the right.
        across = plot.path[-1] - plot.path[0]
        ends = steerer.method.steer(states[2].double(), level=level)
        assert torch.linalg.vector_norm(across) == pytest.approx(float((ends - states[2]).norm()))
        assert (float(across[0]) > 0) == (level > 0)
        # The values of the path lie between those of the nearest grid points.
        for point, value in zip(plot.path[[0, -1]], plot.values[[0, -1]], strict=True):
            column = int(torch.searchsorted(plot.x, float(point[0]))) - 1
            row = int(torch.searchsorted(plot.y, float(point[1]))) - 1
            near = plot.level_sets[row : row + 2, column : column + 2]
            assert near.min() - 0.01 <= value <= near.max() + 0.01


def test_an_activation_that_does_not_move_has_a_plot(steerers: dict[str, Steerer]) -> None:
    method = steerers["truth"].method
    a = method.steer(torch.randn(4, steerers["truth"].width), strength=1.0)
    plot = trajectory_plot(method, a, 0, Amount("level", 0.0))
    assert plot.reached is True
    assert torch.equal(plot.path[0], plot.path[-1])
    assert float(plot.x[-1] - plot.x[0]) == pytest.approx(float(a[0].norm()), rel=1e-5)
    assert bool(torch.isfinite(plot.level_sets).all())
