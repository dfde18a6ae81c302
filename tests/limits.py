"""Callers with limits, and apps that tests hold at work, for tests of the limiter."""

from __future__ import annotations

import anyio

from asgi_llm_gate import LLMGate, UserAPIKeyAuth
from asgi_llm_gate.builtin import ParallelRequestLimiter
from tests.actors import DONE, START, Client, event, piece, said
from tests.harness import CHAT, Response, answer, chat

WHOLE = b'{"id":"c","object":"chat.completion","choices":[{"index":0,"message":{"content":"Hello, you"}}]}'
COUNTED = WHOLE[:-1] + b',"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}'
STREAM = (START, piece(event(said("Hi"))), piece(DONE, more=False))

LIMITS = [
    f"{scope}{name}" for scope in ("", "user_", "team_") for name in ("max_parallel_requests", "rpm_limit", "tpm_limit")
]


def caller(**fields):
    return UserAPIKeyAuth(api_key="sk-limited", key_alias="tester", user_id="ann", team_id="zoo", **fields)


def gated(app, *callbacks, who=None, limiter=None, **settings):
    """A gate with a limiter, of which `limiter` may name the fields' values."""
    limiter = limiter or ParallelRequestLimiter()
    who = who or caller()
    return LLMGate(app, callbacks=[limiter, *callbacks], custom_auth=lambda request, key: who, **settings)


class Held:
    """An app whose calls are at work until the test lets some of them go on; `answers` are its messages."""

    def __init__(self, *answers):
        self.answers = answers or tuple(answer(WHOLE))
        self.at_work = 0
        self.most = 0
        self.calls = 0
        self._go = anyio.Semaphore(0)

    def let_go(self, calls=1):
        """Let so many calls be answered, now or when they come."""
        for _ in range(calls):
            self._go.release()

    async def __call__(self, scope, receive, send):
        await receive()
        self.calls += 1
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        try:
            await self._go.acquire()
            for message in self.answers:
                await send(dict(message))
        finally:
            self.at_work -= 1


async def asked(gate, body=None, path=CHAT, **request):
    """Make a call and return its answer."""
    client = Client(body or chat(), path, **request)
    await client.call(gate)
    return Response(client.sent)
