"""Moderation hooks run beside the call: nothing goes out before their verdict, and a bad one ends all else at once."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import anyio
import orjson
import pytest
import trio
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint
from starlette.exceptions import HTTPException

from asgi_llm_gate import CallHooks, LLMGate
from tests.harness import Request, Response, Upstream, answer, chat

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

# A grace that no test waits for.
EVER = 3600.0
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}


def piece(content, *, more=True):
    return {"type": "http.response.body", "body": content, "more_body": more}


class Judge(CallHooks):
    """A moderation hook that waits for its event, and then gives its verdict."""

    def __init__(self, verdict=None, *, waits=False, **attributes):
        vars(self).update(attributes)
        self.verdict = verdict
        self.release = anyio.Event()
        self.began = anyio.Event()
        self.ended = []
        if not waits:
            self.release.set()

    async def async_moderation_hook(self, data):
        self.began.set()
        try:
            await self.release.wait()
            await checkpoint()
        except anyio.get_cancelled_exc_class():
            self.ended.append("cancelled")
            raise
        self.ended.append("judged")
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict


class Reporter(CallHooks):
    """A failure hook that notes what it is told."""

    def __init__(self, returns=None):
        self.told = []
        self.returns = returns

    async def async_post_call_failure_hook(self, original_exception):
        self.told.append(original_exception)
        return self.returns


class Client(Request):
    """A client of which a test can see when it has its whole answer, and which may be slow to take it."""

    def __post_init__(self):
        super().__post_init__()
        self.answered = anyio.Event()
        self.takes = anyio.Event()
        self.takes.set()

    async def send(self, message):
        await self.takes.wait()
        await super().send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.answered.set()


class App:
    """An app that waits where a test wants it to, and notes what becomes of it."""

    def __init__(self, *steps):
        self.steps = steps
        self.began = anyio.Event()
        self.log = []

    async def __call__(self, scope, receive, send):
        message = await receive()
        assert message["type"] == "http.request"
        self.began.set()
        try:
            for step in self.steps:
                await step(self, receive, send)
        except anyio.get_cancelled_exc_class():
            self.log.append("cancelled")
            raise
        self.log.append("done")


async def listens(app, receive, send):
    app.log.append((await receive())["type"])


async def sleeps(app, receive, send):
    await anyio.sleep_forever()


async def answers(app, receive, send):
    for message in answer(b'{"ok":true}'):
        await send(message)


async def streams(app, receive, send):
    await send(START)
    for number in range(5):
        await send(piece(b"%d" % number))
        app.log.append(number)
    await send(piece(b"", more=False))


def said(response):
    return orjson.loads(response.body)["choices"][0]["message"]["content"]


@pytest.mark.parametrize("returned", [False, True], ids=["raised", "returned"])
async def test_an_exception_refuses_the_call(returned):
    class Refuses(CallHooks):
        async def async_moderation_hook(self, data):
            if returned:
                return HTTPException(403, "no")
            raise HTTPException(403, "no")

    app = App(listens)
    response = await Request(chat()).to(LLMGate(app, callbacks=[Refuses()], cancel_grace=EVER))
    assert (response.status, response.error()["message"]) == (403, "no")
    assert app.log == ["http.disconnect", "done"]


async def test_a_message_refuses_the_call():
    app = App(listens)
    response = await Request(chat()).to(LLMGate(app, callbacks=[Judge("no")], cancel_grace=EVER))
    assert (response.status, said(response)) == (200, "no")
    assert app.log == ["http.disconnect", "done"]


@pytest.mark.parametrize(
    "value",
    [None, False, True, 0, 1, [], {}, {"a": 1}, b"no", object()],
    ids=lambda value: "object" if type(value) is object else repr(value),
)
async def test_any_other_value_means_nothing(value):
    """LiteLLM's own hooks return `data` or `False`."""
    response = await Request(chat()).to(LLMGate(Upstream(), callbacks=[Judge(value)]))
    assert response.json() == {"ok": True}


async def test_a_late_bad_verdict_drops_what_the_app_has_answered():
    judge, app = Judge("no", waits=True), App(answers)
    client = Client(chat())
    async with anyio.create_task_group() as group:
        group.start_soon(client.to, LLMGate(app, callbacks=[judge]))
        await anyio.wait_all_tasks_blocked()
        assert (app.log, client.sent) == (["done"], [])
        judge.release.set()
    assert said(Response(client.sent)) == "no"


@pytest.mark.parametrize("step", [answers, streams])
async def test_a_response_is_held_until_the_verdict_and_then_sent_in_order(step):
    judge, app = Judge(waits=True), App(step)
    client, bare = Client(chat()), Client(chat())
    async with anyio.create_task_group() as group:
        group.start_soon(client.to, LLMGate(app, callbacks=[judge]))
        await anyio.wait_all_tasks_blocked()
        assert app.log[-1] == "done"
        assert client.sent == []
        judge.release.set()
    await bare.to(App(step))
    assert client.sent == bare.sent


async def test_an_early_good_verdict_lets_each_piece_through_at_once():
    judge, begins, goes_on = Judge(), anyio.Event(), anyio.Event()

    async def later(app, receive, send):
        await begins.wait()
        await send(START)
        await send(piece(b"a"))
        await goes_on.wait()
        await send(piece(b"b", more=False))

    client = Client(chat())
    async with anyio.create_task_group() as group:
        group.start_soon(client.to, LLMGate(App(later), callbacks=[judge]))
        await anyio.wait_all_tasks_blocked()
        assert judge.ended == ["judged"]
        begins.set()
        await anyio.wait_all_tasks_blocked()
        assert client.sent == [START, piece(b"a")]
        goes_on.set()
    assert Response(client.sent).body == b"ab"


async def test_hooks_and_app_run_at_the_same_time():
    """Each waits for all others to have begun."""
    judges = [Judge(waits=True), Judge(waits=True)]

    async def meets(app, receive, send):
        for judge in judges:
            await judge.began.wait()
        for judge in judges:
            judge.release.set()

    response = await Request(chat()).to(LLMGate(App(meets, answers), callbacks=judges))
    assert response.json() == {"ok": True}


async def test_all_hooks_must_have_found_nothing():
    judges = [Judge(waits=True) for _ in range(3)]
    client = Client(chat())
    async with anyio.create_task_group() as group:
        group.start_soon(client.to, LLMGate(Upstream(), callbacks=judges))
        for judge in judges:
            await anyio.wait_all_tasks_blocked()
            assert client.sent == []
            judge.release.set()
    assert Response(client.sent).json() == {"ok": True}


async def test_over_the_buffer_the_app_waits_for_the_verdict():
    """So that back-pressure reaches the model, and memory stays bounded."""
    judge, app = Judge(waits=True), App(streams)
    client = Client(chat())
    async with anyio.create_task_group() as group:
        group.start_soon(client.to, LLMGate(app, callbacks=[judge], moderation_buffer=1))
        await anyio.wait_all_tasks_blocked()
        assert len(app.log) < 2
        assert client.sent == []
        judge.release.set()
    assert Response(client.sent).body == b"01234"
    assert app.log == [0, 1, 2, 3, 4, "done"]


@pytest.mark.parametrize("content", [b"", b"x"], ids=["empty", "one byte"])
async def test_many_small_pieces_fill_the_buffer_too(content):
    sent = []

    async def endless(app, receive, send):
        await send(START)
        for number in range(100_000):
            await send(piece(content))
            sent.append(number)

    judge = Judge("no", waits=True)
    async with anyio.create_task_group() as group:
        group.start_soon(Client(chat()).to, LLMGate(App(endless, sleeps), callbacks=[judge], moderation_buffer=10_000))
        await anyio.wait_all_tasks_blocked()
        assert len(sent) < 1000
        judge.release.set()


async def test_an_app_that_waits_with_a_full_buffer_is_freed_by_a_bad_verdict():
    judge, app = Judge("no", waits=True), App(streams, listens)
    client = Client(chat())
    async with anyio.create_task_group() as group:
        gate = LLMGate(app, callbacks=[judge], moderation_buffer=1, cancel_grace=EVER)
        group.start_soon(client.to, gate)
        await anyio.wait_all_tasks_blocked()
        judge.release.set()
    assert said(Response(client.sent)) == "no"
    assert app.log == [0, 1, 2, 3, 4, "http.disconnect", "done"]


async def test_order_is_kept_while_what_was_held_is_still_going_out():
    """A slow client takes the held pieces while the app sends more."""
    judge, goes_on = Judge(waits=True), anyio.Event()

    async def in_two_parts(app, receive, send):
        await send(START)
        await send(piece(b"held "))
        await goes_on.wait()
        await send(piece(b"while sending "))
        app.log.append("sent")
        await send(piece(b"after", more=False))

    client, app = Client(chat()), App(in_two_parts)
    client.takes = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(client.to, LLMGate(app, callbacks=[judge]))
        await anyio.wait_all_tasks_blocked()
        judge.release.set()
        await anyio.wait_all_tasks_blocked()
        goes_on.set()
        await anyio.wait_all_tasks_blocked()
        client.takes.set()
    assert Response(client.sent).body == b"held while sending after"


async def test_after_the_verdict_back_pressure_is_the_clients_own():
    judge, app = Judge(), App(streams)

    class Slow(Client):
        async def send(self, message):
            await super().send(message)
            self.takes = anyio.Event()

    client = Slow(chat())
    async with anyio.create_task_group() as group:
        group.start_soon(client.to, LLMGate(app, callbacks=[judge]))
        while not client.answered.is_set():
            await anyio.wait_all_tasks_blocked()
            client.takes.set()
    assert Response(client.sent).body == b"01234"


async def test_the_siblings_of_a_hook_that_refuses_are_cancelled():
    sibling, app = Judge(waits=True), App(listens)
    response = await Request(chat()).to(LLMGate(app, callbacks=[Judge("no"), sibling]))
    assert said(response) == "no"
    assert sibling.ended == ["cancelled"]


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)], ids=["first", "last"])
async def test_of_two_that_refuse_one_answers(order):
    reporter = Reporter()
    judges = [Judge("no", waits=True), Judge("no", waits=True)]
    client = Client(chat())
    async with anyio.create_task_group() as group:
        group.start_soon(client.to, LLMGate(App(listens), callbacks=[*judges, reporter]))
        await anyio.wait_all_tasks_blocked()
        for judge in judges[order]:
            judge.release.set()
    assert said(Response(client.sent)) == "no"
    assert len(reporter.told) == 1


async def test_the_answer_waits_for_nobody():
    """Neither for the app nor for a sibling that puts off its end; both are awaited all the same."""
    stubborn = anyio.Event()
    log = []

    async def ignores(name):
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await stubborn.wait()
            log.append(name)

    class Sibling(CallHooks):
        async def async_moderation_hook(self, data):
            await ignores("hook")

    async def app(scope, receive, send):
        await receive()
        await ignores("app")

    judge, client = Judge("no", waits=True), Client(chat())

    async def call():
        await client.to(LLMGate(app, callbacks=[judge, Sibling()], cancel_grace=0))
        log.append("returned")

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await anyio.wait_all_tasks_blocked()
        judge.release.set()
        await client.answered.wait()
        await anyio.wait_all_tasks_blocked()
        assert (said(Response(client.sent)), log) == ("no", [])
        stubborn.set()
    assert (sorted(log[:2]), log[2:]) == (["app", "hook"], ["returned"])


async def test_an_app_that_ignores_its_end_for_a_while_sends_to_nobody():
    async def persists(app, receive, send):
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await answers(app, receive, send)

    app = App(persists)
    response = await Request(chat()).to(LLMGate(app, callbacks=[Judge("no")], cancel_grace=0))
    assert said(response) == "no"
    assert app.log == ["cancelled"]


async def test_in_its_grace_the_app_ends_by_itself():
    async def cleans_up(app, receive, send):
        for _ in range(100):
            await checkpoint()
        app.log.append("cleaned up")

    app = App(listens, cleans_up, answers)
    response = await Request(chat()).to(LLMGate(app, callbacks=[Judge("no")], cancel_grace=EVER))
    assert said(response) == "no"
    assert app.log == ["http.disconnect", "cleaned up", "done"]


async def test_an_app_that_does_not_listen_is_cancelled():
    app = App(sleeps)
    response = await Request(chat()).to(LLMGate(app, callbacks=[Judge("no")], cancel_grace=0))
    assert said(response) == "no"
    assert app.log == ["cancelled"]


async def test_once_told_the_app_hears_nothing_else():
    app = App(listens, listens, listens)
    await Request(chat()).to(LLMGate(app, callbacks=[Judge("no")], cancel_grace=EVER))
    assert app.log == ["http.disconnect"] * 3 + ["done"]


async def test_an_app_that_asks_later_is_told():
    judge = Judge("no", waits=True)
    client, goes_on = Client(chat()), anyio.Event()

    async def waits(app, receive, send):
        await goes_on.wait()

    app = App(waits, listens)
    async with anyio.create_task_group() as group:
        group.start_soon(client.to, LLMGate(app, callbacks=[judge], cancel_grace=EVER))
        await app.began.wait()
        judge.release.set()
        await client.answered.wait()
        goes_on.set()
    assert app.log == ["http.disconnect", "done"]


async def test_a_client_that_leaves_is_heard_by_the_app():
    app, client = App(listens, answers), Client(chat())
    client.gone.set()
    await LLMGate(app, callbacks=[Judge()])(client.scope, client.receive, client.send)
    assert app.log == ["http.disconnect", "done"]
    assert client.sent == []


async def raising(app, receive, send):
    raise RuntimeError("boom")


@pytest.mark.parametrize("reporters", [0, 1])
@pytest.mark.parametrize("steps", [(raising,), (streams, raising)], ids=["at once", "after a held response"])
async def test_an_app_that_raises_ends_the_hooks_and_raises_on(steps, reporters):
    judge, app = Judge(waits=True), App(*steps)
    told = [Reporter() for _ in range(reporters)]
    client = Client(chat())
    with pytest.raises(RuntimeError, match="boom"):
        await client.to(LLMGate(app, callbacks=[judge, *told]))
    assert client.sent == []
    assert "judged" not in judge.ended
    assert [[str(exc) for exc in reporter.told] for reporter in told] == [["boom"]] * reporters


async def test_an_app_that_raises_after_the_verdict_raises_on():
    async def judged(app, receive, send):
        await anyio.wait_all_tasks_blocked()

    judge, client = Judge(), Client(chat())
    with pytest.raises(RuntimeError, match="boom"):
        await client.to(LLMGate(App(judged, streams, raising), callbacks=[judge]))
    assert judge.ended == ["judged"]
    assert Response(client.sent).body == b"01234"


async def test_an_app_that_raises_when_it_is_told_spoils_no_answer():
    app = App(listens, raising)
    response = await Request(chat()).to(LLMGate(app, callbacks=[Judge("no")]))
    assert said(response) == "no"


@pytest.mark.parametrize("crash", [ValueError("secret"), KeyError("secret")], ids=repr)
async def test_a_hook_that_crashes_refuses_or_is_passed_over(crash, caplog):
    app = App(listens)
    response = await Request(chat()).to(LLMGate(app, callbacks=[Judge(crash)], cancel_grace=EVER))
    assert (response.status, response.error()["message"]) == (500, "Internal server error")
    assert app.log == ["http.disconnect", "done"]
    for settings, attributes in (({"on_hook_error": "allow"}, {}), ({}, {"on_hook_error": "allow"})):
        judge = Judge(crash, **attributes)
        response = await Request(chat()).to(LLMGate(Upstream(), callbacks=[judge], **settings))
        assert response.json() == {"ok": True}
    assert caplog.text.count("Judge.async_moderation_hook failed") == 3


async def test_a_crash_that_is_allowed_leaves_the_verdict_to_the_others():
    judges = [Judge(ValueError(), on_hook_error="allow"), Judge("no", waits=True)]
    client = Client(chat())
    async with anyio.create_task_group() as group:
        group.start_soon(client.to, LLMGate(App(listens), callbacks=judges))
        await anyio.wait_all_tasks_blocked()
        assert client.sent == []
        judges[1].release.set()
    assert said(Response(client.sent)) == "no"


async def test_a_hook_that_takes_too_long_is_ended_and_refuses_or_is_passed_over(caplog):
    judge = Judge(waits=True, hook_timeout=0.001)
    response = await Request(chat()).to(LLMGate(App(listens), callbacks=[judge]))
    assert response.status == 500
    response = await Request(chat()).to(LLMGate(Upstream(), callbacks=[judge], on_hook_error="allow"))
    assert response.json() == {"ok": True}
    assert judge.ended == ["cancelled", "cancelled"]
    assert "DeadlineError" in caplog.text


async def test_a_cancelled_hook_that_raises_something_else_changes_nothing(caplog):
    class Clumsy(CallHooks):
        async def async_moderation_hook(self, data):
            try:
                await anyio.sleep_forever()
            finally:
                raise HTTPException(410, "on the way out")

    judge, client = Judge("no", waits=True), Client(chat())
    async with anyio.create_task_group() as group:
        group.start_soon(client.to, LLMGate(App(listens), callbacks=[judge, Clumsy()]))
        await anyio.wait_all_tasks_blocked()
        judge.release.set()
    assert said(Response(client.sent)) == "no"


async def test_a_cancelled_hook_that_ends_well_after_all_changes_nothing():
    class Calm(CallHooks):
        async def async_moderation_hook(self, data):
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                return

    judge, client = Judge("no", waits=True), Client(chat())
    async with anyio.create_task_group() as group:
        group.start_soon(client.to, LLMGate(App(listens), callbacks=[judge, Calm()]))
        await anyio.wait_all_tasks_blocked()
        judge.release.set()
    assert said(Response(client.sent)) == "no"


async def test_changes_to_the_data_do_not_reach_the_app():
    class Changes(CallHooks):
        async def async_moderation_hook(self, data):
            data.clear()
            data["model"] = "changed"

    seen = []

    async def app(scope, receive, send):
        await anyio.wait_all_tasks_blocked()
        seen.append((await receive())["body"])
        await answers(None, receive, send)

    await Request(chat()).to(LLMGate(app, callbacks=[Changes()]))
    assert seen == [chat()]


class Success(CallHooks):
    """A success hook that notes in which order things happened."""

    def __init__(self, log):
        self.log = log

    async def async_post_call_success_hook(self, response):
        self.log.append("success")
        response["seen"] = True


async def test_success_hooks_run_after_a_good_verdict():
    log = []
    judge, app, client = Judge(waits=True), App(answers), Client(chat())
    async with anyio.create_task_group() as group:
        group.start_soon(client.to, LLMGate(app, callbacks=[judge, Success(log)]))
        await anyio.wait_all_tasks_blocked()
        assert (log, client.sent) == ([], [])
        log.append("verdict")
        judge.release.set()
    assert log == ["verdict", "success"]
    assert Response(client.sent).json() == {"ok": True, "seen": True}


async def test_success_hooks_do_not_run_after_a_bad_verdict():
    log = []
    judge, app, client = Judge("no", waits=True), App(answers), Client(chat())
    async with anyio.create_task_group() as group:
        group.start_soon(client.to, LLMGate(app, callbacks=[judge, Success(log)], cancel_grace=EVER))
        await anyio.wait_all_tasks_blocked()
        judge.release.set()
    assert (log, app.log) == ([], ["done"])
    assert said(Response(client.sent)) == "no"


async def test_a_success_hook_that_refuses_after_a_good_verdict():
    class Refuses(CallHooks):
        async def async_post_call_success_hook(self, response):
            raise HTTPException(451, "no")

    response = await Request(chat()).to(LLMGate(App(answers), callbacks=[Judge(), Refuses()]))
    assert (response.status, response.error()["message"]) == (451, "no")


@pytest.mark.parametrize("verdict", [None, "no"], ids=["good", "bad"])
async def test_an_upstreams_error_waits_for_the_verdict_too(verdict):
    judge, reporter, client = Judge(verdict, waits=True), Reporter(), Client(chat())
    upstream = Upstream(answer(b'{"error":{"message":"too long"}}', 400))
    async with anyio.create_task_group() as group:
        group.start_soon(client.to, LLMGate(upstream, callbacks=[judge, reporter], cancel_grace=EVER))
        await anyio.wait_all_tasks_blocked()
        assert (client.sent, reporter.told) == ([], [])
        judge.release.set()
    (told,) = reporter.told
    if verdict:
        assert (said(Response(client.sent)), told.message) == ("no", "no")
    else:
        assert client.sent == upstream.messages
        assert told.message == "too long"


variable = ContextVar("variable", default="unset")


async def test_the_app_runs_in_the_callers_task_and_context():
    async def app(scope, receive, send):
        seen.append((variable.get(), anyio.get_current_task().id))
        variable.set("of the app")
        await answers(None, receive, send)

    class Hook(CallHooks):
        async def async_moderation_hook(self, data):
            assert variable.get() == "of the caller"
            variable.set("of the hook")

    async def call():
        variable.set("of the caller")
        await Client(chat()).to(LLMGate(app, callbacks=[Hook()]))
        assert seen == [("of the caller", anyio.get_current_task().id)]
        assert variable.get() == "of the app"

    seen = []
    async with anyio.create_task_group() as group:
        group.start_soon(call)
    assert len(seen) == 1


def tasks_living():
    """How many tasks there are, whoever runs them."""
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return trio.lowlevel.current_statistics().tasks_living


class Puts:
    """Where a call is when it is cancelled from outside: who waits, what was sent, what the app does."""

    @staticmethod
    def hooks_pending(client):
        return App(sleeps), [Judge(waits=True), Judge(waits=True)], {}

    @staticmethod
    def response_held(client):
        return App(answers), [Judge(waits=True)], {}

    @staticmethod
    def buffer_full(client):
        return App(streams), [Judge(waits=True)], {"moderation_buffer": 1}

    @staticmethod
    def held_going_out(client):
        client.takes = anyio.Event()
        return App(streams), [Judge()], {}

    @staticmethod
    def success_waits_for_the_verdict(client):
        return App(answers), [Judge(waits=True), Success([])], {}

    @staticmethod
    def grace(client):
        return App(listens, sleeps), [Judge("no"), Judge(waits=True)], {"cancel_grace": EVER}

    @staticmethod
    def refusal_going_out(client):
        client.takes = anyio.Event()
        return App(sleeps), [Judge("no")], {"cancel_grace": EVER}

    @staticmethod
    def failure_hook(client):
        class Hangs(CallHooks):
            async def async_post_call_failure_hook(self):
                await anyio.sleep_forever()

        return App(sleeps), [Judge("no"), Hangs()], {"cancel_grace": EVER}

    @staticmethod
    def after_the_verdict(client):
        return App(sleeps), [Judge()], {}


PUTS = [name for name in vars(Puts) if not name.startswith("_")]


@pytest.mark.parametrize("put", PUTS)
async def test_cancelled_from_outside_nothing_is_left_running(put):
    client = Client(chat())
    app, callbacks, settings = getattr(Puts, put)(client)
    before = tasks_living()
    async with anyio.create_task_group() as group:
        group.start_soon(client.to, LLMGate(app, callbacks=callbacks, **settings))
        await anyio.wait_all_tasks_blocked()
        assert tasks_living() > before
        group.cancel_scope.cancel()
    await cancel_shielded_checkpoint()
    assert tasks_living() == before
    assert app.log[-1:] in (["cancelled"], ["done"])
    for judge in callbacks:
        assert not isinstance(judge, Judge) or judge.ended in (["cancelled"], ["judged"])


@pytest.mark.parametrize("verdict", [None, "no"], ids=["good", "bad"])
async def test_a_call_that_ends_leaves_nothing_running(verdict):
    before = tasks_living()
    callbacks = [Judge(verdict), Judge(), Judge()]
    await Client(chat()).to(LLMGate(App(answers), callbacks=callbacks))
    assert tasks_living() == before


async def test_gates_nest():
    """The outer gate's bad verdict reaches the inner gate's app as the client's leaving."""
    outer, app = Judge("no", waits=True), App(listens)
    client, inner = Client(chat()), Judge()
    async with anyio.create_task_group() as group:
        gate = LLMGate(LLMGate(app, callbacks=[inner]), callbacks=[outer], cancel_grace=EVER)
        group.start_soon(client.to, gate)
        await anyio.wait_all_tasks_blocked()
        outer.release.set()
    assert said(Response(client.sent)) == "no"
    assert (inner.ended, app.log) == (["judged"], ["http.disconnect", "done"])


@pytest.mark.parametrize("kind", ["two", "a poll"])
async def test_everyone_who_waits_in_receive_is_told(kind):
    """Starlette's listener waits there while a handler asks `request.is_disconnected()`, which cancels its own call."""

    async def listen_twice(app, receive, send):
        async with anyio.create_task_group() as group:
            group.start_soon(listens, app, receive, send)
            await anyio.wait_all_tasks_blocked()
            if kind == "two":
                group.start_soon(listens, app, receive, send)
            else:
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await receive()
            ready.set()

    ready = anyio.Event()
    judge, app = Judge("no", waits=True), App(listen_twice)
    async with anyio.create_task_group() as group:
        group.start_soon(Client(chat()).to, LLMGate(app, callbacks=[judge], cancel_grace=EVER))
        await ready.wait()
        judge.release.set()
    assert app.log == ["http.disconnect"] * (2 if kind == "two" else 1) + ["done"]


@pytest.mark.parametrize("_", range(10))
async def test_without_grace_the_app_has_one_turn_after_it_is_told(_):
    """In whatever order the loop wakes its tasks."""
    app = App(listens, sleeps)
    await Request(chat()).to(LLMGate(app, callbacks=[Judge("no")], cancel_grace=0))
    assert app.log == ["http.disconnect", "cancelled"]


async def test_a_refused_call_is_reported_once_even_if_the_app_raises_when_it_is_told():
    """Starlette's apps do: ClientDisconnect."""
    reporter = Reporter()
    gate = LLMGate(App(listens, raising), callbacks=[Judge("no"), reporter], cancel_grace=EVER)
    assert said(await Request(chat()).to(gate)) == "no"
    assert [exc.message for exc in reporter.told] == ["no"]


async def test_an_app_that_raised_has_decided_the_call():
    """A verdict that comes while failure hooks are told of it is too late."""

    class Slow(Reporter):
        async def async_post_call_failure_hook(self, original_exception):
            judge.release.set()
            await anyio.wait_all_tasks_blocked()
            return await super().async_post_call_failure_hook(original_exception)

    judge, slow, client = Judge("no", waits=True), Slow(), Client(chat())
    with pytest.raises(RuntimeError, match="boom"):
        await client.to(LLMGate(App(raising), callbacks=[judge, slow]))
    assert ([str(exc) for exc in slow.told], client.sent) == (["boom"], [])


async def test_a_replacement_for_an_apps_exception_reaches_the_client_without_a_verdict():
    judge, client = Judge(waits=True), Client(chat())
    gate = LLMGate(App(raising), callbacks=[judge, Reporter(HTTPException(418, "teapot"))])
    with pytest.raises(RuntimeError, match="boom"):
        await client.to(gate)
    response = Response(client.sent)
    assert (response.status, response.error()["message"]) == (418, "teapot")


@pytest.mark.parametrize("verdict", [None, "no"], ids=["good", "bad"])
async def test_a_response_too_large_to_look_at_waits_for_the_verdict_too(verdict):
    judge, client = Judge(verdict, waits=True), Client(chat())
    callbacks = [judge, Success([])]
    async with anyio.create_task_group() as group:
        gate = LLMGate(App(answers), callbacks=callbacks, max_response_bytes=1, cancel_grace=EVER)
        group.start_soon(client.to, gate)
        await anyio.wait_all_tasks_blocked()
        assert client.sent == []
        judge.release.set()
    response = Response(client.sent)
    if verdict:
        assert said(response) == "no"
    else:
        assert (response.status, response.error()["code"]) == (502, "response_too_large")


@pytest.mark.parametrize("verdict", [None, "no"], ids=["good", "bad"])
async def test_a_send_that_fails_raises_what_it_raised(verdict):
    """Hosts know OSError for a client that left; they do not know groups of exceptions."""

    class Gone(Client):
        async def send(self, message):
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        await Gone(chat()).to(LLMGate(App(answers), callbacks=[Judge(verdict)], cancel_grace=EVER))


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancellation_that_nobody_asked_for_is_a_crash(caplog):
    """It comes from a task of the hook's own; passed on, it would end the whole call without an answer."""

    class Stray(CallHooks):
        async def async_moderation_hook(self, data):
            task = asyncio.ensure_future(asyncio.sleep(0))
            task.cancel()
            await task

    response = await Request(chat()).to(LLMGate(App(listens), callbacks=[Stray()], cancel_grace=EVER))
    assert (response.status, response.error()["code"]) == (500, "internal_error")
    assert "Stray.async_moderation_hook failed" in caplog.text
    response = await Request(chat()).to(LLMGate(Upstream(), callbacks=[Stray()], on_hook_error="allow"))
    assert response.json() == {"ok": True}
