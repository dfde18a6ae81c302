"""Iterator hooks: what they are given and may yield, and that each is closed on every way a stream can end."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import anyio
import orjson
import pytest
from anyio.lowlevel import checkpoint
from starlette.exceptions import HTTPException

from asgi_llm_gate import CallHooks, LLMGate
from asgi_llm_gate.errors import Rejection
from asgi_llm_gate.record import Record
from tests.harness import Request, Upstream, chat
from tests.test_streams import (
    DONE,
    START,
    TEXT,
    Chunks,
    Texts,
    after,
    chunk,
    chunks_of,
    messages,
    raises,
    said,
    streamed,
    text_chunk,
    texts,
    upper,
    wire,
)

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

CRASHED = b'data: {"error":{"message":"Internal server error","type":"internal_server_error"'
A, B = chunk({"content": "a"}), chunk({"content": "b"})
EVER = 3600.0


async def passes(chunks):
    async for got in chunks:
        yield got


def until(text, then=None):
    """A generator that passes chunks on until one has the text, and then returns, or raises."""

    async def generator(chunks):
        async for got in chunks:
            yield got
            if content(got) == text:
                if then:
                    raise then
                return

    return generator


def before(text, exc):
    """A generator that raises where it is given a text; it drops what is to be dropped."""

    async def generator(chunks):
        async for got in chunks:
            if content(got) == text:
                raise exc
            if content(got) != "dropped":
                yield got

    return generator


class Ends(CallHooks):
    """Notes how calls end."""

    def __init__(self):
        self.told = []

    async def async_post_call_failure_hook(self, original_exception):
        self.told.append(original_exception)

    async def async_log_success_event(self):
        self.told.append("success")


def content(got):
    return got.choices[0].delta.content if got.choices else None


class Tracked(CallHooks):
    """An iterator hook that notes how it is left, and may do something at one text."""

    def __init__(self, log, name, at=None, does=None):
        self.log, self.name, self.at, self.does = log, name, at, does

    async def async_post_call_streaming_iterator_hook(self, response):
        try:
            async for got in response:
                if self.does and content(got) == self.at and await self.does() == "return":
                    return
                yield got
        finally:
            await checkpoint_if_allowed()
            self.log.append(self.name)


async def checkpoint_if_allowed():
    """Clean up as handlers do: by awaiting something, which must still work."""
    with anyio.CancelScope(shield=True):
        await checkpoint()


async def leaves():
    return "return"


async def crashes():
    raise ValueError("inside")


async def refuses():
    raise HTTPException(403, "no")


async def rejects():
    raise Rejection("Enough.")


def refusing():
    return after(1, HTTPException(403, "no"))


WAYS = {
    "to the end": ((None, None), (None, None), []),
    "the outer returns": ((None, None), ("b", leaves), []),
    "the inner returns": (("b", leaves), (None, None), []),
    "the outer crashes": ((None, None), ("b", crashes), []),
    "the inner crashes": (("b", crashes), (None, None), []),
    "the outer refuses": ((None, None), ("b", refuses), []),
    "the inner rejects": (("b", rejects), (None, None), []),
    "the outer hangs": ((None, None), ("b", anyio.sleep_forever), []),
    "the inner hangs": (("b", anyio.sleep_forever), (None, None), []),
    "a text hook refuses": ((None, None), (None, None), [refusing]),
}


@pytest.mark.parametrize(("inner", "outer", "others"), WAYS.values(), ids=WAYS)
async def test_generators_are_closed_however_a_stream_ends(inner, outer, others):
    """By the time the call is over, from the outermost inwards or where the end began."""
    log = []
    hooks = [Tracked(log, "inner", *inner), Tracked(log, "outer", *outer), *(make() for make in others)]
    response = await streamed(said("a", "b", "c"), *hooks, hook_timeout=0.05)
    assert sorted(log) == ["inner", "outer"]
    assert response.body.endswith(wire(DONE))


BREAKS = ["gone", "returns", "raises", "cut"]


@pytest.mark.parametrize("how", BREAKS)
@pytest.mark.parametrize("idle", [True, False], ids=["waiting for a chunk", "at work on a chunk"])
async def test_generators_are_closed_however_a_call_breaks_off(how, idle, caplog):
    """The client leaves, the app returns or raises without an end, moderation cuts: no generator is left."""
    log, begun = [], anyio.Event()
    request = Request(chat(stream=True))

    async def works():
        begun.set()
        await (checkpoint() if idle else anyio.sleep_forever())

    async def app(scope, receive, send):
        await receive()
        await send(START)
        async with anyio.create_task_group() as group:
            group.start_soon(says, send)
            await begun.wait()
            if how == "gone":
                request.gone.set()
            if how in ("gone", "cut"):
                assert (await receive())["type"] == "http.disconnect"
            group.cancel_scope.cancel()
        if how == "raises":
            raise OSError("the model broke off")

    async def says(send):
        await send({"type": "http.response.body", "body": wire(A), "more_body": True})

    class Judge(CallHooks):
        async def async_moderation_hook(self):
            await begun.wait()
            await checkpoint()
            return "Enough." if how == "cut" else None

    hooks = [Tracked(log, "inner", "a", works), Tracked(log, "outer"), Judge()]
    gate = LLMGate(app, callbacks=hooks, moderation_mode="cut", cancel_grace=EVER)
    with anyio.fail_after(10):
        try:
            await gate(request.scope, request.receive, request.send)
        except OSError:
            assert how == "raises"
    assert sorted(log) == ["inner", "outer"]


async def test_hooks_see_objects_whoever_made_them():
    """The next in the nest gets records, of the shape's fields, of dicts and of models that another yields."""
    kinds = []

    async def makes(chunks):
        got = await anext(chunks)
        yield got.model_dump()
        yield SimpleNamespace(model_dump=lambda: chunk({"content": "?"}))
        yield {"choices": [{"delta": {}}]}

    async def looks(chunks):
        async for got in chunks:
            kinds.append((isinstance(got, Record), got.choices[0].delta.tool_calls, got.choices[0]["delta"].content))
            yield got

    await streamed(wire(A, DONE), Chunks(makes), Chunks(looks))
    assert kinds == [(True, None, "a"), (True, None, "?"), (True, None, None)]


async def test_text_completions_are_iterated_over_too():
    async def shouts(chunks):
        async for got in chunks:
            got.choices[0].text = got.choices[0].text.upper()
            yield got

    body = wire(text_chunk("a"), text_chunk("b", "stop"), DONE)
    assert texts(await streamed(body, Chunks(shouts), path=TEXT)) == {0: "AB"}


async def test_a_hook_is_given_the_request_and_the_caller():
    got = []

    class Asks(CallHooks):
        async def async_post_call_streaming_iterator_hook(self, user_api_key_dict, response, request_data):
            got.append((user_api_key_dict.metadata, request_data["model"]))
            async for one in response:
                yield one

    await streamed(said("a"), Asks())
    assert got == [({}, "m")]


async def test_what_no_generator_changed_keeps_its_bytes_and_its_order():
    """Comments, other fields and what is no chunk stay where they were; so does what passed two hooks."""
    body = (
        b": ping\n\n"
        b'id: 7\r\ndata: {"choices": [ ], "x":1.0}\r\n\r\n'
        b": PROCESSING\r\r" + wire(A) + b"data: no json\n\n: last\n\n" + wire(B, chunk({}, "stop"), DONE) + b": bye\n\n"
    )
    for pieces in ([body], [body[at : at + 1] for at in range(len(body))]):
        gate = LLMGate(Upstream(messages(pieces)), callbacks=[Chunks(passes), Chunks(passes)])
        response = await Request(chat(stream=True)).to(gate)
        assert response.body == body


async def test_a_changed_chunk_keeps_its_events_other_fields():
    async def shouts(chunks):
        async for got in chunks:
            got["choices"][0]["delta"]["content"] = "A"
            yield got

    body = b': c\nid: 3\ndata: {"choices":[{"delta":{"content":"a"}}]}\n\n' + wire(DONE)
    assert (await streamed(body, Chunks(shouts))).body == body.replace(b'"a"', b'"A"')


async def test_what_is_no_strict_json_is_iterated_over_all_the_same():
    body = rb'data: {"choices":[{"delta":{"content":"a\ud83d"},"p":-Infinity}]}' + b"\n\n" + wire(DONE)
    assert (await streamed(body, Chunks(passes))).body == body

    async def drops(chunks):
        async for got in chunks:
            del got.choices[0].p
            yield got

    assert (await streamed(body, Chunks(drops))).body == body.replace(b',"p":-Infinity', b"")


async def test_chunks_held_back_come_before_the_end():
    """A hook may gather a stream whole before it lets go of it, and add to it; usage and comments keep their way."""

    async def gathers(chunks):
        gathered = [got async for got in chunks]
        for got in gathered:
            yield got
        yield chunk({"content": "!"})

    body = wire(A, B, DONE)
    response = await streamed(body, Chunks(gathers))
    assert response.body == wire(A, B, chunk({"content": "!"}), DONE)


async def test_text_hooks_are_shown_what_iterator_hooks_add():
    async def adds(chunks):
        yield chunk({"content": "first "})
        async for got in chunks:
            yield got

    assert texts(await streamed(said("a"), upper(), Chunks(adds))) == {0: "FIRST A"}


async def test_text_held_back_comes_before_an_early_end():
    held = Texts(lambda piece: None, 10)
    response = await streamed(wire(A, B, chunk({"content": "c"}), DONE), Chunks(until("b")), held)
    assert texts(response) == {0: "ab"}
    assert [choice["finish_reason"] for got in chunks_of(response) for choice in got["choices"]][-1] == "stop"
    assert (await streamed(said("a"), Chunks(until("b")), held)).body.endswith(wire(chunk({}, "stop"), DONE))


async def test_a_chunk_is_as_the_hook_left_it_whatever_text_hooks_make_of_it():
    """It may look at it later, or yield it a second time."""
    seen = []

    async def twice(chunks):
        async for got in chunks:
            yield got
            seen.append(content(got))
            yield got

    response = await streamed(wire(A, B, DONE), Chunks(twice), Texts(str.upper, 10))
    assert seen == ["a", "b"]
    assert texts(response) == {0: "AABB"}


async def test_a_refusal_of_text_held_back_at_an_early_end_ends_in_good_form():
    late = Texts(lambda piece: raises(HTTPException(403, "no"))(piece) if "b" in piece else None)
    response = await streamed(wire(A, B, DONE), Chunks(until("b")), Texts(lambda piece: None, 1), late)
    assert texts(response) == {0: "a"}
    assert response.body.endswith(b'"code":"403"}}\n\n' + wire(DONE))


@pytest.mark.parametrize("finished", [False, True])
async def test_an_early_end_finishes_what_is_open_and_stops_the_app(finished):
    """The app is told; one that does not listen is cancelled after its grace. The call is a success."""
    ends, heard = Ends(), []

    async def app(scope, receive, send):
        await receive()
        await send(START)
        finish = "length" if finished else None
        for event in (chunk({"content": "a"}, finish), chunk({"content": "b"}, index=1), A):
            await send({"type": "http.response.body", "body": wire(event), "more_body": True})
        heard.append(await receive())
        try:
            await anyio.sleep_forever()
        finally:
            heard.append("cancelled")

    gate = LLMGate(app, callbacks=[Chunks(until("b")), ends], cancel_grace=0.01)
    response = await Request(chat(stream=True)).to(gate)
    finishes = [
        (choice["index"], choice["finish_reason"])
        for got in chunks_of(response)
        for choice in got["choices"]
        if choice["finish_reason"]
    ]
    assert finishes == [(0, "length" if finished else "stop"), (1, "stop")]
    assert response.body.endswith(wire(DONE))
    assert response.body.count(b"[DONE]") == 1
    assert heard == [{"type": "http.disconnect"}, "cancelled"]
    assert ends.told == ["success"]


async def test_a_generator_that_yields_nothing_is_a_short_answer():
    async def nothing(chunks):
        return
        yield

    response = await streamed(said("a"), Chunks(nothing))
    assert [got["choices"][0]["finish_reason"] for got in chunks_of(response)] == [None, "stop"]
    assert response.body.endswith(wire(DONE))


async def test_a_stream_of_which_nothing_is_passed_on_still_ends():
    async def drops(chunks):
        async for _ in chunks:
            pass
        return
        yield

    assert (await streamed(said("a"), Chunks(drops))).body == wire(DONE)


WRONG = {
    "a number": 1,
    "a str": "data: x\n\n",
    "bytes": b"x",
    "none": None,
    "a list": [],
    "a model of a list": SimpleNamespace(model_dump=list),
    "what is no JSON": {"choices": [{"delta": {"content": object()}}]},
}


@pytest.mark.parametrize("value", WRONG.values(), ids=WRONG)
async def test_a_wrong_value_is_a_crash_that_tells_nothing(value):
    async def wrong(chunks):
        async for got in chunks:
            yield value if content(got) == "b" else got

    assert (await streamed(said("a"), Chunks(wrong))).body == said("a")
    later = await streamed(said("a", "b"), Chunks(wrong))
    assert texts(later) == {0: "a"}
    assert CRASHED in later.body
    assert later.body.endswith(wire(DONE))
    assert b"object" not in later.body.replace(b'"object":"chat', b"")
    first = await streamed(said("b"), Chunks(wrong))
    assert (first.status, first.error()["message"]) == (500, "Internal server error")


REFUSALS = {
    "a crash": (ValueError("inside"), 500, b'"message":"Internal server error"'),
    "an HTTP exception": (HTTPException(403, "no"), 403, b'"message":"no"'),
}


@pytest.mark.parametrize(("exc", "status", "message"), REFUSALS.values(), ids=REFUSALS)
@pytest.mark.parametrize("at", ["start", "a", "end"])
async def test_a_refusal_is_a_status_before_the_first_byte_and_an_event_later(exc, status, message, at):
    async def fails(chunks):
        if at == "start":
            raise exc
        async for got in chunks:
            if content(got) == at:
                raise exc
            yield got
        raise exc

    response = await streamed(said("a", "b"), Chunks(fails))
    if at == "end":
        assert texts(response) == {0: "ab"}
        assert message in response.body
        assert response.body.endswith(wire(DONE))
        assert response.body.count(b"[DONE]") == 1
    else:
        assert response.status == status
        assert message in response.body


async def test_a_message_in_mid_stream():
    ends, exc = Ends(), Rejection("Enough.")
    response = await streamed(said("a", "b"), Chunks(before("b", exc)), ends)
    assert ends.told == [exc]
    assert texts(response) == {0: "aEnough."}
    assert chunks_of(response)[-1]["choices"][0]["finish_reason"] == "content_filter"
    assert response.body.endswith(wire(DONE))


async def test_a_crash_that_is_allowed_passes_on_the_chunk_in_hand_and_the_rest():
    crashes_at_b = Chunks(before("b", ValueError("inside")))
    assert texts(await streamed(said("dropped", "a"), crashes_at_b)) == {0: "a"}
    response = await streamed(said("dropped", "a", "b", "c"), crashes_at_b, on_hook_error="allow")
    assert texts(response) == {0: "abc"}


async def test_a_chunk_yielded_or_dropped_before_a_crash_that_is_allowed_is_not_repeated():
    yields = until("a", ValueError("inside"))

    async def drops(chunks):
        async for got in chunks:
            if content(got) != "b":
                yield got
        raise ValueError("inside")

    assert texts(await streamed(said("a", "b"), Chunks(yields), on_hook_error="allow")) == {0: "ab"}
    assert texts(await streamed(said("a", "b"), Chunks(drops), on_hook_error="allow")) == {0: "a"}


async def test_a_wrong_value_that_is_allowed_passes_on_what_was_in_hand():
    async def wrong(chunks):
        await anext(chunks)
        yield "data: x"

    hooks = [Chunks(passes), Chunks(wrong)]
    hooks[1].on_hook_error = "allow"
    assert (await streamed(said("a", "b"), *hooks)).body == said("a", "b")


async def test_a_hook_that_closed_its_chunks_and_crashes_may_be_allowed():
    async def closes(chunks):
        yield await anext(chunks)
        await chunks.aclose()
        assert [other async for other in chunks] == []
        raise ValueError("inside")

    assert texts(await streamed(said("a", "b"), Chunks(closes), on_hook_error="allow")) == {0: "ab"}


@pytest.mark.parametrize("result", [None, 1, [], "x"], ids=repr)
@pytest.mark.parametrize("coroutine", [False, True], ids=["def", "async def"])
async def test_what_cannot_be_iterated_over_is_a_crash(result, coroutine):
    async def later(chunks):
        return result

    hook = Chunks(later if coroutine else lambda chunks: result)
    assert (await streamed(said("a"), hook)).status == 500
    assert (await streamed(said("a"), hook, on_hook_error="allow")).body == said("a")


class Iterator:
    """An async iterator that is no generator: it has nothing to close."""

    def __init__(self, chunks):
        self.chunks = chunks

    def __aiter__(self):
        return self

    async def __anext__(self):
        return await anext(self.chunks)


async def as_it_is(chunks):
    return chunks


@pytest.mark.parametrize("made", [Iterator, lambda chunks: chunks, as_it_is], ids=["class", "the chunks", "awaited"])
async def test_any_async_iterator_will_do(made):
    assert (await streamed(said("a", "b"), Chunks(made), Chunks(made))).body == said("a", "b")


@pytest.mark.parametrize("at", ["the start", "a", "the end"])
async def test_a_generator_that_hangs_ends_the_stream(at, caplog):
    log = []

    async def hangs(chunks):
        try:
            if at == "the start":
                await anyio.sleep_forever()
            async for got in chunks:
                yield got
                if content(got) == at:
                    await anyio.sleep_forever()
            await anyio.sleep_forever()
        finally:
            log.append("closed")

    response = await streamed(said("a", "b"), Chunks(hangs), hook_timeout=0.02)
    assert (response.status == 500) is (at == "the start")
    assert b"Internal server error" in response.body
    assert log == ["closed"]
    assert "Chunks.async_post_call_streaming_iterator_hook took longer than 0.02 seconds" in caplog.text


async def test_a_generator_that_does_not_end_when_cancelled_ends_the_stream_all_the_same():
    free = anyio.Event()

    async def stays(chunks):
        async for got in chunks:
            yield got
            with anyio.CancelScope(shield=True):
                await free.wait()

    class Frees(CallHooks):
        async def async_post_call_failure_hook(self):
            free.set()

    body = wire(A, B, DONE)
    response = await streamed(body, Chunks(stays), Frees(), pieces=[wire(A), wire(B), wire(DONE)], hook_timeout=0.02)
    assert texts(response) == {0: "a"}
    assert CRASHED in response.body


async def test_a_client_slow_to_take_an_early_end_is_not_the_generators_fault(caplog):
    request = Request(chat(stream=True))

    async def send(message):
        if not message.get("more_body", True):
            await anyio.sleep(0.1)
        await request.send(message)

    gate = LLMGate(
        Upstream(messages([wire(A, B)])), callbacks=[Chunks(until("a"))], hook_timeout=0.02, cancel_grace=EVER
    )
    await gate(request.scope, request.receive, send)
    assert b"".join(m.get("body", b"") for m in request.sent).endswith(wire(DONE))
    assert caplog.text == ""


async def test_the_app_goes_on_when_its_chunk_has_gone_out():
    """Back-pressure: an app that awaits `send` is no further than one chunk ahead of its client."""
    log = []
    request = Request(chat(stream=True))

    async def send(message):
        await checkpoint()
        log.append(("client", message.get("body", b"")))

    async def app(scope, receive, send):
        await receive()
        await send(START)
        for event in (A, B):
            await send({"type": "http.response.body", "body": wire(event), "more_body": True})
            log.append(("app", wire(event)))
        await send({"type": "http.response.body"})

    await LLMGate(app, callbacks=[Chunks(passes), Chunks(passes)])(request.scope, request.receive, send)
    a, b = wire(A), wire(B)
    assert log == [("client", b""), ("client", a), ("app", a), ("client", b), ("app", b), ("client", b"")]


class TestPrefetching:
    """Generators that ask for chunks in tasks of their own, as asyncio allows."""

    @pytest.fixture
    def anyio_backend(self):
        return "asyncio"

    @pytest.mark.parametrize("outer", [False, True], ids=["alone", "around another"])
    async def test_one_chunk_ahead(self, outer):
        own_tasks = asyncio.all_tasks()

        async def ahead(chunks):
            asked = asyncio.ensure_future(anext(chunks, None))
            while (got := await asked) is not None:
                asked = asyncio.ensure_future(anext(chunks, None))
                await asyncio.sleep(0)
                yield got

        hooks = [Chunks(passes), Chunks(ahead)] if outer else [Chunks(ahead)]
        assert (await streamed(said("a", "b", "c"), *hooks)).body == said("a", "b", "c")
        assert asyncio.all_tasks() == own_tasks

    @pytest.mark.parametrize("outer", [False, True], ids=["alone", "around another"])
    @pytest.mark.parametrize("how", ["returns", "raises"])
    async def test_what_is_still_asked_for_at_an_early_end_finds_none(self, outer, how):
        own_tasks = asyncio.all_tasks()
        log = []

        async def ahead(chunks):
            got = await anext(chunks)
            log.append(asyncio.ensure_future(anext(chunks, "none")))
            await asyncio.sleep(0)
            yield got
            if how == "raises":
                raise HTTPException(403, "no")

        hooks = [Chunks(passes), Chunks(ahead)] if outer else [Chunks(ahead)]
        response = await streamed(wire(A, B, B, DONE), *hooks)
        assert texts(response) == {0: "a"}
        assert (b'"message":"no"' in response.body) is (how == "raises")
        await asyncio.wait(log, timeout=5)
        assert [task.result() for task in log] == ["none"]
        assert asyncio.all_tasks() == own_tasks

    async def test_a_time_limit_on_asking_loses_nothing(self):
        """`wait_for` cancels what asks; the next one who asks gets the chunk."""
        own_tasks = asyncio.all_tasks()
        waited = asyncio.Event()

        async def impatient(chunks):
            while True:
                try:
                    got = await asyncio.wait_for(anext(chunks), 0.001)
                except TimeoutError:
                    waited.set()
                    continue
                except StopAsyncIteration:
                    return
                yield got

        async def app(scope, receive, send):
            await receive()
            await send(START)
            for event in (A, B, DONE):
                waited.clear()
                await waited.wait()
                await send({"type": "http.response.body", "body": wire(event), "more_body": True})
            await send({"type": "http.response.body"})

        response = await Request(chat(stream=True)).to(LLMGate(app, callbacks=[Chunks(impatient)]))
        assert response.body == wire(A, B, DONE)
        assert asyncio.all_tasks() == own_tasks

    @pytest.mark.parametrize("how", ["end", "early", "crash", "gone"])
    async def test_no_task_is_left(self, how):
        own_tasks = asyncio.all_tasks()
        log = []
        does = {"end": None, "early": leaves, "crash": crashes, "gone": anyio.sleep_forever}[how]
        request = Request(chat(stream=True))
        hooks = [Tracked(log, "inner"), Tracked(log, "outer", "a", does)]

        async def app(scope, receive, send):
            await receive()
            await send(START)
            if how == "gone":
                asyncio.get_running_loop().call_soon(request.gone.set)
            await send({"type": "http.response.body", "body": said("a", "b")})

        await LLMGate(app, callbacks=hooks, cancel_grace=0.001)(request.scope, request.receive, request.send)
        assert sorted(log) == ["inner", "outer"]
        assert asyncio.all_tasks() == own_tasks


async def test_the_apps_error_event_passes_behind_what_was_said():
    body = wire(A, {"error": {"message": "broke", "type": "server_error", "param": None, "code": None}})
    response = await streamed(body, Chunks(passes), Texts(lambda piece: None, 10))
    assert orjson.loads(response.body.split(b"\n\n")[-2].removeprefix(b"data: "))["error"]["message"] == "broke"
    assert texts(response) == {0: "a"}


async def test_chunks_behind_the_end_go_nowhere():
    """The generators have come to their end, so nobody would have looked at them; comments may pass."""
    response = await streamed(wire(A, DONE, B) + b": bye\n\n", Chunks(passes))
    assert response.body == wire(A, DONE) + b": bye\n\n"
