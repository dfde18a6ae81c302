"""What the gate can't decode never reaches an app, and what it lets through is read as the hooks saw it."""

from __future__ import annotations

import json
import tracemalloc
from contextlib import suppress

import anyio
import orjson
import pytest

from asgi_llm_gate import CallHooks, LLMGate
from tests.harness import CHAT, JSON, Request, Upstream, chat
from tests.hosts import APPS, LETTERS, Reader, Witness, host
from tests.tables.bodies import BODIES, USERS
from tests.tables.encodings import ENCODINGS, PLAIN, UNSUPPORTED

pytestmark = pytest.mark.anyio

frameworks = pytest.mark.parametrize("framework", APPS)
on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])


def by_name(rows):
    return pytest.mark.parametrize("row", rows, ids=[row.name for row in rows])


def same(left, right):
    """Equal with their types and the order of their keys: 1 is neither 1.0 nor true."""
    return json.dumps(left) == json.dumps(right)


@on_asyncio
@frameworks
@by_name(BODIES + USERS)
async def test_a_framework_alone(row, framework):
    """The table's last column is true: these bodies reach a handler that no gate stands before."""
    app = host(framework)
    with suppress(UnicodeEncodeError):  # FastAPI can't tell of half a surrogate pair in a key
        await Request(row.body).to(app)
    assert bool(app.notes) == (LETTERS[framework] in row.bare)


async def passes_or_not(row, app, **settings):
    """Send a row's body, check the verdict of the table, and return the reading hook."""
    reader = Reader()
    request = Request(row.body)
    response = await request.to(LLMGate(app, callbacks=[reader], **settings))
    if isinstance(row.verdict, dict):
        assert response.status == 200
        assert [same(seen, row.verdict) for seen in reader.requests] == [True]
    else:
        assert (response.status, response.error()["code"]) == row.verdict
        assert reader.requests == []
    return response


@on_asyncio
@frameworks
@by_name(BODIES)
async def test_behind_the_gate_a_framework_reads_what_the_hooks_saw(row, framework):
    """A body is refused before the app is called, or the handler reads the hook's very data, framed canonically."""
    app = host(framework)
    await passes_or_not(row, app)
    if isinstance(row.verdict, dict):
        (note,) = app.notes
        assert same(note.data, row.verdict)
        assert note.body == orjson.dumps(note.data)
        assert note.values("content-type") == ["application/json"]
        assert note.values("content-length") == [str(len(note.body))]
    else:
        assert app.scopes == []


@on_asyncio
@frameworks
@by_name(USERS)
async def test_user(row, framework):
    """`enforce_user_param` wants a string in which there is something to see; the error names the field."""
    app = host(framework)
    response = await passes_or_not(row, app, enforce_user_param=True)
    assert [note.data for note in app.notes] == [row.verdict] * isinstance(row.verdict, dict)
    if not app.notes:
        assert response.error()["param"] == "user"


@by_name([row for row in BODIES if isinstance(row.verdict, dict) and len(row.body) < 1000])
async def test_no_hook_no_difference(row):
    """Without any hook the app gets the same canonical bytes."""
    app = Upstream()
    await Request(row.body).to(LLMGate(app))
    assert same(app.data, row.verdict)


@on_asyncio
@frameworks
@by_name(ENCODINGS)
async def test_a_framework_alone_undoes_no_coding(row, framework):
    """The table's last column is true: a handler reads what is JSON as it comes, whatever its coding is called."""
    app = host(framework)
    await Request(row.body, headers=[*JSON, ("content-encoding", row.coding)]).to(app)
    assert bool(app.notes) == (LETTERS[framework] in row.bare)


@on_asyncio
@frameworks
@by_name(ENCODINGS)
async def test_content_encoding(row, framework):
    """A body is decompressed within the limit, and goes on without its coding; or it is refused."""
    app, reader = host(framework), Reader()
    request = Request(row.body, headers=[*JSON, ("content-encoding", row.coding)])
    response = await request.to(LLMGate(app, callbacks=[reader]))
    if row.verdict is None:
        (note,) = app.notes
        assert reader.requests == [note.data] == [{"user": "u"}]
        assert note.values("content-encoding") == []
    else:
        assert (response.status, response.error()["code"]) == row.verdict
        assert (app.scopes, reader.requests) == ([], [])
        assert request.received == (row.verdict != UNSUPPORTED)


@pytest.mark.parametrize(
    ("headers", "verdict"),
    [
        ([("content-length", "10000001")], (413, "request_too_large")),
        ([("content-length", "9" * 5000)], (413, "request_too_large")),
        ([("content-length", "-1")], (400, "invalid_content_length")),
        ([("content-length", "+12")], (400, "invalid_content_length")),
        ([("content-length", "12, 12")], (400, "invalid_content_length")),
        ([("content-length", "")], (400, "invalid_content_length")),
        ([("content-length", "0x0c")], (400, "invalid_content_length")),
        ([("content-length", "\xb2")], (400, "invalid_content_length")),
        ([("content-length", "12"), ("content-length", "12")], (400, "repeated_header")),
        ([("content-length", "12"), ("content-length", "13")], (400, "repeated_header")),
        ([("content-encoding", "gzip"), ("content-encoding", "gzip")], (400, "repeated_header")),
        ([("content-encoding", "identity"), ("content-encoding", "gzip")], (400, "repeated_header")),
        ([("authorization", "Bearer a"), ("authorization", "Bearer b")], (400, "repeated_header")),
        ([("expect", "100-continue"), ("content-length", "10000001")], (413, "request_too_large")),
        ([("expect", "100-continue"), ("content-encoding", "br")], (415, "unsupported_content_encoding")),
    ],
)
async def test_headers_alone_condemn(headers, verdict):
    """What the head condemns is refused before the first `receive()`, so that a client need not send its body."""
    app = Upstream()
    request = Request(PLAIN, headers=[*JSON, *headers])
    response = await request.to(LLMGate(app, callbacks=[Witness()]))
    assert (response.status, response.error()["code"]) == verdict
    assert request.received == 0
    assert app.calls == []


@pytest.mark.parametrize("length", ["0", "5", "12", "10000000", "012"])
async def test_a_length_that_lies(length):
    """The app is told the length of what it gets, whatever the client said."""
    app = Upstream()
    await Request(PLAIN, headers=[*JSON, ("content-length", length)]).to(LLMGate(app))
    assert app.data == {"user": "u"}


async def test_limit_is_kept_while_reading():
    """A body of undeclared length is refused as soon as it is over the limit; the rest is not waited for."""
    app = Upstream()
    messages = [{"type": "http.request", "body": b" " * 60, "more_body": True} for _ in range(5)]
    request = Request(messages=messages)
    response = await request.to(LLMGate(app, max_body_bytes=100))
    assert (response.status, response.error()["code"]) == (413, "request_too_large")
    assert request.received == 2
    assert app.calls == []


async def test_headers_go_on_but_those_of_the_body_and_the_connection():
    """End-to-end headers stay, repeated ones too, in order; hop-by-hop ones and the old body's go."""
    kept = [("host", "h"), ("x-a", "1"), ("cookie", "a=1"), ("cookie", "b=2"), ("x-a", "2"), ("accept", "*/*")]
    dropped = [
        ("connection", "keep-alive, X-Private"),
        ("x-private", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-authorization", "Basic eA=="),
        ("proxy-connection", "keep-alive"),
        ("te", "trailers"),
        ("trailer", "x-user"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("expect", "100-continue"),
        ("content-md5", "x"),
        ("digest", "x"),
        ("content-digest", "x"),
        ("repr-digest", "x"),
        ("content-encoding", "identity"),
        ("content-type", "application/json; charset=utf-16"),
        ("content-length", "99"),
    ]
    app = Upstream()
    await Request(PLAIN, headers=[*kept, *dropped]).to(LLMGate(app))
    headers = [(name.decode(), value.decode()) for name, value in app.calls[0][0]["headers"]]
    assert headers == [*kept, ("content-type", "application/json"), ("content-length", "12")]


@pytest.mark.parametrize(
    ("connection", "left"),
    [
        (["close"], ["host", "cookie", "authorization", "x-a", "x-b"]),
        (["x-a", "close"], ["host", "cookie", "authorization", "x-b"]),
        (["X-A , x-b"], ["host", "cookie", "authorization"]),
        (["x-a", "x-b"], ["host", "cookie", "authorization"]),
        (
            ["host, cookie, Authorization, content-type, content-length"],
            ["host", "cookie", "authorization", "x-a", "x-b"],
        ),
        (["", ",,"], ["host", "cookie", "authorization", "x-a", "x-b"]),
    ],
)
async def test_connection_names_headers(connection, left):
    """Each header that any `Connection` names is the connection's, but none by which an app knows client and site."""
    app = Upstream()
    headers = [(name, "1") for name in ("host", "cookie", "authorization", "x-a", "x-b")]
    sent = [*JSON, *headers, *(("connection", value) for value in connection)]
    await Request(PLAIN, headers=sent).to(LLMGate(app))
    assert app.data == {"user": "u"}
    names = [name.decode() for name, _ in app.calls[0][0]["headers"]]
    assert names == [*left, "content-type", "content-length"]


@pytest.mark.parametrize("name", ["Content-Type", "CONTENT-LENGTH", "Transfer-Encoding"])
async def test_header_names_of_any_case(name):
    """A server should lower header names; where one has not, the gate does, for itself and for the app."""
    app = Upstream()
    headers = [(name.encode(), b"12"), (b"X-Case", b"Kept")]
    if name == "Content-Type":
        headers[0] = (name.encode(), b"application/json")
    await Request(PLAIN, scope={"headers": headers}).to(LLMGate(app))
    assert app.data == {"user": "u"}
    assert (b"x-case", b"Kept") in app.calls[0][0]["headers"]


PAIRS = [(b"content-type", b"application/json"), (b"x-a", b"1")]


@pytest.mark.parametrize("kind", [tuple, iter, lambda pairs: map(list, pairs)], ids=["tuple", "iterator", "lists"])
@pytest.mark.parametrize("body", [PLAIN, b""])
async def test_headers_of_any_kind(kind, body):
    """The specification asks for an iterable of pairs, no more."""
    app = Upstream()
    await Request(body, method="GET", scope={"headers": kind(PAIRS)}).to(LLMGate(app))
    ((scope, got),) = app.calls
    assert got == (b'{"user":"u"}' if body else b"")
    assert (b"x-a", b"1") in [tuple(pair) for pair in scope["headers"]]


async def test_headers_that_grow_while_the_body_is_read():
    """Trailers that a server adds to its own list during the body are neither trusted nor passed on."""
    app = Upstream()
    request = Request(chat(), scope={"headers": [(b"content-type", b"application/json")]})

    async def receive():
        request.scope["headers"] += [(b"authorization", b"Bearer admin"), (b"content-type", b"text/plain")]
        return await request.receive()

    seen = Reader()
    await LLMGate(app, callbacks=[seen])(request.scope, receive, request.send)
    assert app.data == seen.requests[0]
    assert b"authorization" not in dict(app.calls[0][0]["headers"])


async def test_headers_that_grow_while_no_body_is_read():
    """An empty chunked body that brings trailers makes no call, and the app gets the headers without them."""
    app = Upstream()
    request = Request(method="GET", headers=[("transfer-encoding", "chunked"), ("x-a", "1")])

    async def receive():
        request.scope["headers"].append((b"authorization", b"Bearer admin"))
        return await request.receive()

    await LLMGate(app, callbacks=[Reader()])(request.scope, receive, request.send)
    ((scope, body),) = app.calls
    assert (dict(scope["headers"]).get(b"x-a"), body) == (b"1", b"")
    assert b"authorization" not in dict(scope["headers"])


async def test_scope_is_copied_not_changed():
    """The caller's scope stays as it was; the app's differs in its headers alone."""
    app = Upstream()
    request = Request(PLAIN, headers=[*JSON, ("x-a", "1")])
    before = {**request.scope, "headers": list(request.scope["headers"])}
    await request.to(LLMGate(app, callbacks=[Witness()]))
    assert request.scope == before
    assert {**app.calls[0][0], "headers": None} == {**before, "headers": None}
    assert app.calls[0][0]["path"] == CHAT


async def test_many_tiny_messages():
    """A body that comes in pieces of two bytes costs memory for its bytes, not for its pieces."""
    pieces = 100_000
    app = Upstream()
    gate = LLMGate(app, max_body_bytes=2 * pieces - 1)
    request = Request()
    source = iter(range(pieces))

    async def receive():
        return {"type": "http.request", "body": next(source).to_bytes(4, "big")[2:], "more_body": True}

    tracemalloc.start()
    try:
        await gate(request.scope, receive, request.send)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (request.sent[0]["status"], app.calls) == (413, [])
    assert peak < 10 * 2 * pieces


async def test_concurrent_calls_do_not_mix():
    """Calls that are under way at once on one gate have nothing in common."""

    class Slow(CallHooks):
        async def async_pre_call_hook(self, data):
            user = data["user"]
            await anyio.lowlevel.checkpoint()
            data["seen"] = user

        async def async_moderation_hook(self, data, user_api_key_dict):
            await anyio.lowlevel.checkpoint()
            assert data["seen"] == user_api_key_dict.end_user_id

    app = Upstream()
    gate = LLMGate(app, callbacks=[Slow()])
    async with anyio.create_task_group() as group:
        for number in range(30):
            group.start_soon(Request(chat(user=str(number))).to, gate)
    calls = [orjson.loads(body) for _, body in app.calls]
    assert sorted(int(call["seen"]) for call in calls) == list(range(30))
    assert all(call["seen"] == call["user"] for call in calls)
