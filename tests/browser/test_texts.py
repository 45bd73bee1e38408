"""Generated texts: tints, sliders, tooltips, streaming, chats, cards."""

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.request import Request, urlopen

from pages import QUESTION, REQUEST, Visit
from playwright.sync_api import Page, expect


def _completion(server: str, **body: Any) -> str:
    """The text that the API gives, in one piece."""
    body = {"model": "bundled", "max_tokens": 48, "temperature": 0.7, "seed": 2, **body}
    request = Request(
        f"{server}/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urlopen(request, timeout=60) as answer:
        return json.load(answer)["choices"][0]["text"]


def test_both_texts_are_those_of_the_api(visit: Callable[..., Visit], server: str) -> None:
    page = visit()
    page.write()
    steering = [{"name": "civility", "level": 1.5}]
    assert page.text("unsteered") == _completion(server, prompt=REQUEST)
    assert page.text("steered") == _completion(server, prompt=REQUEST, steering=steering)
    assert page.text("steered") != page.text("unsteered")
    expect(page.page.locator(".arm.steered .receipt")).to_contain_text("civility at level +1.50")


def test_moving_the_slider_writes_the_steered_text_and_its_tints_anew(
    visit: Callable[..., Visit],
) -> None:
    page = visit()
    page.write()
    page.page.get_by_text("how far it moved").click()
    before = {arm: (page.text(arm), page.tints(arm)) for arm in ("unsteered", "steered")}
    page.slider("civility").fill("-2")
    expect(page.page.locator(".arm.steered .receipt")).to_contain_text("level −2.00")
    page.written()
    assert (page.text("unsteered"), page.tints("unsteered")) == before["unsteered"]
    assert page.text("steered") != before["steered"][0]
    assert not {*page.tints("steered")} & {*before["steered"][1]}
    page.page.get_by_text("where it was").click()
    assert len({*page.tints("unsteered")}) > 5  # as many shades as values
    page.page.get_by_text("how far it moved").click()
    assert page.page.get_by_label("level of civility, as a number").input_value() == "-2"
    # Blue above the boundary, orange below: not by colour alone.
    expect(page.page.locator(".arm.steered .token.below").nth(3)).to_be_attached()


def test_the_value_of_a_token_is_told_on_hover(visit: Callable[..., Visit]) -> None:
    page = visit()
    page.write()
    token, tip = page.tokens("steered").nth(2), page.page.get_by_role("tooltip")
    token.hover()
    expect(tip).to_have_text(re.compile(r"civility [+−]?\d+\.\d\d → \+\d+\.\d\d nats"))
    page.tokens("unsteered").nth(2).hover()
    expect(tip).to_have_text(re.compile(r"civility [+−]?\d+\.\d\d nats"))
    page.page.mouse.move(2, 2)
    expect(tip).to_be_hidden()


def test_several_steerers_act_together_and_one_is_shown(visit: Callable[..., Visit]) -> None:
    page = visit()
    page.write(QUESTION, by="truth")
    page.slider("mood").fill("-1")
    receipt = page.page.locator(".arm.steered .receipt li")
    expect(receipt).to_have_count(2)
    page.written()
    expect(page.page.locator("#key-name")).to_contain_text("what mood measures")
    tints = page.tints("steered")
    page.page.get_by_role("group", name="truth").get_by_label("show in colour").check()
    expect(page.page.locator("#key-name")).to_contain_text("what truth measures")
    page.written()
    assert page.tints("steered") != tints


def _slow_down(page: Page) -> None:
    """Let the page receive 5 kB a second: about ten tokens."""
    conditions = {
        "offline": False,
        "latency": 0,
        "downloadThroughput": 5000,
        "uploadThroughput": -1,
    }
    page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", conditions)


def test_texts_stream_and_can_be_stopped(visit: Callable[..., Visit], server: str) -> None:
    page = visit()
    _slow_down(page.page)  # the bundled model can end a text before a click comes
    page.page.get_by_role("spinbutton", name="Tokens").fill("480")
    page.page.get_by_label("Temperature").fill("2")
    page.prompt.fill(REQUEST)
    page.button("Generate").click()
    expect(page.tokens("steered").nth(2)).to_be_visible()
    page.button("Stop").click()
    expect(page.status).to_have_text("Stopped.")
    expect(page.button("Stop")).to_be_disabled()
    counts = [page.tokens(arm).count() for arm in ("unsteered", "steered")]
    assert max(counts) < 480
    page.page.wait_for_timeout(500)
    assert [page.tokens(arm).count() for arm in ("unsteered", "steered")] == counts


def test_a_chat_is_answered(visit: Callable[..., Visit]) -> None:
    page = visit()
    page.write("What is the capital of Australia?", by="truth", mode="chat")
    assert page.text("steered").strip()
    assert "path" in (page.page.locator("#plane svg path.path").first.get_attribute("class") or "")


def test_cards_tell_where_a_steerer_comes_from(visit: Callable[..., Visit]) -> None:
    page = visit()
    page.page.get_by_role("button", name="About truth").click()
    card = page.page.get_by_role("dialog", name="truth")
    expect(card).to_contain_text("ODESteer")
    expect(card).to_contain_text("AUC")
    expect(card).to_contain_text("odesteer-terrarium")
    page.page.keyboard.press("Escape")
    expect(card).to_be_hidden()
