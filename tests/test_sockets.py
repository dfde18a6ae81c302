"""Streams over real sockets: uvicorn before a gate, and behind it an app, or the forwarder and an upstream in uvicorn.

What the tests wait for are events that one side sets for the other, never the clock: an upstream that waits for its
client's word before it goes on shows that nothing between the two keeps anything back.
"""

from __future__ import annotations

import asyncio
import gzip
import socket
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import httpx
import orjson
import pytest
from anyio.lowlevel import checkpoint
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from asgi_llm_gate import CallHooks, LLMGate
from asgi_llm_gate.forwarder import Forwarder
from tests.harness import CHAT, chat
from tests.test_forwarder_sockets import served

pytestmark = pytest.mark.anyio

STREAMED = chat(stream=True)
DONE = b"data: [DONE]\n\n"


@pytest.fixture
def anyio_backend():
    """Uvicorn runs on asyncio only."""
    return "asyncio"


@pytest.fixture(params=["h11", "httptools"])
def http(request):
    return request.param


@pytest.fixture(params=["app", "forwarder"])
def through(request):
    """Where the app is: right behind the gate, or in a server of its own behind the forwarder."""
    return request.param


@pytest.fixture
def gated(http, through):
    """Serve a gate with these callbacks and settings before an app, and give a client of it.

    Whatever becomes of the calls, nothing of them is left in the loop of the servers.
    """

    @asynccontextmanager
    async def gated(app, *callbacks, **settings):
        before = asyncio.all_tasks()
        async with AsyncExitStack() as stack:
            if through == "forwarder":
                app = Forwarder(await stack.enter_async_context(served(app, http=http, lifespan="off")))
            gate = LLMGate(app, callbacks=callbacks, **settings)
            url = await stack.enter_async_context(served(gate, http=http))
            client = httpx.AsyncClient(
                base_url=url, headers={"content-type": "application/json"}, trust_env=False, timeout=20
            )
            await stack.enter_async_context(client)
            with anyio.fail_after(30):
                yield client
        assert asyncio.all_tasks() == before

    return gated


def asked(client, content=STREAMED, **options):
    return client.stream("POST", CHAT, content=content, **options)


def answering(respond, **settings):
    """A Starlette app whose handler makes its response from the request."""

    async def handler(request):
        await request.body()
        return respond(request)

    return Starlette(routes=[Route(CHAT, handler, methods=["POST", "HEAD", "GET"])], **settings)


def streaming(generate):
    return answering(lambda _: StreamingResponse(generate(), media_type="text/event-stream"))


def event(content, finish_reason=None):
    """One event of a chat stream."""
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish_reason}
    return b"data: %b\n\n" % orjson.dumps({"id": "c", "object": "chat.completion.chunk", "choices": [choice]})


def said(body):
    """What the events of a chat stream say, and the errors they tell, up to a clean end."""
    *events, done, rest = body.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    chunks = [orjson.loads(line.removeprefix(b"data: ")) for line in events]
    return [
        choice["delta"].get("content") or choice["finish_reason"] for c in chunks for choice in c.get("choices", ())
    ]


class Bystander(CallHooks):
    """Every hook that does not look into a stream."""

    def __init__(self):
        self.events = []

    async def async_pre_call_hook(self, data):
        self.events.append("pre_call")

    async def async_moderation_hook(self, data):
        self.events.append("moderation")

    async def async_post_call_success_hook(self, response):
        self.events.append("success hook")

    async def async_post_call_failure_hook(self, original_exception):
        self.events.append(getattr(original_exception, "status_code", type(original_exception)))

    async def async_post_call_response_headers_hook(self, data):
        return {"x-added": "1"}

    async def async_log_success_event(self, kwargs, response_obj):
        self.events.append("success")

    async def async_log_failure_event(self, kwargs):
        self.events.append("failure")


class Upper(CallHooks):
    """A text hook."""

    async def async_post_call_streaming_hook(self, response):
        return response.upper()


class Iterating(CallHooks):
    """An iterator hook."""

    async def async_post_call_streaming_iterator_hook(self, response):
        async for chunk in response:
            for choice in chunk.choices or ():
                choice.delta.content = choice.delta.content.upper()
            yield chunk


class Judge(CallHooks):
    """A moderation hook whose verdict a test gives."""

    def __init__(self):
        self.asked = anyio.Event()
        self.given = anyio.Event()
        self.ended = anyio.Event()
        self.verdict = None

    def judge(self, verdict=None):
        self.verdict = verdict
        self.given.set()

    async def async_moderation_hook(self, data):
        self.asked.set()
        try:
            await self.given.wait()
        finally:
            self.ended.set()
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict


class Windowed(Upper):
    """A text hook that looks ahead."""

    streaming_window = 3


STACKS = {
    "nothing": list,
    "bystander": lambda: [Bystander()],
    "text": lambda: [Upper()],
    "window": lambda: [Windowed()],
    "iterator": lambda: [Iterating()],
    "all": lambda: [Bystander(), Upper(), Iterating()],
}

stacks = pytest.mark.parametrize("make", STACKS.values(), ids=STACKS)


@stacks
async def test_each_event_arrives_before_the_next_is_made(gated, make):
    """The upstream goes on only when its client has read what it said: text that no window holds is not kept back."""
    seen = [anyio.Event() for _ in range(3)]

    async def generate():
        for step in seen:
            yield event("spoken")
            await step.wait()
        yield event("", "stop") + DONE

    got = b""
    async with gated(streaming(generate), *make()) as client, asked(client) as response:
        assert response.status_code == 200
        chunks = response.aiter_raw()
        for step in seen:
            read = await anext(chunks)
            assert read.startswith(b"data: ")
            assert read.endswith(b"\n\n")
            got += read
            step.set()
        got += b"".join([chunk async for chunk in chunks])
    assert "".join(said(got)).lower() == "spoken" * 3 + "stop"


async def test_what_nobody_looks_into_goes_on_as_it_came(gated):
    """Hooks that don't look into a stream leave its bytes alone, whatever they are."""
    raw = [b": comment\r\rdata: {\xff", b"}\r\n\r\n", b"\xef\xbb\xbfid: 1\n", b"half"]

    async def generate():
        for chunk in raw:
            yield chunk

    hooks = Bystander()
    async with gated(streaming(generate), hooks) as client, asked(client) as response:
        assert b"".join([chunk async for chunk in response.aiter_raw()]) == b"".join(raw)
        assert response.headers["x-added"] == "1"
    assert hooks.events == ["pre_call", "moderation", "success"]


@stacks
async def test_a_client_that_leaves_a_stream_stops_the_upstream(gated, make):
    """The upstream is stopped while it is silent, and the call has failed, once, as the client's doing."""
    stopped = anyio.Event()

    async def generate():
        try:
            yield event("spoken")
            await anyio.sleep_forever()
        finally:
            stopped.set()

    hooks = make()
    async with gated(streaming(generate), *hooks) as client:
        async with asked(client) as response:
            await anext(response.aiter_raw())
        await stopped.wait()
    told = [seen for hook in hooks if isinstance(hook, Bystander) for seen in hook.events]
    assert told in ([], ["pre_call", "moderation", 499, "failure"])


@stacks
async def test_a_client_that_leaves_before_the_answer_stops_the_upstream(gated, make, through):
    """The upstream is told while it thinks."""
    asked_, gone = anyio.Event(), anyio.Event()

    async def app(scope, receive, send):
        assert (await receive())["type"] == "http.request"
        asked_.set()
        assert (await receive())["type"] == "http.disconnect"
        gone.set()

    async with gated(app, *make()) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(client.stream("POST", CHAT, content=STREAMED).__aenter__)
            await asked_.wait()
            group.cancel_scope.cancel()
        await gone.wait()


async def test_a_client_that_leaves_while_it_is_judged_stops_everything(gated):
    """Upstream and moderation are stopped, and nothing is left of either."""
    begun, stopped = anyio.Event(), anyio.Event()

    async def generate():
        try:
            begun.set()
            yield event("spoken")
            await anyio.sleep_forever()
        finally:
            stopped.set()

    judge, hooks = Judge(), Bystander()
    async with gated(streaming(generate), hooks, judge) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(asked(client).__aenter__)
            await judge.asked.wait()
            await begun.wait()
            group.cancel_scope.cancel()
        await stopped.wait()
        await judge.ended.wait()
    assert hooks.events == ["pre_call", "moderation", 499, "failure"]


BIG = event("x" * 32_000)
MANY = 4_000  # times BIG are 128 MB, many times what sockets hold


class Flood:
    """An upstream that sends without an end, and counts what it could send."""

    def __init__(self):
        self.sent = 0
        self.stopped = anyio.Event()

    async def __call__(self, scope, receive, send):
        try:
            await streaming(self.generate)(scope, receive, send)
        finally:
            self.stopped.set()

    async def generate(self):
        for _ in range(MANY):
            yield BIG
            self.sent += len(BIG)

    async def still(self):
        """Wait until nothing more is sent, however often the loop turns."""
        turns = 0
        while turns < 300:
            before = self.sent
            await checkpoint()
            turns = turns + 1 if self.sent == before and self.sent else 0


@asynccontextmanager
async def unread(client):
    """Ask over a socket with a small buffer, from which nothing is read."""
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        raw.connect(("127.0.0.1", client.base_url.port))
        raw.sendall(
            b"POST %b HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (CHAT.encode(), len(STREAMED), STREAMED)
        )
        raw.setblocking(False)
        yield raw


@stacks
async def test_a_client_that_does_not_read_holds_the_upstream_back(gated, make):
    """Between the two stands no more than sockets hold, and when the client leaves the upstream is stopped."""
    flood = Flood()
    async with gated(flood, *make()) as client:
        async with unread(client) as raw:
            await flood.still()
            assert flood.sent < MANY * len(BIG) / 4
            held = flood.sent
            while flood.sent == held:
                await anyio.wait_readable(raw)
                raw.recv(1_000_000)
        await flood.stopped.wait()


async def test_a_verdict_that_takes_its_time_holds_the_upstream_back(gated, through):
    """Not more than `moderation_buffer` is kept for the verdict, and then everything arrives."""
    flood, judge = Flood(), Judge()

    async with (
        gated(flood, judge, moderation_buffer=100_000) as client,
        unread(client) as raw,
    ):
        await judge.asked.wait()
        await flood.still()
        assert flood.sent < (200_000 if through == "app" else MANY * len(BIG) / 4)
        with pytest.raises(BlockingIOError):
            raw.recv(1)
        judge.judge()
        await anyio.wait_readable(raw)
        assert raw.recv(15) == b"HTTP/1.1 200 OK"
    await flood.stopped.wait()


async def test_a_stream_that_flows_while_it_is_judged_is_held_back_too(gated):
    """With `cut` a client that does not read stops the upstream as well, and its going ends both upstream and judge."""
    flood, judge = Flood(), Judge()
    async with gated(flood, judge, moderation_mode="cut") as client:
        async with unread(client) as raw:
            await flood.still()
            assert flood.sent < MANY * len(BIG) / 4
            await anyio.wait_readable(raw)
            assert raw.recv(15) == b"HTTP/1.1 200 OK"
        await flood.stopped.wait()
        await judge.ended.wait()


async def test_a_held_stream_arrives_whole_after_the_verdict(gated):
    """The upstream has said all it has to say and the client has not a byte of it; then it has all."""
    sent = [event("one"), event("two"), event("", "stop"), DONE]
    finished, started = anyio.Event(), anyio.Event()
    got = []

    async def generate():
        for each in sent:
            yield each
        finished.set()

    async def ask(client):
        async with asked(client) as response:
            started.set()
            got.extend([chunk async for chunk in response.aiter_raw()])

    judge = Judge()
    async with gated(streaming(generate), judge) as client, anyio.create_task_group() as group:
        group.start_soon(ask, client)
        await judge.asked.wait()
        await finished.wait()
        for _ in range(100):
            await checkpoint()
        assert not started.is_set()
        judge.judge()
    assert b"".join(got) == b"".join(sent)


async def test_a_bad_verdict_before_a_byte_is_all_the_client_gets(gated):
    """Nothing of the stream is sent, the answer is a JSON error with its status, and the upstream is stopped."""
    stopped = anyio.Event()
    judge = Judge()

    async def generate():
        try:
            yield event("secret")
            judge.judge(HTTPException(403, "no"))
            await anyio.sleep_forever()
        finally:
            stopped.set()

    async with gated(streaming(generate), judge) as client:
        response = await client.post(CHAT, content=STREAMED)
        await stopped.wait()
    assert response.status_code == 403
    assert response.headers["content-type"] == "application/json"
    assert response.json()["error"]["message"] == "no"
    assert b"secret" not in response.content


@pytest.mark.parametrize("verdict", ["no", HTTPException(403, "no")], ids=["message", "exception"])
@pytest.mark.parametrize("looking", [[], [Upper()], [Iterating()]], ids=["nothing", "text", "iterator"])
async def test_a_bad_verdict_cuts_a_stream_off_in_good_form(gated, verdict, looking):
    """With `cut` the stream flows until the verdict; then it ends whole and cleanly, and the upstream is stopped."""
    stopped = anyio.Event()

    async def generate():
        try:
            yield event("one")
            yield event("two")
            await anyio.sleep_forever()
        finally:
            stopped.set()

    judge, got = Judge(), b""
    async with gated(streaming(generate), judge, *looking, moderation_mode="cut") as client:
        async with asked(client) as response:
            async for chunk in response.aiter_raw():
                got += chunk
                if got.lower().count(b"two"):
                    judge.judge(verdict)
        await stopped.wait()
    if verdict == "no":
        assert [part.lower() for part in said(got)] == ["one", "two", "no", "content_filter"]
    else:
        assert [part.lower() for part in said(got)] == ["one", "two"]
        assert b'\n\ndata: {"error":{"message":"no","type":"permission_error",' in got


@stacks
async def test_an_upstream_that_breaks_off_breaks_off_for_the_client(gated, make, through):
    """What was said arrives, the connection is not ended cleanly, and the forwarder tells of it before."""
    read = anyio.Event()

    async def generate():
        yield event("spoken")
        await read.wait()
        raise ConnectionResetError

    got = b""
    hooks = make()
    async with gated(streaming(generate), *hooks) as client, asked(client) as response:
        with pytest.raises(httpx.RemoteProtocolError):  # noqa: PT012  # wherever in the stream it comes
            async for chunk in response.aiter_raw():
                got += chunk
                read.set()
    events = got.split(b"\n\n")
    assert events.pop() == b""
    chunks = [orjson.loads(each.removeprefix(b"data: ")) for each in events]
    if through == "forwarder":
        assert chunks.pop()["error"]["code"] == "upstream_unreachable"
        assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks).lower() == "spoken"
    assert [hook.events[3:] for hook in hooks if isinstance(hook, Bystander)] in ([], [["failure"]])


COMPLETION = {"id": "c", "object": "chat.completion", "choices": [{"index": 0, "message": {"content": "hi"}}]}


class Shouting(Bystander):
    """Looks into everything and changes what is said."""

    async def async_post_call_success_hook(self, response):
        self.events.append("success hook")
        response.choices[0].message.content += "!"

    async def async_post_call_streaming_hook(self, response):
        return response.upper()

    async def async_post_call_streaming_iterator_hook(self, response):
        async for chunk in response:
            yield chunk


@pytest.mark.parametrize("content", [chat(), chat(stream=False), STREAMED], ids=["absent", "false", "true"])
async def test_a_response_is_handled_by_what_it_is(gated, content):
    """JSON goes through the success hooks also if a stream was asked for, and a stream through the stream hooks."""
    answers = [JSONResponse(COMPLETION), StreamingResponse(aiter_of(event("hi"), DONE), media_type="text/event-stream")]
    hooks = Shouting()
    async with gated(answering(lambda _: answers.pop(0)), hooks) as client:
        whole = await client.post(CHAT, content=content)
        stream = await client.post(CHAT, content=content)
    assert whole.json()["choices"][0]["message"]["content"] == "hi!"
    assert whole.headers["content-length"] == str(len(whole.content))
    assert said(stream.content) == ["HI"]
    assert hooks.events.count("success hook") == 1


async def aiter_of(*chunks):
    for chunk in chunks:
        yield chunk


PART = {"content-range": "bytes 0-1/9", "content-type": "application/json", "etag": '"1"'}


@pytest.mark.parametrize(
    ("method", "response"),
    [
        ("HEAD", Response(headers={"content-length": "77", "etag": '"1"'}, media_type="application/json")),
        ("POST", Response(status_code=204)),
        ("POST", Response(b"{}", 206, headers=PART)),
        ("POST", Response(status_code=304, headers={"etag": '"1"'})),
        ("POST", Response(status_code=307, headers={"location": "/elsewhere"})),
    ],
    ids=["HEAD", "204", "206", "304", "307"],
)
async def test_what_is_no_whole_success_stays_as_it_is(gated, method, response):
    """Hooks that change whatever they see leave it alone, and the connection stays usable."""
    hooks = Shouting()
    async with gated(answering(lambda _: response), hooks) as client:
        for _ in range(2):
            got = await client.request(method, CHAT, content=chat())
            assert (got.status_code, got.content) == (response.status_code, response.body)
            for name, value in response.headers.items():
                assert got.headers[name] == value
    assert hooks.events == ["pre_call", "moderation", "success"] * 2


def compressing(respond):
    return answering(respond, middleware=[Middleware(GZipMiddleware, minimum_size=1)])


async def test_an_app_that_compresses_is_asked_not_to_where_hooks_look(gated):
    """Text and success hooks read and change what Starlette's own middleware would have compressed."""
    answers = [JSONResponse(COMPLETION), StreamingResponse(aiter_of(event("hi"), DONE), media_type="text/event-stream")]
    async with gated(compressing(lambda _: answers.pop(0)), Shouting()) as client:
        whole = await client.post(CHAT, content=chat())
        stream = await client.post(CHAT, content=STREAMED)
    assert whole.json()["choices"][0]["message"]["content"] == "hi!"
    assert said(stream.content) == ["HI"]
    assert "content-encoding" not in {*whole.headers, *stream.headers}


async def test_an_app_that_compresses_may_where_nobody_looks(gated):
    """What the client accepts is left to the app, and its bytes go on compressed."""
    judge = Judge()
    judge.judge()
    async with (
        gated(compressing(lambda _: JSONResponse(COMPLETION)), judge) as client,
        client.stream("POST", CHAT, content=chat(), headers={"accept-encoding": "gzip"}) as response,
    ):
        raw = b"".join([chunk async for chunk in response.aiter_raw()])
    assert response.headers["content-encoding"] == "gzip"
    assert orjson.loads(gzip.decompress(raw)) == COMPLETION


async def test_an_app_that_compresses_whatever_it_is_asked_is_read(gated):
    """A compressed answer is opened for the success hooks, and goes on in plain bytes if they changed it."""
    packed = gzip.compress(orjson.dumps(COMPLETION))
    headers = {"content-encoding": "gzip", "etag": '"1"'}
    response = Response(packed, headers=headers, media_type="application/json")
    async with gated(answering(lambda _: response), Shouting()) as client:
        got = await client.post(CHAT, content=chat())
    assert got.json()["choices"][0]["message"]["content"] == "hi!"
    assert not {"content-encoding", "etag"} & set(got.headers)


class Extended:
    """What a server with more of ASGI's extensions than uvicorn does: files sent by path, trailers, debug messages."""

    def __init__(self, app):
        self.app = app
        self.seen = []

    async def __call__(self, scope, receive, send):
        names = ["pathsend", "zerocopysend", "trailers", "debug"]
        extensions = {f"http.response.{name}": {} for name in names}

        async def extended(message):
            self.seen.append(message["type"].rpartition(".")[2])
            if message["type"] == "http.response.pathsend":
                with open(message["path"], "rb") as file:  # noqa: ASYNC230, PTH123  # a few bytes
                    message = {"type": "http.response.body", "body": file.read()}
            if message["type"] in ("http.response.start", "http.response.body"):
                await send(message)

        await self.app({**scope, "extensions": extensions}, receive, extended)


@asynccontextmanager
async def extended(app, http, *callbacks):
    server = Extended(LLMGate(app, callbacks=callbacks))
    async with (
        served(server, http=http, lifespan="off") as url,
        httpx.AsyncClient(base_url=url, headers={"content-type": "application/json"}, trust_env=False) as client,
    ):
        yield server, client


async def test_a_file_is_not_sent_past_the_hooks(http, tmp_path):
    """An app may have the server send a file by its path, but not where hooks must see what is in it."""
    path = tmp_path / "answer.json"
    path.write_bytes(orjson.dumps(COMPLETION))
    app = answering(lambda _: FileResponse(path))
    async with extended(app, http) as (server, client):
        assert (await client.post(CHAT, content=chat())).json() == COMPLETION
        assert server.seen == ["start", "pathsend"]
    async with extended(app, http, Shouting()) as (server, client):
        got = await client.post(CHAT, content=chat())
        assert got.json()["choices"][0]["message"]["content"] == "hi!"
        assert server.seen == ["start", "body"]


@pytest.mark.parametrize("callbacks", [[], [Bystander()], [Shouting()]], ids=["none", "bystander", "shouting"])
async def test_debug_messages_and_trailers(http, callbacks):
    """A debug message passes, and trailers come if and only if the start still announces them."""
    starts = []

    async def app(scope, receive, send):
        await receive()
        await send({"type": "http.response.debug", "info": {}})
        headers = [(b"content-type", b"application/json"), (b"trailer", b"x-sum")]
        await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": True})
        await send({"type": "http.response.body", "body": orjson.dumps(COMPLETION)})
        await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]})

    async with extended(app, http, *callbacks) as (server, client):
        whole = server.app

        async def watched(scope, receive, send):
            async def noting(message):
                if message["type"] == "http.response.start":
                    starts.append(message)
                await send(message)

            await whole(scope, receive, noting)

        server.app = watched
        assert (await client.post(CHAT, content=chat())).status_code == 200
    assert [start["trailers"] for start in starts] == ["trailers" in server.seen]
    assert server.seen[:3] == ["debug", "start", "body"]
