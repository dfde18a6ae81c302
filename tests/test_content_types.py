"""Handlers of Starlette and Django read JSON of any content type, so the gate looks at all or refuses."""

from __future__ import annotations

import pytest

from asgi_llm_gate import LLMGate
from tests.harness import JSON, Request, Upstream, chat
from tests.hosts import APPS, LETTERS, Reader, host
from tests.tables.content_types import CONTENT_TYPES

pytestmark = pytest.mark.anyio

BODY = b'{ "model": "m", "user": "u" }'

frameworks = pytest.mark.parametrize("framework", APPS)
on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])
rows = pytest.mark.parametrize("row", CONTENT_TYPES, ids=[row.name for row in CONTENT_TYPES])


def request(row):
    return Request(BODY, headers=[("content-type", value) for value in row.values])


@on_asyncio
@frameworks
@rows
async def test_a_framework_alone(row, framework):
    """The table's last column is true: these types are read by a handler that no gate stands before."""
    app = host(framework)
    await request(row).to(app)
    assert bool(app.notes) == (LETTERS[framework] in row.bare)


@on_asyncio
@frameworks
@rows
async def test_behind_the_gate(row, framework):
    """What goes on is one canonical `application/json`, that every framework reads; all else is refused unread."""
    app, reader, sent = host(framework), Reader(), request(row)
    response = await sent.to(LLMGate(app, callbacks=[reader]))
    if row.verdict is None:
        (note,) = app.notes
        assert note.body == b'{"model":"m","user":"u"}'
        assert note.values("content-type") == ["application/json"]
        assert reader.requests == [note.data]
    else:
        assert (response.status, response.error()["code"]) == row.verdict
        assert (app.scopes, reader.requests, sent.received) == ([], [], 0)


async def test_expecting_client_is_refused_before_it_uploads():
    """A wrong content type needs no `100 Continue`: the first `receive()` would have sent it."""
    app = Upstream()
    sent = Request(chat(), headers=[("content-type", "text/plain"), ("expect", "100-continue")])
    assert (await sent.to(LLMGate(app))).status == 415
    assert sent.received == 0


@pytest.mark.parametrize("path", ["/v1/orders", "/login", "/upload"])
@pytest.mark.parametrize("value", ["text/plain", "multipart/form-data; boundary=x", ""])
async def test_other_paths_take_any_content_type(path, value):
    """What is no LLM call keeps its headers and its body, byte for byte."""
    app = Upstream()
    sent = Request(BODY, path=path, headers=[*JSON, ("content-type", value)])
    await sent.to(LLMGate(app, callbacks=[Reader()]))
    assert app.calls == [(sent.scope, BODY)]
    assert app.calls[0][0] is sent.scope
