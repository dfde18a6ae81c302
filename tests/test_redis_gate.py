"""A gate whose cache is on a real Redis: from its start to its shutdown, and what clients get meanwhile."""

from __future__ import annotations

import pytest
from starlette.exceptions import HTTPException

from asgi_llm_gate import CallHooks, DualCache, LLMGate
from asgi_llm_gate.config import load_settings
from asgi_llm_gate.coverage import report
from asgi_llm_gate.trial import run
from asgi_llm_gate.trial.request import Request as Tried
from tests.harness import Request, Upstream, chat
from tests.test_batches import STORED, batch, jsonl, row, upload
from tests.test_lifespan import App, live

pytestmark = pytest.mark.anyio

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])


class Two(CallHooks):
    """Lets two calls of a user through."""

    async def async_pre_call_hook(self, user_api_key_dict, cache):
        if await cache.async_increment_cache(f"calls:{user_api_key_dict.end_user_id}", 1, ttl=60) > 2:
            raise HTTPException(429, "Two calls are enough")


async def ask(gate):
    return await Request(chat(user="me")).to(gate)


@on_asyncio
async def test_gates_on_one_redis_count_together(redis_server):
    gates = [LLMGate(Upstream(), callbacks=[Two()], redis_url=redis_server.url) for _ in range(3)]
    assert [(await ask(gate)).status for gate in gates] == [200, 200, 429]
    for gate in gates:
        await gate.settings.cache.aclose()


@on_asyncio
@pytest.mark.parametrize("policy", ["allow", "reject"])
@pytest.mark.parametrize("outage", ["killed", "stopped"])
async def test_a_client_learns_nothing_of_a_redis_that_is_away(redis_server, policy, outage):
    """Calls go on, or are refused in the envelope; and all is well by itself when Redis is back."""
    url = f"{redis_server.url}?socket_timeout=0.05"
    gate = LLMGate(Upstream(), callbacks=[Two()], redis_url=url, on_store_error=policy)
    assert (await ask(gate)).status == 200
    if outage == "killed":
        redis_server.kill()
        responses = [await ask(gate) for _ in range(2)]
        redis_server.start()
    else:
        with redis_server.stopped():
            responses = [await ask(gate) for _ in range(2)]
    if policy == "allow":
        assert [response.status for response in responses] == [200, 429]
    else:
        assert [response.status for response in responses] == [503, 503]
        for response in responses:
            error = response.error()
            assert (error["code"], error["type"]) == ("store_unavailable", "internal_server_error")
            assert "redis" not in response.body.decode().lower()
            assert response.header("retry-after") == "1"
    redis_server.refresh()
    gate.settings.cache.redis_cache.store._health._rests_until = 0
    assert [(await ask(gate)).status for _ in range(3)] == [200, 200, 429]
    await gate.settings.cache.aclose()


@on_asyncio
async def test_a_batch_passes_whichever_process_saw_its_file_and_after_a_restart(redis_server):
    app = Upstream(STORED)
    gates = [LLMGate(app, redis_url=redis_server.url) for _ in range(2)]
    assert (await batch(gates[1])).status == 403
    assert (await upload(jsonl(row(1))).to(gates[0])).status == 200
    await gates[0].settings.cache.aclose()
    assert (await batch(gates[1])).status == 200
    redis_server.kill()
    assert (await batch(LLMGate(app, redis_url=redis_server.url))).status == 403
    refused = await batch(LLMGate(app, redis_url=redis_server.url, on_store_error="reject"))
    assert (refused.status, refused.error()["code"]) == (503, "store_unavailable")
    await gates[1].settings.cache.aclose()


@on_asyncio
async def test_the_connections_are_closed_at_shutdown(redis_server):
    seen = []
    before = redis_server.connected()
    gate = LLMGate(App(seen), callbacks=[Two()], redis_url=redis_server.url)
    await gate.settings.cache.async_get_cache("a")
    assert redis_server.connected() == before + 1
    await live(gate, seen)
    assert any(redis_server.connected() == before for _ in range(1000))
    assert seen[-1] == "lifespan.shutdown.complete"


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_under_trio_a_gate_with_a_redis_does_not_start():
    """Nor does it count in memory in silence, where no lifespan is run."""
    seen = []
    gate = LLMGate(App(seen), callbacks=[Two()], redis_url="redis://h")
    told = []

    async def receive():
        return {"type": "lifespan.startup"}

    async def send(message):
        told.append(message)

    await gate({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
    complaint = "the cache on Redis needs asyncio: redis-py does not run under trio"
    assert told == [{"type": "lifespan.startup.failed", "message": complaint}]
    assert seen == []
    with pytest.raises(RuntimeError, match=r"^the cache on Redis needs asyncio"):
        await gate.settings.cache.async_get_cache("a")
    await gate.settings.cache.aclose()
    assert (await ask(gate)).status == 500


def test_what_is_covered_names_the_redis_and_the_policy_but_no_password():
    for policy, meanwhile in [
        ("allow", "each process goes on with what it knows"),
        ("reject", "calls that need it are refused"),
    ]:
        settings = load_settings(None, {"redis_url": "redis://u:hunter2@h:1", "on_store_error": policy})
        text = report(settings)
        assert f"State is shared in Redis at h:1; while it is away, {meanwhile}." in text
        assert "hunter2" not in text
    assert "State is shared" not in report(load_settings(None, {"cache": DualCache()}))


async def test_a_trial_needs_no_redis():
    """It shows what hooks do, not what others have counted."""
    settings = load_settings(None, {"callbacks": [Two()], "redis_url": "redis://h"})
    trial = await run(
        settings, Tried("POST", "/v1/chat/completions", ((b"content-type", b"application/json"),), chat(user="me"))
    )
    assert trial.answer.status == 200
