"""The limiter against a model of it, whatever calls come and however they end: in memory, and on Redis."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import orjson
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, multiple, rule, run_state_machine_as_test
from starlette.exceptions import HTTPException

from asgi_llm_gate import CallHooks, DualCache, UserAPIKeyAuth
from asgi_llm_gate.builtin import ParallelRequestLimiter
from asgi_llm_gate.builtin.ledger import Ledger
from asgi_llm_gate.cache import RedisCache
from tests.actors import DONE, START, Client, event, piece, said
from tests.harness import answer, chat
from tests.limits import COUNTED, gated

USERS = ("ann", "bob")
OWN, TEAM, REQUESTS, TOKENS = 2, 3, 5, 15
COST = 10

USAGE = {**said(""), "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}
# How a call ends, and what it costs: of an answer that was cut short what was seen, by its length.
ENDINGS = {
    "whole": COST,
    "stream": COST,
    "error": 0,
    "crash": 0,
    "refusal before": 0,
    "refusal beside": 0,
    "refusal after": COST,
    "stops": 2,
    "leaves": 0,
}


@dataclass
class Running:
    """A call at work."""

    user: str
    ending: str
    client: Client
    started: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    task: Any = None


class Ends(CallHooks):
    """Ends calls as the machine says."""

    def __init__(self, running):
        self._running = running

    async def async_pre_call_hook(self, data):
        return "no" if data["ending"] == "refusal before" else None

    async def async_moderation_hook(self, data):
        if data["ending"] == "refusal beside":
            await self._running[data["id"]].release.wait()
            raise HTTPException(403)

    async def async_post_call_success_hook(self, data):
        if data["ending"] == "refusal after":
            raise HTTPException(403)

    async def async_post_call_streaming_hook(self, request_data):
        if request_data["ending"] == "stops":
            raise HTTPException(403)


class Machine(RuleBasedStateMachine):
    """Calls of two users of one team, each at work until a rule ends it."""

    redis: Any = None
    calls = Bundle("calls")

    def __init__(self):
        super().__init__()
        self.now = 1000.0
        self.running: dict[int, Running] = {}
        self.at_work = dict.fromkeys(USERS, 0)
        self.requests, self.tokens = dict.fromkeys(USERS, 0), 0
        self.limiter = ParallelRequestLimiter(lease_seconds=3600)
        self.limiter._own = Ledger(lambda: self.now)
        self.cache = DualCache(redis_cache=self.redis and RedisCache(self.redis.url, timeout=10))
        if self.redis is not None:
            self.redis.refresh()
        hooks = Ends(self.running)
        self.gates = {
            user: gated(self.app, hooks, who=_caller(user), limiter=self.limiter, cache=self.cache, cancel_grace=0)
            for user in USERS
        }
        self.runner = asyncio.Runner()

    async def app(self, scope, receive, send):
        data = orjson.loads((await receive())["body"])
        running = self.running[data["id"]]
        running.started.set()
        await (receive() if running.ending == "refusal beside" else running.release.wait())
        if running.ending == "crash":
            raise RuntimeError("boom")
        for message in MESSAGES.get(running.ending, answer(COUNTED)):
            await send(dict(message))

    @rule(target=calls, user=st.sampled_from(USERS), ending=st.sampled_from(list(ENDINGS)))
    def call(self, user, ending):
        return self.runner.run(self._call(user, ending))

    async def _call(self, user, ending):
        """Make a call; it is at work now, or has its answer."""
        used = (self.at_work[user], sum(self.at_work.values()), self.requests[user], self.tokens)
        admitted = all(count < limit for count, limit in zip(used, (OWN, TEAM, REQUESTS, TOKENS), strict=True))
        running = await self._made(user, ending)
        answered = running.client.answered.is_set()
        assert (answered and running.client.sent[0]["status"] == 429) is not admitted, used
        self.requests[user] += admitted
        if not admitted or ending == "refusal before":
            assert answered
            return multiple()
        self.at_work[user] += 1
        return running

    async def _made(self, user, ending):
        number = len(self.running)
        client = Client(chat(id=number, ending=ending, stream=ending in ("stream", "stops")))
        running = self.running[number] = Running(user, ending, client)
        running.task = asyncio.create_task(client.call(self.gates[user]))
        waits = [asyncio.create_task(event.wait()) for event in (running.started, client.answered)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in waits:
            task.cancel()
        await asyncio.wait(waits)
        return running

    @rule(running=consumes(calls))
    def end(self, running):
        self.runner.run(self._end(running))

    async def _end(self, running):
        self.at_work[running.user] -= 1
        self.tokens += ENDINGS[running.ending]
        if running.ending == "leaves":
            running.client.gone.set()
        else:
            running.release.set()
        with suppress(RuntimeError):
            await running.task

    @rule()
    def minute(self):
        """Let every window end."""
        self.now += 61
        self.requests, self.tokens = dict.fromkeys(USERS, 0), 0
        if self.redis is not None:
            with self.redis.client() as client:
                windows = [key for key in client.scan_iter() if ":slots:" not in key]
                client.delete("none", *windows)

    def teardown(self):
        self.runner.run(self._close())
        self.runner.close()

    async def _close(self):
        """End what is at work; nothing is left."""
        for running in self.running.values():
            await self._end(running)
        await self.limiter.aclose()
        if self.redis is not None:
            await self.cache.redis_cache.aclose()
            with self.redis.client() as client:
                assert not [key for key in client.scan_iter() if ":slots:" in key]
        assert not self.limiter._own._slots
        assert not self.limiter._calls
        assert len(asyncio.all_tasks()) == 1


MESSAGES = {
    "error": answer(b"{}", 500),
    "stream": (START, piece(event(said("Hi")) + event(USAGE)), piece(DONE, more=False)),
    "stops": (START, piece(event(said("Hi"))), piece(DONE, more=False)),
}


def _caller(user):
    limits = {"user_max_parallel_requests": OWN, "user_rpm_limit": REQUESTS}
    return UserAPIKeyAuth(user_id=user, team_id="t", team_max_parallel_requests=TEAM, team_tpm_limit=TOKENS, **limits)


few = settings(max_examples=25, stateful_step_count=40, deadline=None)


def test_in_memory_it_does_what_its_model_does():
    run_state_machine_as_test(Machine, settings=few)


def test_on_redis_it_does_what_its_model_does(redis_server):
    run_state_machine_as_test(type("OnRedis", (Machine,), {"redis": redis_server}), settings=few)
