"""What is no LLM call is neither refused nor altered, whatever is in it."""

from __future__ import annotations

import pytest

from asgi_llm_gate import LLMGate
from tests.harness import Request, Upstream, answer
from tests.hosts import Witness
from tests.tables.innocent import INNOCENT

pytestmark = pytest.mark.anyio

ANSWER = answer(b'{"error":1,}', 207, "application/json", [("set-cookie", "a"), ("set-cookie", "b"), ("etag", '"x"')])


def gated(app):
    return LLMGate(app, callbacks=[Witness()], enforce_user_param=True, enforced_params=["metadata.tag"])


@pytest.mark.parametrize("row", INNOCENT, ids=[row.name for row in INNOCENT])
async def test_innocent_requests_pass(row):
    """The app gets the very headers, the body to the byte, and its answer goes out as it is."""
    app = Upstream(ANSWER)
    half = len(row.body) // 2
    parts = [row.body[:half], row.body[half:]]
    messages = [{"type": "http.request", "body": part, "more_body": not last} for last, part in enumerate(parts)]
    request = Request(method=row.method, path=row.path, headers=row.headers, messages=messages)
    response = await request.to(gated(app))
    ((scope, body),) = app.calls
    assert body == row.body
    assert scope == request.scope
    assert len(scope["headers"]) == len(row.headers)
    assert all(got is sent for got, sent in zip(scope["headers"], request.scope["headers"], strict=True))
    assert response.sent == ANSWER


@pytest.mark.parametrize("path", ["/ws", "/chat", "/v1/orders", "/v1/chat/completions", "/a//b\n"])
async def test_websockets_of_the_app(path):
    """The app's own WebSockets are its own: scope, `receive` and `send` are those that the server gave."""
    calls = []

    async def app(*arguments):
        calls.append(arguments)

    arguments = ({"type": "websocket", "path": path, "headers": []}, object(), object())
    await gated(app)(*arguments)
    ((scope, receive, send),) = calls
    assert (scope is arguments[0], receive is arguments[1], send is arguments[2]) == (True, True, True)


@pytest.mark.parametrize("kind", ["lifespan", "webtransport"])
async def test_other_kinds_of_connection(kind):
    """What is neither HTTP nor a WebSocket is passed as it is."""
    calls = []

    async def app(*arguments):
        calls.append(arguments)

    arguments = ({"type": kind}, object(), object())
    await gated(app)(*arguments)
    assert calls == [arguments]
