"""Middleware for vLLM's server (``--middleware``): steering in model names and in a field.

The server itself takes ``vllm_xargs={"odesteer": "truthful@1.5"}``. A model named
``MODEL+truthful@1.5`` and a field ``steering=[{"name": "truthful", "level": 1.5}]`` are turned
into that; other requests pass unchanged.
"""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from odesteer.artifact import parse_requests
from odesteer.errors import InvalidInputError
from odesteer.methods.amount import QUANTITIES
from odesteer.untrusted import is_number, parse_json

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_PATHS = ("/completions", "/responses")


class SteeringFields:
    """Turns model suffixes and ``steering`` fields of JSON requests into ``vllm_xargs``."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].endswith(_PATHS):
            return await self._app(scope, receive, send)
        body, last = await _read_body(receive)
        try:
            translated = _translate(body)
        except InvalidInputError as error:
            return await _send_error(send, str(error))
        if translated is not body:
            length = [(b"content-length", str(len(translated)).encode())]
            headers = [pair for pair in scope["headers"] if pair[0] != b"content-length"]
            scope = {**scope, "headers": [*headers, *length]}
        await self._app(scope, _replay(translated, last, receive), send)
        return None


def _translate(body: bytes) -> bytes:
    """The body with its steering in ``vllm_xargs``; itself if there is none elsewhere."""
    try:
        request = parse_json(body, "the body")
    except InvalidInputError:
        if b'"steering"' in body:  # the server would ignore it
            raise
        return body
    if not isinstance(request, dict):
        return body
    model, suffix = _split_model_name(str(request.get("model", "")))
    field = request.pop("steering", None)
    if suffix is None and field is None:
        return body
    xargs = request.get("vllm_xargs") or {}
    if "odesteer" in xargs or (suffix is not None and field is not None):
        raise InvalidInputError(
            "this request asks for steering in two places; use one of the model's name, the field"
            " steering and vllm_xargs."
        )
    request["model"] = model
    text = "+".join(map(_steering_text, _check_field(field))) if suffix is None else suffix
    if text:
        request["vllm_xargs"] = {**xargs, "odesteer": text}
    return json.dumps(request).encode()


def _split_model_name(model: str) -> tuple[str, str | None]:
    """The name of a model without its steering suffix, and the suffix."""
    name, plus, suffix = model.partition("+")
    try:
        return (name, suffix) if plus and parse_requests(suffix) else (model, None)
    except InvalidInputError:  # a plus sign in the path of a model
        return model, None


def _check_field(field: Any) -> list[dict[str, Any]]:
    if isinstance(field, list) and all(isinstance(item, dict) for item in field):
        return field
    raise InvalidInputError(
        "steering must be a list such as [{'name': 'truthful', 'level': 1.5}], not"
        f" {field!r:.80}."
    )


def _steering_text(item: dict[str, Any]) -> str:
    """An item of the field as text, ``NAME@QUANTITY=VALUE``."""
    amounts = {key: value for key, value in item.items() if key != "name"}
    are_known = all(key in QUANTITIES and is_number(value) for key, value in amounts.items())
    if not isinstance(item.get("name"), str) or not are_known or len(amounts) > 1:
        raise InvalidInputError(
            f"{item!r:.120} in steering must have a name, at most one number of"
            f" {', '.join(QUANTITIES)}, and nothing else."
        )
    return "".join([item["name"], *(f"@{key}={value}" for key, value in amounts.items())])


async def _read_body(receive: Receive) -> tuple[bytes, Message]:
    """The whole body of a request, and the last message received."""
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts), message


def _replay(body: bytes, last: Message, receive: Receive) -> Receive:
    """A ``receive`` that gives the body, then whatever comes after it."""
    sent = False

    async def receive_again() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        request = {"type": "http.request", "body": body, "more_body": False}
        return request if last["type"] == "http.request" else last

    return receive_again


async def _send_error(send: Send, message: str) -> None:
    error = {"message": message, "type": "BadRequestError", "param": "steering", "code": 400}
    body = json.dumps({"error": error}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": body})
