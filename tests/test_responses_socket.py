"""Responses over a WebSocket, and what every inspected WebSocket goes through from its first message to its last."""

from __future__ import annotations

import gc
import weakref

import anyio
import orjson
import pytest

from asgi_llm_gate import CallHooks, LLMGate, UserAPIKeyAuth, get_formatted_prompt
from asgi_llm_gate.app_events import MAX_RESPONSES
from asgi_llm_gate.errors import Rejection
from asgi_llm_gate.inbox import MAX_OWN, Inbox
from tests.harness import Request
from tests.test_realtime_socket import Guard, item, said
from tests.websocket import REALTIME, RESPONSES, Script, WebSocket

pytestmark = pytest.mark.anyio

END = {"type": "end"}
CREATE = {"type": "response.create", "model": "m", "input": "Hi", "user": "me"}


class Witness(CallHooks):
    """Notes what hooks are given, and renames the model."""

    def __init__(self):
        self.calls = []
        self.failures = []

    async def async_pre_call_hook(self, user_api_key_dict, data, call_type):
        self.calls.append((call_type, user_api_key_dict, dict(data)))
        if "bad" in get_formatted_prompt(data, call_type):
            return "Not that"
        data["model"] = "other"
        return data

    async def async_post_call_failure_hook(self, original_exception, request_data):
        self.failures.append((original_exception, dict(request_data)))


async def heard(app, *events, callbacks, **settings):
    """Say events; return what the client heard up to the end of the script."""
    socket = WebSocket(RESPONSES)
    async with socket.open(LLMGate(app, callbacks=callbacks, **settings)):
        socket.say(*events)
        got = []
        while (event := await socket.hear()) != END:
            got.append(event)
    return got


BODY = {"model": "m", "input": "Hi", "user": "me", "metadata": {"a": "b"}}
OTHER = BODY | {"model": "other"}
CREATES = {
    "fields beside the type": ({"type": "response.create", **BODY}, {"type": "response.create", **OTHER}),
    "in a lane": (
        {"type": "response.create", "stream_id": "s", "event_id": "e", **BODY},
        {"type": "response.create", "stream_id": "s", "event_id": "e", **OTHER},
    ),
    "in a response": ({"type": "response.create", "response": BODY}, {"type": "response.create", "response": OTHER}),
    "steering": (
        {"type": "response.steer", "input": "Hi"},
        {"type": "response.steer", "input": "Hi", "model": "other"},
    ),
}


@pytest.mark.parametrize(("event", "forwarded"), CREATES.values(), ids=CREATES)
@pytest.mark.parametrize("names", ["documented", "litellm"])
async def test_a_response_is_asked_for_as_over_http(event, forwarded, names):
    """Hooks are given the fields of the call, none of the envelope, and what they change reaches the app."""
    app, witness = Script([END]), Witness()
    assert await heard(app, event, callbacks=[witness], call_type_names=names) == []
    ((call_type, caller, data),) = witness.calls
    assert call_type == {"documented": "responses", "litellm": "aresponses"}[names]
    assert caller.end_user_id == event.get("response", event).get("user")
    assert data["input"] == "Hi"
    assert not {"type", "stream_id", "event_id", "response"} & set(data)
    assert data["proxy_server_request"]["url"].endswith(RESPONSES)
    assert app.got == [forwarded]


REFUSED = {
    "a message": ({**CREATE, "input": "bad"}, "content_policy_violation", {}),
    "a message in a lane": (
        {**CREATE, "input": "bad", "stream_id": "s"},
        "content_policy_violation",
        {"stream_id": "s"},
    ),
    "no user": ({"type": "response.create", "input": "Hi"}, "missing_required_parameter", {}),
    "a blank user": ({**CREATE, "user": " "}, "missing_required_parameter", {}),
    "two readings": ({**CREATE, "response": {"input": "bad", "user": "me"}}, None, {}),
    "a response of no kind": ({"type": "response.create", "response": 1}, None, {}),
}


@pytest.mark.parametrize(("event", "code", "lane"), REFUSED.values(), ids=REFUSED)
async def test_a_refused_call_is_an_error_in_its_lane(event, code, lane):
    """The app gets nothing of it, and the next call of the socket is heard."""
    app, witness = Script([END]), Witness()
    (error,) = await heard(app, event, CREATE, callbacks=[witness], enforce_user_param=True)
    assert error == {"type": "error", "status": 400, "error": error["error"], **lane}
    assert error["error"]["code"] == code
    assert [event["input"] for event in app.got] == ["Hi"]
    assert len(witness.failures) == 1


async def test_a_gate_without_hooks_still_decodes_and_asks_for_the_user():
    """What it lets through is the canonical encoding, and no frame of the app is read."""
    app = Script(["{broken", END])
    socket = WebSocket(RESPONSES)
    async with socket.open(LLMGate(app, enforce_user_param=True)):
        socket.say('{ "type": "response.create" }', ' {"type": "response.create", "user": "me"}')
        assert (await socket.hear())["error"]["param"] == "user"
        assert (await socket.next())["text"] == "{broken"
    assert app.texts == ['{"user":"me","type":"response.create"}']
    assert app.end == {"type": "websocket.disconnect", "code": 1001}


def stream(text, lane=None, id="resp_1", *, end=True):
    """The events of a response, numbered."""
    part = {"type": "output_text", "text": text, "annotations": []}
    message = {"id": "msg", "type": "message", "role": "assistant", "content": [part]}
    where = {"output_index": 0, "content_index": 0, "item_id": "msg"}
    middle = len(text) // 2
    events = [
        {"type": "response.created", "response": {"id": id, "output": []}},
        {"type": "response.output_text.delta", **where, "delta": text[:middle]},
        {"type": "response.output_text.delta", **where, "delta": text[middle:]},
        {"type": "response.completed", "response": {"id": id, "status": "completed", "output": [message]}},
    ]
    more = {} if lane is None else {"stream_id": lane}
    return [{**event, "sequence_number": n, **more} for n, event in enumerate(events if end else events[:-1])]


def texts(events, lane=None):
    return "".join(e["delta"] for e in events if e["type"].endswith(".delta") and e.get("stream_id") == lane)


async def test_lanes_are_streams_of_their_own():
    """A window holds each lane's text apart, and what the gate says for one is in it."""
    both = [event for pair in zip(stream("A secret", "a"), stream("No secret", "b"), strict=True) for event in pair]
    got = await heard(Script([*both, END]), CREATE, callbacks=[Guard(streaming_window=20)])
    assert (texts(got, "a"), texts(got, "b")) == ("A ******", "No ******")
    assert b"secret" not in orjson.dumps(got)
    assert [e["sequence_number"] for e in got if e["stream_id"] == "a"] == [0, 1, 2, 3, 4]


async def test_the_next_response_begins_where_one_was_left_unended():
    """What was held comes out first."""
    events = [*stream("A secret", end=False), *stream("more", id="resp_2"), END]
    got = await heard(Script(events), CREATE, callbacks=[Guard(streaming_window=20)])
    assert texts(got) == "A ******more"


@pytest.mark.parametrize(("word", "last"), [("refuse", "response.incomplete"), ("forbid", "response.failed")])
async def test_a_hook_ends_a_response_as_over_http(word, last):
    """The stream has its own end; the rest of it goes nowhere; errors and the next response are heard."""
    error = {"type": "error", "error": {"message": "no"}}
    events = [*stream(f"All of it is fine: {word}")[:-1], error, *stream(word)[-1:], *stream("Next"), error, END]
    got = await heard(Script(events), CREATE, callbacks=[Guard()])
    kinds = [event["type"] for event in got]
    assert kinds.index(last) < kinds.index("error") < kinds.index("response.completed")
    assert kinds.count("error") == 2
    assert word.encode() not in orjson.dumps(got)


async def test_an_error_of_the_app_comes_behind_what_was_held():
    """As in a stream over HTTP."""
    events = [*stream("A secret", end=False), {"type": "error", "error": {}}, END]
    got = await heard(Script(events), CREATE, callbacks=[Guard(streaming_window=20)])
    assert (texts(got), got[-1]["type"]) == ("A ******", "error")


async def test_steering_is_no_part_of_a_response():
    """Its acknowledgements pass."""
    events = [{"type": "response.steer.accepted"}, END]
    assert await heard(Script(events), CREATE, callbacks=[Guard()]) == events[:1]


async def test_what_cannot_be_looked_at_is_not_let_through():
    """A frame that is too large, or a response too many, becomes an error; what comes next is heard."""
    many = [event for n in range(MAX_RESPONSES + 1) for event in said("x", id=f"r{n}")]
    large = said("x" * 3000)
    socket = WebSocket(REALTIME)
    app, guard = Script([*large, *many, END]), Guard()
    async with socket.open(LLMGate(app, callbacks=[guard], max_event_bytes=1000)):
        socket.say(item("Hi"))
        got = [await socket.hear() for _ in range(MAX_RESPONSES + 2)]
        assert await socket.hear() == END
    assert [e["error"]["code"] for e in got if e["type"] == "error"] == ["response_too_large", "too_many_responses"]
    assert len(guard.failures) == 2


@pytest.mark.parametrize("close", [{"type": "websocket.close", "code": 1000}, None])
@pytest.mark.parametrize("word", ["secret", "refuse"])
async def test_what_is_held_comes_out_before_the_app_closes(close, word):
    """Whether it says so or only returns, and also where a hook refuses what was held."""

    class Second(CallHooks):
        async def async_post_call_streaming_hook(self, response):
            if "refuse" in response:
                raise Rejection("Enough")

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        for event in stream(word, end=False):
            await send({"type": "websocket.send", "text": orjson.dumps(event).decode()})
        if close:
            await send(close)

    class Holding(Guard):
        streaming_window = 20

        async def async_post_call_streaming_hook(self, response):
            return response.replace("secret", "******")

    sent = await WebSocket(RESPONSES).to(LLMGate(app, callbacks=[Holding(), Second()]))
    got = [orjson.loads(message["text"]) for message in sent if message["type"] == "websocket.send"]
    assert sent[-1]["type"] == ("websocket.close" if close else "websocket.send")
    assert got[-1]["type"] == ("response.output_text.delta" if word == "secret" else "response.incomplete")
    assert texts(got) == ("******" if word == "secret" else "Enough")


async def test_a_response_that_was_refused_holds_nothing_at_the_close():
    """It has had its end."""
    app, socket = Script(stream("x refuse it refuse", end=False), [END]), WebSocket(RESPONSES)

    async def closing(scope, receive, send):
        await app(scope, receive, send)
        await send({"type": "websocket.close"})

    async with socket.open(LLMGate(closing, callbacks=[Guard()])):
        socket.say(CREATE, CREATE)
        while await socket.hear() != END:
            pass


# Being let in.

DENIALS: dict[str, dict[str, str]] = {"websocket.http.response": {}}
KEY = "sk-of-the-gate"


async def refused(path, query="", headers=None, callbacks=(), subprotocols=(), **settings):
    """Return the status and error of a refusal, and what the app was asked."""
    app = Script()
    socket = WebSocket(path, query, headers, extensions=DENIALS, subprotocols=list(subprotocols))
    start, body = await socket.to(LLMGate(app, callbacks=callbacks, **settings))
    assert app.scopes == []
    return start["status"], orjson.loads(body["body"])["error"]


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer sk-no"}])
async def test_a_wrong_key_is_refused_before_the_socket_opens(headers):
    """In the envelope, and the failure hooks hear of it."""
    witness = Witness()
    status, error = await refused(REALTIME, headers=headers, callbacks=[witness], master_key=KEY)
    assert (status, error["code"]) == (401, "invalid_api_key")
    assert len(witness.failures) == 1


async def test_a_key_that_stands_twice_is_refused():
    """The app might take the other one."""
    socket = WebSocket(REALTIME, extensions=DENIALS, headers={"authorization": "a"})
    socket.scope["headers"] *= 2
    start, _ = await socket.to(LLMGate(Script()))
    assert start["status"] == 400


async def test_a_refusal_fits_into_a_close_frame():
    """Where the server has no other way; a long reason is cut between two letters."""

    async def custom_auth(request, api_key):
        raise Long

    class Long(Exception):  # a message, not an error's name
        status_code = 403
        detail = "é" * 200

    (message,) = await WebSocket(REALTIME).to(LLMGate(Script(), custom_auth=custom_auth))
    assert message == {"type": "websocket.close", "code": 1008, "reason": "é" * 61}


@pytest.mark.parametrize(
    ("headers", "protocols"),
    [
        ({"authorization": f"Bearer {KEY}"}, []),
        ({}, ["realtime", f"openai-insecure-api-key.{KEY}"]),
    ],
)
async def test_a_key_comes_in_a_header_or_in_a_subprotocol(headers, protocols):
    """Browsers can set no header."""
    socket = WebSocket(REALTIME, headers=headers, subprotocols=protocols)
    witness = Witness()
    async with socket.open(LLMGate(Script([END]), callbacks=[witness], master_key=KEY)):
        socket.say(item("Hi"))
        await socket.hear()
    assert witness.calls[0][1].user_role == "proxy_admin"


async def test_custom_auth_is_given_a_request():
    """The very one that LiteLLM's functions read, and the caller it returns is what hooks are given."""

    async def custom_auth(request, api_key):
        return UserAPIKeyAuth(user_id=request.headers["x-user"], end_user_id=request.query_params["model"])

    socket = WebSocket(REALTIME, "model=m&user=me", headers={"x-user": "u"})
    witness = Witness()
    gate = LLMGate(Script([END]), callbacks=[witness], custom_auth=custom_auth, enforce_user_param=True)
    async with socket.open(gate):
        socket.say(item("Hi"))
        await socket.hear()
    assert (witness.calls[0][1].user_id, witness.calls[0][1].end_user_id) == ("u", "m")


QUERIES = {
    "dropped": ("model=m&user=me&a=%20b", {}, "model=m&a=%20b"),
    "whatever its spelling": ("%75ser=a&user=b&x", {}, "x"),
    "another name": ("safety_identifier=me&user=u", {"user_params": ["safety_identifier"]}, "user=u"),
    "kept": ("user=me", {"forward_user": "always"}, "user=me"),
}


@pytest.mark.parametrize(("query", "settings", "forwarded"), QUERIES.values(), ids=QUERIES)
async def test_realtime_names_its_user_in_the_query(query, settings, forwarded):
    """Its events have no user: the app does not get it unless it is always to be forwarded."""
    app, socket, witness = Script([END]), WebSocket(REALTIME, query), Witness()
    async with socket.open(LLMGate(app, callbacks=[witness], enforce_user_param=True, **settings)):
        socket.say(item("Hi"))
        await socket.hear()
    assert app.scopes[0]["query_string"] == forwarded.encode()
    assert witness.calls[0][1].end_user_id


LACKING = {
    "no user": ("model=m", {"enforce_user_param": True}, "user"),
    "a blank user": ("user=%E2%80%8B", {"enforce_user_param": True}, "user"),
    "no tenant": ("user=me", {"enforced_params": ["tenant"]}, "tenant"),
    "no nested tenant": ("metadata=x&metadata.tenant=a", {"enforced_params": ["metadata.tenant"]}, "metadata.tenant"),
}


@pytest.mark.parametrize(("query", "settings", "param"), LACKING.values(), ids=LACKING)
async def test_a_realtime_socket_that_lacks_a_field_does_not_open(query, settings, param):
    """The status and the field are those of a call over HTTP."""
    status, error = await refused(REALTIME, query, **settings)
    assert (status, error["param"]) == (400, param)


async def test_nested_fields_stand_in_the_query_by_their_dotted_names():
    """As the setting spells them."""
    app, socket = Script([END]), WebSocket(REALTIME, "metadata.tenant=a")
    async with socket.open(LLMGate(app, enforced_params=["metadata.tenant"])):
        socket.say(item("Hi"))
        await socket.hear()
    assert app.scopes[0]["query_string"] == b"metadata.tenant=a"


# How it ends.


async def test_what_the_app_raises_is_the_hosts_and_the_failure_hooks_are_told():
    """The exception comes out as it is."""
    witness = Witness()

    async def app(scope, receive, send):
        await receive()
        raise LookupError("gone")

    with pytest.raises(LookupError):
        await WebSocket(REALTIME).to(LLMGate(app, callbacks=[witness]))
    assert [type(exc) for exc, _ in witness.failures] == [LookupError]


async def test_a_disconnect_is_no_failure():
    """The app hears of it as often as it asks, and may raise for it."""
    witness, socket = Witness(), WebSocket(REALTIME)

    async def app(scope, receive, send):
        await receive()
        assert await receive() == await receive() == {"type": "websocket.disconnect", "code": 1001}
        raise LookupError("the client went away")

    socket.leave()
    with pytest.raises(LookupError):
        await socket.to(LLMGate(app, callbacks=[witness]))
    assert witness.failures == []


async def test_what_the_servers_receive_raises_comes_out_of_the_apps():
    """After the messages before it."""
    socket = WebSocket(REALTIME)
    socket.say(OSError("reset"))

    async def app(scope, receive, send):
        assert (await receive())["type"] == "websocket.connect"
        await receive()

    with pytest.raises(OSError, match="reset"):
        await socket.to(LLMGate(app))


async def test_a_client_that_left_while_its_event_was_refused_stops_nothing():
    """The server's `send` raises; the app goes on to hear of the disconnect."""
    socket, ended = WebSocket(REALTIME), []
    socket.say("{")
    socket.leave()

    async def send(message):
        if message["type"] == "websocket.send":
            raise OSError("closed")

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        ended.append(await receive())

    await LLMGate(app)(socket.scope, socket.receive, send)
    socket.close()
    assert [message["type"] for message in ended] == ["websocket.disconnect"]


async def test_nothing_is_said_on_a_socket_that_is_not_open():
    """An error event before the app accepted, or after it closed, would break the protocol."""
    socket = WebSocket(REALTIME)
    socket.say("{", item("Hi"))

    async def app(scope, receive, send):
        assert (await receive())["type"] == "websocket.connect"
        await receive()
        await send({"type": "websocket.close"})

    assert await socket.to(LLMGate(app)) == [{"type": "websocket.close"}]


async def test_a_receive_that_the_app_gives_up_loses_nothing():
    """The message a hook is still looking at comes with the next call."""
    release, looking, socket = anyio.Event(), anyio.Event(), WebSocket(REALTIME)

    class Slow(CallHooks):
        async def async_pre_call_hook(self, data):
            looking.set()
            await release.wait()

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        async with anyio.create_task_group() as group:
            group.start_soon(receive)
            await looking.wait()
            group.cancel_scope.cancel()
        release.set()
        await send({"type": "websocket.send", "text": (await receive())["text"]})

    async with socket.open(LLMGate(app, callbacks=[Slow()])):
        socket.say(item("Hi"))
        assert await socket.hear() == item("Hi")


async def test_hooks_at_work_end_with_the_app():
    """An app that returns leaves no hook behind."""
    looking, ended, socket = anyio.Event(), [], WebSocket(REALTIME)

    class Endless(CallHooks):
        async def async_moderation_hook(self, data):
            looking.set()
            try:
                await anyio.sleep_forever()
            finally:
                ended.append(data["type"])

    async def app(scope, receive, send):
        await receive()
        await looking.wait()

    socket.say(item("Hi"))
    await socket.to(LLMGate(app, callbacks=[Endless()]))
    assert ended == ["conversation.item.create"]


async def test_moderation_hooks_run_all_at_once_and_the_first_refusal_stops_the_others():
    """They are a gate: nothing reaches the app before their verdict, and what they change reaches nobody."""
    both, cancelled = [anyio.Event(), anyio.Event()], []

    class Waiting(CallHooks):
        async def async_moderation_hook(self, data):
            both[0].set()
            await both[1].wait()
            try:
                await anyio.sleep_forever()
            finally:
                cancelled.append(True)

    class Refusing(CallHooks):
        async def async_moderation_hook(self, data):
            both[1].set()
            await both[0].wait()
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
            return "Not moral" if data["input"] == "Hi" else None

    app, socket = Script([END]), WebSocket(RESPONSES)
    async with socket.open(LLMGate(app, callbacks=[Waiting(), Refusing()])):
        socket.say(CREATE)
        assert (await socket.hear())["error"]["message"] == "Not moral"
    assert (app.got, cancelled) == ([], [True])


async def test_what_a_moderation_hook_changes_reaches_nobody():
    """As over HTTP."""

    class Changing(CallHooks):
        async def async_moderation_hook(self, data):
            data["input"] = "changed"

    app = Script([END])
    await heard(app, CREATE, callbacks=[Changing()])
    assert app.got == [CREATE]


async def test_the_app_runs_in_the_callers_task():
    """Middleware that sets context variables is heard."""
    task = anyio.get_current_task().id

    async def app(scope, receive, send):
        await receive()
        assert anyio.get_current_task().id == task

    await WebSocket(REALTIME).to(LLMGate(app))


async def test_an_app_that_does_not_listen_is_told_only_so_much():
    """What waits for it has a bound."""
    inbox = Inbox()
    for _ in range(MAX_OWN + 10):
        inbox.tell("x")
    for _ in range(MAX_OWN):
        assert (await inbox())["text"] == "x"
    inbox.fail(OSError("end"))
    with pytest.raises(OSError, match="end"):
        await inbox()


async def test_a_socket_leaves_nothing_behind():
    """Its state goes with it."""

    class App:
        async def __call__(self, scope, receive, send):
            self.receive = weakref.ref(receive)
            await receive()

    app = App()
    await WebSocket(REALTIME).to(LLMGate(app, callbacks=[Guard()]))
    gc.collect()
    assert app.receive() is None


async def test_an_own_path_of_a_sockets_class_is_no_socket():
    """Over HTTP nothing looks into it."""
    request = Request(b"{}", path="/mine")
    response = await request.to(LLMGate(Script(), paths={"/mine": "responses_ws"}))
    assert (response.status, response.error()["code"]) == (403, "endpoint_not_inspected")
