"""A WebSocket server in a few lines: a test says what the client sends, and hears what the app does."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import orjson

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.harness import ASGIApp, Message

REALTIME = "/v1/realtime"
RESPONSES = "/v1/responses"


class WebSocket:
    """The server's side of one connection to an app, and the client behind it."""

    def __init__(self, path: str, query: str = "", headers: dict[str, str] | None = None, **scope: Any) -> None:
        self._to_app, self._said = anyio.create_memory_object_stream[Any](math.inf)
        self._from_app, self._heard = anyio.create_memory_object_stream[Any](math.inf)
        self.scope: dict[str, Any] = {
            "type": "websocket",
            "asgi": {"version": "3.0"},
            "path": path,
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
            "client": ("192.0.2.1", 1234),
            "subprotocols": [],
            **scope,
        }
        self._to_app.send_nowait({"type": "websocket.connect"})

    async def receive(self) -> Message:
        message = await self._said.receive()
        if isinstance(message, Exception):
            raise message
        return message

    async def send(self, message: Message) -> None:
        await self._from_app.send(message)

    def say(self, *events: Any) -> None:
        """Send events: dicts as JSON, strings and bytes as they are, exceptions for `receive` to raise."""
        for event in events:
            if isinstance(event, Exception):
                self._to_app.send_nowait(event)
            elif isinstance(event, bytes):
                self._to_app.send_nowait({"type": "websocket.receive", "bytes": event})
            else:
                text = event if isinstance(event, str) else orjson.dumps(event).decode()
                self._to_app.send_nowait({"type": "websocket.receive", "text": text})

    def leave(self) -> None:
        """Close the client's side."""
        self._to_app.send_nowait({"type": "websocket.disconnect", "code": 1001})

    async def next(self) -> Message:
        """Return the next message the app sent."""
        return await self._heard.receive()

    async def hear(self) -> Any:
        """Return the next event the app sent, decoded."""
        message = await self.next()
        assert message["type"] == "websocket.send", message
        return orjson.loads(message.get("text") or message["bytes"])

    def rest(self) -> list[Message]:
        """Return the messages that nobody has heard."""
        return [self._heard.receive_nowait() for _ in range(self._heard.statistics().current_buffer_used)]

    async def to(self, app: ASGIApp) -> list[Message]:
        """Let an app serve the connection to its end; return what it sent."""
        try:
            with anyio.fail_after(10):
                await app(self.scope, self.receive, self.send)
            return self.rest()
        finally:
            self.close()

    def close(self) -> None:
        self.rest()
        for end in (self._to_app, self._said, self._from_app, self._heard):
            end.close()

    @asynccontextmanager
    async def open(self, app: ASGIApp) -> AsyncIterator[None]:
        """Serve the connection while the block talks on it; the app has accepted it by then."""
        try:
            with anyio.fail_after(10):
                async with anyio.create_task_group() as group:
                    group.start_soon(app, self.scope, self.receive, self.send)
                    assert (await self.next())["type"] == "websocket.accept"
                    yield
                    self.leave()
        finally:
            self.close()


class Script:
    """An app that notes what it is sent, and answers each text with the next messages of its script."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.got: list[Any] = []
        self.texts: list[str] = []
        self.scopes: list[Any] = []
        self.end: Message = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            self.texts.append(message["text"])
            self.got.append(orjson.loads(message["text"]))
            for event in self.answers.pop(0) if self.answers else ():
                await send(message_of(event))
        self.end = message


def message_of(event: Any) -> Message:
    """The message that carries an event: a dict as JSON, strings and bytes as they are."""
    if isinstance(event, bytes):
        return {"type": "websocket.send", "bytes": event}
    return {"type": "websocket.send", "text": event if isinstance(event, str) else orjson.dumps(event).decode()}
