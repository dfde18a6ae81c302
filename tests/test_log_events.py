"""Log events: what they are told of a call, exactly once, and that they hold up neither client nor app."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime

import anyio
import orjson
import pytest
from anyio.lowlevel import checkpoint
from starlette.exceptions import HTTPException

from asgi_llm_gate import CallHooks, LLMGate
from asgi_llm_gate.account import MAX_PENDING
from asgi_llm_gate.outlet import Outlet
from asgi_llm_gate.shapes import chat as chat_shape
from tests.actors import DONE, EVER, START, App, Client, Judge, Recorder, event, piece, raises, said, sleeps, waits
from tests.harness import Request, Response, Upstream, answer, chat

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

OK = answer(b'{"ok":true}')


class Log(CallHooks):
    """Notes all that log hooks are given, of a call's end after a turn of the loop."""

    def __init__(self):
        self.events = []

    async def _note(self, kind, **given):
        await checkpoint()
        self.events.append((kind, given))

    async def async_log_pre_api_call(self, model, messages, kwargs):
        self.events.append(("pre", {"model": model, "messages": messages, "kwargs": kwargs}))

    async def async_log_stream_event(self, kwargs, response_obj, start_time, end_time):
        await self._note("stream", kwargs=kwargs, response=response_obj)

    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
        await self._note("success", kwargs=kwargs, response=response_obj, times=(start_time, end_time))

    async def async_log_failure_event(self, kwargs, response_obj, start_time, end_time):
        await self._note("failure", kwargs=kwargs, response=response_obj, times=(start_time, end_time))

    @property
    def kinds(self):
        return [kind for kind, _ in self.events]


async def logged(app, body=None, path="/v1/chat/completions", **settings):
    """What the log is told of a call, and what its client read."""
    log = Log()
    settings = {**settings, "callbacks": [*settings.get("callbacks", []), log]}
    request = Request(chat() if body is None else body, path=path)
    response = await request.to(LLMGate(app, **settings))
    return log, response


CALLS = [
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}, "completion", "messages"),
    ("/v1/completions", {"prompt": "Hi"}, "text_completion", "prompt"),
    ("/v1/embeddings", {"input": ["Hi"]}, "embeddings", "input"),
]


@pytest.mark.parametrize(("path", "fields", "call_type", "words"), CALLS, ids=[row[2] for row in CALLS])
async def test_a_call_is_described_as_litellm_describes_it(path, fields, call_type, words):
    began = datetime.now(UTC)
    body = orjson.dumps({"model": "m", "user": "u", "metadata": {"a": "b"}, "temperature": 1, **fields})
    log, _ = await logged(Upstream(OK), body, path)
    (_, pre), (_, end) = log.events
    assert (pre["model"], pre["messages"]) == ("m", fields[words])
    described = end["kwargs"]
    assert began <= described["start_time"] <= described["end_time"] <= datetime.now(UTC)
    assert (described["start_time"], described["end_time"]) == end["times"]
    assert described["litellm_params"]["metadata"]["a"] == "b"
    assert described["litellm_params"]["proxy_server_request"]["body"]["model"] == "m"
    assert len(described["litellm_call_id"]) == 32
    expected = {"model": "m", "user": "u", "call_type": call_type, "response_cost": None, words: fields[words]}
    rest = {"litellm_params", "litellm_call_id", "start_time", "end_time"}
    assert {name: value for name, value in described.items() if name not in rest} == expected
    assert {name: value for name, value in pre["kwargs"].items() if name not in rest} == expected


async def test_call_types_may_have_litellms_present_names():
    log, _ = await logged(Upstream(OK), call_type_names="litellm")
    assert [given["kwargs"]["call_type"] for _, given in log.events] == ["acompletion", "acompletion"]


async def test_hooks_changes_to_the_data_are_in_the_log():
    class Changes(CallHooks):
        async def async_pre_call_hook(self, data):
            data["model"] = "changed"

    log, _ = await logged(Upstream(OK), callbacks=[Changes()])
    assert [given["kwargs"]["model"] for _, given in log.events] == ["changed", "changed"]


def packed(body):
    return answer(gzip.compress(body), headers=[("content-encoding", "gzip")])


DEEP = b'{"a":' * 1_000 + b"1" + b"}" * 1_000
RESPONSES = [
    ("an object", OK, {"ok": True}),
    ("a list", answer(b"[1]"), [1]),
    ("no JSON", answer(b"hello", content_type="text/plain"), None),
    ("bytes", answer(b"\xff\xfe", content_type="application/octet-stream"), None),
    ("nothing", answer(b""), None),
    ("204", answer(b"", 204), None),
    ("nested too deep", answer(DEEP), None),
    ("compressed all the same", packed(b"{}"), None),
]


@pytest.mark.parametrize(("messages", "expected"), [row[1:] for row in RESPONSES], ids=[row[0] for row in RESPONSES])
async def test_the_response_is_what_the_client_got_or_none_where_it_can_t_be_read(messages, expected):
    log, response = await logged(Upstream(messages))
    assert response.sent == messages
    assert log.kinds == ["pre", "success"]
    assert log.events[1][1]["response"] == expected


async def test_the_response_reads_as_hooks_read_responses():
    log, _ = await logged(Upstream(answer(b'{"choices":[{"message":{"content":"a"}}]}')))
    response = log.events[1][1]["response"]
    assert isinstance(response, chat_shape.Response)
    assert (response.choices[0].message.content, response.choices[0].message.tool_calls) == ("a", None)


async def test_the_response_is_as_the_success_hooks_left_it():
    class Changes(CallHooks):
        async def async_post_call_success_hook(self, response):
            response["changed"] = True

    log, _ = await logged(Upstream(OK), callbacks=[Changes()])
    assert log.events[1][1]["response"] == {"ok": True, "changed": True}


async def test_the_app_is_asked_for_what_the_log_can_read():
    upstream, log = Upstream(OK), Log()
    headers = [("content-type", "application/json"), ("accept-encoding", "gzip")]
    await Request(chat(), headers=headers).to(LLMGate(upstream, callbacks=[log]))
    ((scope, _),) = upstream.calls
    assert [value for name, value in scope["headers"] if name == b"accept-encoding"] == [b"identity"]


LIMITS = [(11, {"ok": True}), (10, {"truncated": True}), (1, {"truncated": True})]


@pytest.mark.parametrize("pieces", [1, 4])
@pytest.mark.parametrize(("limit", "expected"), LIMITS)
async def test_of_a_long_response_only_that_it_was_long_is_logged(limit, expected, pieces):
    start, body = OK
    size = -(-len(body["body"]) // pieces)
    parts = [body["body"][at : at + size] for at in range(0, 11, size)]
    messages = [start, *map(piece, parts[:-1]), piece(parts[-1], more=False)]
    log, response = await logged(Upstream(messages), log_response_bytes=limit)
    assert response.body == body["body"]
    assert log.events[1][1]["response"] == expected


async def test_a_long_stream_is_put_together_as_far_as_it_was_kept():
    first, second = event(said("one ")), event(said("two", "stop"))
    log, response = await logged(
        Upstream([START, piece(first + second + DONE, more=False)]),
        chat(stream=True),
        log_response_bytes=len(first) + 5,
    )
    assert response.body == first + second + DONE
    assert log.kinds == ["pre", "stream", "success"]
    for _, given in log.events[1:]:
        assert (given["response"].choices[0].message.content, given["response"].truncated) == ("one ", True)


FAILED = {
    "an error": ("/v1/chat/completions", event({"error": {"message": "broken", "code": "c"}}) + DONE),
    "a failed response": (
        "/v1/responses",
        event({"type": "response.failed", "response": {"error": {"message": "broken"}}}),
    ),
    "an error event": ("/v1/responses", event({"type": "error", "message": "broken"})),
    "an error in an event": ("/v1/responses", event({"type": "error", "error": {"message": "broken"}})),
    "a message's error": ("/v1/messages", event({"type": "error", "error": {"message": "broken"}})),
}


@pytest.mark.parametrize("name", FAILED)
async def test_a_stream_in_which_the_app_reports_an_error_has_failed(name):
    path, stream = FAILED[name]
    log, response = await logged(Upstream([START, piece(stream, more=False)]), chat(stream=True, max_tokens=1), path)
    assert response.body == stream
    assert log.kinds == ["pre", "failure"]
    exception = log.events[-1][1]["kwargs"]["exception"]
    assert (exception.status_code, exception.message) == (502, "broken")


async def test_a_failed_response_without_an_error_has_failed_too():
    stream = event({"type": "response.failed", "response": None})
    log, _ = await logged(Upstream([START, piece(stream, more=False)]), chat(stream=True), "/v1/responses")
    assert log.kinds == ["pre", "failure"]


async def test_a_long_stream_without_text_is_marked_too():
    log, _ = await logged(
        Upstream([START, piece(b"data: {}\n\n", more=False)]), b"{}", "/v1/embeddings", log_response_bytes=1
    )
    assert log.events[-1][1]["response"] == {"truncated": True}


async def test_no_more_of_a_response_is_kept_than_the_log_may_have():
    async def send(message):
        sent.append(message)

    sent = []
    outlet = Outlet(send, headers=None, copy_bytes=5_000)
    for _ in range(100):
        await outlet(piece(b"x" * 999))
    assert (len(outlet.body), outlet.truncated, len(sent)) == (5_000, True, 100)


def hook(stage, result):
    async def acts():
        if isinstance(result, Exception):
            raise result
        return result

    callback = CallHooks()
    setattr(callback, stage, acts)
    return callback


def streaming(*contents):
    return Upstream([START, *[piece(event(said(text))) for text in contents], piece(DONE, more=False)])


NO = HTTPException(403, "no")

# A way to fail: the app, the body, the settings, whether the call went to the model, and what the log is told.
FAILURES = {
    "no user": (Upstream(OK), chat(), {"enforce_user_param": True}, False, ("GateError", 400)),
    "no key": (Upstream(OK), chat(), {"master_key": "sk-1"}, False, ("GateError", 401)),
    "bad JSON": (Upstream(OK), b"{", {}, False, ("GateError", 400)),
    "too large": (Upstream(OK), chat(), {"max_body_bytes": 5}, False, ("GateError", 413)),
    "message": (Upstream(OK), chat(), {"callbacks": [hook("async_pre_call_hook", "no")]}, False, ("Rejection", None)),
    "pre-call": (Upstream(OK), chat(), {"callbacks": [hook("async_pre_call_hook", NO)]}, False, ("HTTPException", 403)),
    "pre-call crash": (
        Upstream(OK),
        chat(),
        {"callbacks": [hook("async_pre_call_hook", ValueError("x"))]},
        False,
        ("HookFailedError", 500),
    ),
    "moderation": (
        Upstream(OK),
        chat(),
        {"callbacks": [hook("async_moderation_hook", "no")]},
        True,
        ("Rejection", None),
    ),
    "upstream": (Upstream(answer(b"{}", 429)), chat(), {}, True, ("UpstreamError", 429)),
    "upstream's page": (Upstream(answer(b"x", 502, "text/html")), chat(), {}, True, ("UpstreamError", 502)),
    "success": (
        Upstream(OK),
        chat(),
        {"callbacks": [hook("async_post_call_success_hook", NO)]},
        True,
        ("HTTPException", 403),
    ),
    "first piece": (
        streaming("a"),
        chat(stream=True),
        {"callbacks": [hook("async_post_call_streaming_hook", NO)]},
        True,
        ("HTTPException", 403),
    ),
    "replaced": (
        Upstream(answer(b"{}", 429)),
        chat(),
        {"callbacks": [hook("async_post_call_failure_hook", NO)]},
        True,
        ("UpstreamError", 429),
    ),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_whatever_fails_is_one_failure_and_no_success(name):
    app, body, settings, reached, expected = FAILURES[name]
    log, _ = await logged(app, body, **settings)
    assert log.kinds == [*(["pre"] if reached else []), "failure"]
    _, given = log.events[-1]
    exc = given["kwargs"]["exception"]
    assert (type(exc).__name__, getattr(exc, "status_code", None)) == expected
    assert given["response"] is None
    assert (given["kwargs"]["start_time"], given["kwargs"]["end_time"]) == given["times"]


async def test_a_refusal_in_mid_stream_is_one_failure():
    class Refuses(CallHooks):
        async def async_post_call_streaming_hook(self, response):
            if response == "b":
                raise NO

    log, response = await logged(streaming("a", "b", "c"), chat(stream=True), callbacks=[Refuses()], cancel_grace=EVER)
    assert response.status == 200
    assert (log.kinds, log.events[-1][1]["kwargs"]["exception"]) == (["pre", "failure"], NO)


@pytest.mark.parametrize("steps", [(), (START,), (START, piece(b"x"))], ids=["nothing", "start", "half"])
async def test_an_app_that_returns_without_a_whole_response_has_failed(steps):
    log, client = Log(), Client(chat())
    await client.call(LLMGate(App(*steps), callbacks=[log]))
    assert client.sent == list(steps)
    assert log.kinds == ["pre", "failure"]
    assert "before its response was complete" in str(log.events[-1][1]["kwargs"]["exception"])


@pytest.mark.parametrize("steps", [(), (START, piece(b"x"))], ids=["at once", "half-way"])
async def test_an_app_that_raises_has_failed(steps):
    log, client = Log(), Client(chat())
    with pytest.raises(RuntimeError, match="boom"):
        await client.call(LLMGate(App(*steps, raises), callbacks=[log]))
    assert (log.kinds, str(log.events[-1][1]["kwargs"]["exception"])) == (["pre", "failure"], "boom")


async def test_what_an_app_raises_after_its_answer_is_no_failure_of_the_call():
    """Starlette's background tasks run after the answer; their crash takes no log event with it."""
    log, client = Log(), Client(chat())
    with pytest.raises(RuntimeError, match="boom"):
        await client.call(LLMGate(App(*OK, raises), callbacks=[log]))
    assert Response(client.sent).status == 200
    assert log.kinds == ["pre", "success"]


async def test_a_replacement_of_what_an_app_raised_is_logged_as_what_was_raised():
    log, client = Log(), Client(chat())
    with pytest.raises(RuntimeError, match="boom"):
        await client.call(LLMGate(App(raises), callbacks=[log, hook("async_post_call_failure_hook", NO)]))
    assert Response(client.sent).status == 403
    assert (log.kinds, str(log.events[-1][1]["kwargs"]["exception"])) == (["pre", "failure"], "boom")


@pytest.mark.parametrize(("status", "kind"), [(200, "success"), (304, "success"), (404, "failure"), (500, "failure")])
async def test_a_head_request_with_a_body_ends_as_its_status_says(status, kind):
    log = Log()
    await Request(chat(), method="HEAD").to(LLMGate(Upstream(answer(b"", status)), callbacks=[log]))
    assert log.kinds == ["pre", kind]


async def test_what_is_no_call_has_no_events():
    log = Log()
    gate = LLMGate(Upstream(OK), callbacks=[log])
    await Request(path="/v1/orders").to(gate)
    await Request(method="GET", headers=()).to(gate)
    assert log.events == []


EVENTS = ["pre_api_call", "stream_event", "success_event", "failure_event"]


@pytest.mark.parametrize("asynchronous", [True, False], ids=["async", "sync"])
@pytest.mark.parametrize("both", [True, False], ids=["both", "one"])
async def test_of_two_twins_the_asynchronous_one_is_told_and_a_synchronous_one_alone_is_told_too(both, asynchronous):
    seen = []

    def twin(name, *, is_async):
        async def note():
            seen.append((name, "async"))

        return note if is_async else lambda: seen.append((name, "sync"))

    callback = CallHooks()
    for name in EVENTS:
        if asynchronous or both:
            setattr(callback, f"async_log_{name}", twin(name, is_async=True))
        if not asynchronous or both:
            setattr(callback, f"log_{name}", twin(name, is_async=False))
    gate = LLMGate(streaming("a"), callbacks=[callback])
    await Request(chat(stream=True)).to(gate)
    await Request(b"{").to(gate)
    assert seen == [(name, "async" if asynchronous or both else "sync") for name in EVENTS]


@pytest.mark.parametrize("name", EVENTS)
@pytest.mark.parametrize("exc", [ValueError("x"), NO], ids=["crash", "on purpose"])
async def test_a_log_hook_that_raises_changes_nothing_for_anyone(name, exc, caplog):
    log = Log()
    gate = LLMGate(streaming("a"), callbacks=[hook(f"async_log_{name}", exc), log])
    assert (await Request(chat(stream=True)).to(gate)).status == 200
    assert (await Request(b"{").to(gate)).status == 400
    assert log.kinds == ["pre", "stream", "success", "failure"]
    assert f"async_log_{name}" in caplog.text


async def test_a_log_hook_that_takes_too_long_is_given_up(caplog):
    class Sleeps(CallHooks):
        hook_timeout = 0.001

        async def async_log_success_event(self):
            await anyio.sleep_forever()

    log, _ = await logged(Upstream(OK), callbacks=[Sleeps()])
    assert log.kinds == ["pre", "success"]
    assert "Sleeps.async_log_success_event failed" in caplog.text


class Waits(CallHooks):
    """Log hooks that wait for an event."""

    def __init__(self):
        self.release = anyio.Event()
        self.began = []

    async def _wait(self, kind):
        self.began.append(kind)
        await self.release.wait()

    async def async_log_pre_api_call(self):
        await self._wait("pre")

    async def async_log_success_event(self):
        await self._wait("success")

    async def async_log_failure_event(self):
        await self._wait("failure")


@pytest.mark.parametrize(
    ("app", "body", "status", "began"),
    [
        (App(*OK), chat(), 200, ["pre", "success"]),
        (App(START, piece(DONE, more=False)), chat(stream=True), 200, ["pre", "success"]),
        (App(*answer(b"{}", 429)), chat(), 429, ["pre", "failure"]),
        (App(), b"{", 400, ["failure"]),
    ],
    ids=["answer", "stream", "error", "refusal"],
)
async def test_slow_log_hooks_keep_no_client_waiting(app, body, status, began):
    """The client has its answer, and the app is through, while they still wait."""
    slow, client = Waits(), Client(body)
    async with anyio.create_task_group() as group:
        group.start_soon(client.call, LLMGate(app, callbacks=[slow]))
        await anyio.wait_all_tasks_blocked()
        assert Response(client.sent).status == status
        assert slow.began == began[:1]
        slow.release.set()
    assert slow.began == began


async def test_events_come_with_the_last_message_and_not_when_the_app_returns():
    release, log, client = anyio.Event(), Log(), Client(chat())
    async with anyio.create_task_group() as group:
        group.start_soon(client.call, LLMGate(App(*OK, waits(release)), callbacks=[log]))
        await anyio.wait_all_tasks_blocked()
        assert log.kinds == ["pre", "success"]
        release.set()


async def test_nothing_is_logged_before_the_verdict_on_a_held_answer():
    judge, log, client = Judge(), Log(), Client(chat())
    async with anyio.create_task_group() as group:
        group.start_soon(client.call, LLMGate(App(*OK), callbacks=[log, judge]))
        await anyio.wait_all_tasks_blocked()
        assert log.kinds == ["pre"]
        judge.release.set()
    assert log.kinds == ["pre", "success"]


async def test_a_cancellation_from_outside_lets_log_hooks_finish():
    """As at a server's shutdown, or by an outer gate."""

    class Cancels(Client):
        async def send(self, message):
            await super().send(message)
            if self.answered.is_set():
                group.cancel_scope.cancel()

    log, client = Log(), Cancels(chat())
    async with anyio.create_task_group() as group:
        group.start_soon(client.call, LLMGate(App(*OK, sleeps), callbacks=[log]))
    assert log.kinds == ["pre", "success"]


async def test_over_the_limit_of_waiting_events_more_are_dropped_and_it_is_said(caplog):
    slow = Waits()
    gate = LLMGate(Upstream(OK), callbacks=[slow])
    clients = [Client(b"{") for _ in range(MAX_PENDING + 2)]
    async with anyio.create_task_group() as group:
        for client in clients:
            group.start_soon(client.call, gate)
        await anyio.wait_all_tasks_blocked()
        assert all(client.answered.is_set() for client in clients)
        assert len(slow.began) == MAX_PENDING
        assert caplog.text.count("1000 calls wait for log hooks: an event is dropped") == 2
        slow.release.set()
    await Client(b"{").call(gate)
    assert len(slow.began) == MAX_PENDING + 1


async def test_a_full_queue_says_nothing_of_events_that_nobody_wants(caplog):
    slow = hook("async_log_failure_event", None)
    gate = LLMGate(Upstream(OK), callbacks=[slow])
    gate._plan.pending.update(range(MAX_PENDING))
    await Request(chat()).to(gate)
    assert "dropped" not in caplog.text


async def test_gates_nest_and_each_keeps_its_own_account():
    """Also where the outer one's bad verdict ends the inner one's call."""
    outer, inner, judge, client = Recorder(), Recorder(), Judge("no"), Client(chat())
    gate = LLMGate(LLMGate(App(sleeps), callbacks=[inner]), callbacks=[outer, judge], cancel_grace=0)
    async with anyio.create_task_group() as group:
        group.start_soon(client.call, gate)
        await anyio.wait_all_tasks_blocked()
        judge.release.set()
    assert (sorted(outer.events), sorted(inner.events)) == ((["failure", "failure hook", "pre"]),) * 2
    assert {type(exc).__name__ for exc in outer.failures} == {"Rejection"}
    assert {exc.status_code for exc in inner.failures} == {499}


async def test_an_inner_gate_that_is_cancelled_before_its_call_has_failed_too():
    """Its pre-call hook may have taken a slot that only its failure gives back."""

    class Sleeps(CallHooks):
        async def async_pre_call_hook(self):
            await anyio.sleep_forever()

    inner, judge, client = Recorder(), Judge("no"), Client(chat())
    gate = LLMGate(LLMGate(App(), callbacks=[Sleeps(), inner]), callbacks=[judge], cancel_grace=0)
    async with anyio.create_task_group() as group:
        group.start_soon(client.call, gate)
        await anyio.wait_all_tasks_blocked()
        judge.release.set()
    assert sorted(inner.events) == ["failure", "failure hook"]
    assert {exc.status_code for exc in inner.failures} == {499}
