"""An ASGI server in a few lines: bodies in as many messages as a test wants, every message the app sends recorded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import anyio
import orjson

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

CHAT = "/v1/chat/completions"
JSON = [("content-type", "application/json")]


@dataclass
class Request:
    """One HTTP request, as a server would hand it to an app.

    `gone` is set by a test to let the client vanish; `sent` records the app's messages, and each `http.response.body`
    sets `moved`.
    """

    body: bytes = b""
    path: str = CHAT
    method: str = "POST"
    headers: Iterable[tuple[str, str]] = tuple(JSON)
    messages: list[Message] | None = None
    scope: dict[str, Any] = field(default_factory=dict)
    spec_version: str | None = "2.3"
    sent: list[Message] = field(default_factory=list)
    received: int = 0

    def __post_init__(self) -> None:
        self.gone = anyio.Event()
        if self.messages is None:
            self.messages = [{"type": "http.request", "body": self.body, "more_body": False}]
        asgi = {"version": "3.0"} | ({"spec_version": self.spec_version} if self.spec_version else {})
        self.scope = {
            "type": "http",
            "asgi": asgi,
            "http_version": "1.1",
            "method": self.method,
            "path": self.path,
            "root_path": "",
            "query_string": b"",
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in self.headers],
            "client": ("192.0.2.1", 1234),
        } | self.scope

    async def receive(self) -> Message:
        self.received += 1
        assert self.messages is not None
        if self.messages:
            return self.messages.pop(0)
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def to(self, app: ASGIApp) -> Response:
        """Let an app answer the request, and check that it kept to ASGI's order of messages."""
        with anyio.fail_after(20):
            await app(self.scope, self.receive, self.send)
        return Response(self.sent)


class Response:
    """What an app sent, checked for ASGI's order: one start, then bodies, the last without `more_body`."""

    def __init__(self, sent: list[Message]) -> None:
        kinds = [message["type"] for message in sent]
        assert kinds == ["http.response.start"] + ["http.response.body"] * (len(sent) - 1), kinds
        assert len(sent) > 1
        assert [message.get("more_body", False) for message in sent[1:]] == [True] * (len(sent) - 2) + [False]
        self.sent = sent
        self.status: int = sent[0]["status"]
        self.headers = [(name.decode(), value.decode("latin-1")) for name, value in sent[0]["headers"]]
        self.body = b"".join(bytes(message.get("body", b"")) for message in sent[1:])

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key.lower() == name]
        assert len(found) < 2, f"{name} occurs {len(found)} times"
        return found[0] if found else None

    def json(self) -> Any:
        assert self.header("content-type") == "application/json"
        assert self.header("content-length") == str(len(self.body))
        return orjson.loads(self.body)

    def error(self) -> dict[str, Any]:
        """The envelope's error, complete and with a request id beside it."""
        content = self.json()
        assert list(content) == ["error"]
        assert set(content["error"]) == {"message", "type", "param", "code"}
        assert self.header("x-request-id")
        return content["error"]

    def chunks(self) -> list[dict[str, Any]]:
        """The JSON of each event of a stream in its plainest form, which must end with `[DONE]`."""
        assert (
            self.header(
                "content-type",
            )
            == "text/event-stream; charset=utf-8"
        )
        *events, done, rest = self.body.split(b"\n\n")
        assert (done, rest) == (b"data: [DONE]", b"")
        return [orjson.loads(event.removeprefix(b"data: ")) for event in events]


def answer(
    body: bytes, status: int = 200, content_type: str = "application/json", headers: Iterable[tuple[str, str]] = ()
) -> list[Message]:
    """The messages of a plain response."""
    pairs = [("content-type", content_type), ("content-length", str(len(body))), *headers]
    return [
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in pairs],
        },
        {"type": "http.response.body", "body": body, "more_body": False},
    ]


class Upstream:
    """An app that notes every call it gets and answers each with the same messages."""

    def __init__(self, messages: Iterable[Message] | None = None) -> None:
        self.messages = list(messages or answer(b'{"ok":true}'))
        self.calls: list[tuple[MutableMapping[str, Any], bytes]] = []

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            assert message["type"] == "http.request"
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.calls.append((scope, body))
        for message in self.messages:
            await send(dict(message))

    @property
    def data(self) -> Any:
        """The JSON of the one call there was, checked to be framed canonically."""
        ((scope, body),) = self.calls
        headers = [(name.lower(), value) for name, value in scope["headers"]]
        assert [value for name, value in headers if name == b"content-type"] == [b"application/json"]
        assert [value for name, value in headers if name == b"content-length"] == [b"%d" % len(body)]
        data = orjson.loads(body)
        assert body == orjson.dumps(data)
        return data


def chat(**fields: Any) -> bytes:
    """The body of a chat call."""
    return orjson.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}], **fields})
