"""Errors as responses in OpenAI's form."""

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from odesteer.errors import OdesteerError, UnknownNameError
from odesteer.serving.api.response_schema import ErrorResponse
from odesteer.serving.engine import BusyError, EndedError
from odesteer.serving.engine.output import FAILED

_log = logging.getLogger("odesteer.serving")

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "invalid_request_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}


class APIError(HTTPException):
    """An error response with a body in OpenAI's form."""

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

    def response(self) -> "ASCIIJSONResponse":
        """The response to send."""
        return ASCIIJSONResponse(self.body, self.status_code, headers=self.headers)


class ASCIIJSONResponse(JSONResponse):
    """JSON in ASCII, so that strings of requests can be repeated, lone surrogates included."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def error_body(
    status: int, message: str, param: str | None = None, code: str | None = None
) -> ErrorResponse:
    """The body of an error response with this status."""
    default = "invalid_request_error" if status < 500 else "server_error"
    error_type = _ERROR_TYPES.get(status, default)
    return {"error": {"message": message, "type": error_type, "param": param, "code": code}}


def as_api_error(error: Exception) -> APIError:
    """The error response for an exception; unexpected exceptions are logged."""
    if isinstance(error, APIError):
        return error
    if isinstance(error, BusyError):
        headers = {"Retry-After": str(error.retry_after)}
        return APIError(429, str(error), code="rate_limit_exceeded", headers=headers)
    if isinstance(error, EndedError):
        return APIError(503, str(error))
    if isinstance(error, UnknownNameError):
        return APIError(404, str(error), param="steering", code="steerer_not_found")
    if isinstance(error, OdesteerError):
        return APIError(400, str(error))
    if isinstance(error, UnicodeError):
        return APIError(400, "the text holds half of a surrogate pair, which is no character.")
    if isinstance(error, RequestValidationError):
        return _validation_error(error.errors())
    if isinstance(error, HTTPException):
        return APIError(error.status_code, f"{error.detail}", headers=error.headers)
    _log.error("a request failed", exc_info=error)
    return APIError(500, FAILED)


def _validation_error(errors: Sequence[Mapping[str, Any]]) -> APIError:
    """The first of pydantic's errors, in words."""
    first = errors[0]
    location = [str(part) for part in first["loc"] if part != "body"]
    # Without the member of a union that was tried.
    param = ".".join(part for part in location if "[" not in part and part not in _UNION_MEMBERS)
    param = param[:200]
    message = str(first["msg"]).removeprefix("Value error, ")
    code = _VALIDATION_CODES.get(str(first["type"]), "invalid_value")
    if first["type"] == "extra_forbidden":
        message = "there is no such field"
    elif code == "invalid_value" and str(first["type"]).endswith(("_type", "_parsing")):
        code = "invalid_type"
    elif "this server has no" in message:
        code = "unsupported_parameter"
    if first["type"] == "json_invalid":
        return APIError(400, "the body is not JSON.", code="invalid_json")
    text = f"{param}: {message}." if param else f"{message}."
    return APIError(400, text, param=param or None, code=code)


_VALIDATION_CODES = {
    "extra_forbidden": "unknown_parameter",
    "missing": "missing_required_parameter",
}

_UNION_MEMBERS = ("str", "int", "list", "TextContent")


def add_error_handlers(app: FastAPI) -> None:
    """Let an app answer every exception in OpenAI's form."""

    async def handle(request: Request, error: Exception) -> ASCIIJSONResponse:
        return as_api_error(error).response()

    for kind in (OdesteerError, RequestValidationError, HTTPException, UnicodeError, Exception):
        app.add_exception_handler(kind, handle)
