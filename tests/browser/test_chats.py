"""Start of the page, chats with several turns, tints, sampling, ranges, phones, time left."""

import re
from collections.abc import Callable

import pytest
from pages import REQUEST, Visit
from playwright.sync_api import expect


def test_an_empty_page_says_what_will_happen_and_begins_with_a_chat(
    visit: Callable[..., Visit],
) -> None:
    page = visit()
    assert page.prompt.input_value() == ""
    expect(page.page.get_by_role("radio", name="chat")).to_be_checked()
    expect(page.page.get_by_role("region", name="What will happen")).to_contain_text("twice")
    examples = page.page.get_by_role("group", name="Examples").get_by_role("button")
    assert examples.count() >= 3
    examples.first.click()
    page.written()
    expect(page.page.get_by_role("region", name="What will happen")).to_be_hidden()


def test_a_chat_has_a_system_prompt_and_several_turns(visit: Callable[..., Visit]) -> None:
    page = visit()
    asked: list[dict[str, object]] = []
    page.page.on(
        "request",
        lambda request: (
            asked.append(request.post_data_json) if "chat/completions" in request.url else None
        ),
    )
    page.page.get_by_label("System prompt").fill("Be kind.")
    page.write("Who makes honey?", mode="chat")
    answers = {arm: page.text(arm) for arm in ("unsteered", "steered")}
    page.button("Reply to both answers").click()
    assert page.prompt.input_value() == ""
    expect(page.page.get_by_role("list", name="Earlier turns")).to_contain_text("Who makes honey?")
    page.write("And why?", mode="chat")
    for body, arm in zip(asked[-2:], ("unsteered", "steered"), strict=True):
        assert body["messages"] == [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Who makes honey?"},
            {"role": "assistant", "content": answers[arm]},
            {"role": "user", "content": "And why?"},
        ]
    link = page.page.url
    other = visit(link[link.index("#") :])
    expect(other.page.get_by_role("list", name="Earlier turns")).to_contain_text("Who makes honey?")
    other.written()
    assert other.text("steered") == page.text("steered")
    page.button("New chat").click()
    expect(page.page.get_by_role("list", name="Earlier turns")).to_be_hidden()


def test_tints_tell_where_a_token_was_or_how_far_it_moved(visit: Callable[..., Visit]) -> None:
    page = visit()
    page.write()
    was = page.tints("steered")
    assert len({*was}) > 5  # not one blue wall
    expect(page.page.locator("#key-low")).to_have_text("orange: unlike civility")
    expect(page.page.locator("#key-high")).to_have_text("blue: like civility")
    expect(page.page.locator("#scale")).to_have_attribute("title", re.compile("nats"))
    page.page.get_by_text("how far it moved").click()
    assert page.tints("steered") != was
    assert len({*page.tints("unsteered")}) == 1  # nothing moved there
    expect(page.page.locator("#key-high")).to_have_text("blue: towards civility")


def test_sampling_is_in_sight_and_says_what_is_out_of_range(visit: Callable[..., Visit]) -> None:
    page = visit()
    page.send_as("text")
    field = page.page.get_by_role("spinbutton", name="Top-p")
    field.fill("7")
    field.press("Tab")
    expect(page.error).to_have_text("Top-p must be from 0 to 1.")
    field.fill("0.5")
    field.press("Tab")
    expect(page.error).to_be_hidden()
    page.page.get_by_label("Stop at").fill(" pillow")
    page.use("civility")
    page.prompt.fill(REQUEST)
    with page.page.expect_request("**/v1/completions") as sent:
        page.button("Generate").click()
    body = sent.value.post_data_json
    assert (body["top_p"], body["stop"]) == (0.5, [" pillow"])
    page.written()
    assert " pillow" not in page.text("steered")


def test_on_a_phone_the_page_goes_to_the_results(visit: Callable[..., Visit]) -> None:
    page = visit(width=400, height=800)
    page.write()
    top = "document.querySelector('#results').getBoundingClientRect().top"
    assert abs(page.page.evaluate(top)) < 60


# Time passes a thousand times faster for the page, which notes what its status says.
FAST_TIME = """() => {
  const now = performance.now.bind(performance);
  performance.now = () => 1000 * now();
  const status = document.querySelector("[role=status]");
  window.said = [];
  const note = () => window.said.push(status.textContent);
  new MutationObserver(note).observe(status, { childList: true, subtree: true });
}"""


@pytest.mark.parametrize("what", ["Generate", "Sweep levels"])
def test_long_texts_and_sweeps_tell_the_time_left(visit: Callable[..., Visit], what: str) -> None:
    page = visit()
    page.send_as("text")
    page.page.get_by_role("spinbutton", name="Tokens").fill("120")
    page.use("civility")
    page.prompt.fill(REQUEST)
    page.page.evaluate(FAST_TIME)
    page.button(what).click()
    expect(page.status).to_have_text(re.compile("Written: |complete"))
    said = page.page.evaluate("window.said")
    assert any(re.fullmatch(r"Writing … at most \d+ (s|min) left", each) for each in said), said


def test_the_axis_of_the_chart_fits_the_values(visit: Callable[..., Visit]) -> None:
    """Values of a thousandth of a nat are not a flat line."""
    page = visit()
    page.write()
    ticks = page.page.evaluate(
        """async () => {
          const { BarrierChart } = await import("./playground/barrier_chart.js");
          const holder = document.createElement("div");
          holder.style.cssText = "width:600px;height:300px;position:relative";
          document.body.append(holder);
          const chart = new BarrierChart(holder, () => {});
          const values = [0.001, 0.002, 0.003].map((h) => ({ before: h, after: h }));
          chart.show([{ name: "steered", values }], null);
          const points = [...holder.querySelectorAll("circle.point")];
          const found = points.map((one) => one.cy.baseVal.value);
          holder.remove();
          return found;
        }"""
    )
    assert max(ticks) - min(ticks) > 50
