"""The forwarder's core without a socket, on asyncio and trio: a scripted server before, a fake client behind."""

from __future__ import annotations

from contextlib import asynccontextmanager

import anyio
import httpx
import orjson
import pytest

from asgi_llm_gate.endpoints import Routes
from asgi_llm_gate.errors import GateError
from asgi_llm_gate.forwarder import Forwarder
from asgi_llm_gate.forwarder.body import ClientGone, RequestBody
from asgi_llm_gate.forwarder.client import (
    UpstreamBroken,
    UpstreamRequest,
    UpstreamResponse,
    UpstreamTimedOut,
    UpstreamUnreachable,
)
from asgi_llm_gate.forwarder.errors import ErrorForm
from asgi_llm_gate.forwarder.race import unless
from asgi_llm_gate.forwarder.relay import EventBorder, Relay

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")
DISCONNECT = {"type": "http.disconnect"}


def part(body, more=False):
    return {"type": "http.request", "body": body, "more_body": more}


class Server:
    """An ASGI server that delivers scripted messages, then blocks until the client goes away."""

    def __init__(self, *messages):
        self.messages = list(messages)
        self.sent = []
        self.client_leaves = anyio.Event()

    async def receive(self):
        if self.messages:
            return self.messages.pop(0)
        await self.client_leaves.wait()
        return DISCONNECT

    async def send(self, message):
        self.sent.append(message)

    @property
    def status(self):
        return self.sent[0]["status"]

    @property
    def body(self):
        return b"".join(message["body"] for message in self.sent[1:])

    @property
    def ended(self):
        return self.sent[-1].get("more_body") is False


class FakeClient:
    """A client behind the seam whose response is an async generator's chunks."""

    def __init__(self, chunks, headers=(EVENTS,)):
        self.chunks = chunks
        self.headers = headers
        self.content = b""
        self.closed = anyio.Event()

    @asynccontextmanager
    async def open(self, request):
        try:
            async for piece in request.content:
                self.content += piece
            yield UpstreamResponse(200, self.headers, self.chunks())
        finally:
            self.closed.set()


async def one_chunk():
    await anyio.wait_all_tasks_blocked()
    yield b"1"


async def relayed(server, client):
    body = RequestBody(server.receive)
    request = UpstreamRequest("POST", "http://h/x", (), await body.content(), 1.0)
    await Relay(client, request, body, server.send, ErrorForm(Routes(), "/x")).run()


async def test_body_and_response_go_through_in_pieces():
    """Every chunk of either side becomes one of the other, and one last message ends the response."""

    async def chunks():
        yield b"1"
        yield b"2"

    server = Server(part(b"a", more=True), part(b"", more=True), part(b"b", more=True), part(b""))
    client = FakeClient(chunks)
    await relayed(server, client)
    assert client.content == b"ab"
    assert [message.get("body") for message in server.sent] == [None, b"1", b"2", b""]
    assert [message.get("more_body") for message in server.sent] == [None, True, True, False]


@pytest.mark.parametrize("failure", [None, UpstreamBroken])
async def test_answer_of_known_length_ends_with_its_last_chunk(failure):
    """No empty message follows, and what becomes of the connection afterwards matters to nobody."""

    async def chunks():
        yield b"1"
        yield b"23"
        if failure is not None:
            raise failure("10.0.0.7 is gone")

    server = Server(part(b"a", more=True), part(b"b"))
    client = FakeClient(chunks, [(b"content-length", b"3")])
    await relayed(server, client)
    assert [message.get("body") for message in server.sent] == [None, b"1", b"23"]
    assert [message.get("more_body") for message in server.sent] == [None, True, False]
    assert client.closed.is_set()


async def test_client_that_goes_away_closes_the_upstream():
    """A disconnect in mid-response leaves the upstream's context at once, and nothing is raised."""

    async def chunks():
        yield b"1"
        server.client_leaves.set()
        await anyio.sleep_forever()

    server = Server(part(b"a", more=True), part(b"b"))
    client = FakeClient(chunks)
    with anyio.fail_after(10):
        await relayed(server, client)
    assert client.closed.is_set()
    assert not server.ended


async def test_client_that_goes_away_while_sending_closes_the_upstream():
    """A disconnect in the body leaves the upstream's context, and no response is made up."""

    server = Server(part(b"a", more=True), DISCONNECT)
    client = FakeClient(one_chunk)
    await relayed(server, client)
    assert client.closed.is_set()
    assert client.content == b"a"
    assert server.sent == []


async def test_late_message_is_no_disconnect():
    """Only a disconnect ends a response early, whatever else a server delivers after the body."""

    server = Server(part(b"a", more=True), part(b"b"), part(b"stray"))
    await relayed(server, FakeClient(one_chunk))
    assert server.ended


async def test_slow_server_holds_the_upstream_back():
    """No chunk is read from the upstream before the one before is taken."""
    taken, drawn = [], []

    async def chunks():
        for number in range(3):
            drawn.append(number)
            assert len(taken) == number
            yield b"x"

    async def send(message):
        await anyio.wait_all_tasks_blocked()
        if message.get("body"):
            taken.append(len(drawn))

    server = Server(part(b"a", more=True), part(b"b"))
    server.send = send
    await relayed(server, FakeClient(chunks))
    assert taken == [1, 2, 3]


@pytest.mark.parametrize(
    ("sent", "headers", "told"),
    [
        (b"", [EVENTS], True),
        (b"data: 1\n\n", [EVENTS], True),
        (b"data: 1\r\n\r\n", [EVENTS], True),
        (b"data: 1\r\r", [EVENTS], True),
        (b"data: 1\n\r\n", [EVENTS], True),
        (b"data: 1\r\n\n", [EVENTS], True),
        (b": ping\n\n", [EVENTS], True),
        (b"data: 1\n", [EVENTS], False),
        (b"data: 1\r\n", [EVENTS], False),
        (b"data: 1\r", [EVENTS], False),
        (b"data: 1", [EVENTS], False),
        (b"data: 1\n\n", [EVENTS, (b"content-encoding", b"gzip")], False),
        (b"data: 1\n\n", [EVENTS, (b"content-length", b"100")], False),
        (b"data: 1\n\n", [(b"content-type", b"text/plain")], False),
        (b"data: 1\n\n", [], False),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize(
    ("failure", "code"), [(UpstreamBroken, "upstream_unreachable"), (UpstreamTimedOut, "upstream_timeout")]
)
async def test_break_stays_a_break(sent, headers, told, size, failure, code):
    """A response that broke off is never ended; an error event goes before where one can stand."""

    async def chunks():
        for start in range(0, len(sent), size):
            yield sent[start : start + size]
        raise failure("10.0.0.7 is gone")

    server = Server(part(b"a", more=True), part(b"b"))
    with pytest.raises(failure):
        await relayed(server, FakeClient(chunks, headers))
    assert not server.ended
    assert server.body.startswith(sent)
    event = server.body[len(sent) :]
    assert b"10.0.0.7" not in event
    if told:
        assert event.startswith(b"data: ")
        assert event.endswith(b"\n\n")
        assert orjson.loads(event[6:])["error"]["code"] == code
    else:
        assert event == b""


def test_border_of_events_is_found_over_many_chunks():
    """A line end cut in two is one line end."""
    border = EventBorder()
    reached = []
    for chunk in (b"data: 1\r", b"\n", b"\r", b"\n", b"d"):
        border.feed(chunk)
        reached.append(border.reached)
    assert reached == [False, False, True, True, False]


@pytest.mark.parametrize("place", ["receive", "send"])
async def test_error_of_the_server_is_raised_as_it_is(place):
    """What receive or send raise reaches the caller itself, in no exception group."""

    async def fail(*_):
        raise KeyError(place)

    server = Server(part(b"a", more=True), part(b"b"))
    body = RequestBody(server.receive)
    request = UpstreamRequest("POST", "http://h/x", (), await body.content(), 1.0)
    if place == "receive":
        body._receive = fail
    else:
        server.send = fail
    client = FakeClient(one_chunk)
    with pytest.raises(KeyError, match=place):
        await Relay(client, request, body, server.send, ErrorForm(Routes(), "/x")).run()
    assert client.closed.is_set()


async def test_error_of_the_watched_event_is_raised_as_it_is():
    """The watcher's own error ends the work, and reaches the caller in no exception group."""

    async def fail():
        raise KeyError("watcher")

    with pytest.raises(KeyError, match="watcher"):
        await unless(fail, anyio.sleep_forever)


async def test_cancelling_the_caller_closes_the_upstream():
    """A cancelled app call leaves nothing behind."""

    async def chunks():
        yield b"1"
        scope.cancel()
        await anyio.sleep_forever()

    server = Server(part(b"a", more=True), part(b"b"))
    client = FakeClient(chunks)
    with anyio.CancelScope() as scope:
        await relayed(server, client)
    assert scope.cancelled_caught
    assert client.closed.is_set()


@pytest.mark.parametrize(
    ("messages", "limit", "result"),
    [
        ([part(b"ab", more=True), {"type": "http.request", "body": b"c"}], 3, b"abc"),
        ([{"type": "http.request"}], 3, b""),
        ([part(b"ab", more=True), part(b"cd", more=True)], 3, GateError),
        ([part(b"ab", more=True), DISCONNECT], 3, ClientGone),
        ([DISCONNECT], 3, ClientGone),
    ],
)
async def test_whole_body_is_read_up_to_a_limit(messages, limit, result):
    """Both keys of a message are optional; the limit counts what came, not what was declared."""
    body = RequestBody(Server(*messages).receive)
    if isinstance(result, bytes):
        assert await body.whole(limit) == result
    else:
        with pytest.raises(result):
            await body.whole(limit)


class Transport(httpx.AsyncBaseTransport):
    """What an httpx client meets in place of the network."""

    def __init__(self, answer):
        self.answer = answer
        self.requests = []
        self.closed = 0

    async def handle_async_request(self, request):
        await request.aread()
        self.requests.append(request)
        return await self.answer(request)

    async def aclose(self):
        self.closed += 1


async def hello(request):
    return httpx.Response(200, headers=[("x-one", "1")], stream=httpx.ByteStream(b"hello"))


def scope(path="/v1/x", method="POST", headers=(), **more):
    return {"type": "http", "method": method, "path": path, "headers": list(headers), **more}


async def called(app, call, *messages):
    server = Server(*(messages or [part(b"")]))
    with anyio.fail_after(10):
        await app(call, server.receive, server.send)
    return server


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (httpx.ConnectError, 502, "upstream_unreachable"),
        (httpx.ProxyError, 502, "upstream_unreachable"),
        (httpx.ReadError, 502, "upstream_unreachable"),
        (httpx.WriteError, 502, "upstream_unreachable"),
        (httpx.RemoteProtocolError, 502, "upstream_unreachable"),
        (httpx.ConnectTimeout, 504, "upstream_timeout"),
        (httpx.ReadTimeout, 504, "upstream_timeout"),
        (httpx.WriteTimeout, 504, "upstream_timeout"),
        (httpx.PoolTimeout, 504, "upstream_timeout"),
    ],
)
async def test_failure_before_the_response_is_an_answer(error, status, code):
    """Unreachable and broken upstreams are 502, silent ones 504; no address is told."""

    async def fail(request):
        raise error("cannot reach 10.0.0.7")

    async with httpx.AsyncClient(transport=Transport(fail)) as client:
        server = await called(Forwarder("http://10.0.0.7:8000", client=client), scope())
    assert server.status == status
    assert orjson.loads(server.body)["error"]["code"] == code
    assert b"10.0.0.7" not in server.body
    assert server.ended


async def test_unreachable_is_its_own_failure():
    """The seam tells what was never connected from what broke later."""
    assert not issubclass(UpstreamUnreachable, UpstreamBroken)
    assert not issubclass(UpstreamBroken, UpstreamUnreachable)


async def test_request_goes_out_with_nothing_added():
    """The client's headers and body arrive, with the time limits, and no header of the library's own."""
    transport = Transport(hello)
    async with httpx.AsyncClient(transport=transport) as client:
        app = Forwarder("http://h/v1", client=client, timeout=7, connect_timeout=3, headers={"X-Own": "1"})
        server = await called(app, scope(headers=[(b"X-Id", b"9")], query_string=b"a=1"), part(b"body"))
    (request,) = transport.requests
    assert (str(request.url), request.content) == ("http://h/v1/x?a=1", b"body")
    assert sorted(request.headers.raw) == [
        (b"Host", b"h"),
        (b"accept-encoding", b"identity"),
        (b"content-length", b"4"),
        (b"x-id", b"9"),
        (b"x-own", b"1"),
    ]
    assert request.extensions["timeout"] == {"connect": 3, "pool": 3, "read": 7, "write": 7}
    assert (server.status, server.body) == (200, b"hello")


@pytest.mark.parametrize(
    ("method", "length"),
    [("GET", None), ("HEAD", None), ("DELETE", None), ("OPTIONS", None), ("POST", "0"), ("PUT", "0")],
)
async def test_empty_body_is_declared_where_one_is_expected(method, length):
    """A method that carries a body says that there is none; another says nothing."""
    transport = Transport(hello)
    async with httpx.AsyncClient(transport=transport) as client:
        await called(Forwarder("http://h", client=client), scope(method=method))
    assert transport.requests[0].headers.get("content-length") == length


@pytest.mark.parametrize(
    ("settings", "sent", "kept"),
    [
        ({}, "Bearer client", "c=1"),
        ({"api_key": "sk-own"}, "Bearer sk-own", None),
        ({"api_key": "sk-own", "headers": {"Authorization": "Basic x"}}, "Basic x", None),
    ],
)
async def test_credentials_of_one_upstream(settings, sent, kept):
    """An api_key stands in for the client's credentials; without one, those go on."""
    transport = Transport(hello)
    credentials = [(b"authorization", b"Bearer client"), (b"cookie", b"c=1")]
    async with httpx.AsyncClient(transport=transport) as client:
        await called(Forwarder("http://h", client=client, **settings), scope(headers=credentials))
    assert transport.requests[0].headers["authorization"] == sent
    assert transport.requests[0].headers.get("cookie") == kept


async def refuse_to_read():
    raise AssertionError("the body was read")


@pytest.mark.parametrize(
    ("call", "status"),
    [
        (scope("/v1/../admin"), 400),
        (scope("//evil/v1"), 400),
        (scope("/v1/x", "TRACE"), 405),
        (scope("h:80", "connect"), 405),
    ],
)
async def test_refusal_by_the_head_reads_no_body(call, status):
    """What can't be forwarded at all is refused before the first receive."""
    server = Server()
    await Forwarder("http://h")(call, refuse_to_read, server.send)
    assert server.status == status
    assert orjson.loads(server.body)["error"]["type"] == "invalid_request_error"
    with pytest.raises(AssertionError, match="the body was read"):
        await Forwarder("http://h")(scope(), refuse_to_read, server.send)


async def test_client_that_left_early_gets_no_call():
    """A client that is gone before its body came costs the upstream nothing."""
    transport = Transport(hello)
    async with httpx.AsyncClient(transport=transport) as client:
        server = await called(Forwarder("http://h", client=client), scope(), DISCONNECT)
    assert transport.requests == []
    assert server.sent == []


async def test_lifespan_opens_and_closes_and_opens_again():
    """Startup and shutdown are answered, more than once, and a given client stays the caller's to close."""
    transport = Transport(hello)
    async with httpx.AsyncClient(transport=transport) as client:
        app = Forwarder("http://h", client=client)
        for _ in range(2):
            lifespan = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
            server = await called(app, {"type": "lifespan"}, *lifespan)
            types = [message["type"] for message in server.sent]
            assert types == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
            assert (await called(app, scope())).status == 200
        assert transport.closed == 0
    assert transport.closed == 1


async def test_failed_start_is_told(monkeypatch, tmp_path):
    """A client that can't be made fails the startup, in a line."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "absent.pem"))
    server = await called(Forwarder("http://h"), {"type": "lifespan"}, {"type": "lifespan.startup"})
    (message,) = server.sent
    assert message["type"] == "lifespan.startup.failed"
    assert message["message"].startswith("FileNotFoundError")


async def test_closing_what_was_never_opened_is_no_error():
    """An app that forwarded nothing can be closed."""
    await Forwarder("http://h").aclose()


async def test_websocket_is_closed_before_it_is_accepted():
    """A WebSocket is refused in good form."""
    server = await called(Forwarder("http://h"), {"type": "websocket"}, {"type": "websocket.connect"})
    assert [message["type"] for message in server.sent] == ["websocket.close"]


async def test_unknown_scope_is_an_error():
    """A protocol that is not known is not answered by guesswork."""
    with pytest.raises(RuntimeError, match="'smtp'"):
        await called(Forwarder("http://h"), {"type": "smtp"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "Give either a base_url or a model_list"),
        (
            {"base_url": "http://h", "model_list": [{"model_name": "a"}]},
            "Give either a base_url or a model_list",
        ),
        ({"base_url": "h:80"}, "base_url: must be an absolute URL"),
        ({"base_url": "http://h", "api_key": "sk\n"}, "api_key: holds a character"),
        ({"base_url": "http://h", "headers": {"te": "x"}}, "headers: 'te' belongs"),
        ({"model_list": [{"model_name": "a"}]}, r"model_list\[0\].litellm_params: must be"),
        (
            {"model_list": [{"model_name": "a", "litellm_params": {"model": "m"}}], "api_key": "sk"},
            "api_key: with a model_list",
        ),
    ],
)
def test_wrong_setting_is_one_clear_line(settings, message):
    """A mistake is found when the forwarder is made, and named."""
    with pytest.raises(ValueError, match=f"^{message}"):
        Forwarder(**settings)
