"""Settings of a server: address, token, origins, limits."""

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from odesteer.errors import InvalidInputError

_POSITIVE = (
    *("max_tokens", "max_prompt", "max_body", "max_upload", "max_steerers"),
    *("grace", "close_timeout", "stalled_after", "request_timeout", "max_connections"),
    "ping_interval",
)


_SECONDS = ("request_timeout", "ping_interval")
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]", "::1")


@dataclass(frozen=True)
class Settings:
    """Settings of a server.

    Attributes:
        host, port: where it listens.
        token: the bearer token that requests must have; None for no token.
        cors_origins: origins, such as ``https://chat.example``, whose pages may use the server;
            ``*`` for all, which needs a token.
        allowed_hosts: names by which requests may call the server; None for those of this machine
            where only it can connect without a token, and for any otherwise.
        strict: refuse fields that change nothing, and limits above the server's.
        allow_upload: whether steerers may be uploaded.
        max_tokens: the most tokens that one text may have.
        max_prompt: the most tokens that a prompt may have.
        max_body: the most bytes of a request.
        max_upload: the most bytes of an uploaded steerer.
        max_steerers: the most steerers, those of the start included.
        grace: seconds that running requests have to finish at shutdown.
        close_timeout: seconds that the model has after that to end the step that runs.
        request_timeout: seconds in which a request must have arrived, its headers and its body.
        max_connections: the most open connections; further ones are closed at once.
        ping_interval: seconds without a token after which a stream sends a comment.
        stalled_after: seconds after which a step counts as stalled, and `/health` says 503.

    Raises `InvalidInputError` for a public address without a token, and for limits below 1.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] | None = None
    strict: bool = False
    allow_upload: bool = False
    max_tokens: int = 4096
    max_prompt: int = 32768
    max_body: int = 2**20
    max_upload: int = 2**26
    max_steerers: int = 64
    grace: int = 60
    close_timeout: int = 10
    stalled_after: int = 300
    request_timeout: float = 60
    max_connections: int = 1024
    ping_interval: float = 15

    def __post_init__(self) -> None:
        if self.token is not None and (not self.token.isascii() or len(self.token.split()) != 1):
            raise InvalidInputError("the token must be ASCII characters without spaces.")
        if not self.is_local and self.token is None:
            raise InvalidInputError(
                f"{self.host} can be reached by others; set a token that requests must bring along,"
                " or listen on 127.0.0.1."
            )
        for name in _POSITIVE:
            if getattr(self, name) < (0.001 if name in _SECONDS else 1):
                raise InvalidInputError(f"{name} must be positive, not {getattr(self, name)}.")

        for origin in self.cors_origins:
            if origin == "*" and self.token is None:
                raise InvalidInputError(
                    "cors_origins of '*' would let every page in a browser use this server; set a"
                    " token, or name the origins."
                )
            parts = urlsplit(origin)
            is_origin = parts.netloc and origin == f"{parts.scheme}://{parts.netloc}"
            if origin != "*" and not is_origin:
                raise InvalidInputError(
                    f"{origin!r} is no origin; write a scheme and a host, as in"
                    " https://chat.example."
                )

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names by which requests may call the server."""
        if self.allowed_hosts is not None:
            return self.allowed_hosts
        if self.token is not None:
            return ("*",)
        return (*_LOCAL_HOSTS, self.host)

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
