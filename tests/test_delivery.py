"""An answer's way to the client: whoever ends the call, and whenever, it is one whole answer or none, told of once."""

from __future__ import annotations

import gc
import gzip
import threading
import weakref

import anyio
import pytest
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from asgi_llm_gate import CallHooks, LLMGate
from tests.actors import (
    DONE,
    EVER,
    START,
    App,
    Client,
    Judge,
    Recorder,
    event,
    piece,
    raises,
    said,
    sleeps,
    tasks_living,
    told,
    waits,
)
from tests.harness import CHAT, Request, Response, Upstream, answer, chat

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

OK = answer(b'{"ok":true}')
A, B = piece(event(said("a"))), piece(event(said("b", "stop")))
LAST = piece(DONE, more=False)
STREAM = (START, A, B, LAST)
NO = HTTPException(403, "no")


class Text(CallHooks):
    """A text hook that changes nothing."""

    async def async_post_call_streaming_hook(self, response):
        return response


class Chunks(CallHooks):
    """An iterator hook that changes nothing."""

    async def async_post_call_streaming_iterator_hook(self, response):
        async for chunk in response:
            yield chunk


class Looks(CallHooks):
    """A success hook that changes nothing."""

    async def async_post_call_success_hook(self):
        """Do nothing."""


def said_by(response):
    """The text of a whole chat completion."""
    return response.json()["choices"][0]["message"]["content"]


class Slow(Client):
    """A client that takes each message only after many turns of the loop."""

    async def send(self, message):
        for _ in range(20):
            await checkpoint()
        await super().send(message)


# --- The client goes away.

READERS = {"nobody": [], "text": [Text()], "iterator": [Chunks()], "both": [Chunks(), Text()], "success": [Looks()]}
readers = pytest.mark.parametrize("readers", READERS.values(), ids=READERS)

PLACES = {
    "at once": (told,),
    "before an answer": (sleeps,),
    "after the start": (START, told),
    "in mid-stream": (START, A, told),
    "inside an event": (START, A, piece(b'data: {"cho'), told),
    "in a whole answer": (OK[0], piece(b'{"ok"'), told),
    "deaf in mid-stream": (START, A, sleeps),
}


@readers
@pytest.mark.parametrize("moderation", ["none", "pending", "hold", "cut"])
@pytest.mark.parametrize("place", PLACES)
async def test_a_client_that_leaves_stops_app_and_judges_and_is_one_failure(place, moderation, readers):
    recorder, judge, client = Recorder(), Judge(), Client(chat(stream=True))
    app = App(*PLACES[place])
    callbacks = [recorder, *readers, *([] if moderation == "none" else [judge])]
    if moderation != "pending":
        judge.release.set()
    before = tasks_living()
    async with anyio.create_task_group() as group:
        mode = "cut" if moderation == "cut" else "hold"
        group.start_soon(client.call, LLMGate(app, callbacks=callbacks, moderation_mode=mode, cancel_grace=0))
        await anyio.wait_all_tasks_blocked()
        client.gone.set()
    await cancel_shielded_checkpoint()
    assert tasks_living() == before
    assert app.log[1:] == (["cancelled"] if sleeps in app.steps else ["done"])
    assert sorted(recorder.events) == ["failure", "failure hook", "pre"]
    assert {exc.status_code for exc in recorder.failures} == {499}
    assert judge.cancelled == (moderation == "pending")
    assert not client.answered.is_set()


async def test_a_client_that_leaves_while_a_whole_answer_is_held_stops_the_judges():
    recorder, judge, client = Recorder(), Judge(), Client(chat())
    async with anyio.create_task_group() as group:
        group.start_soon(client.call, LLMGate(App(*OK), callbacks=[recorder, judge]))
        await anyio.wait_all_tasks_blocked()
        client.gone.set()
    assert judge.cancelled
    assert {exc.status_code for exc in recorder.failures} == {499}
    assert client.sent == []


async def test_a_client_that_leaves_while_the_app_waits_for_room_in_the_hold_frees_it():
    recorder, judge, client = Recorder(), Judge(), Client(chat(stream=True))
    app = App(START, *[A] * 100, LAST)
    async with anyio.create_task_group() as group:
        gate = LLMGate(app, callbacks=[recorder, judge], moderation_buffer=1000, cancel_grace=EVER)
        group.start_soon(client.call, gate)
        await anyio.wait_all_tasks_blocked()
        assert app.log == ["http.request"]
        client.gone.set()
    assert app.log == ["http.request", "done"]
    assert sorted(recorder.events) == ["failure", "failure hook", "pre"]
    assert client.sent == []


LATE_ANSWERS = {
    "an answer": OK,
    "an error": answer(b'{"error":{"message":"client left"}}', 499),
    "a stream": STREAM,
    "a crash": (raises,),
    "more than may be collected": (OK[0], piece(b"x" * 200_000, more=False)),
}


@readers
@pytest.mark.parametrize("steps", LATE_ANSWERS.values(), ids=LATE_ANSWERS)
async def test_what_an_app_makes_of_its_clients_leaving_is_no_second_end(steps, readers):
    recorder, client = Recorder(), Client(chat(stream=True))
    gate = LLMGate(App(told, *steps), callbacks=[recorder, *readers], cancel_grace=EVER, max_response_bytes=100_000)
    client.gone.set()
    await client.call(gate)
    assert sorted(recorder.events) == ["failure", "failure hook", "pre"]
    assert {exc.status_code for exc in recorder.failures} == {499}


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])  # in real time: a thread knows no other
async def test_an_app_in_a_thread_is_told_and_waited_for():
    """A thread can't be cancelled: the gate neither leaves it behind nor forgets to tell of the client meanwhile."""
    release, began, recorder, client = threading.Event(), anyio.Event(), Recorder(), Client(chat())

    async def app(scope, receive, send):
        began.set()
        await anyio.to_thread.run_sync(release.wait)
        await JSONResponse({})(scope, receive, send)

    async with anyio.create_task_group() as group:
        group.start_soon(client.call, LLMGate(app, callbacks=[recorder], cancel_grace=0))
        await began.wait()
        client.gone.set()
        await anyio.wait_all_tasks_blocked()
        assert "failure hook" in recorder.events
        release.set()
    assert sorted(recorder.events) == ["failure", "failure hook", "pre"]


async def test_the_failure_hook_of_a_client_that_left_is_not_cut_off_by_the_apps_end():
    class Slowly(CallHooks):
        ended = 0

        async def async_post_call_failure_hook(self):
            for _ in range(20):
                await checkpoint()
            self.ended += 1

    hook, client = Slowly(), Client(chat())
    client.gone.set()
    await client.call(LLMGate(App(told), callbacks=[hook]))
    assert hook.ended == 1


# --- After the answer.


async def test_background_tasks_are_not_disturbed_by_the_client_and_do_not_hold_up_the_events():
    release, done, recorder, client = anyio.Event(), [], Recorder(), Client(chat())

    async def background():
        await release.wait()
        done.append(True)

    async def endpoint(request):
        await request.body()
        return JSONResponse({}, background=BackgroundTask(background))

    app = Starlette(routes=[Route(CHAT, endpoint, methods=["POST"])])
    async with anyio.create_task_group() as group:
        group.start_soon(client.call, LLMGate(app, callbacks=[recorder], cancel_grace=0))
        await client.answered.wait()
        client.gone.set()
        await anyio.wait_all_tasks_blocked()
        assert (recorder.events, done) == (["pre", "success"], [])
        release.set()
    assert (recorder.events, done) == (["pre", "success"], [True])


@readers
@pytest.mark.parametrize("spec_version", ["2.0", "2.3", "2.4", None])
async def test_starlettes_streams_reach_a_slow_client_whole(spec_version, readers):
    """Below 2.4 its StreamingResponse listens for a disconnect beside its own sending, and stops sending on one."""

    async def endpoint(request):
        await request.body()
        return StreamingResponse(body(), media_type="text/event-stream")

    async def body():
        yield A["body"]
        yield B["body"] + DONE

    client = Slow(chat(stream=True), spec_version=spec_version)
    app = Starlette(routes=[Route(CHAT, endpoint, methods=["POST"])])
    await client.call(LLMGate(app, callbacks=[Recorder(), *readers]))
    assert Response(client.sent).body == A["body"] + B["body"] + DONE


@readers
async def test_a_call_cancelled_from_outside_has_failed_and_leaves_nothing_running(readers):
    recorder, client, app = Recorder(), Client(chat(stream=True)), App(START, A, sleeps)
    before = tasks_living()
    async with anyio.create_task_group() as group:
        group.start_soon(client.call, LLMGate(app, callbacks=[recorder, *readers], cancel_grace=EVER))
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    await cancel_shielded_checkpoint()
    assert tasks_living() == before
    assert app.log == ["http.request", "cancelled"]
    assert sorted(recorder.events) == ["failure", "failure hook", "pre"]
    assert {exc.status_code for exc in recorder.failures} == {499}


# --- The app gives up.


@readers
@pytest.mark.parametrize("steps", [(START, A), (START,), (START, A, piece(b"data: {"))], ids=["event", "start", "half"])
async def test_an_app_that_returns_in_mid_stream_leaves_a_break_and_nothing_running(steps, readers):
    """The server ends the connection uncleanly: the client must not take it for an end."""
    recorder, client = Recorder(), Client(chat(stream=True))
    await client.call(LLMGate(App(*steps), callbacks=[recorder, *readers]))
    assert not client.answered.is_set()
    assert sorted(recorder.events) == ["failure", "failure hook", "pre"]


class Replaces(CallHooks):
    async def async_post_call_failure_hook(self):
        return HTTPException(418, "teapot")


@readers
async def test_for_an_app_that_returns_with_nothing_a_failure_hook_may_answer(readers):
    response = await Request(chat()).to(LLMGate(App(), callbacks=[Replaces(), *readers]))
    assert (response.status, response.error()["message"]) == (418, "teapot")


@readers
async def test_for_an_app_that_raises_a_failure_hook_may_answer_and_the_host_learns_of_it(readers):
    recorder, client = Recorder(), Client(chat())
    with pytest.raises(RuntimeError, match="boom"):
        await client.call(LLMGate(App(raises), callbacks=[Replaces(), recorder, *readers]))
    assert Response(client.sent).status == 418
    assert sorted(recorder.events) == ["failure", "failure hook", "pre"]


async def test_several_errors_inside_a_stream_are_one_failure():
    recorder, client = Recorder(), Client(chat(stream=True))
    error = piece(event({"error": {"message": "overloaded"}}))
    await client.call(LLMGate(App(START, A, error, error, LAST), callbacks=[recorder, Text()]))
    assert Response(client.sent).body.count(b"overloaded") == 2
    assert sorted(recorder.events) == ["failure", "failure hook", "pre"]


# --- Moderation, and what it meets.


async def run_until_verdict(app, judge, *callbacks, client=None, **settings):
    """Have a call go as far as it can, and only then release the judge."""
    client = client or Client(chat(stream=True))
    async with anyio.create_task_group() as group:
        group.start_soon(client.call, LLMGate(app, callbacks=[judge, *callbacks], **settings))
        await anyio.wait_all_tasks_blocked()
        judge.release.set()
    return client


@readers
@pytest.mark.parametrize("steps", [OK, STREAM, (START, A, told)], ids=["answer", "stream", "half a stream"])
async def test_under_hold_a_bad_verdict_answers_in_place_of_all_that_was_held(steps, readers):
    recorder = Recorder()
    client = Client(chat())
    await run_until_verdict(App(*steps), Judge("no"), recorder, *readers, client=client, cancel_grace=EVER)
    assert said_by(Response(client.sent)) == "no"
    assert sorted(recorder.events) == ["failure", "failure hook", "pre"]


@pytest.mark.parametrize("buffer", [700, 1_000_000], ids=["full", "with room"])
async def test_under_hold_a_bad_verdict_answers_also_after_an_error_event_of_the_app(buffer):
    recorder = Recorder()
    client = Client(chat())
    app = App(START, A, piece(event({"error": {"message": "overloaded"}})), LAST)
    await run_until_verdict(app, Judge("no"), Text(), recorder, client=client, moderation_buffer=buffer, cancel_grace=0)
    assert said_by(Response(client.sent)) == "no"
    assert sorted(recorder.events) == ["failure", "failure hook", "pre"]


async def test_under_hold_an_early_end_by_an_iterator_hook_is_held_too():
    class Stops(CallHooks):
        async def async_post_call_streaming_iterator_hook(self, response):
            yield await anext(response)

    client = Client(chat())
    await run_until_verdict(App(START, A, B, told), Judge("no"), Stops(), client=client, cancel_grace=EVER)
    assert said_by(Response(client.sent)) == "no"


@readers
async def test_under_cut_a_verdict_before_the_start_is_the_whole_answer_whatever_the_app_still_sends(readers):
    async def turns(receive, send):
        for _ in range(5):
            await checkpoint()

    client = Client(chat(stream=True))
    app = App(told, turns, START, turns, A, turns, B, turns, LAST)
    await run_until_verdict(app, Judge(NO), *readers, client=client, moderation_mode="cut", cancel_grace=EVER)
    response = Response(client.sent)
    assert (response.status, response.error()["message"]) == (403, "no")
    assert app.log[-1] == "done"


CUT = {
    "in mid-stream": (START, A, told),
    "inside an event": (START, piece(A["body"] + b'data: {"choices":[{"in'), told),
    "deaf": (START, A, sleeps),
}


@pytest.mark.parametrize("verdict", ["no", NO], ids=["message", "error"])
@pytest.mark.parametrize("steps", CUT.values(), ids=CUT)
async def test_under_cut_a_bad_verdict_ends_a_stream_after_whole_events(steps, verdict):
    client = await run_until_verdict(App(*steps), Judge(verdict), moderation_mode="cut", cancel_grace=0)
    first, *rest = Response(client.sent).chunks()
    assert first == said("a")
    if verdict is NO:
        assert [list(chunk) for chunk in rest] == [["error"]]
        assert rest[0]["error"]["message"] == "no"
    else:
        (message,), (finish,) = (chunk["choices"] for chunk in rest)
        assert (message["delta"], finish["finish_reason"]) == ({"content": "no"}, "content_filter")


async def test_under_cut_a_verdict_after_the_end_comes_too_late():
    recorder, client = Recorder(), Client(chat(stream=True))
    await run_until_verdict(App(*STREAM), Judge("no"), recorder, client=client, moderation_mode="cut")
    assert Response(client.sent).chunks() == [said("a"), said("b", "stop")]
    assert sorted(recorder.events) == ["pre", "stream", "success"]


async def test_under_cut_an_unstreamed_answer_is_held():
    client = await run_until_verdict(App(*OK), Judge(NO), moderation_mode="cut")
    assert Response(client.sent).status == 403


async def test_under_cut_a_client_that_does_not_read_keeps_the_app_from_nothing():
    """The app is cancelled at once; the end of the stream goes out when the client reads again."""
    judge, client = Judge("no"), Client(chat(stream=True))
    app = App(START, A, *[piece(event(said("x" * 1000)))] * 1000)
    async with anyio.create_task_group() as group:
        gate = LLMGate(app, callbacks=[judge], moderation_mode="cut", moderation_buffer=1000, cancel_grace=0)
        client.takes = anyio.Event()
        group.start_soon(client.call, gate)
        await anyio.wait_all_tasks_blocked()
        judge.release.set()
        await anyio.wait_all_tasks_blocked()
        assert app.log == ["http.request", "cancelled"]
        client.takes.set()
    assert Response(client.sent).chunks()[-1]["choices"][0]["finish_reason"] == "content_filter"


class Thinks(CallHooks):
    """A headers hook that waits."""

    def __init__(self):
        self.release = anyio.Event()

    async def async_post_call_response_headers_hook(self):
        await self.release.wait()
        return {"x-a": "b"}


@pytest.mark.parametrize("verdict", [None, "no", NO], ids=["good", "message", "error"])
@pytest.mark.parametrize("steps", [STREAM, (START, A, told)], ids=["whole", "half"])
async def test_under_cut_a_verdict_while_a_headers_hook_thinks_makes_one_answer(steps, verdict):
    judge, thinks, client = Judge(verdict), Thinks(), Client(chat(stream=True))
    end = () if verdict or steps is STREAM else (LAST,)
    app = App(*(step for step in steps if verdict or step is not told), *end)
    async with anyio.create_task_group() as group:
        group.start_soon(client.call, LLMGate(app, callbacks=[judge, thinks], moderation_mode="cut", cancel_grace=EVER))
        await anyio.wait_all_tasks_blocked()
        judge.release.set()
        await anyio.wait_all_tasks_blocked()
        thinks.release.set()
    response = Response(client.sent)
    assert (response.status, response.header("x-a")) == (200, "b")
    assert response.chunks()[0] == said("a") or verdict


async def test_under_hold_a_refused_piece_while_a_headers_hook_thinks_makes_one_answer():
    class Refuses(CallHooks):
        async def async_post_call_streaming_hook(self, response):
            if response == "b":
                raise NO

    judge, thinks, goes_on, client = Judge(), Thinks(), anyio.Event(), Client(chat(stream=True))
    judge.release.set()
    app = App(START, A, waits(goes_on), B, told)
    async with anyio.create_task_group() as group:
        group.start_soon(client.call, LLMGate(app, callbacks=[judge, thinks, Refuses()], cancel_grace=EVER))
        await anyio.wait_all_tasks_blocked()
        goes_on.set()
        await anyio.wait_all_tasks_blocked()
        thinks.release.set()
    assert [list(chunk) for chunk in Response(client.sent).chunks()[1:]] == [["error"]]


# --- What hooks can't read.

ENCODED = [*START["headers"], (b"content-encoding", b"gzip")]
PACKED = gzip.compress(A["body"] + B["body"] + DONE)


@pytest.mark.parametrize("readers", [[Text()], [Chunks()], [Text(), Judge()]], ids=["text", "iterator", "moderated"])
async def test_an_encoded_stream_passes_no_hook_unread(readers, caplog):
    for judge in readers[1:]:
        judge.release = anyio.Event()
        judge.release.set()
    upstream = Upstream([{**START, "headers": ENCODED}, piece(PACKED, more=False)])
    response = await Request(chat(stream=True)).to(LLMGate(upstream, callbacks=readers))
    assert (response.status, response.error()["code"]) == (502, "invalid_response")
    assert "content-encoding" in caplog.text


async def test_an_encoded_stream_that_no_hook_reads_goes_on_as_it_is():
    messages = [{**START, "headers": ENCODED}, piece(PACKED, more=False)]
    response = await Request(chat(stream=True)).to(LLMGate(Upstream(messages), callbacks=[Recorder(), Looks()]))
    assert response.sent == messages


async def test_an_encoded_stream_is_refused_by_the_verdict_first():
    upstream = App({**START, "headers": ENCODED}, piece(PACKED, more=False))
    client = await run_until_verdict(upstream, Judge(NO), Text())
    assert Response(client.sent).status == 403


@readers
async def test_trailers_are_announced_only_where_they_come(readers):
    trailers = {"type": "http.response.trailers", "headers": [(b"x", b"y")], "more_trailers": False}
    client = Client(chat(stream=True))
    await client.call(LLMGate(App({**START, "trailers": True}, A, B, LAST, trailers), callbacks=[Recorder(), *readers]))
    start, *_, last = client.sent
    assert bool(start.get("trailers")) == (last == trailers)


async def test_a_success_hooks_leavings_that_are_no_json_are_an_internal_error(caplog):
    class Spoils(CallHooks):
        async def async_post_call_success_hook(self, response):
            response["x"] = object()

    response = await Request(chat()).to(LLMGate(Upstream(OK), callbacks=[Spoils()]))
    assert (response.status, response.error()["message"]) == (500, "Internal server error")
    assert "Spoils.async_post_call_success_hook left a response that is not JSON" in caplog.text


@pytest.mark.parametrize("watched", [True, False], ids=["watched", "unwatched"])
async def test_files_may_only_be_sent_past_the_gate_where_nobody_needs_to_see_them(watched):
    upstream = Upstream(OK)
    extensions = {"http.response.pathsend": {}, "http.response.zerocopysend": {}, "tls": {}}
    request = Request(chat(), scope={"extensions": extensions})
    callback = Recorder() if watched else Thinks()
    if not watched:
        callback.release.set()
    await request.to(LLMGate(upstream, callbacks=[callback]))
    ((scope, _),) = upstream.calls
    assert scope["extensions"] == ({"tls": {}} if watched else extensions)


class Remembers(CallHooks):
    """Knows, without holding it, who made a call."""

    async def async_moderation_hook(self, user_api_key_dict):
        self.caller = weakref.ref(user_api_key_dict)

    async def async_post_call_streaming_hook(self, response):
        return response


@pytest.mark.parametrize("messages", [OK, STREAM], ids=["whole", "stream"])
async def test_a_call_that_is_over_leaves_nothing_to_the_garbage_collector(messages):
    hook = Remembers()
    gate = LLMGate(Upstream(messages), callbacks=[hook])
    gc.collect()
    gc.disable()
    try:
        await Request(chat()).to(gate)
        await checkpoint()
        assert hook.caller() is None
    finally:
        gc.enable()
