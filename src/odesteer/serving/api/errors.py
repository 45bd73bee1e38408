"""Errors as clients of OpenAI's API expect them."""

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from typing_extensions import TypedDict

from odesteer.errors import OdesteerError, UnknownNameError
from odesteer.serving.engine import BusyError, EndedError

_log = logging.getLogger("odesteer.serving")

_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}


class ErrorBody(TypedDict):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(TypedDict):
    """The body of every answer that is an error."""

    error: ErrorBody


class APIError(HTTPException):
    """A request that is answered with an error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers)
        self.body = error_body(status, message, param, code)


class ASCIIJSONResponse(JSONResponse):
    """JSON in ASCII, so that whatever a request contained can be repeated in an answer."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def error_body(
    status: int, message: str, param: str | None = None, code: str | None = None
) -> ErrorResponse:
    """The body of an answer with this status."""
    kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def as_api_error(error: Exception) -> APIError:
    """What to answer where an error arose."""
    if isinstance(error, APIError):
        return error
    if isinstance(error, BusyError):
        headers = {"Retry-After": str(error.retry_after)}
        return APIError(429, str(error), code="queue_full", headers=headers)
    if isinstance(error, EndedError):
        return APIError(503, str(error))
    if isinstance(error, UnknownNameError):
        return APIError(404, str(error), code="not_found")
    if isinstance(error, OdesteerError):
        return APIError(400, str(error))
    if isinstance(error, UnicodeError):
        return APIError(400, "the text holds half of a surrogate pair, which is no character.")
    if isinstance(error, RequestValidationError):
        return _invalid(error.errors())
    if isinstance(error, HTTPException):
        return APIError(error.status_code, f"{error.detail}", headers=error.headers)
    _log.error("a request failed", exc_info=error)
    return APIError(500, f"the server failed: {type(error).__name__}; its log tells more.")


def _invalid(errors: Sequence[Mapping[str, Any]]) -> APIError:
    """In words, the first of the things that are wrong with a body."""
    first = errors[0]
    where = [str(part) for part in first["loc"] if part != "body"]
    # Which member of a union was tried is of no interest.
    param = ".".join(part for part in where if "[" not in part and part not in _UNIONS)[:200]
    message = str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "there is no such field"
    if first["type"] == "json_invalid":
        return APIError(400, "the body is not JSON.", code="invalid_json")
    said = f"{param}: {message}." if param else f"{message}."
    return APIError(400, said, param=param or None)


_UNIONS = ("str", "int", "list", "TextContent")


def answer_errors(app: FastAPI) -> None:
    """Let an application answer every error in this form."""

    async def answer(request: Request, error: Exception) -> ASCIIJSONResponse:
        refused = as_api_error(error)
        return ASCIIJSONResponse(refused.body, refused.status_code, headers=refused.headers)

    for kind in (OdesteerError, RequestValidationError, HTTPException, UnicodeError, Exception):
        app.add_exception_handler(kind, answer)
