"""The page on SmolLM2, which has a chat template: `make llms` gets it."""

from collections.abc import Callable

import pytest
from pages import Visit
from playwright.sync_api import expect


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_an_example_is_answered_in_a_chat(
    visit: Callable[..., Visit], chat_server: str, width: int, scheme: str
) -> None:
    page = visit(at=chat_server, width=width, color_scheme=scheme)
    expect(page.page.get_by_role("radio", name="chat")).to_be_checked()
    examples = page.page.get_by_role("group", name="Examples").get_by_role("button")
    expect(examples).to_have_count(3)
    page.page.get_by_role("spinbutton", name="Tokens").fill("24")
    examples.first.click()
    expect(page.page.locator("#plane svg").first).to_be_visible(timeout=120_000)
    assert len({*page.tints("steered")}) > 5
    expect(page.page.locator("#key-high")).to_have_text("blue: like joy")
    assert page.overflow() == 0
