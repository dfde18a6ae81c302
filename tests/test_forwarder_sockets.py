"""The forwarder over real sockets: uvicorn before it, uvicorn behind it."""

from __future__ import annotations

import gzip
import socket
from contextlib import asynccontextmanager
from functools import partial

import anthropic
import anyio
import httpx
import httpx2
import pytest
import uvicorn

from asgi_llm_gate import CallHooks, LLMGate
from asgi_llm_gate.forwarder import Forwarder
from asgi_llm_gate.forwarder.aiohttp import AiohttpClient
from asgi_llm_gate.forwarder.clients import opener
from asgi_llm_gate.forwarder.httpx import HttpxClient
from tests.servers import Server

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    """Uvicorn runs on asyncio only."""
    return "asyncio"


@pytest.fixture(params=["h11", "httptools"])
def http(request):
    return request.param


@pytest.fixture(params=[AiohttpClient, HttpxClient], autouse=True)
def carrier(request, monkeypatch):
    """What carries the requests of a forwarder that is given no client."""

    def chosen(client, *, connect_timeout):
        return (
            partial(request.param, connect_timeout=connect_timeout)
            if client is None
            else opener(client, connect_timeout=connect_timeout)
        )

    monkeypatch.setattr("asgi_llm_gate.forwarder.app.opener", chosen)
    return chosen


@asynccontextmanager
async def served(app, *, http="h11", lifespan="auto", **settings):
    """Serve an app in this loop, on a free port of 127.0.0.1, and give its URL."""
    config = uvicorn.Config(
        app,
        http=http,
        lifespan=lifespan,
        ws="none",
        log_level="critical",
        **settings,
    )
    server = Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with anyio.create_task_group() as group:
            group.start_soon(server.serve, [listener])
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            finally:
                server.stop.set()


@asynccontextmanager
async def forwarding(upstream, *, http="h11", **settings):
    """Serve an upstream and a forwarder before it, and give a client of the forwarder."""
    async with (
        served(upstream, http=http, lifespan="off") as url,
        served(Forwarder(url, **settings), http=http, lifespan="on") as front,
        httpx.AsyncClient(base_url=front, trust_env=False, timeout=20) as client,
    ):
        with anyio.fail_after(30):
            yield client


async def start(send, status=200, headers=()):
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})


async def body(send, chunk, more=True):
    await send({"type": "http.response.body", "body": chunk, "more_body": more})


async def read(receive):
    """Read a request's body; None when the client went away."""
    whole = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        whole += message["body"]
        if not message["more_body"]:
            return whole


async def test_response_streams_through(http):
    """Each chunk arrives before the upstream makes the next."""
    seen = anyio.Event()

    async def upstream(scope, receive, send):
        await start(send, headers=[(b"content-type", b"text/event-stream")])
        await body(send, b"data: 1\n\n")
        await seen.wait()
        await body(send, b"data: 2\n\n", more=False)

    async with forwarding(upstream, http=http) as client, client.stream("GET", "/v1/x") as response:
        chunks = response.aiter_raw()
        assert await anext(chunks) == b"data: 1\n\n"
        seen.set()
        assert b"".join([chunk async for chunk in chunks]) == b"data: 2\n\n"


@pytest.mark.parametrize("length", [None, 6])
async def test_request_streams_through(http, length):
    """The first chunk is at the upstream before the client makes the second; a known length is kept."""
    arrived = anyio.Event()
    framing = {}

    async def upstream(scope, receive, send):
        headers = dict(scope["headers"])
        framing.update(length=headers.get(b"content-length"), coding=headers.get(b"transfer-encoding"))
        message = await receive()
        arrived.set()
        whole = message["body"] + await read(receive)
        await start(send)
        await body(send, whole, more=False)

    async def upload():
        yield b"one"
        await arrived.wait()
        yield b"two"

    headers = {} if length is None else {"content-length": str(length)}
    async with forwarding(upstream, http=http) as client:
        response = await client.post("/v1/x", content=upload(), headers=headers)
    assert response.content == b"onetwo"
    expected = {"length": None, "coding": b"chunked"} if length is None else {"length": b"6", "coding": None}
    assert framing == expected


async def test_large_bodies_arrive_whole(http):
    """Megabytes go both ways unchanged."""
    sent = bytes(range(256)) * 8_000

    async def upstream(scope, receive, send):
        whole = await read(receive)
        await start(send)
        await body(send, whole, more=False)

    async with forwarding(upstream, http=http) as client:
        response = await client.post("/v1/x", content=sent)
    assert response.content == sent


async def test_client_that_leaves_a_stream_closes_the_upstream(http):
    """A disconnect in mid-response is seen by the upstream while it is silent."""
    gone = anyio.Event()

    async def upstream(scope, receive, send):
        await read(receive)
        await start(send)
        await body(send, b"1")
        assert (await receive())["type"] == "http.disconnect"
        gone.set()

    async with forwarding(upstream, http=http) as client:
        async with client.stream("POST", "/v1/x", content=b"{}") as response:
            assert await anext(response.aiter_raw()) == b"1"
        await gone.wait()


async def test_client_that_leaves_before_the_answer_closes_the_upstream(http):
    """A disconnect while the upstream still thinks is seen there at once."""
    asked, gone = anyio.Event(), anyio.Event()

    async def upstream(scope, receive, send):
        await read(receive)
        asked.set()
        assert (await receive())["type"] == "http.disconnect"
        gone.set()

    async with forwarding(upstream, http=http) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(client.get, "/v1/x")
            await asked.wait()
            group.cancel_scope.cancel()
        await gone.wait()


async def test_client_that_leaves_its_upload_closes_the_upstream(http):
    """Half a body is never taken for a whole one."""
    arrived, gone = anyio.Event(), anyio.Event()

    async def upstream(scope, receive, send):
        assert (await receive())["body"] == b"half"
        arrived.set()
        assert await read(receive) is None
        gone.set()

    async with forwarding(upstream, http=http) as client:
        stream = await anyio.connect_tcp("127.0.0.1", client.base_url.port)
        async with stream:
            await stream.send(b"POST /v1/x HTTP/1.1\r\nhost: h\r\ncontent-length: 8\r\n\r\nhalf")
            await arrived.wait()
        await gone.wait()


async def test_unreachable_upstream_is_502():
    """A port that nobody listens on is told of in the envelope, without its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with (
        served(Forwarder(f"http://127.0.0.1:{port}/v1")) as front,
        httpx.AsyncClient(trust_env=False) as client,
    ):
        response = await client.post(f"{front}/v1/chat/completions", json={})
    assert response.status_code == 502
    assert response.json()["error"]["code"] == "upstream_unreachable"
    assert response.headers["x-request-id"].startswith("req_")
    assert str(port) not in response.text


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 200 O", b"SSH-2.0-OpenSSH\r\n\r\n"])
async def test_broken_upstream_is_502(reply):
    """A connection that closes early, or speaks something else, is no answer."""

    async def answer(stream):
        async with stream:
            await stream.receive()
            await stream.send(reply)

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, answer)
            async with (
                served(Forwarder(f"http://127.0.0.1:{port}")) as front,
                httpx.AsyncClient(trust_env=False) as client,
            ):
                response = await client.get(f"{front}/v1/models")
            group.cancel_scope.cancel()
    assert response.status_code == 502
    assert response.json()["error"]["code"] == "upstream_unreachable"


async def test_silent_upstream_is_504(http):
    """An upstream that says nothing within the time limit is given up and told so."""
    gone = anyio.Event()

    async def upstream(scope, receive, send):
        await read(receive)
        assert (await receive())["type"] == "http.disconnect"
        gone.set()

    async with forwarding(upstream, http=http, timeout=0.05) as client:
        response = await client.post("/v1/x", json={})
        await gone.wait()
    assert response.status_code == 504
    assert response.json()["error"]["code"] == "upstream_timeout"


@pytest.mark.parametrize(
    ("sent", "told"),
    [(b"data: 1\n\n", True), (b"data: 1\r\n\r\n", True), (b"data: 1\r\n", False), (b"data: 1", False)],
)
async def test_broken_stream_breaks_off_here_too(http, sent, told):
    """The client's connection is not ended cleanly, and between two events an error event comes first."""

    async def upstream(scope, receive, send):
        await start(send, headers=[(b"content-type", b"text/event-stream")])
        await body(send, sent)
        raise RuntimeError("crash")

    got = bytearray()
    async with forwarding(upstream, http=http) as client, client.stream("GET", "/v1/x") as response:
        chunks = response.aiter_raw()
        while len(got) < len(sent) or (told and not got.endswith(b"}}\n\n")):
            got += await anext(chunks)
        with pytest.raises(httpx.RemoteProtocolError):
            await anext(chunks)
    assert got.startswith(sent)
    assert (b'data: {"error":{' in got) is told


async def breaks_off(scope, receive, send):
    """A stream of Anthropic's that ends too early."""
    await read(receive)
    await start(send, headers=[(b"content-type", b"text/event-stream")])
    await body(send, b'event: ping\ndata: {"type": "ping"}\n\n')
    raise RuntimeError("crash")


@pytest.mark.parametrize("gated", [False, True], ids=["alone", "behind a gate that looks into the stream"])
async def test_anthropics_client_learns_of_a_break(gated):
    """It goes by the names of events, and skips one without."""
    async with served(breaks_off) as url:
        app = LLMGate(Forwarder(url), callbacks=[Look()]) if gated else Forwarder(url)
        async with served(app) as front, anthropic.AsyncAnthropic(base_url=front, api_key="x", max_retries=0) as client:
            stream = await client.messages.create(
                model="m", max_tokens=1, messages=[{"role": "user", "content": "Hi"}], stream=True
            )
            with pytest.raises(anthropic.APIStatusError, match="The upstream") as caught:
                [event async for event in stream]
    assert caught.value.body["error"]["type"] == "api_error"


async def test_anthropics_client_learns_who_is_not_there():
    """Errors that come in place of an answer are in its envelope, too; odd paths name no endpoint."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with served(Forwarder(f"http://127.0.0.1:{port}")) as front, httpx.AsyncClient(trust_env=False) as client:
        found = await client.post(f"{front}/v1/messages", json={})
        odd = await client.post(f"{front}/v1%5Cmessages", json={})
    assert found.status_code == 502
    assert (found.json()["type"], found.json()["error"]["type"]) == ("error", "api_error")
    assert (odd.status_code, odd.json()["error"]["code"]) == (400, "invalid_path")


class Look(CallHooks):
    def async_post_call_streaming_hook(self, response):
        """Look on."""


async def test_headers_go_through_clean(http):
    """What belongs to a connection stays on it; the rest arrives as sent, repeated headers in order."""
    got = []

    async def upstream(scope, receive, send):
        got.extend(scope["headers"])
        await start(
            send,
            headers=[
                (b"set-cookie", b"a=1"),
                (b"X-Mixed", b"1"),
                (b"set-cookie", b"b=2"),
                (b"connection", b"x-hop"),
                (b"x-hop", b"1"),
                (b"keep-alive", b"timeout=5"),
            ],
        )
        await body(send, b"ok", more=False)

    async with forwarding(upstream, http=http) as client:
        stream = await anyio.connect_tcp("127.0.0.1", client.base_url.port)
        async with stream:
            await stream.send(
                b"GET /v1/x HTTP/1.1\r\nHost: front\r\nConnection: close, x-hop\r\nX-Hop: 1\r\nTE: trailers\r\n"
                b"X-Two: 1\r\nX-Two: 2\r\nAuthorization: Bearer client\r\n\r\n"
            )
            raw = b"".join([chunk async for chunk in stream]).decode()
        host = got.pop(0)
    assert host[0] == b"host"
    assert host[1] != b"front"
    assert got == [
        (b"x-two", b"1"),
        (b"x-two", b"2"),
        (b"authorization", b"Bearer client"),
        (b"accept-encoding", b"identity"),
    ]
    lines = raw.lower().split("\r\n")
    assert [line for line in lines if "cookie" in line] == ["set-cookie: a=1", "set-cookie: b=2"]
    assert "x-mixed: 1" in lines
    names = [line.partition(":")[0] for line in lines]
    assert not {"x-hop", "keep-alive"} & set(names)
    assert names.count("date") == names.count("server") == names.count("transfer-encoding") == 1


async def test_compressed_response_stays_compressed(http):
    """The bytes and their content-encoding come as the client asked for them."""
    packed = gzip.compress(b"hello")

    async def upstream(scope, receive, send):
        assert (b"accept-encoding", b"gzip;q=1") in scope["headers"]
        await start(send, headers=[(b"content-encoding", b"gzip"), (b"content-length", b"%d" % len(packed))])
        await body(send, packed, more=False)

    headers = {"accept-encoding": "gzip;q=1"}
    async with (
        forwarding(upstream, http=http) as client,
        client.stream("GET", "/v1/x", headers=headers) as response,
    ):
        raw = b"".join([chunk async for chunk in response.aiter_raw()])
    assert raw == packed
    assert response.headers["content-encoding"] == "gzip"
    assert response.headers["content-length"] == str(len(packed))


@pytest.mark.parametrize(
    ("method", "status", "headers"),
    [
        ("HEAD", 200, [(b"content-length", b"5")]),
        ("GET", 204, []),
        ("GET", 304, [(b"etag", b'"1"')]),
        ("POST", 307, [(b"location", b"/elsewhere"), (b"content-length", b"0")]),
        ("DELETE", 404, [(b"content-length", b"0")]),
    ],
)
async def test_response_without_body(http, method, status, headers):
    """HEAD, 204, 304 and redirects are answers like any other, and the connection stays usable."""

    async def upstream(scope, receive, send):
        await start(send, status, headers)
        await body(send, b"", more=False)

    async with forwarding(upstream, http=http) as client:
        for _ in range(2):
            response = await client.request(method, "/v1/x")
            assert (response.status_code, response.content) == (status, b"")
            for name, value in headers:
                assert response.headers[name.decode()] == value.decode()


@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_given_client_is_used_and_left_open(library):
    """A client of either library works, whatever its own defaults, and its errors are understood."""

    async def upstream(scope, receive, send):
        if scope["path"] == "/break":
            raise RuntimeError("crash")
        await start(send, 302, [(b"location", b"/break"), (b"set-cookie", b"a=1")])
        await body(send, b"moved", more=False)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = listener.getsockname()[1]
    async with library.AsyncClient(trust_env=False, follow_redirects=True, timeout=0.001) as client:
        async with (
            forwarding(upstream, client=client) as front,
            served(Forwarder(f"http://127.0.0.1:{nobody}", client=client)) as other,
        ):
            assert (await front.get("/v1/x")).text == "moved"
            assert (await front.get("/break")).status_code == 500
            assert (await front.get(f"{other}/v1/x")).status_code == 502
        assert not client.is_closed


async def ok(scope, receive, send):
    await start(send)
    await body(send, scope["path"].encode(), more=False)


async def test_first_requests_start_the_client_once(monkeypatch, carrier):
    """Without a lifespan the client is made by the first of many requests at once, and closed on demand."""
    made, closed = [], []

    class Counted:
        def __init__(self, client):
            self._client, self.open = client, client.open
            made.append(self)

        async def aclose(self):
            closed.append(self)
            await self._client.aclose()

    def counting(client, **settings):
        new = carrier(client, **settings)
        return lambda: Counted(new())

    monkeypatch.setattr("asgi_llm_gate.forwarder.app.opener", counting)
    async with httpx.AsyncClient(trust_env=False) as client, served(ok) as url:
        app = Forwarder(url)
        async with served(app, lifespan="off") as front:
            async with anyio.create_task_group() as group:
                for _ in range(5):
                    group.start_soon(client.get, f"{front}/v1/x")
            assert len(made) == 1
            await app.aclose()
            assert closed == made
            assert (await client.get(f"{front}/v1/x")).status_code == 200
            assert len(made) == 2
            await app.aclose()


async def test_forwarder_below_a_root_path(http):
    """The path below the mount is what is asked of the upstream."""
    async with (
        served(ok, http=http) as url,
        served(Forwarder(f"{url}/base/v1"), http=http, root_path="/llm") as front,
        httpx.AsyncClient(trust_env=False) as client,
    ):
        assert (await client.get(f"{front}/v1/models/a%20b")).text == "/base/v1/models/a b"


def test_each_event_loop_has_its_own_client():
    """Connections of a loop that has ended are not used in the next."""
    app = Forwarder("http://127.0.0.1:9")

    async def opened():
        client = app._opened()
        assert app._opened() is client
        await app.aclose()
        return client

    assert anyio.run(opened) is not anyio.run(opened)
