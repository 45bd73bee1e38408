"""Connections of the server (uvicorn): half-sent requests end after a time, and in number."""

import asyncio
import logging
from typing import Any

_log = logging.getLogger("odesteer.serving")


def bounded_protocol(base: type[Any], timeout: float, max_connections: int) -> type[Any]:
    """A protocol of uvicorn that closes connections without a whole request head in time.

    Args:
        base: uvicorn's protocol, of h11 or of httptools; it has a ``cycle`` once a head has come.
        timeout: seconds from the connection, or from the first byte after the answer before, to
            the end of a head. Bodies have their own limit (`BodyLimitMiddleware`).
        max_connections: the most open connections; the next ones are closed at once.
    """

    class BoundedProtocol(base):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._head_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > max_connections:
                _log.warning("closed a connection beyond %d", max_connections)
                transport.abort()
                return
            self._head_timer = self.loop.call_later(timeout, self._end_head)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._awaits_head:
                if self._head_timer is None:
                    self._head_timer = self.loop.call_later(timeout, self._end_head)
            else:
                self._stop_timer()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        @property
        def _awaits_head(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def _end_head(self) -> None:
            self._head_timer = None
            if self._awaits_head and not self.transport.is_closing():
                self.transport.abort()

        def _stop_timer(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

    return BoundedProtocol
