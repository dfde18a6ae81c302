"""The parallel request limiter in one process: what it refuses, what it says, and when a slot is back."""

from __future__ import annotations

from contextlib import suppress

import anyio
import pytest
from starlette.exceptions import HTTPException

from asgi_llm_gate import CallHooks, UserAPIKeyAuth
from asgi_llm_gate.builtin import ParallelRequestLimiter
from tests.actors import DONE, App, Client, piece, raises, sleeps
from tests.harness import Upstream, answer, chat
from tests.limits import COUNTED, LIMITS, STREAM, WHOLE, Held, asked, caller, gated
from tests.test_batches import jsonl, row, upload
from tests.websocket import RESPONSES, Script, WebSocket

pytestmark = pytest.mark.anyio


async def test_where_nobody_has_a_limit_nothing_is_said():
    for messages in (answer(WHOLE), STREAM):
        response = await asked(gated(Upstream(messages)))
        assert (response.status, response.body) == (200, b"".join(m.get("body", b"") for m in messages))
        assert not [name for name, _ in response.headers if name.startswith("x-ratelimit")]


async def test_no_more_calls_are_at_work_at_once_than_may_be():
    app, clients = Held(), [Client(chat()) for _ in range(5)]
    gate = gated(app, who=caller(max_parallel_requests=2))
    async with anyio.create_task_group() as group:
        for client in clients:
            group.start_soon(client.call, gate)
        await anyio.wait_all_tasks_blocked()
        assert sum(client.answered.is_set() for client in clients) == 3
        app.let_go(2)
    assert sorted(client.sent[0]["status"] for client in clients) == [200, 200, 429, 429, 429]
    assert app.most == 2
    app.let_go()
    assert (await asked(gate)).status == 200


REFUSED = {
    "slots": (
        {"max_parallel_requests": 0},
        "Too many requests at once for key tester: 0 of 0 are at work (max_parallel_requests).",
        {"x-should-retry": "false", "retry-after": None},
    ),
    "slots of a team": (
        {"team_max_parallel_requests": -1, "team_alias": "Zoo"},
        "Too many requests at once for team Zoo: 0 of -1 are at work (max_parallel_requests).",
        {"x-should-retry": "false"},
    ),
    "requests": (
        {"rpm_limit": 1},
        "Rate limit reached for key tester: 1 of 1 requests in a minute (rpm_limit). Try again in 60 s.",
        {
            "x-should-retry": "true",
            "retry-after": "60",
            "x-ratelimit-limit-requests": "1",
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-limit-tokens": None,
        },
    ),
    "tokens": (
        {"user_tpm_limit": 10},
        "Rate limit reached for user ann: 10 of 10 tokens in a minute (tpm_limit). Try again in 60 s.",
        {"retry-after": "60", "x-ratelimit-limit-tokens": "10", "x-ratelimit-remaining-tokens": "0"},
    ),
    "a model": (
        {"metadata": {"model_rpm_limit": {"gpt-4o-mini": 1}}, "key_alias": None},
        (
            "Rate limit reached for model gpt-4o-mini with this key: 1 of 1 requests in a minute (rpm_limit). "
            "Try again in 60 s."
        ),
        {"retry-after": "60"},
    ),
    "the one that takes longest": (
        {"rpm_limit": 1, "user_rpm_limit": 0},
        "Rate limit reached for user ann: 0 of 0 requests in a minute (rpm_limit).",
        {"x-should-retry": "false", "x-ratelimit-limit-requests": "0"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
async def test_a_refusal_says_which_limit_of_whom_and_when_to_come_again(name):
    """In the envelope and in the headers that clients read."""
    fields, message, headers = REFUSED[name]
    who = caller().model_copy(update=fields)
    gate = gated(Upstream(answer(COUNTED)), who=who)
    first = await asked(gate)
    response = await asked(gate)
    assert first.status in {200, 429}
    assert response.status == 429
    assert response.error() == {
        "message": message,
        "type": "rate_limit_error",
        "param": None,
        "code": "rate_limit_exceeded",
    }
    assert {name: response.header(name) for name in headers} == headers


async def test_a_slot_that_is_taken_is_worth_a_second_try():
    app, client = Held(), Client(chat())
    gate = gated(app, who=caller(max_parallel_requests=1))
    async with anyio.create_task_group() as group:
        group.start_soon(client.call, gate)
        await anyio.wait_all_tasks_blocked()
        response = await asked(gate)
        app.let_go()
    assert (response.header("retry-after"), response.header("x-should-retry")) == ("1", "true")
    assert "1 of 1 are at work" in response.error()["message"]


@pytest.mark.parametrize("name", LIMITS)
async def test_each_kind_of_limit_holds_for_whom_it_is_of(name):
    """A key, a user or a team shares it, and nobody else does."""
    app, client = Held(*answer(COUNTED)), Client(chat())
    callers = {
        "one": caller(**{name: 1}),
        "two": UserAPIKeyAuth(api_key="sk-two", user_id="b", team_id="c", **{name: 1}),
    }
    limiter = ParallelRequestLimiter()
    gates = {key: gated(app, who=who, limiter=limiter) for key, who in callers.items()}
    async with anyio.create_task_group() as group:
        group.start_soon(client.call, gates["one"])
        await anyio.wait_all_tasks_blocked()
        if "parallel" not in name:
            app.let_go()
            await client.answered.wait()
        assert (await asked(gates["one"])).status == 429
        app.let_go(2)
        assert (await asked(gates["two"])).status == 200


async def test_a_refused_call_takes_nothing():
    """Neither of the limit that refuses it nor of another."""
    limiter, app = ParallelRequestLimiter(), Upstream(answer(WHOLE))
    mean, kind = caller(rpm_limit=3, user_rpm_limit=0), caller(rpm_limit=3)
    for _ in range(5):
        assert (await asked(gated(app, who=mean, limiter=limiter))).status == 429
    statuses = [(await asked(gated(app, who=kind, limiter=limiter))).status for _ in range(4)]
    assert statuses == [200, 200, 200, 429]


async def test_an_answer_says_how_the_caller_stands():
    """Of each kind the limit with the least left."""
    gate = gated(Upstream(answer(COUNTED)), who=caller(rpm_limit=5, user_rpm_limit=9, tpm_limit=100, team_tpm_limit=15))
    await asked(gate)
    response = await asked(gate)
    told = {name.removeprefix("x-ratelimit-"): value for name, value in response.headers if "ratelimit" in name}
    resets = [told.pop("reset-requests"), told.pop("reset-tokens")]
    assert told == {
        "limit-requests": "5",
        "remaining-requests": "3",
        "limit-tokens": "15",
        "remaining-tokens": "5",
    }
    assert all(value.startswith("59.") or value == "60s" for value in resets)


@pytest.mark.parametrize("limit", [True, "3", 2.5, [1]], ids=repr)
async def test_a_limit_that_is_no_number_lets_nobody_through(limit, caplog):
    app = Upstream()
    response = await asked(gated(app, who=caller(user_rpm_limit=limit)))
    assert (response.status, app.calls) == (500, [])
    assert f"rpm_limit of user ann: expected a whole number, got {type(limit).__name__}" in caplog.text


class Refuses(CallHooks):
    """Refuses at one hook, in one way."""

    def __init__(self, method, verdict):
        async def hook():
            if isinstance(verdict, Exception):
                raise verdict
            return verdict

        setattr(self, method, hook)


NO = HTTPException(403)

# What the app does, and what hooks do; what the client has before the app has ended, and what after it.
ANSWERED = {
    "a whole answer": (answer(WHOLE), []),
    "a binary answer": (answer(b"\xff", content_type="audio/mpeg"), []),
    "an error": (answer(b"{}", 500), []),
    "a stream": (STREAM, []),
    "a refusal before the app": ((), [Refuses("async_pre_call_hook", "no")]),
    "an error before the app": ((), [Refuses("async_pre_call_hook", NO)]),
    "a crash before the app": ((), [Refuses("async_pre_call_hook", KeyError())]),
    "a refusal of the answer": (answer(WHOLE), [Refuses("async_post_call_success_hook", NO)]),
    "a failed answer": (answer(WHOLE), [Refuses("async_post_call_success_hook", KeyError())]),
    "something to do after the answer": ((*answer(WHOLE), sleeps), []),
    "something to do after the stream": ((*STREAM, sleeps), []),
    "a stream whose end comes late": ((*STREAM[:2], piece(DONE), sleeps), []),
}
ENDED = {
    "a stream that breaks": ((*STREAM[:2], raises), []),
    "a crash": ((raises,), []),
    "no answer": ((), []),
    "a refusal beside the app": ((sleeps,), [Refuses("async_moderation_hook", "no")]),
    "a refusal in a stream": ((*STREAM[:2], sleeps), [Refuses("async_post_call_streaming_hook", NO)]),
}


class Sequential(Client):
    """A client that makes its next call as soon as it has its whole answer: of a stream, that is its `[DONE]`."""

    async def send(self, message):
        await super().send(message)
        if message.get("body", b"").endswith(DONE):
            self.answered.set()


@pytest.mark.parametrize("name", ANSWERED)
async def test_a_client_that_has_its_answer_is_not_refused_for_the_call_before(name):
    steps, callbacks = ANSWERED[name]
    gate = gated(App(*steps), *callbacks, who=caller(max_parallel_requests=1))
    await assert_no_call_is_refused_for_the_one_before(gate, name)


async def assert_no_call_is_refused_for_the_one_before(gate, name):
    async with anyio.create_task_group() as group:
        for _ in range(3):
            client = Sequential(chat(stream="stream" in name))
            group.start_soon(client.call, gate)
            await client.answered.wait()
            assert client.sent[0]["status"] != 429
        group.cancel_scope.cancel()


@pytest.mark.parametrize("name", ENDED)
async def test_a_slot_is_back_when_the_app_has_ended(name):
    steps, callbacks = ENDED[name]
    gate = gated(App(*steps), *callbacks, who=caller(max_parallel_requests=1), cancel_grace=0)
    for _ in range(3):
        client = Client(chat(stream="stream" in name))
        with suppress(RuntimeError):
            await client.call(gate)
        assert all(message.get("status") != 429 for message in client.sent)


@pytest.mark.parametrize("steps", [(sleeps,), (*STREAM[:2], sleeps)], ids=["before the answer", "in a stream"])
async def test_a_client_that_leaves_has_its_slot_until_the_app_has_ended(steps):
    """What the upstream has at work is never more than the limit."""
    stopping, ended = anyio.Event(), anyio.Event()

    async def slow_to_stop(receive, send):
        try:
            await anyio.sleep_forever()
        finally:
            stopping.set()
            with anyio.CancelScope(shield=True):
                await ended.wait()

    client = Client(chat(stream=len(steps) > 1))
    gate = gated(App(*steps[:-1], slow_to_stop), who=caller(max_parallel_requests=1), cancel_grace=0)
    async with anyio.create_task_group() as group:
        group.start_soon(client.call, gate)
        await anyio.wait_all_tasks_blocked()
        client.gone.set()
        await stopping.wait()
        assert (await asked(gate)).status == 429
        ended.set()
    late = Client(chat())
    async with anyio.create_task_group() as group:
        group.start_soon(late.call, gate)
        await anyio.wait_all_tasks_blocked()
        assert all(message.get("status") != 429 for message in late.sent)
        group.cancel_scope.cancel()


@pytest.mark.parametrize("how", ["leaves", "is cancelled"])
async def test_a_call_that_ends_while_later_hooks_think_gives_its_slot_back(how):
    class Thinks(CallHooks):
        async def async_pre_call_hook(self):
            await anyio.sleep_forever()

    limiter, who = ParallelRequestLimiter(), caller(max_parallel_requests=1)
    client, gate = Client(chat()), gated(App(), Thinks(), who=who, limiter=limiter)
    async with anyio.create_task_group() as group:
        group.start_soon(client.call, gate)
        await anyio.wait_all_tasks_blocked()
        assert (await asked(gate)).status == 429
        if how == "leaves":
            client.gone.set()
        else:
            group.cancel_scope.cancel()
    assert (await asked(gated(Upstream(answer(WHOLE)), who=who, limiter=limiter))).status == 200


async def test_a_hook_that_throws_the_state_of_others_away_keeps_no_slot():
    class Tidies(CallHooks):
        async def async_pre_call_hook(self, data):
            data["litellm_metadata"] = data["metadata"] = None
            return {"model": "m", "messages": []}

    gate = gated(Upstream(answer(COUNTED)), Tidies(), who=caller(max_parallel_requests=1, tpm_limit=100))
    statuses = [(await asked(gate)).status for _ in range(3)]
    assert statuses == [200, 200, 200]


async def test_a_file_of_calls_is_one_call_whatever_is_in_it():
    gate = gated(Upstream(answer(b'{"id":"file-1"}')), who=caller(max_parallel_requests=1, rpm_limit=2))
    statuses = [(await upload(jsonl(row(1), row(2), row(3))).to(gate)).status for _ in range(3)]
    assert statuses == [200, 200, 429]


async def test_on_a_websocket_requests_count_and_slots_do_not():
    app = Script([{"type": "response.completed"}], [{"type": "response.completed"}])
    socket = WebSocket(RESPONSES)
    async with socket.open(gated(app, who=caller(max_parallel_requests=1, rpm_limit=2))):
        for expected in ("response.completed", "response.completed", "error"):
            socket.say({"type": "response.create", "model": "m", "input": "Hi"})
            heard = await socket.hear()
            assert heard["type"] == expected
    assert heard["error"]["code"] == "rate_limit_exceeded"
    assert len(app.got) == 2


@pytest.mark.parametrize("seconds", [0, -1, "30", None, float("inf"), float("nan")], ids=repr)
def test_a_lease_is_some_time(seconds):
    with pytest.raises(ValueError, match="lease_seconds: expected more than 0 seconds, got "):
        ParallelRequestLimiter(lease_seconds=seconds)
