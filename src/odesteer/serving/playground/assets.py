"""Static files of the page, with their headers."""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

PAGE = "index.html"

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

# No other origins, nothing inline, no HTML from strings, no frames.
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
        " require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    # Browsers keep the files, and revalidate them by their ETag.
    "cache-control": "no-cache",
}


@dataclass(frozen=True)
class Asset:
    """A file of the page."""

    content: bytes
    media_type: str

    @property
    def etag(self) -> str:
        return f'"{hashlib.sha256(self.content).hexdigest()[:24]}"'

    def response(self, request: Request) -> Response:
        """The file, or 304 where the browser has it."""
        headers = {**_HEADERS, "etag": self.etag}
        etags = request.headers.get("if-none-match", "")
        if self.etag in etags or etags.strip() == "*":
            return Response(status_code=304, headers=headers)
        return Response(self.content, media_type=self.media_type, headers=headers)


@cache
def assets() -> dict[str, Asset]:
    """All files by name; no others are served."""
    folder = files("odesteer.serving.playground") / "static"
    return {
        file.name: Asset(file.read_bytes(), media_type)
        for file in folder.iterdir()
        for ending, media_type in _TYPES.items()
        if file.name.endswith(ending)
    }
