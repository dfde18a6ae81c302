"""Requests as they come over a socket, through both of uvicorn's parsers: no framing brings an app an unseen body."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import orjson
import pytest
from starlette.responses import JSONResponse

from asgi_llm_gate import LLMGate
from tests.hosts import Reader, host
from tests.servers import serve
from tests.tables.framing import BODY, FRAMINGS, TE, post

PARSERS = ["h11", "httptools"]

parsers = pytest.mark.parametrize("http", PARSERS, scope="module")


class Echo:
    """Answers with the headers and the body it got, and keeps both."""

    def __init__(self):
        self.calls = []

    async def __call__(self, scope, receive, send):
        body, more = b"", True
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
        headers = [(name.decode(), value.decode("latin-1")) for name, value in scope["headers"]]
        self.calls.append((headers, body))
        status = 200 if scope["path"].endswith("/chat/completions") else 404
        await JSONResponse({}, status)(scope, receive, send)


@pytest.fixture(scope="module")
def served(http):
    """The address of a gate before an echo, the echo, and the hook that looks on."""
    echo, reader = Echo(), Reader()
    with serve(LLMGate(echo, callbacks=[reader]), http=http, lifespan="off") as url:
        yield (urlsplit(url).hostname, urlsplit(url).port), echo, reader


@pytest.fixture
def line(served):
    """A connection to the gate, and what app and hook have seen since it was opened."""
    address, echo, reader = served
    echo.calls.clear()
    reader.requests.clear()
    with socket.create_connection(address, timeout=20) as connection:
        yield connection, echo.calls, reader.requests


def read(connection):
    """All that comes until the server closes."""
    received = b""
    while more := connection.recv(65536):
        received += more
    return received


def status(response):
    return int(response.split(b" ", 2)[1])


@parsers
@pytest.mark.parametrize("row", FRAMINGS, ids=[row.name for row in FRAMINGS])
def test_framing(row, http, line):
    """Each parser's verdict is the table's; what reaches the app is framed by the gate and was seen by the hook."""
    connection, calls, seen = line
    connection.sendall(row.wire)
    expected, called = getattr(row, http)
    assert status(read(connection)) == expected
    assert len(calls) == called
    if expected == 200:
        ((headers, body),) = calls
        assert body == b'{"user":"u"}'
        assert seen == [{"user": "u"}]
        names = [name for name, _ in headers]
        assert [value for name, value in headers if name == "content-type"] == ["application/json"]
        assert [value for name, value in headers if name == "content-length"] == ["12"]
        assert not {"transfer-encoding", "connection"} & set(names)


@parsers
def test_starlette_alone(http):
    """The table's last column is true: these requests bring a body to a handler that no gate stands before."""
    app, read_bodies = host("starlette"), []
    with serve(app, http=http, lifespan="off") as url:
        for row in FRAMINGS:
            app.notes.clear()
            with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=20) as connection:
                connection.sendall(row.wire)
                read(connection)
            read_bodies += [row.name] * any(note.data == {"user": "u"} for note in app.notes)
    assert read_bodies == [row.name for row in FRAMINGS if row.is_read(http)]


def continued(connection):
    """Wait until the server says `100 Continue`: the call has begun to read its body."""
    response = b""
    while not response.endswith(b"\r\n\r\n"):
        response += connection.recv(65536)
    return response


EXPECT = b"Expect: 100-continue\r\n"
TRAILERS = b"Authorization: Bearer admin\r\nContent-Type: application/json\r\nX-User: evil\r\n"


@parsers
def test_trailers(http, line):
    """Trailers of a chunked body, which one parser adds to the scope's own headers, never reach the app."""
    connection, calls, seen = line
    connection.sendall(post(EXPECT, TE, body=b""))
    continued(connection)
    connection.sendall(b"f\r\n" + BODY + b"\r\n0\r\n" + TRAILERS + b"\r\n")
    assert status(read(connection)) == 200
    ((headers, _),) = calls
    assert seen == [{"user": "u"}]
    assert not {"authorization", "x-user"} & {name for name, _ in headers}
    assert [value for name, value in headers if name == "content-type"] == ["application/json"]


@parsers
def test_trailers_do_not_excuse_a_content_type(http, line):
    """A content type that comes after the body makes up for nothing, whenever the parser adds it to the headers."""
    connection, calls, _ = line
    body = b"f\r\n" + BODY + b"\r\n0\r\n" + TRAILERS + b"\r\n"
    connection.sendall(post(b"Content-Type: text/plain\r\n", TE, body=body))
    assert status(read(connection)) in {400, 415}
    assert calls == []


@parsers
@pytest.mark.parametrize(
    ("header", "refusal"),
    [(b"Content-Type: text/plain", 415), (b"Content-Length: 10000001", 413), (b"Content-Encoding: br", 415)],
)
def test_expecting_client_is_told_before_it_uploads(header, refusal, http, line):
    """A client that waits for `100 Continue` is refused by its head alone, as the first thing it hears."""
    connection, calls, _ = line
    length = b"" if header.startswith(b"Content-Length") else b"Content-Length: 15\r\n"
    connection.sendall(post(EXPECT, length, header + b"\r\n", body=b""))
    assert status(read(connection)) == refusal
    assert calls == []


@parsers
def test_expecting_client_is_told_to_go_on(http, line):
    """A head with nothing wrong gets its `100 Continue`, and then the call goes its way."""
    connection, calls, _ = line
    connection.sendall(post(EXPECT, b"Content-Length: 15\r\n", body=b""))
    assert continued(connection) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.sendall(BODY)
    assert status(read(connection)) == 200
    ((headers, _),) = calls
    assert "expect" not in {name for name, _ in headers}


@parsers
@pytest.mark.parametrize(
    "refused", [b"Content-Type: text/plain", b"Content-Encoding: br", b"Authorization: a\r\nAuthorization: b"]
)
def test_connection_serves_on_after_a_refusal(refused, http, line):
    """A body that nobody read is not taken for the next request on the same connection."""
    connection, calls, seen = line
    smuggled = post(b"Content-Length: 13\r\n", body=b'{"user":"no"}')
    first = post(refused + b"\r\n", b"Content-Length: %d\r\n" % len(smuggled), body=smuggled)
    connection.sendall(first.replace(b"Connection: close\r\n", b"", 1) + post(b"Content-Length: 15\r\n"))
    answers = read(connection)
    assert answers.count(b"HTTP/1.1 ") == 2
    assert answers.count(b"HTTP/1.1 200") == 1
    assert seen == [{"user": "u"}]
    assert len(calls) == 1


@parsers
def test_body_byte_by_byte(http, line):
    """However the bytes come, the app gets one body."""
    connection, calls, _ = line
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in post(b"Content-Length: 15\r\n"):
        connection.sendall(bytes([byte]))
    assert status(read(connection)) == 200
    assert [body for _, body in calls] == [b'{"user":"u"}']


@parsers
def test_large_body(http, line):
    """A body of many messages arrives whole."""
    connection, calls, seen = line
    content = orjson.dumps({"input": ["x" * 1000] * 2000})
    connection.sendall(post(b"Content-Length: %d\r\n" % len(content), body=content))
    assert status(read(connection)) == 200
    assert calls[0][1] == content
    assert seen == [orjson.loads(content)]


@parsers
def test_client_that_goes_while_it_sends(http, line, served):
    """Half a body and a closed connection: no app, no hook; and the server serves the next."""
    connection, calls, seen = line
    connection.sendall(post(b"Content-Length: 15\r\n", body=BODY[:5]))
    connection.close()
    with socket.create_connection(served[0], timeout=20) as other:
        other.sendall(post(b"Content-Length: 15\r\n"))
        assert status(read(other)) == 200
    assert seen == [{"user": "u"}]
    assert len(calls) == 1
