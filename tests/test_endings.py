"""Each call ends exactly once, as a success or a failure, and all that should know of it does."""

from __future__ import annotations

import asyncio
import logging
from contextlib import nullcontext

import anyio
import orjson
import pytest
from starlette.exceptions import HTTPException

from asgi_llm_gate import CallHooks, LLMGate
from asgi_llm_gate.errors import Rejection
from asgi_llm_gate.record import Record
from tests.harness import Request, Response, Upstream, answer, chat
from tests.test_streams import DONE, Chunks, Texts, chunk, messages, raises, retitled, said, texts, wire

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

ANSWER = orjson.dumps(
    {
        "id": "c",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
    }
)


class Log(CallHooks):
    """Notes every event and failure."""

    def __init__(self):
        self.events = []
        self.failures = []

    async def async_log_pre_api_call(self, model, messages, kwargs):
        self.events.append(("pre", model, kwargs))

    async def async_log_stream_event(self, kwargs, response_obj, start_time, end_time):
        self.events.append(("stream", response_obj, kwargs))

    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
        assert start_time <= end_time
        self.events.append(("success", response_obj, kwargs))

    async def async_log_failure_event(self, kwargs, response_obj, start_time, end_time):
        assert response_obj is None
        self.events.append(("failure", kwargs["exception"], kwargs))

    async def async_post_call_failure_hook(self, original_exception):
        self.failures.append(original_exception)

    @property
    def kinds(self):
        return [kind for kind, *_ in self.events]


class Moderates(CallHooks):
    """A moderation hook that comes to its verdict when it is let."""

    def __init__(self, verdict=None):
        self.verdict = verdict
        self.let = anyio.Event()
        self.cancelled = False

    async def async_moderation_hook(self, data):
        try:
            await self.let.wait()
        except BaseException:
            self.cancelled = True
            raise
        return self.verdict


async def nothing_left():
    """No task of the call is left running."""
    await anyio.wait_all_tasks_blocked()
    try:
        assert len(asyncio.all_tasks()) <= 2  # the test's, and the runner's
    except RuntimeError:
        return


async def test_a_whole_answer_is_one_success():
    log = Log()
    await Request(chat(user="me", metadata={"a": "b"})).to(LLMGate(Upstream(answer(ANSWER)), callbacks=[log]))
    assert log.kinds == ["pre", "success"]
    _, response, kwargs = log.events[-1]
    assert isinstance(response, Record)
    assert response.choices[0].message.content == "hello"
    assert (kwargs["model"], kwargs["user"], kwargs["call_type"]) == ("gpt-4o-mini", "me", "completion")
    assert kwargs["litellm_params"]["metadata"]["a"] == "b"
    assert kwargs["litellm_params"]["proxy_server_request"]["method"] == "POST"
    assert log.failures == []
    await nothing_left()


async def test_a_stream_is_one_success_with_its_chunks_put_together():
    calls = [{"index": 0, "id": "i", "type": "function", "function": {"name": "f", "arguments": '{"a"'}}]
    body = wire(
        chunk({"role": "assistant", "content": "hel"}),
        chunk({"content": "lo", "tool_calls": calls}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]}),
        chunk({}, "stop"),
        {"choices": [], "usage": {"total_tokens": 3}},
        b"{",
        DONE,
    )
    log = Log()
    await Request(chat(stream=True)).to(LLMGate(Upstream(messages([body])), callbacks=[log]))
    assert log.kinds == ["pre", "stream", "success"]
    response = log.events[-1][1]
    (choice,) = response.choices
    assert (response.object, response.usage.total_tokens) == ("chat.completion", 3)
    assert (choice.message.content, choice.message.role, choice.finish_reason) == ("hello", "assistant", "stop")
    assert choice.message.tool_calls[0].function == {"name": "f", "arguments": '{"a":1}'}


async def test_the_log_has_what_the_client_got():
    log = Log()
    await Request(chat(stream=True)).to(LLMGate(Upstream(messages([said("a")])), callbacks=[Texts(str.upper), log]))
    assert log.events[-1][1].choices[0].message.content == "A"


async def test_text_streams_and_those_without_text_are_put_together_as_far_as_they_go():
    log = Log()
    body = wire(
        {"choices": [{"index": 0, "text": "a"}]}, {"choices": [{"index": 0, "text": "b", "finish_reason": "stop"}]}
    )
    gate = LLMGate(Upstream(messages([body])), callbacks=[log])
    await Request(b'{"prompt":"p"}', path="/v1/completions").to(gate)
    assert log.events[-1][1].choices[0].text == "ab"
    await Request(b'{"prompt":"p"}', path="/v1/images/generations").to(gate)
    assert log.events[-1][:2] == ("success", None)
    empty = LLMGate(Upstream(messages([wire(DONE)])), callbacks=[log])
    await Request(chat()).to(empty)
    assert log.events[-1][:2] == ("success", None)


@pytest.mark.parametrize(
    ("body", "kind", "logged"),
    [
        (ANSWER, "application/json", {"truncated": True}),
        (said("a", "b"), "text/event-stream", None),
        (b"plain", "text/plain", None),
    ],
)
async def test_a_long_answer_is_marked_as_cut(body, kind, logged):
    log = Log()
    gate = LLMGate(
        Upstream(answer(body, content_type=kind)), callbacks=[log], log_response_bytes=200 if logged is None else 20
    )
    await Request(chat()).to(gate)
    response = log.events[-1][1]
    if b"plain" in body:
        assert response is None
    else:
        assert response["truncated"] is True
        assert logged is None or response == logged


async def test_a_callback_has_one_event_of_either_kind():
    class Both(CallHooks):
        seen: list = []  # noqa: RUF012

        async def async_log_success_event(self, kwargs):
            self.seen.append("async")

        def log_success_event(self, kwargs):
            """Never called."""

        def log_pre_api_call(self, kwargs):
            self.seen.append("pre")

        def log_stream_event(self, kwargs):
            self.seen.append("stream")

    await Request(chat()).to(LLMGate(Upstream(messages([said("a")])), callbacks=[Both()]))
    assert Both.seen == ["pre", "stream", "async"]


async def test_a_log_hook_that_raises_stops_nothing(caplog):
    class Raises(CallHooks):
        async def async_log_success_event(self, kwargs):
            raise HTTPException(400, "no")

    log = Log()
    response = await Request(chat()).to(LLMGate(Upstream(answer(ANSWER)), callbacks=[Raises(), log]))
    assert (response.status, log.kinds) == (200, ["pre", "success"])
    assert "Raises.async_log_success_event raised" in caplog.text


async def test_a_slow_log_hook_keeps_no_client_waiting_and_not_everybody(caplog, monkeypatch):
    monkeypatch.setattr("asgi_llm_gate.account.MAX_PENDING", 1)

    class Slow(CallHooks):
        def __init__(self):
            self.let = anyio.Event()
            self.seen = 0

        async def async_log_success_event(self, kwargs):
            self.seen += 1
            await self.let.wait()

    slow = Slow()
    gate = LLMGate(Upstream(answer(ANSWER)), callbacks=[slow])
    first, second = Request(chat()), Request(chat())
    async with anyio.create_task_group() as group:
        group.start_soon(first.to, gate)
        await anyio.wait_all_tasks_blocked()
        assert Response(first.sent).status == 200
        await second.to(gate)
        slow.let.set()
    assert slow.seen == 1
    assert "an event is dropped" in caplog.text


async def boom(scope, receive, send):
    raise RuntimeError("boom")


async def silent(scope, receive, send):
    await receive()


def unstreamed(*callbacks, app=None, body=None, **keywords):
    return Request(body or chat()), LLMGate(app or Upstream(answer(ANSWER)), callbacks=callbacks, **keywords)


class Pre(CallHooks):
    def __init__(self, result):
        self.result = result

    def async_pre_call_hook(self, data):
        return self.result


class Success(CallHooks):
    def __init__(self, result):
        self.result = result

    def async_post_call_success_hook(self, response):
        return self.result


FAILURES = {
    "bad JSON": (lambda log: unstreamed(log, body=b"{"), 400, ["failure"]),
    "no user": (lambda log: unstreamed(log, enforce_user_param=True), 400, ["failure"]),
    "a rejected message": (lambda log: unstreamed(Pre("no"), log), 200, ["failure"]),
    "a pre-call refusal": (lambda log: unstreamed(Pre(HTTPException(403, "no")), log), 403, ["failure"]),
    "a success hook's refusal": (
        lambda log: unstreamed(Success(HTTPException(403, "no")), log),
        403,
        ["pre", "failure"],
    ),
    "an upstream error": (lambda log: unstreamed(log, app=Upstream(answer(b"{}", 429))), 429, ["pre", "failure"]),
    "an answer too large": (lambda log: unstreamed(Success(None), log, max_response_bytes=5), 502, ["pre", "failure"]),
    "an app that raises": (lambda log: unstreamed(log, app=boom), None, ["pre", "failure"]),
    "an app that says nothing": (lambda log: unstreamed(log, app=silent), None, ["pre", "failure"]),
    "a text hook's refusal": (
        lambda log: unstreamed(Texts(raises(HTTPException(403, "no"))), log, app=Upstream(messages([said("a")]))),
        403,
        ["pre", "failure"],
    ),
}


@pytest.mark.parametrize("case", FAILURES.values(), ids=FAILURES)
async def test_whatever_fails_is_one_failure(case):
    make, status, kinds = case
    log = Log()
    request, gate = make(log)
    with pytest.raises(RuntimeError, match="boom") if gate.app is boom else nullcontext():
        await gate(request.scope, request.receive, request.send)
    assert log.kinds == kinds
    assert log.failures == [log.events[-1][1]]
    assert [m["status"] for m in request.sent if "status" in m] == ([status] if status else [])
    await nothing_left()


async def test_an_error_inside_a_stream_is_a_failure_to_those_who_look():
    log = Log()
    body = wire(chunk({"content": "a"}), {"error": {"message": "upstream broke", "code": 400}}, DONE)
    response = await Request(chat(stream=True)).to(
        LLMGate(Upstream(messages([body])), callbacks=[Texts(str.upper), log])
    )
    assert b"upstream broke" in response.body
    assert log.kinds == ["pre", "failure"]
    assert "upstream broke" in str(log.events[-1][1])
    assert len(log.failures) == 1


class App:
    """An app that begins an answer and works on at it, and notes how it ends."""

    def __init__(self, kind=b"application/json", first=b"{", ignores=False):
        self.kind, self.first, self.ignores = kind, first, ignores
        self.log = []

    async def __call__(self, scope, receive, send):
        await receive()
        try:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", self.kind)]})
            await send({"type": "http.response.body", "body": self.first, "more_body": True})
            async with anyio.create_task_group() as group:
                if not self.ignores:
                    group.start_soon(self.listen, receive)
                await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            self.log.append("cancelled")
            raise

    async def listen(self, receive):
        self.log.append((await receive())["type"])


STREAM = {"kind": b"text/event-stream", "first": said("a", "b")[:-80]}


@pytest.mark.parametrize("ignores", [False, True])
async def test_a_client_that_goes_away_stops_the_app_at_once(ignores):
    app, log = App(ignores=ignores), Log()
    request = Request(chat())
    async with anyio.create_task_group() as group:
        group.start_soon(LLMGate(app, callbacks=[log], cancel_grace=0), request.scope, request.receive, request.send)
        await anyio.wait_all_tasks_blocked()
        request.gone.set()
    assert app.log == ["cancelled"] if ignores else app.log == ["http.disconnect", "cancelled"]
    assert log.kinds == ["pre", "failure"]
    assert [failure.status_code for failure in log.failures] == [499]
    await nothing_left()


async def test_a_client_that_goes_away_stops_moderation_too():
    app, log, moderates = App(), Log(), Moderates()
    request = Request(chat())
    async with anyio.create_task_group() as group:
        gate = LLMGate(app, callbacks=[moderates, log], cancel_grace=0)
        group.start_soon(gate, request.scope, request.receive, request.send)
        await anyio.wait_all_tasks_blocked()
        request.gone.set()
    assert moderates.cancelled
    assert request.sent == []
    assert [failure.status_code for failure in log.failures] == [499]


async def test_a_server_that_cancels_a_call_is_a_client_gone():
    app, log = App(), Log()
    request = Request(chat())
    async with anyio.create_task_group() as group:
        group.start_soon(LLMGate(app, callbacks=[log]), request.scope, request.receive, request.send)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert app.log == ["cancelled"]
    assert log.kinds == ["pre", "failure"]
    assert [failure.status_code for failure in log.failures] == [499]


async def test_what_an_app_does_after_its_answer_is_its_own():
    done = []

    async def app(scope, receive, send):
        await Upstream(answer(ANSWER))(scope, receive, send)
        assert (await receive())["type"] == "http.disconnect"
        await anyio.wait_all_tasks_blocked()
        assert log.kinds == ["pre", "success"], "events do not wait for the app's own business"
        done.append(True)

    log = Log()
    await Request(chat()).to(LLMGate(app, callbacks=[log]))
    assert done == [True]


async def test_cut_lets_a_stream_flow_and_ends_it_in_good_form():
    app, log = App(**STREAM), Log()
    moderates = Moderates(HTTPException(400, {"error": "unsafe"}))
    request = Request(chat(stream=True))
    async with anyio.create_task_group() as group:
        gate = LLMGate(app, callbacks=[moderates, log], moderation_mode="cut", cancel_grace=0)
        group.start_soon(gate, request.scope, request.receive, request.send)
        await anyio.wait_all_tasks_blocked()
        assert len(request.sent) == 2
        moderates.let.set()
    response = Response(request.sent)
    assert texts(response) == {0: "ab"[: len(texts(response)[0])]}
    assert b'"message":"unsafe"' in response.body
    assert response.body.endswith(wire(DONE))
    assert app.log == ["http.disconnect", "cancelled"]
    assert log.kinds == ["pre", "failure"]


async def test_cut_says_a_message_and_lets_a_good_stream_be():
    request = Request(chat(stream=True))
    app, moderates = App(**STREAM), Moderates("rather not")
    async with anyio.create_task_group() as group:
        gate = LLMGate(app, callbacks=[moderates], moderation_mode="cut", cancel_grace=0)
        group.start_soon(gate, request.scope, request.receive, request.send)
        await anyio.wait_all_tasks_blocked()
        moderates.let.set()
    response = Response(request.sent)
    assert texts(response)[0].endswith("rather not")
    assert b'"finish_reason":"content_filter"' in response.body

    moderates = Moderates()
    moderates.let.set()
    response = await Request(chat()).to(
        LLMGate(Upstream(messages([said("a")])), callbacks=[moderates], moderation_mode="cut")
    )
    assert response.body == said("a")


async def test_cut_holds_what_is_no_stream():
    app, moderates = App(), Moderates("rather not")
    request = Request(chat())
    async with anyio.create_task_group() as group:
        gate = LLMGate(app, callbacks=[moderates], moderation_mode="cut", cancel_grace=0)
        group.start_soon(gate, request.scope, request.receive, request.send)
        await anyio.wait_all_tasks_blocked()
        assert request.sent == []
        moderates.let.set()
    assert Response(request.sent).json()["choices"][0]["message"]["content"] == "rather not"


async def test_a_verdict_after_the_end_of_a_stream_is_too_late():
    moderates, log = Moderates("rather not"), Log()
    request = Request(chat(stream=True))
    async with anyio.create_task_group() as group:
        gate = LLMGate(Upstream(messages([said("a")])), callbacks=[moderates, log], moderation_mode="cut")
        group.start_soon(gate, request.scope, request.receive, request.send)
        await anyio.wait_all_tasks_blocked()
        moderates.let.set()
    assert Response(request.sent).body == said("a")
    assert log.kinds == ["pre", "stream", "success"]


async def test_a_refused_piece_under_moderation_answers_at_once():
    moderates = Moderates()
    app = Upstream(messages([said("a"), said("b")]))
    gate = LLMGate(
        app, callbacks=[moderates, Texts(lambda p: None if p == "a" else raises(HTTPException(403, "no"))(p))]
    )
    response = await Request(chat(stream=True)).to(gate)
    assert (response.status, moderates.cancelled) == (403, True)


async def test_iterator_hooks_under_a_held_stream():
    moderates = Moderates()
    request = Request(chat(stream=True))
    async with anyio.create_task_group() as group:
        gate = LLMGate(Upstream(messages([said("ab")])), callbacks=[moderates, Chunks(retitled)])
        group.start_soon(gate, request.scope, request.receive, request.send)
        await anyio.wait_all_tasks_blocked()
        assert request.sent == []
        moderates.let.set()
    assert texts(Response(request.sent)) == {0: "Ab"}


class Headers(CallHooks):
    def __init__(self, headers):
        self.headers = headers
        self.seen = []

    async def async_post_call_response_headers_hook(self, data, response, request_headers):
        self.seen.append((response, request_headers))
        if isinstance(self.headers, Exception):
            raise self.headers
        return self.headers


@pytest.mark.parametrize(
    "make",
    [
        lambda *hooks: unstreamed(*hooks),
        lambda *hooks: unstreamed(*hooks, app=Upstream(messages([said("a")]))),
        lambda *hooks: unstreamed(*hooks, app=Upstream(answer(b"{}", 500))),
        lambda *hooks: unstreamed(Pre("no"), *hooks),
        lambda *hooks: unstreamed(*hooks, body=b"{"),
    ],
    ids=["answer", "stream", "error", "rejection", "refusal"],
)
async def test_headers_are_added_to_every_answer(make, caplog):
    hooks = [
        Headers({"X-One": "1"}),
        Headers(ValueError("x")),
        Headers(None),
        Headers({"x-two": 2, "bad name": "x", "y": "\n"}),
    ]
    request, gate = make(*hooks)
    response = await request.to(gate)
    assert (response.header("x-one"), response.header("x-two")) == ("1", "2")
    assert not [name for name, _ in response.headers if name in {"bad name", "y"}]
    assert "Headers.async_post_call_response_headers_hook raised" in caplog.text
    assert "what is no header" in caplog.text


async def test_headers_hooks_see_the_whole_response_and_the_request():
    hook = Headers({})
    request = Request(chat(), headers=[("x-a", "b"), ("authorization", "Bearer secret")])
    await request.to(LLMGate(Upstream(answer(ANSWER)), callbacks=[Success(None), hook]))
    ((response, headers),) = hook.seen
    assert response.choices[0].message.content == "hello"
    assert headers == {"x-a": "b"}


async def test_crashes_in_mid_stream_tell_nothing(caplog):
    caplog.set_level(logging.ERROR)
    body = said("a", "b")
    hook = Texts(lambda piece: piece if piece == "a" else raises(KeyError("inside"))(piece))
    response = await Request(chat(stream=True)).to(LLMGate(Upstream(messages([body])), callbacks=[hook]))
    assert b"inside" not in response.body
    assert "Texts.async_post_call_streaming_hook failed" in caplog.text


async def test_a_rejection_before_the_first_text_is_a_whole_rejected_stream():
    response = await Request(chat(stream=True)).to(
        LLMGate(Upstream(messages([said("a")])), callbacks=[Texts(raises(Rejection("enough")))])
    )
    assert texts(response) == {0: "enough"}
    assert response.header("x-request-id")
