"""OpenAI's official client and a plain one talk through a served gate over WebSockets."""

from __future__ import annotations

import orjson
import pytest
from openai import AsyncOpenAI
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from asgi_llm_gate import LLMGate
from tests.servers import serve
from tests.test_realtime_socket import Guard, item, whole
from tests.test_responses_socket import CREATE, stream
from tests.websocket import Script

pytestmark = pytest.mark.anyio

KEY = "sk-of-the-gate"


@pytest.fixture
def anyio_backend():
    """The clients run on asyncio only."""
    return "asyncio"


async def test_the_official_client_speaks_realtime_through_a_gate():
    """A refused item is an error event, a text is rewritten in every event, and the socket closes in good form."""
    app = Script([], whole("A secret of mine"))
    with serve(
        LLMGate(app, callbacks=[Guard(streaming_window=10)], master_key=KEY, enforce_user_param=True), lifespan="off"
    ) as url:
        client = AsyncOpenAI(api_key=KEY, base_url=f"{url}/v1", websocket_base_url=f"ws{url.removeprefix('http')}/v1")
        async with client.realtime.connect(model="m", extra_query={"user": "me"}) as connection:
            await connection.session.update(session={"type": "realtime", "instructions": "Be kind"})
            await connection.send(item("bad", event_id="e1"))
            error = await connection.recv()
            assert (error.type, error.error.message, error.error.event_id) == ("error", "Not that", "e1")
            await connection.response.create()
            pieces, event = [], await connection.recv()
            while event.type != "response.done":
                if event.type == "response.output_text.delta":
                    pieces.append(event.delta)
                event = await connection.recv()
        assert "".join(pieces) == event.response.output[0].content[0].text == "A ****** of mine"
    assert [event["type"] for event in app.got] == ["session.update", "response.create"]
    assert app.scopes[0]["query_string"] == b"model=m"
    assert app.end["type"] == "websocket.disconnect"


async def test_the_official_client_asks_for_responses_through_a_gate():
    """What a hook renames reaches the app, what it rewrites reaches the client."""
    app = Script(stream("A secret of mine"))
    with serve(LLMGate(app, callbacks=[Guard(streaming_window=10)], enforce_user_param=True), lifespan="off") as url:
        client = AsyncOpenAI(api_key=KEY, base_url=f"{url}/v1", websocket_base_url=f"ws{url.removeprefix('http')}/v1")
        async with client.responses.connect() as connection:
            await connection.response.create(model="m", input="bad", user="me")
            error = await connection.recv()
            assert (error.type, error.status, error.error.message) == ("error", 400, "Not that")
            await connection.response.create(model="m", input="Hi", user="me")
            while (event := await connection.recv()).type != "response.completed":
                pass
        assert event.response.output_text == "A ****** of mine"
    assert app.got == [CREATE]


async def test_a_server_says_why_a_socket_does_not_open():
    """The status and the envelope come in the answer to the handshake."""
    with serve(LLMGate(Script(), master_key=KEY), lifespan="off") as url, pytest.raises(InvalidStatus) as refused:
        await connect(f"ws{url.removeprefix('http')}/v1/realtime")
    assert refused.value.response.status_code == 401
    assert orjson.loads(refused.value.response.body)["error"]["code"] == "invalid_api_key"


async def test_binary_and_broken_frames_leave_the_socket_open():
    """Each is answered, and what comes next is heard; what the app raises closes it."""

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        raise LookupError("a bug")

    with serve(LLMGate(app, callbacks=[Guard()]), lifespan="off") as url:
        async with connect(f"ws{url.removeprefix('http')}/v1/realtime") as client:
            for frame in (b"{}", "{", "\x00"):
                await client.send(frame)
                assert orjson.loads(await client.recv())["error"]["code"] == "invalid_json"
            await client.send("{}")
            with pytest.raises(ConnectionClosed):
                await client.recv()
