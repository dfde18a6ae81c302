"""Any method that carries a body to an LLM path is a call; one that carries none passes."""

from __future__ import annotations

import pytest

from asgi_llm_gate import LLMGate
from tests.harness import JSON, Request, Upstream, answer
from tests.hosts import APPS, LETTERS, Reader, Witness, host
from tests.tables.methods import METHODS

pytestmark = pytest.mark.anyio

BODY = b'{"user":"u"}'

frameworks = pytest.mark.parametrize("framework", APPS)
on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])
rows = pytest.mark.parametrize("row", METHODS, ids=[f"{row.method}{'-body' * row.body}" for row in METHODS])
ways = pytest.mark.parametrize(
    "framing",
    [[("content-length", "12")], [("transfer-encoding", "chunked")], []],
    ids=["length", "chunked", "unannounced"],
)


@on_asyncio
@frameworks
@rows
async def test_a_framework_alone(row, framework):
    """The table's last column is true: these methods bring a body to a handler that no gate stands before."""
    app = host(framework)
    await Request(BODY if row.body else b"", method=row.method).to(app)
    assert bool(app.notes) == (LETTERS[framework] in row.bare)


@on_asyncio
@frameworks
@ways
@rows
async def test_behind_the_gate(row, framing, framework):
    """A handler reads no body that the hooks have not seen, whether or not the head announces it."""
    app, reader = host(framework), Reader()
    body, headers = (BODY, [*JSON, *framing]) if row.body else (b"", [])
    response = await Request(body, method=row.method, headers=headers).to(LLMGate(app, callbacks=[reader]))
    assert len(reader.requests) == (row.verdict == "seen")
    assert len(app.scopes) == (row.verdict != "refused")
    assert [note.data for note in app.notes] == reader.requests * (LETTERS[framework] in row.bare)
    if row.verdict == "refused":
        assert (response.status, response.error()["code"]) == (400, "invalid_json")


@rows
async def test_undecodable_body(row):
    """Whatever the method, a body that can't be decoded goes no further; without one nothing was to be decoded."""
    app = Upstream()
    body = b"\xff\xfe{" if row.body else b""
    response = await Request(body, method=row.method).to(LLMGate(app, callbacks=[Reader()]))
    assert len(app.calls) == (row.verdict == "passed")
    assert response.status == (200 if row.verdict == "passed" else 400)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE", "QUERY"])
async def test_no_body_no_change(method):
    """A request without a body goes on with its own scope, whatever its headers, and so does the answer."""
    headers = [("origin", "https://a.example"), ("content-type", "text/plain"), ("content-length", "0")]
    app = Upstream(answer(b"<p>", 404, "text/html", [("access-control-allow-origin", "*")]))
    request = Request(b"", method=method, headers=headers)
    response = await request.to(LLMGate(app, callbacks=[Reader()], enforce_user_param=True))
    assert app.calls[0][0] == request.scope
    assert response.sent == app.messages


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
async def test_body_in_many_messages(method):
    """Empty first and last messages neither hide a body nor make one."""
    app, reader = Upstream(), Reader()
    parts = [b"", BODY[:5], b"", BODY[5:], b""]
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    request = Request(method=method, messages=[*messages, {"type": "http.request"}])
    await request.to(LLMGate(app, callbacks=[reader]))
    assert reader.requests == [app.data] == [{"user": "u"}]


@pytest.mark.parametrize("path", ["/v1/invocations"])
@pytest.mark.parametrize(("method", "body", "status"), [("GET", b"", 200), ("GET", BODY, 403), ("POST", b"", 403)])
async def test_endpoint_that_no_hook_looks_into(path, method, body, status):
    """Listing passes; a body, or a POST, to an endpoint that is not inspected does not."""
    app = Upstream()
    request = Request(body, path, method)
    assert (await request.to(LLMGate(app, callbacks=[Reader()]))).status == status
    assert len(app.calls) == (status == 200)
    assert request.received == (method == "GET")


async def test_preflight_needs_no_key():
    """A browser's CORS preflight bears no key, and reaches the app that answers it; any other method needs one."""
    headers = [("origin", "https://a.example"), ("access-control-request-method", "POST")]
    app = Upstream(answer(b"", 204))
    gate = LLMGate(app, master_key="sk-1")
    assert (await Request(method="OPTIONS", headers=headers).to(gate)).status == 204
    assert (await Request(method="GET", headers=headers).to(gate)).status == 401
    assert (await Request(BODY, method="OPTIONS", headers=[*JSON, *headers]).to(gate)).status == 401
    assert len(app.calls) == 1


async def test_head_has_no_body_to_look_at():
    """The answer to a HEAD is its headers alone, and passes the success hooks."""
    start = answer(b"")[0] | {"headers": [(b"content-type", b"application/json"), (b"content-length", b"100")]}
    messages = [start, {"type": "http.response.body"}]
    request = Request(BODY, method="HEAD", headers=[*JSON])
    response = await request.to(LLMGate(Upstream(messages), callbacks=[Witness()]))
    assert response.sent == messages
