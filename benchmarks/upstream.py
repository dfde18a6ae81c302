"""Served apps: an upstream, and apps that a gate is put in front of."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import httpx
import orjson
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from asgi_llm_gate import Forwarder, LLMGate
from benchmarks.rows import Rewrite
from benchmarks.traffic import ANSWER, FINISH, STREAM

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

CHUNKS = 200

_WHOLE = orjson.dumps(ANSWER)
# Each piece is another: LiteLLM ends a stream that says the same a hundred times.
_EVENTS = [b"data: %b\n\n" % STREAM.unit.replace(b" parcel", b" parcel %d" % number) for number in range(CHUNKS)]
_LAST = b"data: %b\n\ndata: [DONE]\n\n" % FINISH


async def app(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001  # ASGI's three arguments
    """Answer any POST at once, as a chat completion; with 200 chunks, each a message, where a stream is asked for."""
    body = bytearray()
    while (message := await receive()).get("more_body"):
        body += message["body"]
    body += message["body"]
    if b'"stream":true' not in body.replace(b": ", b":"):
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_WHOLE))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": _WHOLE, "more_body": False})
        return
    headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for event in _EVENTS:
        await send({"type": "http.response.body", "body": event, "more_body": True})
    await send({"type": "http.response.body", "body": _LAST, "more_body": False})


async def _chat(request: Request) -> JSONResponse:
    await request.json()
    return JSONResponse(ANSWER)


hosted = Starlette(routes=[Route("/v1/chat/completions", _chat, methods=["POST"])])


def gated() -> ASGIApp:
    """Make the same app with a gate in front, and a pre-call hook that changes the body."""
    return LLMGate(hosted, config={}, callbacks=[Rewrite()])


def checked() -> ASGIApp:
    """Make the same app with a gate in front that checks for a user, and has no hook."""
    return LLMGate(hosted, config={}, enforce_user_param=True)


def forwarder() -> ASGIApp:
    """Make a forwarder alone."""
    return Forwarder(os.environ["UPSTREAM_URL"])


def forwarder_httpx() -> ASGIApp:
    """Make a forwarder alone that sends with httpx, whatever else is installed."""
    client = httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_connections=None))
    return Forwarder(os.environ["UPSTREAM_URL"], client=client)
