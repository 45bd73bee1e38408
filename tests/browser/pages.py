"""Page object of the playground."""

import re

from playwright.sync_api import ConsoleMessage, Error, Locator, Page, Request, expect

REQUEST = "Guest: I need help with my pillow.\nClerk:"
QUESTION = "Q: What is the capital of Australia?\nA:"


class Visit:
    """One open page.

    Attributes:
        page: of Playwright.
        complaints: what went wrong: errors in the console and requests that leave the origin,
            but for messages that hold the text that was ``expected``.
    """

    def __init__(self, page: Page, origin: str, expected: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        self._origin = origin
        self._expected = expected
        page.on("console", self._console)
        page.on("pageerror", self._error)
        page.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and self._expected not in message.text:
            self.complaints.append(message.text)

    def _error(self, error: Error) -> None:
        self.complaints.append(str(error))

    def _request(self, request: Request) -> None:
        if not request.url.startswith((f"{self._origin}/", "data:")):
            self.complaints.append(f"request to {request.url}")

    @property
    def prompt(self) -> Locator:
        return self.page.get_by_label("Prompt", exact=True)

    @property
    def status(self) -> Locator:
        return self.page.get_by_role("status")

    @property
    def error(self) -> Locator:
        return self.page.get_by_role("alert")

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def switch(self, name: str) -> Locator:
        return self.page.get_by_role("switch", name=name)

    def slider(self, name: str) -> Locator:
        return self.page.get_by_role("slider", name=f"level of {name}")

    def tokens(self, arm: str) -> Locator:
        return self.page.locator(f".arm.{arm} .token")

    def text(self, arm: str) -> str:
        return "".join(self.tokens(arm).all_text_contents())

    def tints(self, arm: str) -> list[str]:
        """Background colours of the tokens."""
        script = "all => all.map(one => getComputedStyle(one).backgroundColor)"
        return self.tokens(arm).evaluate_all(script)

    def use(self, *names: str) -> None:
        """Turn on these steerers and no others."""
        for switch in self.page.get_by_role("switch").all():
            switch.set_checked(switch.get_attribute("data-on") in names)

    def send_as(self, mode: str) -> None:
        """Send the prompt as a text or as a chat."""
        self.page.locator(".choices").get_by_text(mode, exact=True).click()

    def write(self, prompt: str = REQUEST, *, by: str = "civility", mode: str = "text") -> None:
        """Type a prompt, steer by one steerer, and wait for both texts."""
        self.send_as(mode)
        self.use(by)
        self.prompt.fill(prompt)
        self.button("Generate").click()
        self.written()

    def written(self) -> None:
        """Wait for both texts and their pictures."""
        expect(self.status).to_have_text(re.compile("Written: unsteered .* steered .*"))
        expect(self.page.locator("#plane svg").first).to_be_visible()

    def overflow(self) -> int:
        """Pixels by which the page is wider than the window."""
        return self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
