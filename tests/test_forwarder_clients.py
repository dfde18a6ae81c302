"""The client libraries behind the seam, each held to the same, with upstreams that are scripted to the byte."""

from __future__ import annotations

import socket
import ssl
import sys
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from unittest.mock import AsyncMock

import anyio
import httpx2
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.tls import TLSListener

from asgi_llm_gate.forwarder.aiohttp import AiohttpClient
from asgi_llm_gate.forwarder.aiohttp_body import Body
from asgi_llm_gate.forwarder.client import UpstreamBroken, UpstreamRequest, UpstreamTimedOut, UpstreamUnreachable
from asgi_llm_gate.forwarder.clients import opener
from asgi_llm_gate.forwarder.httpx import HttpxClient, tls_context

pytestmark = [
    pytest.mark.anyio,
    # httpx leaves its own generators to the garbage collector, which trio tells of.
    pytest.mark.filterwarnings("ignore:Async generator 'http(x|core):ResourceWarning"),
]

TLS = Path(__file__).parent / "tls"
LARGE = bytes(20_000_000)

BACKENDS = {
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}


AIOHTTP = [("aiohttp", "asyncio"), ("aiohttp", "uvloop")]
HTTPX = [("httpx", "asyncio"), ("httpx", "trio")]
GIVEN = [("httpx2", "asyncio")]

only_aiohttp = pytest.mark.parametrize("library", AIOHTTP, ids=" on ".join)


@pytest.fixture(params=AIOHTTP + HTTPX + GIVEN, ids=" on ".join)
def library(request):
    return request.param


@pytest.fixture
def anyio_backend(library):
    return BACKENDS[library[1]]


@pytest.fixture(autouse=True)
def authority(monkeypatch):
    """One authority, which is quicker to load than all the world's."""
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "authority.pem"))


@asynccontextmanager
async def client(library, connect_timeout=10.0):
    """Make a client of a library, and close it."""
    if library[0] == "httpx2":
        async with httpx2.AsyncClient(trust_env=False, verify=tls_context()) as given:
            with anyio.fail_after(20):
                yield HttpxClient(given, connect_timeout=connect_timeout)
        return
    made = {"aiohttp": AiohttpClient, "httpx": HttpxClient}[library[0]](connect_timeout=connect_timeout)
    try:
        with anyio.fail_after(20):
            yield made
    finally:
        await made.aclose()


async def turns():
    """Let the loop look at its sockets."""
    for _ in range(5):
        await anyio.lowlevel.checkpoint()


class Upstream:
    """A server whose connections a test answers by hand."""

    def __init__(self, answer):
        self.answer = answer
        self.heads = []
        self.connections = 0

    async def serve(self, stream):
        self.connections += 1
        async with stream:
            with suppress(anyio.BrokenResourceError, anyio.EndOfStream, anyio.IncompleteRead):  # the client has gone
                await self.answer(self, stream, BufferedByteReceiveStream(stream))

    async def head(self, received):
        """Read a request's head: its first line and its headers, but for the host."""
        raw = await received.receive_until(b"\r\n\r\n", 100_000)
        self.heads.append([line for line in raw.split(b"\r\n") if not line.lower().startswith(b"host:")])
        return raw


@asynccontextmanager
async def upstream(answer, tls=None):
    """Serve a scripted upstream; give it and its URL."""
    server = Upstream(answer)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    if tls is not None:
        listener = TLSListener(listener, tls, standard_compatible=False)
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, server.serve)
        yield server, f"{'http' if tls is None else 'https'}://127.0.0.1:{port}"
        group.cancel_scope.cancel()


def request(url, method="POST", headers=(), content=b"", timeout=10.0):
    if isinstance(content, bytes) and content:
        headers = (*headers, (b"content-length", b"%d" % len(content)))
    return UpstreamRequest(method, url, tuple(headers), content, timeout)


async def asked(made, *args, **fields):
    """Send a request, and read the answer whole."""
    async with made.open(request(*args, **fields)) as response:
        return response, b"".join([chunk async for chunk in response.chunks])


async def read_into(got, made, sent):
    """Send a request, and note what comes of its answer."""
    async with made.open(sent) as response:
        await turns()
        async for chunk in response.chunks:
            got += chunk


def answering(raw, times=1):
    """Answer so many requests without a body on each connection, then close it."""

    async def answer(server, stream, received):
        for _ in range(times):
            await server.head(received)
            await stream.send(raw)

    return answer


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def test_request_line_and_headers_are_those_that_were_given(library):
    """No escape is made or undone, no header is added, moved, merged or lost."""
    headers = [
        (b"x-two", b"1"),
        (b"accept", b"a/b"),
        (b"x-two", b"2"),
        (b"x-\xc3\xa9".replace(b"\xc3\xa9", b"name"), b"caf\xc3\xa9"),
        (b"cookie", b"a=1; b=2"),
    ]
    async with upstream(answering(OK)) as (server, url), client(library) as made:
        target = "/v1/a%2fb%41;c/?q=%41%2f+%C3%A9&&x=/?'"
        assert (await asked(made, f"{url}{target}", "GET", headers))[1] == b"ok"
    line, *sent = server.heads[0]
    assert line == f"GET {target} HTTP/1.1".encode()
    assert [header for header in sent if header] == [name + b": " + value for name, value in headers]


async def test_answer_comes_as_it_is(library):
    """Headers keep their order, repetitions and bytes; encodings stay; trailers and interim answers are dropped."""
    raw = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 299 Odd\r\n"
        b"X-Mixed: caf\xe9\r\nset-cookie: a=1\r\nx-mixed: 2\r\nset-cookie: b=2; Path=/\r\ncontent-encoding: gzip\r\n"
        b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n4;ext=1\r\ndefg\r\n0\r\nx-trailer: 1\r\nset-cookie: c=3\r\n\r\n"
    )
    async with upstream(answering(raw, times=2)) as (server, url), client(library) as made:
        for _ in range(2):
            response, content = await asked(made, url, "GET")
            assert response.status == 299
            assert [(name.lower(), value) for name, value in response.headers] == [
                (b"x-mixed", b"caf\xe9"),
                (b"set-cookie", b"a=1"),
                (b"x-mixed", b"2"),
                (b"set-cookie", b"b=2; Path=/"),
                (b"content-encoding", b"gzip"),
                (b"transfer-encoding", b"chunked"),
            ]
            assert content == b"abcdefg"
    assert server.connections == 1
    assert not any(b"cookie" in line for head in server.heads for line in head)


async def test_redirect_is_an_answer(library):
    """It is not followed."""
    raw = b"HTTP/1.1 307 Moved\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n"
    async with upstream(answering(raw)) as (server, url), client(library) as made:
        response, _ = await asked(made, url, "GET")
    assert (response.status, len(server.heads)) == (307, 1)


async def test_long_header_passes(library):
    """A policy of 30 kB, as some servers send, is no error."""
    raw = b"HTTP/1.1 200 OK\r\nx-long: " + b"a" * 30_000 + b"\r\ncontent-length: 0\r\n\r\n"
    async with upstream(answering(raw)) as (_, url), client(library) as made:
        response, _ = await asked(made, url, "GET")
    assert (b"x-long", b"a" * 30_000) in response.headers


async def test_proxies_of_the_environment_are_not_used(library, monkeypatch):
    """What the process is told of proxies is not for its own upstreams."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    async with upstream(answering(OK)) as (_, url), client(library) as made:
        assert (await asked(made, url, "GET"))[1] == b"ok"


async def test_credentials_in_the_address_are_sent(library):
    """They go before others, and there is one header of them."""
    headers = [(b"authorization", b"Bearer other")]
    async with upstream(answering(OK)) as (server, url), client(library) as made:
        await asked(made, url.replace("//", "//me:secret@"), "GET", headers)
    lines = [line for line in server.heads[0] if line.lower().startswith(b"authorization")]
    assert [line.partition(b": ")[2] for line in lines] == [b"Basic bWU6c2VjcmV0"]


@pytest.fixture
def tls():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "server.pem")
    return context


async def test_private_authority_is_trusted_where_it_is_named(library, tls):
    """`SSL_CERT_FILE` names it."""
    async with upstream(answering(OK), tls) as (_, url), client(library) as made:
        assert (await asked(made, url, "GET"))[1] == b"ok"


async def test_unknown_authority_is_not_trusted(library, tls, monkeypatch):
    """Not a byte of a request is sent to who can't show a good certificate."""
    monkeypatch.delenv("SSL_CERT_FILE")

    spoken_to = AsyncMock()
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with TLSListener(listener, tls) as secure, anyio.create_task_group() as group, client(library) as made:
        group.start_soon(secure.serve, spoken_to)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        with pytest.raises(UpstreamUnreachable):
            await asked(made, f"https://127.0.0.1:{port}", "GET")
        group.cancel_scope.cancel()
    spoken_to.assert_not_called()


async def test_nobody_there(library):
    """A refused connection is told apart from one that broke."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with client(library) as made:
        with pytest.raises(UpstreamUnreachable):
            await asked(made, f"http://127.0.0.1:{port}")


async def test_connecting_has_a_time_limit(library):
    """A host that takes no connection is given up."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for taken in (first, second):  # the queue is full then, and another one's handshake gets no reply
            taken.setblocking(False)
            taken.connect_ex(full.getsockname())
        async with client(library, connect_timeout=0.05) as made:
            with pytest.raises(UpstreamTimedOut):
                await asked(made, f"http://127.0.0.1:{full.getsockname()[1]}")


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart"])
async def test_silence_has_a_time_limit(library, sent):
    """Before the answer and within it; what came is not lost."""

    async def answer(server, stream, received):
        await server.head(received)
        await stream.send(sent)
        await anyio.sleep_forever()

    got = bytearray()
    async with upstream(answer) as (_, url), client(library) as made:
        with pytest.raises(UpstreamTimedOut):
            await read_into(got, made, request(url, "GET", timeout=0.05))
    assert got == sent[-4:]


class Chunks:
    """A body in chunks."""

    def __init__(self, *chunks):
        self.chunks = list(chunks)

    def __aiter__(self):
        return self

    async def __anext__(self):
        if not self.chunks:
            raise StopAsyncIteration
        return self.chunks.pop(0)


@pytest.mark.parametrize("content", [lambda: LARGE, lambda: Chunks(b"first", LARGE)], ids=["whole", "streamed"])
async def test_body_that_is_not_read_has_a_time_limit(library, content):
    """An upstream that takes no more of a request is given up."""

    async def answer(server, stream, received):
        await anyio.sleep_forever()

    async with upstream(answer) as (_, url), client(library) as made:
        with pytest.raises(UpstreamTimedOut):
            await asked(made, url, content=content(), timeout=0.05)


async def test_cancelling_drops_what_is_unsent(library):
    """A connection is closed at once, with a body half written too."""
    came, cancelled, closed = anyio.Event(), anyio.Event(), anyio.Event()
    size = 0

    async def answer(server, stream, received):
        nonlocal size
        await server.head(received)
        came.set()
        await cancelled.wait()
        with suppress(anyio.BrokenResourceError):
            async for chunk in stream:
                size += len(chunk)
        closed.set()

    async with upstream(answer) as (_, url), client(library) as made:
        async with anyio.create_task_group() as group:
            group.start_soon(partial(asked, made, url, content=LARGE))
            await came.wait()
            group.cancel_scope.cancel()
        cancelled.set()
        await closed.wait()
    assert size < len(LARGE)


@pytest.mark.parametrize("left", ["cancelled", "closed"])
async def test_leaving_an_answer_closes_the_connection(library, left):
    """The rest of it is not read."""
    gone = anyio.Event()

    async def answer(server, stream, received):
        await server.head(received)
        await stream.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n")
        with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
            await stream.receive()
        gone.set()

    async with upstream(answer) as (_, url), client(library) as made:
        with anyio.CancelScope() as scope:
            async with made.open(request(url, "GET")) as response:
                assert await anext(response.chunks) == b"a"
                if left == "cancelled":
                    scope.cancel()
                    await anyio.sleep_forever()
        await gone.wait()


@pytest.mark.parametrize(
    ("head", "sent"),
    [
        (b"content-length: 9", b"part"),
        (b"content-length: 9", b""),
        (b"transfer-encoding: chunked", b"4\r\npart\r\n"),
    ],
)
async def test_broken_answer_breaks_after_what_came(library, head, sent):
    """Whatever arrived before the break is handed on, though both came at once."""
    got = bytearray()
    raw = b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + sent
    async with upstream(answering(raw)) as (_, url), client(library) as made:
        with pytest.raises(UpstreamBroken):
            await read_into(got, made, request(url, "GET"))
    assert got == (b"part" if sent else b"")


@pytest.mark.parametrize("garbage", [b"xyz\r\n", b"-4\r\npart\r\n", b"fffffffffffffffffffff\r\n"])
async def test_garbage_in_an_answer_is_a_break(library, garbage):
    """It does not end the answer, and nobody waits for more."""

    async def answer(server, stream, received):
        await server.head(received)
        await stream.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n")
        await begun.wait()
        await stream.send(garbage)
        await stream.receive()

    begun = anyio.Event()
    async with upstream(answer) as (_, url), client(library) as made, made.open(request(url, "GET")) as response:
        assert await anext(response.chunks) == b"part"
        begun.set()
        with pytest.raises(UpstreamBroken):
            await anext(response.chunks)


@pytest.mark.parametrize(
    "raw", [b"", b"HTTP/1.1 200", b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n"]
)
async def test_what_is_no_answer_is_a_break(library, raw):
    """A connection that is closed before a head, or one that speaks something else."""
    async with upstream(answering(raw)) as (_, url), client(library) as made:
        with pytest.raises(UpstreamBroken):
            await asked(made, url)


async def test_answer_without_a_length_ends_with_its_connection(library):
    """As HTTP/1.0 had it."""
    async with upstream(answering(b"HTTP/1.1 200 OK\r\n\r\nall")) as (_, url), client(library) as made:
        assert (await asked(made, url, "GET"))[1] == b"all"


@pytest.mark.parametrize("content", [b"", b"{}"])
async def test_connection_that_the_upstream_dropped_is_replaced(library, content):
    """A call after an idle time gets its answer, on a connection of its own."""

    async def answer(server, stream, received):
        await server.head(received)
        await stream.send(OK)

    async with upstream(answer) as (server, url), client(library) as made:
        for _ in range(3):
            assert (await asked(made, url, content=content))[1] == b"ok"
            await turns()
    assert server.connections == 3


async def test_call_that_was_sent_is_not_sent_again(library):
    """An upstream that closed its connection over a call may have begun with it."""

    async def answer(server, stream, received):
        await server.head(received)
        await stream.send(OK)
        await server.head(received)

    async with upstream(answer) as (server, url), client(library) as made:
        assert (await asked(made, url))[1] == b"ok"
        with pytest.raises(UpstreamBroken):
            await asked(made, url, content=b"{}")
    assert (server.connections, len(server.heads)) == (1, 2)


async def test_large_answer_waits_for_its_reader(library):
    """An upstream can't send more than buffers hold until it is read."""
    sent = 0

    async def answer(server, stream, received):
        nonlocal sent
        await server.head(received)
        await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (32 * 2**20))
        for _ in range(32):
            await stream.send(bytes(2**20))
            sent += 1

    async with upstream(answer) as (_, url), client(library) as made, made.open(request(url, "GET")) as response:
        before = -1
        while before < sent:
            before = sent
            await anyio.wait_all_tasks_blocked()
        assert sent < 20
        assert sum([len(chunk) async for chunk in response.chunks]) == 32 * 2**20


@pytest.mark.parametrize("length", [None, 6])
async def test_streamed_body_is_framed_as_declared(library, length):
    """By its length if there is one, else in chunks."""
    got = b""

    async def answer(server, stream, received):
        nonlocal got
        await server.head(received)
        got = await received.receive_until(b"two", 100) + b"two"
        await stream.send(OK)

    headers = [] if length is None else [(b"content-length", b"%d" % length)]
    async with upstream(answer) as (server, url), client(library) as made:
        await asked(made, url, headers=headers, content=Chunks(b"one", b"two"))
    framing = b"transfer-encoding: chunked" if length is None else b"content-length: 6"
    assert framing in [line.lower() for line in server.heads[0]]
    assert got == (b"3\r\none\r\n3\r\ntwo" if length is None else b"onetwo")


@only_aiohttp  # httpx looks itself
@pytest.mark.parametrize("chunks", [(b"one",), (b"one", b"two", b"3"), (b"one, two",)])
async def test_body_of_another_length_than_declared_is_broken_off(library, chunks):
    """Bytes beyond it would be read as another request, missing ones be waited for."""
    got = b""

    async def answer(server, stream, received):
        nonlocal got
        await server.head(received)
        while True:
            got += await received.receive()

    headers = [(b"content-length", b"6")]
    async with upstream(answer) as (_, url), client(library) as made:
        with pytest.raises(UpstreamBroken):
            await asked(made, url, headers=headers, content=Chunks(*chunks))
        await turns()
    assert len(got) <= 6


@pytest.mark.parametrize("before", [(), (b"one",)])
async def test_error_of_the_body_is_raised_as_it_is(library, before):
    """What broke the content is what the caller sees, and the upstream gets no end of it."""
    gone = anyio.Event()

    async def answer(server, stream, received):
        try:
            await stream.receive()
            await stream.receive()
        finally:
            gone.set()

    class Broken(Chunks):
        async def __anext__(self):
            if not self.chunks:
                raise KeyError("mine")
            return self.chunks.pop(0)

    async with upstream(answer) as (_, url), client(library) as made:
        with pytest.raises(KeyError, match="mine"):
            await asked(made, url, content=Broken(*before))
        if before:
            await gone.wait()


async def test_empty_stream_is_no_body(library):
    """A body of no chunks is one of no bytes."""
    async with upstream(answering(OK)) as (server, url), client(library) as made:
        headers = [(b"content-length", b"0")]
        assert (await asked(made, url, headers=headers, content=Chunks()))[1] == b"ok"
    assert b"content-length: 0" in [line.lower() for line in server.heads[0]]


@pytest.mark.parametrize("library", AIOHTTP + HTTPX, ids=" on ".join)  # a given client stays open
async def test_closing_breaks_off_what_is_open(library):
    """A response that is still read does not hang."""

    async def answer(server, stream, received):
        await server.head(received)
        await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart")
        await anyio.sleep_forever()

    async with upstream(answer) as (_, url), client(library) as made, made.open(request(url, "GET")) as response:
        assert await anext(response.chunks) == b"part"
        await made.aclose()
        with pytest.raises(UpstreamBroken):
            await anext(response.chunks)


async def test_answer_may_come_before_the_body_is_read(library):
    """A refusal by the head alone is the answer, and not a break."""

    async def answer(server, stream, received):
        await server.head(received)
        await stream.send(b"HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno")
        async for _ in stream:
            pass

    async with upstream(answer) as (_, url), client(library) as made:
        response, content = await asked(made, url, content=LARGE)
    assert (response.status, content) == (413, b"no")


@only_aiohttp
async def test_body_is_left_with_its_answer(library):
    """An answer that comes early ends the sending of a body that does not end."""
    sending, stopped = anyio.Event(), anyio.Event()

    class Endless(Chunks):
        async def __anext__(self):
            if self.chunks:
                return self.chunks.pop(0)
            sending.set()
            try:
                await anyio.sleep_forever()
            finally:
                stopped.set()

    async def answer(server, stream, received):
        await server.head(received)
        await sending.wait()
        await stream.send(OK)
        await stream.receive()

    async with upstream(answer) as (_, url), client(library) as made:
        assert (await asked(made, url, content=Endless(b"one")))[1] == b"ok"
        assert stopped.is_set()


@only_aiohttp
@pytest.mark.parametrize("times", [1, 2])
async def test_call_is_sent_again_once_if_nothing_of_it_was_sent(library, monkeypatch, times):
    """A connection that is lost before the first byte costs no answer, unless it happens again."""
    write = Body.write
    lost = 0

    async def write_to_lost(self, writer):
        nonlocal lost
        if lost < times:
            lost += 1
            writer.transport.abort()
        await write(self, writer)

    monkeypatch.setattr(Body, "write", write_to_lost)
    async with upstream(answering(OK)) as (server, url), client(library) as made:
        if times == 1:
            assert (await asked(made, url, content=Chunks(b"on", b"ce")))[1] == b"ok"
        else:
            with pytest.raises(UpstreamBroken):
                await asked(made, url, content=b"twice")
    assert len(server.heads) == 2 - times


@only_aiohttp
async def test_header_in_latin_1_is_sent_in_utf_8(library):
    """There is no other way to send it with aiohttp."""
    async with upstream(answering(OK)) as (server, url), client(library) as made:
        await asked(made, url, "GET", [(b"x-title", b"caf\xe9")])
    assert b"x-title: caf\xc3\xa9" in server.heads[0]


@only_aiohttp
async def test_request_that_can_not_be_written_is_a_break(library):
    """What a lenient server let through is not sent on."""
    async with upstream(answering(OK)) as (server, url), client(library) as made:
        with pytest.raises(UpstreamBroken):
            await asked(made, url, "GET", [(b"x-bad", b"a\x01b")])
    assert server.heads == []


@only_aiohttp
async def test_body_has_no_text(library):
    """aiohttp asks for none."""
    with pytest.raises(TypeError, match="not read ahead"):
        Body(b"{}", timeout=1).decode()


@only_aiohttp
async def test_upstream_that_stops_reading_is_given_up(library):
    """A piece that is not taken in time ends the request."""
    taken = []

    class Connection:
        async def write(self, piece):
            if taken:
                await anyio.sleep_forever()
            taken.append(piece)

    with pytest.raises(UpstreamTimedOut, match="does not read"):
        await Body(LARGE, timeout=0).write(Connection())
    assert len(taken) == 1


@pytest.mark.parametrize(
    ("library", "kind"), [(("aiohttp", "asyncio"), AiohttpClient), (("httpx", "trio"), HttpxClient)], ids=str
)
async def test_default_is_aiohttp_on_asyncio(library, kind):
    """And httpx on other loops."""
    made = opener(None, connect_timeout=1)()
    assert isinstance(made, kind)
    await made.aclose()


@only_aiohttp
async def test_given_client_is_used_in_its_place(library):
    """What was passed in is what sends."""
    async with httpx2.AsyncClient(trust_env=False) as given:
        assert opener(given, connect_timeout=1)()._client is given


def absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "aiohttp", None)


def too_old(monkeypatch):
    monkeypatch.setattr("aiohttp.__version__", "3.13.5")


@only_aiohttp
@pytest.mark.parametrize("lacking", [absent, too_old])
async def test_httpx_is_there_without_aiohttp(library, monkeypatch, lacking):
    """It is no extra."""
    lacking(monkeypatch)
    monkeypatch.delitem(sys.modules, "asgi_llm_gate.forwarder.aiohttp")
    made = opener(None, connect_timeout=1)()
    assert isinstance(made, HttpxClient)
    await made.aclose()
