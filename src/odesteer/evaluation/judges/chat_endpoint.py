"""Client of an OpenAI-compatible endpoint: chat completions over HTTP, with retries."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from odesteer.errors import ModelError

_LOCAL = ("localhost", "127.0.0.1", "::1")


class NoReplyError(Exception):
    """The endpoint gave no usable reply to one request."""


@dataclass(frozen=True)
class Endpoint:
    """Address, model and retries of an endpoint for chat completions.

    Attributes:
        url: up to and including ``/v1``.
        model: its name there.
        key_variable: the environment variable that holds the key; it is never stored in a file.
        attempts: how often a request is made that fails temporarily, or whose reply cannot be
            used. The client pauses in between: twice as long each time, or as long as the
            endpoint demands.
        timeout: seconds to wait for a reply.
        options: further fields of the request.
    """

    url: str
    model: str
    key_variable: str
    attempts: int = 5
    timeout: float = 60.0
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def is_local(self) -> bool:
        """Whether it runs on this machine, and needs no key."""
        return urlsplit(self.url).hostname in _LOCAL

    @property
    def key(self) -> str:
        """The key; empty if there is none."""
        return os.environ.get(self.key_variable, "").strip()

    @cached_property
    def client(self) -> Any:
        """The client, which retries requests that failed temporarily."""
        from openai import OpenAI

        return OpenAI(
            base_url=self.url,
            # Servers without a key take any, and the client demands one.
            api_key=self.key or "none",
            max_retries=self.attempts - 1,
            timeout=self.timeout,
        )

    def check(self) -> None:
        """One short request. Raises `ModelError` if no request can succeed."""
        with suppress(NoReplyError):
            next(replace(self, attempts=1, options={"max_tokens": 1}).ask("Hello"), None)

    def ask(self, prompt: str) -> Iterator[str]:
        """Replies to a prompt, one for each attempt, until the caller stops.

        Raises `NoReplyError` if there is none or the attempts are used up, and `ModelError` if no
        request can succeed: wrong key, wrong address, wrong model.
        """
        import openai

        for _ in range(self.attempts):
            try:
                found = self.client.chat.completions.create(
                    model=self.model,
                    messages=[{"role": "user", "content": prompt}],
                    **self.options,
                )
                content = found.choices[0].message.content
            except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
                # The body is left out, here and in the cause: it may repeat the key.
                raise ModelError(
                    f"{self.url} answered {error.status_code} and refuses the key in"
                    f" {self.key_variable}; set it to a valid one."
                ) from None
            except openai.NotFoundError as error:
                raise ModelError(
                    f"{self.url} answered 404: there is no chat completion at this address, or no"
                    f" model {self.model!r}. Check both; the address ends in /v1 mostly."
                ) from error
            except openai.OpenAIError as error:
                raise NoReplyError(str(error)) from error
            except (AttributeError, LookupError, TypeError, ValueError):
                continue  # the reply is no chat completion
            if isinstance(content, str):
                yield content
        raise NoReplyError(f"no reply of {self.attempts} could be used")
