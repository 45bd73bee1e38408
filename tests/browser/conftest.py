"""Fixtures: `odesteer serve` and Chromium; run by ``make test-browser``."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pages import Visit
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

import odesteer
from odesteer.terrarium import model_path, world

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")

expect.set_options(timeout=20_000)


def _started(*words: str) -> tuple[subprocess.Popen[str], str]:
    """``odesteer serve`` on a free port, and its address."""
    beside = Path(sys.executable).with_name("odesteer")
    command = [str(beside)] if beside.exists() else [sys.executable, "-m", "odesteer"]
    process = subprocess.Popen(
        [*command, "serve", "--port", "0", *words], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"http://[\d.]+:\d+", line):
            return process, found.group()
    raise AssertionError(f"odesteer serve ended with {process.wait()}")


def _serving(*words: str) -> Iterator[str]:
    process, address = _started(*words)
    with process:
        yield address
        process.terminate()
        assert process.wait(timeout=30) in (0, -15)


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    yield from _serving()


@pytest.fixture(scope="session")
def guarded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with a token and one steerer."""
    file = tmp_path_factory.mktemp("steerers") / "politeness.safetensors"
    lm = odesteer.SteeredModel.from_pretrained(str(model_path()))
    its = world("civility")
    pairs = its.contrast("fit", 0, 30)
    lm.fit(odesteer.ODESteer(), pairs, its.layer, position=its.position).save(file)
    yield from _serving("--token", "open-sesame", "--steer", f"politeness={file}")


@pytest.fixture(scope="session")
def chat_server(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """SmolLM2 with one steerer."""
    file = tmp_path_factory.mktemp("steerers") / "joy.safetensors"
    lm = odesteer.SteeredModel.from_pretrained(str(smollm2), device="cpu")
    things = ("day", "house", "weather", "dinner", "work", "music")
    sides = [
        tuple(
            odesteer.Example("", f"The {thing} was {word}.") for thing in things for word in words
        )
        for words in (("wonderful", "happy", "lovely"), ("awful", "sad", "dreadful"))
    ]
    groups = tuple(thing for thing in things for _ in range(3))
    pairs = odesteer.ContrastData(*sides, groups, groups)
    lm.fit(odesteer.ODESteer(), pairs, 15).save(file)
    yield from _serving(str(smollm2), "--steer", f"joy={file}")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = next((found for name in _BROWSERS if (found := shutil.which(name))), None)
    assert path, "no Chromium here; make test-browser says how to get one"
    with sync_playwright() as playwright:
        # Chromium's sandbox does not run for root; these are our own pages.
        yield playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])


@pytest.fixture
def visit(browser: Browser, server: str) -> Iterator[Callable[..., Visit]]:
    """Opens pages; at the end, none may have had an unexpected error."""
    visits: list[tuple[BrowserContext, Visit]] = []

    def opened(
        link: str = "",
        *,
        at: str = server,
        width: int = 1280,
        height: int = 900,
        expected: str = "nothing",
        is_ready: bool = True,
        **options: object,
    ) -> Visit:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        page: Page = context.new_page()
        one = Visit(page, at, expected)
        visits.append((context, one))
        page.goto(f"{at}/{link}")
        if is_ready:
            expect(page.locator(".steerer").first).to_be_visible()
        return one

    yield opened
    for context, one in visits:
        context.close()
        assert not one.complaints
