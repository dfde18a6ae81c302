"""The requests that are measured, and the apps that answer them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import anyio
import orjson

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

CHUNKS = 1_000


@dataclass(frozen=True, slots=True)
class Traffic:
    """One kind of request.

    Attributes:
        app: The app that answers it.
        path: Its path.
        body: Its body.
        unit: The JSON that costs are given in terms of: one decoding and one encoding of it.
        units: How many of them one request costs.
    """

    app: ASGIApp
    path: str
    body: bytes
    unit: bytes
    units: int = 1

    async def send_to(self, app: ASGIApp) -> None:
        """Have an app answer one request, as a server would."""
        await app(self._scope(), _Receive(self.body), _sent)

    def _scope(self) -> Scope:
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "server": ("127.0.0.1", 8000),
            "client": ("127.0.0.1", 50412),
            "scheme": "http",
            "method": "POST",
            "root_path": "",
            "path": self.path,
            "raw_path": self.path.encode(),
            "query_string": b"",
            "headers": [*_HEADERS, (b"content-length", b"%d" % len(self.body))],
            "state": {},
        }


class _Receive:
    """A server's `receive`: the body at once, and then nothing while the client stays."""

    __slots__ = ("_body",)

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body

    async def __call__(self) -> Message:
        if self._body is None:
            await anyio.sleep_forever()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


async def _sent(message: Message) -> None:
    """Take a message, as a server's `send` does while its buffer has room."""


# What the official Python client sends, as uvicorn passes it on.
_HEADERS = [
    (b"host", b"127.0.0.1:8000"),
    (b"accept-encoding", b"gzip, deflate"),
    (b"connection", b"keep-alive"),
    (b"accept", b"application/json"),
    (b"content-type", b"application/json"),
    (b"user-agent", b"OpenAI/Python 3.0.0"),
    (b"x-stainless-lang", b"python"),
    (b"x-stainless-package-version", b"3.0.0"),
    (b"x-stainless-os", b"Linux"),
    (b"x-stainless-arch", b"x64"),
    (b"x-stainless-runtime", b"CPython"),
    (b"x-stainless-runtime-version", b"3.12.3"),
    (b"authorization", b"Bearer sk-not-a-key-0123456789abcdef"),
    (b"x-stainless-async", b"false"),
    (b"x-stainless-retry-count", b"0"),
    (b"x-stainless-read-timeout", b"600"),
]

_TOOL = {
    "type": "function",
    "function": {
        "name": "find_order",
        "description": "Find a customer's order by its number, with its state and the day it will arrive.",
        "parameters": {
            "type": "object",
            "properties": {
                "number": {"type": "string", "description": "Eight digits, as printed on the receipt."},
                "fields": {"type": "array", "items": {"type": "string", "enum": ["state", "arrival", "items"]}},
            },
            "required": ["number"],
            "additionalProperties": False,
        },
    },
}

_MESSAGES = [
    {
        "role": "system",
        "content": "You help the customers of a bookshop. Answer in their language, briefly and politely. Look orders "
        "up before you speak about them, and never guess a date.\nIf a question is not about books or orders, say so.",
    },
    {"role": "user", "content": "Hello! I ordered two books last week and have not heard anything since."},
    {"role": "assistant", "content": "I am sorry to hear that. Would you give me the number on your receipt?"},
    {"role": "user", "content": "Sure, it is 40021877."},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_5Kq0",
                "type": "function",
                "function": {"name": "find_order", "arguments": '{"number":"40021877","fields":["state","arrival"]}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "call_5Kq0", "content": '{"state":"sent","arrival":"2026-03-04"}'},
    {
        "role": "assistant",
        "content": "Your parcel is on its way, and should be with you on 4 March. Is there anything else I can do?",
    },
    {"role": "user", "content": "And can I still change the address? I am with my sister in Málaga until Friday."},
]

_ASKED = {
    "model": "gpt-4o-mini",
    "messages": _MESSAGES,
    "tools": [_TOOL],
    "temperature": 0.2,
    "max_tokens": 400,
    "user": "customer-1877",
}

ANSWER = {
    "id": "chatcmpl-B0x4",
    "object": "chat.completion",
    "created": 1772409600,
    "model": "gpt-4o-mini-2024-07-18",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "Your parcel left our warehouse already, so I can't change the address any more. It should "
                "arrive on 4 March. The carrier lets you choose another address or a shop to collect it from: the link "
                "is in the message they sent you. Shall I send it once more?",
                "refusal": None,
                "annotations": [],
            },
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 318,
        "completion_tokens": 64,
        "total_tokens": 382,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    },
    "service_tier": "default",
    "system_fingerprint": "fp_01aeff40ea",
}

_CHUNK_OF_TEXT = {
    "id": "chatcmpl-B0x4",
    "object": "chat.completion.chunk",
    "created": 1772409600,
    "model": "gpt-4o-mini-2024-07-18",
    "service_tier": "default",
    "system_fingerprint": "fp_01aeff40ea",
    "choices": [{"index": 0, "delta": {"content": " parcel"}, "logprobs": None, "finish_reason": None}],
    "usage": None,
}


def _app(content_type: bytes, bodies: list[bytes]) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """Make a bare app that reads its request and answers with these body messages."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001  # ASGI's three arguments
        await receive()
        headers = [(b"content-type", content_type)]
        if len(bodies) == 1:
            headers.append((b"content-length", b"%d" % len(bodies[0])))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for body in bodies[:-1]:
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": bodies[-1], "more_body": False})

    return app


def streaming(chunks: list[bytes]) -> ASGIApp:
    """Make a bare app that answers with these chunks, each a message."""
    events = [b"data: %b\n\n" % chunk for chunk in chunks]
    return _app(b"text/event-stream; charset=utf-8", [*events, b"data: [DONE]\n\n"])


def _chat(app: ASGIApp, **more: Any) -> Traffic:
    body = orjson.dumps({**_ASKED, **more})
    return Traffic(app, "/v1/chat/completions", body, unit=body)


CALL = _chat(_app(b"application/json", [orjson.dumps(ANSWER)]))
OTHER_PATH = replace(CALL, path="/v1/orders")
_CHUNK = orjson.dumps(_CHUNK_OF_TEXT)
FINISH = orjson.dumps(
    {**_CHUNK_OF_TEXT, "choices": [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}]}
)
STREAM = replace(_chat(streaming([_CHUNK] * CHUNKS), stream=True), unit=_CHUNK, units=CHUNKS)
# Each chunk has an id of its own, so that none is like the one before in all but its piece.
_UNLIKE = [orjson.dumps({**_CHUNK_OF_TEXT, "id": f"chatcmpl-{number:04}"}) for number in range(CHUNKS)]
UNLIKE = replace(_chat(streaming(_UNLIKE), stream=True), unit=_UNLIKE[0], units=CHUNKS)
