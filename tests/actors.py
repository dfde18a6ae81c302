"""Who takes part in a call: clients that vanish or are slow, apps of a few steps, callbacks that note what they see."""

from __future__ import annotations

import asyncio

import anyio
import orjson
import trio

from asgi_llm_gate import CallHooks
from tests.harness import Request

# A grace that no test waits for.
EVER = 3600.0

DONE = b"data: [DONE]\n\n"
START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream; charset=utf-8")],
}


def piece(body, *, more=True):
    return {"type": "http.response.body", "body": body, "more_body": more}


def event(chunk):
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


def said(content, finish_reason=None):
    """A chunk of a chat stream."""
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish_reason}
    return {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}


class Client(Request):
    """A client of which a test sees when it has its whole answer, and which may be slow to take it, or leave."""

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

    async def call(self, app):
        """Make the call, whatever becomes of it."""
        with anyio.fail_after(60):
            await app(self.scope, self.receive, self.send)


class App:
    """An app that takes its steps one after the other, and notes what becomes of it.

    A step is bytes or a message to send, or an async function that is given `receive` and `send`.
    """

    def __init__(self, *steps):
        self.steps = steps
        self.log = []

    async def __call__(self, scope, receive, send):
        self.log.append((await receive())["type"])
        try:
            for step in self.steps:
                if callable(step):
                    await step(receive, send)
                else:
                    await send(dict(step))
        except anyio.get_cancelled_exc_class():
            self.log.append("cancelled")
            raise
        self.log.append("done")


async def told(receive, send):
    """A step: wait to be told that the client is gone."""
    assert (await receive())["type"] == "http.disconnect"


async def sleeps(receive, send):
    """A step: wait for nothing, hearing nothing."""
    await anyio.sleep_forever()


async def raises(receive, send):
    """A step that crashes."""
    raise RuntimeError("boom")


def waits(release):
    """A step: wait for an event."""

    async def step(receive, send):
        await release.wait()

    return step


class Recorder(CallHooks):
    """Notes every log event and every failure."""

    def __init__(self):
        self.events = []
        self.failures = []

    async def async_log_pre_api_call(self, model, messages, kwargs):
        self.events.append("pre")

    async def async_log_stream_event(self, kwargs, response_obj):
        self.events.append("stream")

    async def async_log_success_event(self, kwargs, response_obj):
        self.events.append("success")

    async def async_log_failure_event(self, kwargs, response_obj):
        assert response_obj is None
        self.events.append("failure")
        self.failures.append(kwargs["exception"])

    async def async_post_call_failure_hook(self, original_exception):
        self.events.append("failure hook")
        self.failures.append(original_exception)


class Judge(CallHooks):
    """A moderation hook that waits to be released, and then gives its verdict."""

    def __init__(self, verdict=None):
        self.verdict = verdict
        self.release = anyio.Event()
        self.ended = anyio.Event()
        self.cancelled = False

    async def async_moderation_hook(self):
        try:
            await self.release.wait()
        except anyio.get_cancelled_exc_class():
            self.cancelled = True
            raise
        finally:
            self.ended.set()
        return self.verdict


def tasks_living():
    """How many tasks there are, whoever runs them."""
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return trio.lowlevel.current_statistics().tasks_living
