"""Settings of a server: address, token, limits."""

import ipaddress
from dataclasses import dataclass

from odesteer.errors import InvalidInputError

_POSITIVE = (
    *("max_tokens", "max_prompt", "max_body", "max_upload", "max_steerers"),
    *("grace", "close_timeout", "stalled_after"),
)


@dataclass(frozen=True)
class Settings:
    """Settings of a server.

    Attributes:
        host, port: where it listens.
        token: the bearer token that requests must have; None for no token.
        allow_upload: whether steerers may be uploaded.
        max_tokens: the most tokens that one text may have.
        max_prompt: the most tokens that a prompt may have.
        max_body: the most bytes of a request.
        max_upload: the most bytes of an uploaded steerer.
        max_steerers: the most steerers, those of the start included.
        grace: seconds that running requests have to finish at shutdown.
        close_timeout: seconds that the model has after that to end the step that runs.
        stalled_after: seconds after which a step counts as stalled, and `/health` says 503.

    Raises `InvalidInputError` for a public address without a token, and for limits below 1.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    allow_upload: bool = False
    max_tokens: int = 4096
    max_prompt: int = 32768
    max_body: int = 2**20
    max_upload: int = 2**26
    max_steerers: int = 64
    grace: int = 60
    close_timeout: int = 10
    stalled_after: int = 300

    def __post_init__(self) -> None:
        if self.token is not None and (not self.token.isascii() or len(self.token.split()) != 1):
            raise InvalidInputError("the token must be ASCII characters without spaces.")
        if not self.is_local and self.token is None:
            raise InvalidInputError(
                f"{self.host} can be reached by others; set a token that requests must bring along,"
                " or listen on 127.0.0.1."
            )
        for name in _POSITIVE:
            if getattr(self, name) < 1:
                raise InvalidInputError(f"{name} must be positive, not {getattr(self, name)}.")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
