"""Barrier chart, trajectory plot, level sweep, and the link to a view."""

import re
from collections.abc import Callable

from pages import REQUEST, Visit
from playwright.sync_api import expect


def test_the_barrier_is_drawn_along_both_texts(visit: Callable[..., Visit]) -> None:
    page = visit()
    page.write()
    for arm in ("unsteered", "steered"):
        points = page.page.locator(f"#barrier circle.point.{arm}:not(.big)")
        assert points.count() == page.tokens(arm).count() > 5
    expect(page.page.locator("#barrier text.goal")).to_have_text("level +1.5")
    page.tokens("steered").nth(4).hover()
    expect(page.page.locator("#barrier circle.big.steered")).to_have_count(1)
    page.page.locator("#barrier").hover(position={"x": 120, "y": 80})
    expect(page.page.locator(".arm.steered .token.marked")).to_have_count(1)


def test_the_trajectory_follows_the_level_and_the_chosen_token(
    visit: Callable[..., Visit],
) -> None:
    page = visit()
    page.write()
    note = page.page.locator("#plane-note")
    expect(note).to_have_text(re.compile(r"civility at level \+1\.5 takes h from .* nats over"))
    picture = page.page.get_by_role("img", name="civility at level")
    assert picture.locator("path.level").count() > 4
    end = picture.locator("circle.end").get_attribute("cx")
    assert float(end) > float(picture.locator("circle.start").get_attribute("cx"))
    page.tokens("steered").nth(3).click()
    expect(page.page.locator("#plane-title")).to_contain_text("Trajectory that led to ‘")
    first = note.text_content()
    page.slider("civility").fill("-1")
    expect(note).not_to_have_text(first or "")
    expect(note).to_contain_text("level −1.0")


def test_the_sweep_writes_one_prompt_at_seven_levels(visit: Callable[..., Visit]) -> None:
    page = visit()
    page.write()
    page.button("Sweep levels").click()
    expect(page.status).to_have_text("The level sweep is complete.")
    rows = page.page.locator("#sweep-rows tr")
    expect(rows).to_have_count(8)  # and the text that nothing steers
    assert rows.locator("th").all_text_contents() == (
        ["none", "−2.25", "−1.50", "−0.75", "0.00", "+0.75", "+1.50", "+2.25"]
    )
    figures = rows.locator("td.number").all_text_contents()
    means = [float(figure.replace("−", "-")) for figure in figures]
    assert means[1] < means[3] < means[5] < means[7]
    texts = rows.locator("td:nth-child(2)").all_text_contents()
    assert texts[0] == page.text("unsteered")
    assert texts[6] == page.text("steered")
    page.button("Steer at level −1.50").click()
    expect(page.page.locator(".arm.steered .receipt")).to_contain_text("level −1.50")
    page.written()
    assert page.text("steered") == texts[2]


def test_a_link_brings_the_view_back(visit: Callable[..., Visit]) -> None:
    page = visit()
    page.send_as("text")
    page.page.get_by_label("Seed").fill("5")
    page.slider("civility").fill("-1.2")
    page.slider("mood").fill("0.7")
    page.use("civility", "mood")
    page.prompt.fill(REQUEST)
    page.button("Generate").click()
    page.written()
    page.button("Sweep levels").click()
    expect(page.status).to_have_text("The level sweep is complete.")
    page.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.button("Copy link").click()
    expect(page.status).to_contain_text("The link is copied")
    link = page.page.evaluate("navigator.clipboard.readText()")
    assert link == page.page.url
    other = visit(link[link.index("#") :])
    expect(other.status).to_have_text("The level sweep is complete.")
    expect(other.page.locator("#plane svg").first).to_be_visible()
    assert other.prompt.input_value() == REQUEST
    assert other.slider("civility").input_value() == "-1.2"
    assert other.slider("mood").input_value() == "0.7"
    for arm in ("unsteered", "steered"):
        assert other.text(arm) == page.text(arm)
        assert other.tints(arm) == page.tints(arm)
    rows = "#sweep-rows tr"
    ours, theirs = (one.page.locator(rows).all_text_contents() for one in (page, other))
    assert ours == theirs


def test_a_link_to_a_steerer_that_is_not_here_says_so(visit: Callable[..., Visit]) -> None:
    page = visit("#prompt=Hello&steer=humble%401")
    expect(page.error).to_have_text("This link steers by humble, which this server does not have.")
