"""The limiter on a real Redis: one round trip before a call and one after, leases, and a Redis that is away or slow."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager, suppress

import anyio
import pytest

from asgi_llm_gate import DualCache
from asgi_llm_gate.builtin import ParallelRequestLimiter
from asgi_llm_gate.builtin.limits import Claim, limits_of
from asgi_llm_gate.builtin.redis_ledger import RedisLedger
from asgi_llm_gate.cache import RedisCache, StoreError
from tests.actors import App, Client, sleeps
from tests.harness import Upstream, answer, chat
from tests.limits import COUNTED, STREAM, WHOLE, Held, asked, caller, gated
from tests.redis_server import RedisServer
from tests.test_limiter import ANSWERED, ENDED, REFUSED, assert_no_call_is_refused_for_the_one_before

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def make(redis_server):
    """Make gates with a limiter each, as of several processes that share a Redis."""
    made = []

    def gate(app, *callbacks, lease=30.0, on_store_error="allow", timeout=10.0, **settings):
        limiter = ParallelRequestLimiter(lease_seconds=lease)
        cache = DualCache(redis_cache=RedisCache(redis_server.url, timeout=timeout), on_store_error=on_store_error)
        made.append((limiter, cache))
        return gated(app, *callbacks, limiter=limiter, cache=cache, **settings)

    yield gate
    for limiter, cache in made:
        await limiter.aclose()
        await cache.redis_cache.aclose()
    assert len(asyncio.all_tasks()) <= 2  # this fixture's and the test's


@pytest.fixture
def redis(redis_server):
    with redis_server.client() as client:
        yield client


def scripts_run(redis):
    """How many scripts Redis has run."""
    stats = redis.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval"))


def slots(redis):
    """Who holds slots, and until when in milliseconds, by the limit's key."""
    return {key: dict(redis.zrange(key, 0, -1, withscores=True)) for key in redis.scan_iter() if ":slots:" in key}


@asynccontextmanager
async def at_work(gate, app, calls=1):
    """Have calls at work within the block, and let all that are end with it."""
    before = app.at_work
    async with anyio.create_task_group() as group:
        for _ in range(calls):
            group.start_soon(Client(chat()).call, gate)
        await until(lambda: app.at_work == before + calls)
        yield
        app.let_go(app.at_work)


async def until(condition):
    """Wait for what no event tells of: what Redis knows."""
    with anyio.fail_after(10):
        while not condition():  # noqa: ASYNC110
            await anyio.sleep(0.005)


def all_free(redis):
    """No slot is taken any more, by Redis's own clock."""
    seconds, microseconds = redis.time()
    now = seconds * 1000 + microseconds / 1000
    return all(end <= now for held in slots(redis).values() for end in held.values())


def limiter_of(gate):
    return gate.settings.callbacks[0]


EVERYTHING = {
    f"{scope}{kind}": 50
    for scope in ("", "user_", "team_")
    for kind in ("max_parallel_requests", "rpm_limit", "tpm_limit")
} | {"metadata": {f"model_{kind}": {"gpt-4o-mini": 50} for kind in ("max_parallel_requests", "rpm_limit", "tpm_limit")}}

ROUND_TRIPS = {
    "nobody has a limit": ({}, answer(COUNTED), {}, 0),
    "all limits there are": (EVERYTHING, answer(COUNTED), {}, 2),
    "all limits, streamed": (EVERYTHING, STREAM, {"stream": True}, 2),
    "an error": (EVERYTHING, answer(b"{}", 500), {}, 2),
    "requests alone": ({"rpm_limit": 5}, answer(COUNTED), {}, 1),
    "a refusal": ({**EVERYTHING, "rpm_limit": 0}, answer(COUNTED), {}, 1),
}


@pytest.mark.parametrize("name", ROUND_TRIPS)
async def test_a_call_takes_one_round_trip_before_it_and_one_after(name, make, redis):
    """However many limits there are; and none where there is none."""
    fields, messages, body, expected = ROUND_TRIPS[name]
    gate = make(Upstream(messages), who=caller(**fields))
    await asked(gate, chat(**body))  # Redis is given the scripts
    before = scripts_run(redis)
    for _ in range(3):
        await asked(gate, chat(**body))
    assert scripts_run(redis) - before == 3 * expected


async def test_processes_share_their_limits_and_redis_learns_no_names(make, redis):
    app = Held()
    who = caller(max_parallel_requests=3, rpm_limit=4, team_tpm_limit=100)
    gates = [make(app, who=who) for _ in range(3)]
    async with at_work(gates[0], app), at_work(gates[1], app, 2):
        pass
    async with at_work(gates[2], app):
        assert (await asked(gates[0])).error()["message"].startswith("Rate limit reached for key tester: 4 of 4")
    keys = list(redis.scan_iter())
    assert keys
    assert all(secret not in key for key in keys for secret in ("ann", "zoo", "tester", who.api_key))
    assert all(redis.pttl(key) > 0 for key in keys)


async def test_exactly_so_many_requests_are_let_in_as_the_limit_says(make, redis):
    """However many come at once, over several processes; and again in the next window."""
    app = Upstream(answer(WHOLE))
    gates = [make(app, who=caller(rpm_limit=7)) for _ in range(3)]
    for _ in range(2):
        statuses = []

        async def ask(gate, statuses=statuses):
            statuses.append((await asked(gate)).status)

        async with anyio.create_task_group() as group:
            for index in range(40):
                group.start_soon(ask, gates[index % 3])
        assert sorted(statuses) == [200] * 7 + [429] * 33
        (window,) = redis.scan_iter()
        assert 0 < redis.pttl(window) <= 60_000
        redis.delete(window)  # as when it has ended


@pytest.mark.parametrize("name", REFUSED)
async def test_a_refusal_says_on_redis_what_it_says_in_memory(name, make):
    fields, message, headers = REFUSED[name]
    gate = make(Upstream(answer(COUNTED)), who=caller().model_copy(update=fields))
    await asked(gate)
    response = await asked(gate)
    assert (response.status, response.error()["message"]) == (429, message)
    assert {name: response.header(name) for name in headers} == headers


@pytest.mark.parametrize("name", ANSWERED)
async def test_a_client_that_has_its_answer_is_not_refused_for_the_call_before(name, make):
    steps, callbacks = ANSWERED[name]
    gate = make(App(*steps), *callbacks, who=caller(max_parallel_requests=1))
    await assert_no_call_is_refused_for_the_one_before(gate, name)


@pytest.mark.parametrize("name", ENDED)
async def test_a_slot_is_back_when_the_app_has_ended(name, make, redis):
    steps, callbacks = ENDED[name]
    gate = make(App(*steps), *callbacks, who=caller(max_parallel_requests=1), cancel_grace=0)
    client = Client(chat(stream="stream" in name))
    with suppress(RuntimeError):
        await client.call(gate)
    assert client.sent == [] or client.sent[0]["status"] != 429
    assert slots(redis) == {}


async def test_leases_are_renewed_while_calls_live_in_one_round_trip_for_all(make, redis):
    app = Held()
    gate = make(app, who=caller(max_parallel_requests=9, user_max_parallel_requests=9), lease=0.6)
    async with at_work(gate, app, 3):
        before = scripts_run(redis)
        await until(lambda: scripts_run(redis) > before)  # Redis is given the script
        first, before = slots(redis), scripts_run(redis)
        assert [len(held) for held in first.values()] == [3, 3]
        await until(lambda: slots(redis).keys() == first.keys() and _later(first, slots(redis)))
        assert scripts_run(redis) - before == 1
        seconds, microseconds = redis.time()
        expiry = min(expiry for held in slots(redis).values() for expiry in held.values())
        assert expiry - (seconds * 1000 + microseconds // 1000) <= 600
    assert slots(redis) == {}
    before = scripts_run(redis)
    await anyio.sleep(0.3)
    assert scripts_run(redis) == before


def _later(first, now):
    return all(now[key][call] > expiry for key, held in first.items() for call, expiry in held.items())


async def test_the_slots_of_a_process_that_says_nothing_more_are_free_again_after_the_lease(make, redis):
    app = Held()
    dead, alive = (make(app, who=caller(max_parallel_requests=2), lease=0.5) for _ in range(2))
    async with at_work(dead, app, 2):
        await limiter_of(dead).aclose()  # it renews no more, as if it were dead
        assert (await asked(alive)).status == 429
        await until(lambda: all_free(redis))
        app.let_go(3)
        assert (await asked(alive)).status == 200


class Slow:
    """A Redis that does renewals when the test lets it, and fails the first of them so often."""

    def __init__(self, redis, failures=0):
        self._redis = redis
        self._failures = failures
        self.asked, self.go = anyio.Event(), anyio.Event()

    def async_register_script(self, source):
        script = self._redis.async_register_script(source)

        async def renews(**given):
            self.asked.set()
            await self.go.wait()
            if self._failures:
                self._failures -= 1
                raise StoreError
            return await script(**given)

        return renews if "ARGV[i + 1]" in source else script


@pytest.fixture
async def ledger_on(redis_server):
    """Make ledgers on a slow Redis, with short leases."""
    made = []

    def ledger(failures=0):
        cache = RedisCache(redis_server.url, timeout=10)
        slow = Slow(cache, failures)
        made.append((RedisLedger(slow, 0.3), cache))
        return slow, made[-1][0]

    yield ledger
    for ledger, cache in made:
        await ledger.aclose()
        await cache.aclose()


CLAIM = Claim("call", limits_of(caller(max_parallel_requests=1), "m"))


async def test_a_slot_that_is_given_back_while_it_is_renewed_stays_free(ledger_on, redis):
    """Redis may see the renewal after the return."""
    slow, ledger = ledger_on()
    await ledger.take(CLAIM)
    await slow.asked.wait()
    await ledger.give(CLAIM, 0)
    before = scripts_run(redis)
    slow.go.set()
    await until(lambda: scripts_run(redis) >= before + 2 and slots(redis) == {})


async def test_a_renewal_that_fails_is_tried_again(ledger_on, redis):
    slow, ledger = ledger_on(failures=1)
    slow.go.set()
    await ledger.take(CLAIM)
    first = slots(redis)
    await until(lambda: slots(redis).keys() == first.keys() and _later(first, slots(redis)))
    await ledger.give(CLAIM, 0)
    assert slots(redis) == {}


async def test_a_renewal_is_stopped_when_the_ledger_is_closed(ledger_on):
    slow, ledger = ledger_on()
    await ledger.take(CLAIM)
    await slow.asked.wait()
    tasks = len(asyncio.all_tasks())
    await ledger.aclose()
    assert len(asyncio.all_tasks()) == tasks - 1


@contextmanager
def killed(server):
    server.kill()
    try:
        yield
    finally:
        server.start()


OUTAGES = {"killed": killed, "slow": RedisServer.stopped}


@pytest.mark.parametrize("outage", OUTAGES)
async def test_with_allow_each_process_counts_for_itself_while_redis_is_away(outage, make, redis_server, caplog):
    """Said once; no call fails for it, no slot is lost, and it is over by itself."""
    app = Held()
    gate = make(app, who=caller(max_parallel_requests=2, rpm_limit=100), timeout=0.2, lease=1.0)
    async with at_work(gate, app):
        with OUTAGES[outage](redis_server):
            async with at_work(gate, app, 2):
                assert (await asked(gate)).status == 429
            for _ in range(3):
                app.let_go()
                assert (await asked(gate)).status == 200
    assert caplog.text.count("limits can't be counted for all processes") == 1
    await until_shared(gate, app, redis_server)
    assert caplog.text.count("limits are counted for all processes again") == 1


@pytest.mark.parametrize("outage", OUTAGES)
async def test_with_reject_calls_under_limits_are_refused_while_redis_is_away(outage, make, redis_server):
    """With 503 and nothing of what is wrong inside; others go on, and it is over by itself."""
    app = Held()
    limited, free = (
        make(app, who=who, on_store_error="reject", timeout=0.2, lease=1.0)
        for who in (caller(max_parallel_requests=2), caller())
    )
    async with at_work(limited, app):
        with OUTAGES[outage](redis_server):
            for _ in range(3):
                response = await asked(limited)
                assert (response.status, response.error()["code"]) == (503, "store_unavailable")
                assert response.header("retry-after") == "1"
            app.let_go(2)
            assert (await asked(free)).status == 200
    await until_shared(limited, app, redis_server)


async def until_shared(gate, app, redis_server):
    """Make calls until Redis is asked again; soon it knows of none."""
    with redis_server.client() as client, anyio.fail_after(20):
        before = scripts_run(client)
        while scripts_run(client) == before:
            app.let_go()
            await asked(gate)
            await anyio.sleep(0.05)
        await until(lambda: all_free(client))


async def test_a_call_that_outlives_redis_is_there_again(make, redis, redis_server):
    """A Redis that was started anew knows of the calls that are still at work when their leases are renewed."""
    app = Held()
    gate = make(app, who=caller(max_parallel_requests=1), lease=0.6)
    async with at_work(gate, app):
        redis_server.kill()
        redis_server.start()
        with redis_server.client() as client:
            await until(lambda: slots(client))
        assert (await asked(gate)).status == 429
    with redis_server.client() as client:
        assert slots(client) == {}


@pytest.mark.parametrize("how", ["leaves", "is cancelled"])
async def test_a_call_that_ends_while_redis_is_asked_holds_nothing(how, make, redis, redis_server):
    client, gate = Client(chat()), make(App(sleeps), who=caller(max_parallel_requests=1))
    async with anyio.create_task_group() as group:
        with redis_server.stopped():
            group.start_soon(client.call, gate)
            await anyio.wait_all_tasks_blocked()
            if how == "leaves":
                client.gone.set()
            else:
                group.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await anyio.wait_all_tasks_blocked()
    await until(lambda: slots(redis) == {})


async def test_the_limiter_leaves_nothing_running_when_it_is_closed(make, redis):
    app = Held()
    gate = make(app, who=caller(max_parallel_requests=1), lease=0.3)
    async with at_work(gate, app):
        before = scripts_run(redis)
        await until(lambda: scripts_run(redis) > before)
        await limiter_of(gate).aclose()
        before = scripts_run(redis)
        await anyio.sleep(0.3)
        assert scripts_run(redis) == before
