"""Accessibility (keyboard, zoom, small windows, contrast), themes, errors, token dialog."""

from collections.abc import Callable

import pytest
from pages import REQUEST, Visit
from playwright.sync_api import Page, expect

PAPER = "getComputedStyle(document.body).backgroundColor"
DARK = "rgb(19, 20, 22)"

# Texts with a contrast to their background below 4.5 to 1.
CONTRAST = """() => {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const read = () => [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
  const over = (colours) => {  // colours painted over each other
    pen.clearRect(0, 0, 1, 1);
    for (const colour of colours) { pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1); }
    return read();
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const text = walk.currentNode.data.trim();
    const own = walk.currentNode.parentElement;
    if (!text || own.closest("button:disabled, [hidden], dialog:not([open]), svg, .unseen, .skip"))
      continue;
    const stack = [];
    let opacity = 1;
    for (let one = own; one; one = one.parentElement) {
      const style = getComputedStyle(one);
      stack.unshift(style.backgroundColor);
      opacity *= Number(style.opacity);
    }
    const colour = getComputedStyle(own).color;
    const back = over(["white", ...stack]);
    pen.globalAlpha = opacity;
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    pen.globalAlpha = 1;
    const front = read();
    const [a, b] = [light(front), light(back)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) found.push(`${text.slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return found;
}"""


def _tab_to(page: Page, selector: str, key: str = "Tab") -> None:
    """Press Tab or another key until an element has the focus."""
    for _ in range(80):
        if page.evaluate("wanted => document.activeElement.matches(wanted)", selector):
            return
        page.keyboard.press(key)
    raise AssertionError(f"Tab does not reach {selector}")


def test_everything_is_done_by_keyboard_alone(visit: Callable[..., Visit]) -> None:
    page = visit()
    keys = page.page.keyboard
    _tab_to(page.page, "#prompt")
    keys.press("Control+A")
    keys.type(REQUEST)
    _tab_to(page.page, "[data-on=truth]")
    keys.press("Space")
    _tab_to(page.page, "[data-on=civility]")
    keys.press("Space")
    expect(page.switch("civility")).to_be_checked()
    _tab_to(page.page, "[aria-label='level of civility']")
    for _ in range(5):
        keys.press("ArrowRight")
    assert page.slider("civility").input_value() == "2"
    keys.press("Control+Enter")
    page.written()
    _tab_to(page.page, ".arm.steered .token")
    keys.press("ArrowRight")
    keys.press("ArrowRight")
    tip = page.page.get_by_role("tooltip")
    expect(tip).to_contain_text("civility")
    expect(tip).to_contain_text("nats")
    keys.press("Enter")
    expect(page.page.locator("#plane-title")).to_contain_text("Trajectory that led to")
    keys.press("Escape")
    expect(tip).to_be_hidden()
    _tab_to(page.page, "#sweep", "Shift+Tab")
    keys.press("Enter")
    expect(page.status).to_have_text("The level sweep is complete.")


def test_what_has_the_focus_is_seen(visit: Callable[..., Visit]) -> None:
    page = visit()
    page.page.keyboard.press("Tab")
    for _ in range(12):
        page.page.keyboard.press("Tab")
        ring = page.page.evaluate(
            """() => {
              const one = document.activeElement;
              const seen = one.matches(".choices input") ? one.nextElementSibling : one;
              return getComputedStyle(seen).outlineStyle + getComputedStyle(seen).outlineWidth;
            }"""
        )
        assert ring == "solid2px"


@pytest.mark.parametrize(
    ("width", "height", "scale"), [(400, 800, 1), (320, 700, 1), (640, 450, 2)]
)
def test_small_windows_and_zoom_need_no_scrolling_sideways(
    visit: Callable[..., Visit], width: int, height: int, scale: int
) -> None:
    page = visit(width=width, height=height, device_scale_factor=scale)
    assert page.overflow() == 0
    page.write()
    page.button("Sweep levels").click()
    expect(page.status).to_have_text("The level sweep is complete.")
    assert page.overflow() == 0
    page.tokens("steered").last.hover()
    assert page.overflow() == 0
    page.page.get_by_role("button", name="About truth").click()
    assert page.overflow() == 0


def test_text_of_twice_the_size_stays_on_the_page(visit: Callable[..., Visit]) -> None:
    page = visit()
    page.page.evaluate("document.documentElement.style.fontSize = '200%'")
    page.write()
    assert page.overflow() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(visit: Callable[..., Visit], scheme: str) -> None:
    page = visit(color_scheme=scheme)
    page.write()
    page.page.mouse.move(2, 2)
    assert (page.page.evaluate(PAPER) == DARK) == (scheme == "dark")
    assert page.page.evaluate(CONTRAST) == []


def test_the_theme_can_be_chosen_and_stays(visit: Callable[..., Visit]) -> None:
    page = visit(color_scheme="light")
    theme = page.page.get_by_role("button", name="Theme")
    expect(theme).to_have_text("Theme: system")
    theme.click()
    theme.click()
    expect(theme).to_have_text("Theme: dark")
    page.page.reload()
    expect(theme).to_have_text("Theme: dark")
    assert page.page.evaluate(PAPER) == DARK


def test_the_server_s_errors_are_shown_in_words(visit: Callable[..., Visit]) -> None:
    page = visit(expected="400 (Bad Request)")
    page.prompt.fill("pillow " * 600)
    page.button("Generate").click()
    expect(page.error).to_contain_text("context")
    page.write()  # and the page goes on
    expect(page.error).to_be_hidden()


def test_a_server_that_is_gone_is_told(visit: Callable[..., Visit]) -> None:
    page = visit(expected="ERR_INTERNET_DISCONNECTED")
    page.page.context.set_offline(True)
    page.prompt.fill(REQUEST)
    page.button("Generate").click()
    expect(page.error).to_contain_text("The server does not answer.")


def test_a_missing_prompt_is_told(visit: Callable[..., Visit]) -> None:
    page = visit()
    page.prompt.fill(" ")
    page.button("Generate").click()
    expect(page.error).to_contain_text("Write a prompt first")


def test_a_token_is_asked_for_where_the_server_wants_one(
    visit: Callable[..., Visit], guarded_server: str
) -> None:
    page = visit(at=guarded_server, expected="401 (Unauthorized)", is_ready=False)
    dialog = page.page.get_by_role("dialog", name="This server asks for a token")
    field = dialog.get_by_role("textbox")
    field.fill("wrong")
    field.press("Enter")
    expect(field).to_have_value("")  # asked again
    field.fill("open-sesame")
    field.press("Enter")
    expect(dialog).to_be_hidden()
    expect(page.page.locator(".steerer").first).to_be_visible()
    page.write(by="politeness")
    assert "sesame" not in page.page.url
    page.page.reload()
    expect(page.page.locator(".steerer").first).to_be_visible()
