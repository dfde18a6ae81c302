"""The limiter as it is served: several processes on one Redis, one of them killed, and the official client."""

from __future__ import annotations

import signal
import threading
from contextlib import ExitStack, contextmanager

import anyio
import httpx
import openai
import pytest

from asgi_llm_gate.builtin import ParallelRequestLimiter
from asgi_llm_gate.builtin.ledger import Ledger
from tests.actors import DONE, START, event, piece, said
from tests.commandline import command, run, serving
from tests.harness import Upstream, answer
from tests.limits import WHOLE, caller, gated
from tests.servers import serve

LIMIT = 5

AUTH = f"""
from asgi_llm_gate import UserAPIKeyAuth

async def who(request, api_key):
    return UserAPIKeyAuth(user_id="everybody", user_max_parallel_requests={LIMIT})
"""

CONFIG = """
model_list: [{{model_name: "*", litellm_params: {{model: "*", api_base: "{upstream}/v1", api_key: sk-up}}}}]
litellm_settings: {{callbacks: parallel_request_limiter}}
general_settings: {{custom_auth: callers.who}}
gate_settings: {{{settings}}}
"""


@pytest.fixture
def gates(tmp_path):
    """Serve gates of a configuration, each a process of its own; give their URLs and processes."""
    (tmp_path / "callers.py").write_text(AUTH)

    @contextmanager
    def served(upstream, settings, *workers):
        path = tmp_path / "config.yaml"
        path.write_text(CONFIG.format(upstream=upstream, settings=settings))
        with ExitStack() as stack:
            argv = [command("--config", path, "--port", "0", "--workers", str(count)) for count in workers]
            yield [stack.enter_context(serving(arguments)) for arguments in argv]

    return served


class Counting:
    """An upstream that takes a moment for each call, answers as its body says, and counts what it has at work."""

    def __init__(self):
        self.at_work = self.most = self.calls = 0
        self.held = threading.Event()

    async def __call__(self, scope, receive, send):
        body = (await receive())["body"]
        self.calls += 1
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        if b"leave" in body:
            self.held.set()
            await receive()
        else:
            await anyio.sleep(0.01)
        self.at_work -= 1
        messages = STREAM if b"true" in body else answer(b"{}", 500) if b"fail" in body else answer(WHOLE)
        for message in messages:
            await send(dict(message))


STREAM = (START, piece(event(said("Hi")) + DONE, more=False))
ASKED = [{"model": "m"}, {"model": "m", "stream": True}, {"model": "fail"}]


def held_slots(redis):
    return [key for key in redis.scan_iter() if ":slots:" in key]


async def until(condition):
    """Wait for what no event tells of: what Redis knows."""
    with anyio.fail_after(20):
        while not condition():  # noqa: ASYNC110
            await anyio.sleep(0.005)


def test_no_more_calls_reach_the_upstream_than_the_limit_however_many_processes_let_them_in(gates, redis_server):
    """Two gates of two processes each; whatever becomes of the calls, all slots are back."""
    upstream = Counting()
    statuses = []

    async def calls(client, urls, number):
        """Make a call of each kind, each until it is let in; leave one halfway."""
        for kind, body in enumerate(ASKED):
            status = 429
            while status == 429:
                response = await client.post(urls[(number + kind) % 2], json=body)
                status = response.status_code
            statuses.append(status)

    async def leaves(client, url):
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(lambda: client.post(url, json={"model": "leave"}))
                await until(upstream.held.is_set)
                scope.cancel()

    async def everything(urls):
        limits = httpx.Limits(max_connections=60)
        async with httpx.AsyncClient(limits=limits, timeout=30) as client:
            async with anyio.create_task_group() as group:
                for number in range(60):
                    group.start_soon(calls, client, urls, number)
            assert sorted(statuses) == [200] * 120 + [500] * 60
            for url in urls:
                await leaves(client, url)
                upstream.held.clear()
        with redis_server.client() as redis:
            await until(lambda: not held_slots(redis))
        assert (upstream.most, upstream.calls) == (LIMIT, 182)

    settings = f"redis_url: '{redis_server.url}'"
    with serve(upstream) as url, gates(url, settings, 2, 2) as processes:
        anyio.run(everything, [f"{process.url}/v1/chat/completions" for process in processes])
    assert [process.status for process in processes] == [0, 0]


def test_the_slots_of_a_process_that_is_killed_are_free_within_the_lease(gates, redis_server):
    upstream = Counting()

    async def dies(dead, alive):
        async with httpx.AsyncClient(timeout=30) as client, anyio.create_task_group() as group:

            async def hold():
                with pytest.raises(httpx.TransportError):
                    await client.post(f"{dead.url}/v1/chat/completions", json={"model": "leave"})

            for _ in range(LIMIT):
                group.start_soon(hold)
            await until(lambda: upstream.at_work == LIMIT)
            refused = await client.post(f"{alive.url}/v1/chat/completions", json={"model": "m"})
            assert refused.status_code == 429
            dead.stop(signal.SIGKILL)
            with redis_server.client() as redis:
                await until(lambda: not held_slots(redis))
            assert (await client.post(f"{alive.url}/v1/chat/completions", json={"model": "m"})).status_code == 200

    settings = f"redis_url: '{redis_server.url}', lease_seconds: 1"
    with serve(upstream) as url, gates(url, settings, 1, 1) as (dead, alive):
        anyio.run(dies, dead, alive)


def test_several_workers_that_share_nothing_do_not_start_with_a_limiter(tmp_path):
    """One line says why; the exit status is that of a mistake."""
    (tmp_path / "callers.py").write_text(AUTH)
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.format(upstream="http://127.0.0.1:1", settings=""))
    ended = run("--config", path, "--port", "0", "--workers", "2")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        "Error: --workers 2: ParallelRequestLimiter counts over all processes, and they share nothing without "
        "gate_settings.redis_url\n"
    )


def test_the_official_client_reads_the_refusal_and_comes_again_when_it_may(monkeypatch):
    now, slept = [1000.0], []
    limiter = ParallelRequestLimiter()
    limiter._own = Ledger(lambda: now[0])
    gate = gated(Upstream(answer(WHOLE)), who=caller(rpm_limit=1), limiter=limiter)

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    def ask(client):
        return client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}])

    with serve(gate) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="sk", max_retries=0) as client:
        assert ask(client).choices[0].message.content == "Hello, you"
        with pytest.raises(openai.RateLimitError) as caught:
            ask(client)
        assert (caught.value.code, caught.value.type) == ("rate_limit_exceeded", "rate_limit_error")
        assert caught.value.response.headers["x-ratelimit-limit-requests"] == "1"
        monkeypatch.setattr("openai._base_client.time.sleep", sleep)
        assert ask(client.with_options(max_retries=1)).choices[0].message.content == "Hello, you"
    assert slept == [60.0]
