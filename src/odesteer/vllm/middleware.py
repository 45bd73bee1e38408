"""Other ways of asking for steering over HTTP, for vLLM's server (``--middleware``).

The server itself knows ``vllm_xargs={"odesteer": "truthful@1.5"}``. Here a model named
``MODEL+truthful@1.5``, and a field ``steering=[{"name": "truthful", "level": 1.5}]``, are turned
into that; every other request passes untouched.
"""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from odesteer.artifact import parse_requests
from odesteer.errors import InvalidInputError
from odesteer.methods.amount import QUANTITIES
from odesteer.untrusted import is_number

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
        body, last = await _whole(receive)
        try:
            changed = _translated(body)
        except InvalidInputError as error:
            return await _refuse(send, str(error))
        if changed is not body:
            length = [(b"content-length", str(len(changed)).encode())]
            headers = [pair for pair in scope["headers"] if pair[0] != b"content-length"]
            scope = {**scope, "headers": [*headers, *length]}
        await self._app(scope, _once(changed, last, receive), send)
        return None


def _translated(body: bytes) -> bytes:
    """The body of a request with everything in ``vllm_xargs``; itself if nothing is elsewhere."""
    try:
        request = json.loads(body)
    except ValueError:
        return body
    if not isinstance(request, dict):
        return body
    model, suffix = _split(str(request.get("model", "")))
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
    text = "+".join(map(_item, _items(field))) if suffix is None else suffix
    if text:
        request["vllm_xargs"] = {**xargs, "odesteer": text}
    return json.dumps(request).encode()


def _split(model: str) -> tuple[str, str | None]:
    """The name of a model, and what it is to be steered by."""
    name, plus, suffix = model.partition("+")
    try:
        return (name, suffix) if plus and parse_requests(suffix) else (model, None)
    except InvalidInputError:  # a plus sign in the path of a model
        return model, None


def _items(field: Any) -> list[dict[str, Any]]:
    if isinstance(field, list) and all(isinstance(item, dict) for item in field):
        return field
    raise InvalidInputError(
        "steering must be a list such as [{'name': 'truthful', 'level': 1.5}], not"
        f" {field!r:.80}."
    )


def _item(item: dict[str, Any]) -> str:
    given = {key: value for key, value in item.items() if key != "name"}
    known = all(key in QUANTITIES and is_number(value) for key, value in given.items())
    if not isinstance(item.get("name"), str) or not known or len(given) > 1:
        raise InvalidInputError(
            f"{item!r:.120} in steering must have a name, at most one number of"
            f" {', '.join(QUANTITIES)}, and nothing else."
        )
    return "".join([item["name"], *(f"@{key}={value}" for key, value in given.items())])


async def _whole(receive: Receive) -> tuple[bytes, Message]:
    """The whole body of a request, and the last message about it."""
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts), message


def _once(body: bytes, last: Message, receive: Receive) -> Receive:
    """Gives the body, then whatever comes after it."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        whole = {"type": "http.request", "body": body, "more_body": False}
        return whole if last["type"] == "http.request" else last

    return again


async def _refuse(send: Send, message: str) -> None:
    error = {"message": message, "type": "BadRequestError", "param": "steering", "code": 400}
    body = json.dumps({"error": error}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": body})
