"""The cache on a real Redis: what processes share, for how long, and what is left while Redis is away."""

from __future__ import annotations

import logging
import math
import subprocess
import sys
from contextlib import AsyncExitStack, nullcontext

import anyio
import anyio.lowlevel
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from asgi_llm_gate.cache import DualCache, InMemoryCache, RedisCache, StoreError
from asgi_llm_gate.cache.health import REST, Health
from asgi_llm_gate.cache.tiers import FRESH
from tests.commandline import ROOT
from tests.redis_server import RedisServer
from tests.test_cache import Clock

pytestmark = pytest.mark.anyio

# How a cache's keys begin in Redis.
PREFIX = "{asgi-llm-gate}:"


@pytest.fixture
def anyio_backend():
    """redis-py runs on asyncio alone."""
    return "asyncio"


@pytest.fixture
async def make(redis_server):
    """Makes caches on one Redis, each as if in a process of its own."""
    async with AsyncExitStack() as stack:

        def make(url=redis_server.url, **options):
            clock = Clock()
            cache = DualCache(InMemoryCache(clock=clock), RedisCache(url), **options)
            cache.redis_cache.store._health._clock = clock
            stack.push_async_callback(cache.aclose)
            return cache, clock

        yield make


async def at_once(function, times):
    """Call an asynchronous function as many times at once, and return what it returned."""
    results = []

    async def call():
        results.append(await function())

    async with anyio.create_task_group() as tasks:
        for _ in range(times):
            tasks.start_soon(call)
    return results


async def restart(server):
    """Kill a Redis and start it again; the event loop has a few turns to hear of its connections' end."""
    server.kill()
    server.start()
    for _ in range(5):
        await anyio.lowlevel.checkpoint()


def round_trips(server):
    """How many scripts Redis was asked to run."""
    with server.client() as client:
        statistics = client.info("commandstats")
    return sum(statistics.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("eval", "evalsha"))


# --- counters


async def test_two_caches_count_to_one_sum(make):
    """Every sum is given out once, and both see the last."""
    (one, _), (other, _) = make(), make()
    first = await at_once(lambda: one.async_increment_cache("calls", 1, ttl=60), 30)
    second = await at_once(lambda: other.async_increment_cache("calls", 1, ttl=60), 30)
    both = [one.increment_cache("calls", 1), await other.async_increment_cache("calls", 1)]
    assert sorted(first + second + both) == list(range(1, 63))
    assert await other.async_get_cache("calls") == 62


COUNT = """
import sys, anyio
from asgi_llm_gate.cache import DualCache, RedisCache

async def main():
    cache = DualCache(redis_cache=RedisCache(sys.argv[1]))
    print(await cache.async_get_cache("nothing"), flush=True)
    sys.stdin.readline()
    for _ in range(100):
        await cache.async_increment_cache("calls", 1, ttl=60)
    await cache.aclose()

anyio.run(main)
"""


def test_processes_count_to_one_sum(redis_server):
    """Nothing is lost between them, however they come in each other's way."""
    command = [sys.executable, "-c", COUNT, redis_server.url]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    assert [process.stdout.readline() for process in processes] == ["None\n"] * 2
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate(timeout=60) for process in processes] == [("", None)] * 2
    with redis_server.client() as client:
        assert client.get(f"{PREFIX}calls") == "200"
        assert 0 < client.pttl(f"{PREFIX}calls") <= 60_000


async def test_a_new_counter_has_its_life_with_its_first_value_and_keeps_it(make, redis_server):
    """The window of a counter is not moved by what is counted in it, unless that is asked for."""
    cache, _ = make()
    key = f"{PREFIX}calls"
    with redis_server.client() as client:
        await cache.async_increment_cache("calls", 1, ttl=60)
        assert 50_000 < client.pttl(key) <= 60_000
        client.pexpire(key, 5_000)
        await cache.async_increment_cache("calls", 1, ttl=60)
        cache.increment_cache("calls", 1, ttl=60)
        assert 0 < client.pttl(key) <= 5_000
        assert await cache.async_get_ttl("calls") in (4, 5)
        await cache.async_increment_cache("calls", 1, ttl=60, refresh_ttl=True)
        assert 50_000 < client.pttl(key) <= 60_000


async def test_a_counter_begins_anew_when_its_window_is_over(make, redis_server):
    cache, _ = make()
    await cache.async_increment_cache("calls", 7, ttl=60)
    with redis_server.client() as client:
        client.pexpire(f"{PREFIX}calls", 0)
    assert await cache.async_increment_cache("calls", 1, ttl=60) == 1


@pytest.mark.parametrize(
    ("ttl", "life"), [(math.inf, -1), (1e300, -1), (0.0001, 1), (0, -2), (-5, -2), (math.nan, -2), (None, 600_000)]
)
@pytest.mark.parametrize("write", ["set", "increment", "add"])
async def test_a_life_may_have_no_end_or_be_none_at_all(ttl, life, write, make, redis_server):
    cache, _ = make()
    if write == "set":
        await cache.async_set_cache("a", 1, ttl=ttl)
    elif write == "increment":
        assert await cache.async_increment_cache("a", 1, ttl=ttl) == 1
    else:
        await cache.async_set_cache_sadd("a", [1], ttl)
    with redis_server.client() as client:
        left = client.pttl(f"{PREFIX}a")
    assert left == life if life < 0 else -2 <= left <= life
    assert life < 600_000 or left > 500_000


@pytest.mark.parametrize(
    ("start", "by", "total"),
    [(None, 1, 1), (2, 3, 5), (2, 0.5, 2.5), (1.5, 1, 2.5), (0, -1, -1), (None, 0.25, 0.25), (2**53, 1, 2**53 + 1)],
)
async def test_a_sum_is_what_it_is_in_memory_and_ints_stay_ints(start, by, total, make):
    cache, _ = make()
    if start is not None:
        await cache.async_set_cache("number", start)
    for result in (await cache.async_increment_cache("number", by), await cache.redis_cache.async_get_cache("number")):
        assert result == total
        assert type(result) is type(total)


async def test_several_counters_are_one_round_trip(make, redis_server):
    cache, _ = make()
    await cache.async_increment_cache_pipeline([{"key": "known", "increment_value": 1}])
    before = round_trips(redis_server)
    operations = [
        {"key": "a", "increment_value": 1, "ttl": 60},
        {"key": "b", "increment_value": 0.5},
        {"key": "a", "increment_value": 2},
    ]
    assert await cache.async_increment_cache_pipeline(operations) == [1, 0.5, 3]
    assert round_trips(redis_server) == before + 1
    assert await cache.async_increment_cache_pipeline([]) == []
    assert await cache.redis_cache.async_increment_pipeline(operations) == [4, 1, 6]
    with redis_server.client() as client:
        assert [client.ttl(f"{PREFIX}{key}") > limit for key, limit in (("a", 50), ("b", 590), ("a", 60))] == [
            True,
            True,
            False,
        ]


@pytest.mark.parametrize("start", ["12", True, [1], {"a": 1}])
async def test_what_is_no_number_can_not_be_added_to(start, make):
    cache, _ = make()
    await cache.async_set_cache("a", start)
    with pytest.raises(TypeError, match="Redis can't do this"):
        await cache.async_increment_cache("a", 1)
    with pytest.raises(TypeError, match="Redis can't do this"):
        cache.increment_cache("a", 1)
    assert await cache.redis_cache.async_get_cache("a") == start


@pytest.mark.parametrize("amount", ["1", True, math.inf, math.nan, None])
async def test_only_numbers_can_be_added(amount, make):
    cache, _ = make()
    with pytest.raises(TypeError, match="expected a number to add"):
        await cache.async_increment_cache("a", amount)


# --- values and sets


@pytest.mark.parametrize(
    "value", [0, -1, 2**63 - 1, 1.5, "", "text", "é\u2028", True, False, [], [1, [None]], {"a": {"b": [1]}}]
)
async def test_a_value_comes_out_as_it_went_in(value, make):
    (one, _), (other, _) = make(), make()
    await one.async_set_cache("a", value)
    for found in (await one.async_get_cache("a"), await other.async_get_cache("a")):
        assert found == value
        assert type(found) is type(value)


async def test_a_value_is_the_same_for_who_wrote_it_and_for_others(make):
    """What JSON makes of it, at once: a tuple is a list, and what is done to the value later is not seen."""
    cache, _ = make()
    value = {"a": (1, 2), "b": []}
    await cache.async_set_cache("a", value)
    value["b"].append(1)
    assert await cache.async_get_cache("a") == {"a": [1, 2], "b": []}


@pytest.mark.parametrize(
    ("value", "kind"),
    [({1, 2}, "set"), (object(), "object"), ({1: 2}, "dict"), (2**64, "int"), (math.nan, "float"), (b"x", "bytes")],
)
async def test_what_is_not_json_is_refused_before_anything_is_stored(value, kind, make, redis_server):
    cache, _ = make()
    await cache.async_set_cache("a", "before")
    for write in (
        lambda: cache.async_set_cache("a", value),
        lambda: cache.async_set_cache_pipeline([("b", 1), ("a", value)]),
    ):
        with pytest.raises(TypeError, match=f"^a {kind} can't be kept in Redis"):
            await write()
    with pytest.raises(TypeError, match=f"^a {kind} can't be kept in Redis"):
        cache.set_cache("a", value)
    assert await cache.async_batch_get_cache(["a", "b"]) == ["before", None]


async def test_an_overwrite_keeps_the_life_of_what_was_there(make, redis_server):
    cache, _ = make()
    await cache.async_set_cache("a", 1, ttl=60)
    await cache.async_set_cache("a", 2, ttl=500)
    assert (await cache.async_get_cache("a"), await cache.async_get_ttl("a")) == (2, 60)
    await cache.async_set_cache("a", 3, ttl=500, refresh_ttl=True)
    assert (await cache.async_get_cache("a"), cache.get_ttl("a")) == (3, 500)
    cache.set_cache("a", 4, ttl=0, refresh_ttl=True)
    assert await cache.async_get_cache("a") is None


async def test_members_of_all_add_up_to_one_set(make):
    (one, _), (other, clock) = make(), make()
    await one.async_set_cache_sadd("s", ["x", 1], 60)
    await other.async_set_cache_sadd("s", ["y", 1.5], ttl=5)
    assert await other.async_get_cache("s") == {"x", "y", 1, 1.5}
    assert await other.async_get_ttl("s") == 60
    await other.async_set_cache_sadd("s", [])
    await one.redis_cache.async_set_cache_sadd("s", ["z"])
    clock.now += FRESH
    assert other.get_cache("s") == {"x", "y", "z", 1, 1.5}
    with pytest.raises(TypeError, match="unhashable"):
        await one.async_set_cache_sadd("s", [["list"]])
    with pytest.raises(TypeError, match="Redis can't do this: WRONGTYPE"):
        await one.async_increment_cache("s", 1)


# --- who sees what, and when


async def test_what_one_writes_others_read_and_keep_for_what_is_left_of_its_life(make):
    (one, _), (other, _) = make(), make()
    await one.async_set_cache("a", [1], ttl=60)
    assert await other.async_get_cache("a") == [1]
    assert other.in_memory_cache.get_cache("a") == [1]
    assert other.in_memory_cache.get_ttl("a") in (59, 60)


async def test_redis_is_not_asked_again_for_a_second(make, redis_server):
    cache, clock = make()
    await cache.async_set_cache_pipeline([("a", 1), ("b", 2)], ttl=60)
    before = round_trips(redis_server)
    clock.now += FRESH - 0.01
    assert await cache.async_batch_get_cache(["b", "a", "b"]) == [2, 1, 2]
    assert round_trips(redis_server) == before
    clock.now += 0.01
    assert await cache.async_batch_get_cache(["b", "none", "a", "b"]) == [2, None, 1, 2]
    assert round_trips(redis_server) == before + 1
    assert await cache.async_batch_get_cache(["none", "a"]) == [None, 1]
    assert round_trips(redis_server) == before + 2
    assert await cache.async_batch_get_cache([]) == []
    assert round_trips(redis_server) == before + 2


async def test_what_another_deletes_or_overwrites_is_seen_after_a_second(make):
    (one, clock), (other, _) = make(), make()
    await one.async_set_cache_pipeline([("a", 1), ("b", 2)])
    await other.async_delete_cache("a")
    await other.async_set_cache("b", 3)
    assert await one.async_batch_get_cache(["a", "b"]) == [1, 2]
    clock.now += FRESH
    assert await one.async_batch_get_cache(["a", "b"]) == [None, 3]
    assert one.in_memory_cache.get_cache("a") is None


async def test_what_is_local_stays_in_its_process(make, redis_server):
    cache, clock = make()
    await cache.async_set_cache("a", {1, 2}, local_only=True, ttl=60)
    await cache.async_set_cache_pipeline([("b", 1)], local_only=True)
    await cache.async_increment_cache("b", 1, local_only=True)
    await cache.async_set_cache_sadd("c", ["x"], True)
    await cache.async_set_cache_sadd("d", ["x"], local_only=True)
    cache.set_cache("e", 1, True)
    cache.increment_cache("e", 1, True)
    cache.in_memory_cache.set_cache("f", 1)
    clock.now += FRESH
    keys = ["a", "b", "c", "d", "e", "f"]
    assert await cache.async_batch_get_cache(keys) == [{1, 2}, 2, {"x"}, {"x"}, 2, 1]
    await cache.redis_cache.async_set_cache("only there", 1)
    assert await cache.async_get_cache("only there", None, True) is None
    assert cache.get_cache("only there", local_only=True) is None
    with redis_server.client() as client:
        assert client.keys() == [f"{PREFIX}only there"]


async def test_a_tiny_memory_loses_nothing_that_redis_answered(make):
    (cache, _), (other, _) = make(), make()
    small = DualCache(InMemoryCache(1), cache.redis_cache)
    await other.async_set_cache_pipeline([(f"key-{number}", number) for number in range(5)])
    assert await small.async_batch_get_cache([f"key-{number}" for number in range(5)]) == list(range(5))


async def test_deleting_and_flushing_reach_redis_and_nobody_elses_keys(make, redis_server):
    (cache, _), (other, _) = make(), make()
    with redis_server.client() as client:
        client.set("not ours", 1)
        await cache.async_set_cache_pipeline([(f"key-{number}", number) for number in range(2500)])
        await cache.async_delete_cache_keys(["key-1", "key-2"])
        await cache.async_delete_cache_keys([])
        cache.delete_cache("key-3")
        assert await other.async_batch_get_cache(["key-1", "key-2", "key-3", "key-4"]) == [None, None, None, 4]
        cache.flush_cache()
        assert client.keys() == ["not ours"]
    assert cache.get_cache("key-4") is None


async def test_a_namespace_is_no_pattern(redis_server):
    """A flush of `a*` leaves `ab` alone."""
    star, ab = RedisCache(redis_server.url, namespace="a*"), RedisCache(redis_server.url, namespace="ab")
    star.set_cache("key", 1)
    ab.set_cache("key", 2)
    star.flush_cache()
    assert (star.get_cache("key"), ab.get_cache("key")) == (None, 2)
    await star.aclose()
    await ab.aclose()


# --- the tier itself


async def test_the_redis_tier_has_litellms_methods(make, redis_server):
    cache, _ = make()
    tier = cache.redis_cache
    assert repr(tier) == f"RedisCache(Redis at 127.0.0.1:{redis_server.port})"
    assert await tier.ping() is True
    await tier.async_set_cache("a", 1, ttl=60)
    await tier.async_set_cache_pipeline([("b", 2)], 60)
    assert await tier.async_increment("b", 3, None, ttl=5, refresh_ttl=True) == 5
    assert [await tier.async_get_ttl(key) for key in ("a", "b", "none")] == [60, 5, None]
    assert await tier.async_batch_get_cache(["b", "none", "a"]) == {"b": 5, "none": None, "a": 1}
    assert tier.batch_get_cache(["a", "none"]) == {"a": 1, "none": None}
    assert (tier.increment_cache("a", 1, ttl=9), tier.get_cache("a")) == (2, 2)
    await tier.async_delete_cache("a")
    await tier.async_delete_cache_keys(["b"])
    tier.set_cache("c", 1)
    tier.delete_cache("c")
    with redis_server.client() as client:
        assert client.keys() == []


async def test_a_script_is_one_round_trip_on_the_caches_own_keys(make, redis_server):
    cache, _ = make()
    await cache.async_set_cache("a", 5)
    script = cache.redis_cache.async_register_script("return {redis.call('GET', KEYS[1]), ARGV[1], KEYS[2]}")
    expected = [b"5", b"x", f"{PREFIX}b".encode()]
    assert await script(keys=["a", "b"], args=["x"]) == expected
    before = round_trips(redis_server)
    assert await script(keys=["a", "b"], args=["x"], client=None) == expected
    assert round_trips(redis_server) == before + 1


async def test_a_script_is_loaded_again_by_itself(make, redis_server):
    cache, _ = make()
    script = cache.redis_cache.async_register_script("return ARGV[1]")
    assert await script(args=[1]) == b"1"
    cache.set_cache("a", 1)
    with redis_server.client() as client:
        client.script_flush()
    assert await script(args=[2]) == b"2"
    cache.set_cache("a", 2)
    await restart(redis_server)
    assert await script(args=[3]) == b"3"


@pytest.mark.parametrize(
    ("source", "arguments"), [("no lua", [1]), ("return redis.call('NOPE')", [1]), ("return 1", [None])]
)
async def test_a_wrong_script_is_its_authors_mistake_and_no_outage(source, arguments, make):
    cache, _ = make()
    with pytest.raises(TypeError, match="Redis can't do this"):
        await cache.redis_cache.async_register_script(source)(args=arguments)
    assert await cache.redis_cache.ping()


# --- outages


def killed(server):
    server.kill()
    return nullcontext()


OUTAGES = {"killed": killed, "stopped": RedisServer.stopped}


@pytest.fixture(params=OUTAGES)
def outage(request):
    return OUTAGES[request.param]


async def everything(cache):
    """Each method, and whether Redis was needed for it and away."""
    calls = {
        "get": lambda: cache.async_get_cache("a"),
        "get now": lambda: cache.get_cache("a"),
        "batch": lambda: cache.async_batch_get_cache(["a", "b"]),
        "set": lambda: cache.async_set_cache("a", 1),
        "set now": lambda: cache.set_cache("a", 1),
        "pipeline": lambda: cache.async_set_cache_pipeline([("a", 1)]),
        "increment": lambda: cache.async_increment_cache("n", 1),
        "increment now": lambda: cache.increment_cache("n", 1),
        "increments": lambda: cache.async_increment_cache_pipeline([{"key": "n", "increment_value": 1}]),
        "add": lambda: cache.async_set_cache_sadd("s", ["x"]),
        "delete": lambda: cache.async_delete_cache("a"),
        "delete now": lambda: cache.delete_cache("a"),
        "ttl": lambda: cache.async_get_ttl("a"),
        "flush": cache.flush_cache,
    }
    results = {}
    for name, call in calls.items():
        try:
            result = call()
            results[name] = await result if hasattr(result, "__await__") else result
        except StoreError as error:
            results[name] = error
    return results


async def test_while_redis_is_away_memory_goes_on_with_what_it_knew(make, redis_server, outage, caplog):
    """One line in the log, no call waits for another's time limit, and Redis has the say again when it is back."""
    cache, clock = make(f"{redis_server.url}?socket_timeout=0.05")
    await cache.async_set_cache("value", "shared", ttl=600)
    assert await cache.async_increment_cache("calls", 5, ttl=600) == 5
    with caplog.at_level(logging.INFO, "asgi_llm_gate"):
        with outage(redis_server):
            clock.now += FRESH
            assert await at_once(lambda: cache.async_get_cache("value"), 20) == ["shared"] * 20
            assert await cache.async_increment_cache("calls", 1, ttl=600) == 6
            assert cache.increment_cache("calls", 1, ttl=600) == 7
            assert await cache.async_get_cache("never heard of") is None
            results = await everything(cache)
            assert not [name for name, result in results.items() if isinstance(result, StoreError)]
        assert len(caplog.messages) == 1
        assert f"Redis at 127.0.0.1:{redis_server.port} is away: " in caplog.messages[0]
        redis_server.refresh()
        with redis_server.client() as client:
            client.set(f"{PREFIX}calls", 40)
        assert await cache.async_increment_cache("calls", 1) == 1
        clock.now += REST
        assert await cache.async_increment_cache("calls", 1) == 41
    assert caplog.messages[1:] == [f"Redis at 127.0.0.1:{redis_server.port} is back"]


async def test_while_redis_is_away_all_that_needs_it_is_refused(make, redis_server, outage):
    cache, clock = make(f"{redis_server.url}?socket_timeout=0.05", on_store_error="reject")
    await cache.async_set_cache("fresh", 1)
    with outage(redis_server):
        results = await everything(cache)
        assert [name for name, result in results.items() if not isinstance(result, StoreError)] == []
        assert await cache.async_get_cache("fresh") == 1
        assert cache.increment_cache("local", 1, local_only=True) == 1
    error = results["get"]
    assert (error.status_code, error.code, error.headers) == (503, "store_unavailable", {"retry-after": "1"})
    assert str(redis_server.port) not in error.message
    redis_server.refresh()
    clock.now += REST
    assert await cache.async_increment_cache("calls", 1) == 1


async def test_an_idle_connection_that_was_lost_is_opened_anew(make, redis_server):
    """Nobody notices that Redis was started again in between."""
    cache, _ = make(on_store_error="reject")
    assert await cache.async_increment_cache("calls", 5) == 5
    cache.set_cache("a", 1)
    await restart(redis_server)
    assert await cache.async_increment_cache("calls", 5) == 5
    assert cache.increment_cache("calls", 5) == 10


async def test_a_wrong_password_is_an_outage_that_does_not_tell_it(make, redis_server, caplog):
    """As are other errors of Redis's that are not about the command."""
    cache, clock = make(redis_server.url.replace("://", "://:hunter2@"), on_store_error="reject")
    with redis_server.client() as client:
        client.config_set("requirepass", "other")
        with pytest.raises(StoreError):
            await cache.async_get_cache("a")
        client.config_set("requirepass", "hunter2")
        assert "hunter2" not in caplog.text + repr(cache.redis_cache) + repr(cache.redis_cache.store.address)
        caplog.clear()
        clock.now += REST
        assert await cache.redis_cache.ping()
        client.config_set("min-replicas-to-write", 1)
        with pytest.raises(StoreError):
            await cache.async_set_cache("a", 1)
        client.config_set("min-replicas-to-write", 0)
        client.config_set("requirepass", "")
    assert "is away: " in caplog.messages[-1]


async def test_a_tier_may_be_put_in_later(make, redis_server):
    """As handlers do that were written for LiteLLM."""
    cache, _ = make()
    late = DualCache()
    late.set_cache("a", 1)
    late.redis_cache = cache.redis_cache
    assert await late.async_increment_cache("a", 1) == 1


def test_of_those_who_wait_for_a_store_to_come_back_only_one_asks_at_a_time(caplog):
    clock = Clock()
    health = Health("It", clock)
    health.admit()
    assert isinstance(health.failed(OSError("gone")), StoreError)
    for _ in range(3):
        for _ in range(2):
            with pytest.raises(StoreError):
                health.admit()
        clock.now += REST
        health.admit()
    health.failed(OSError("still gone"))
    clock.now += REST
    health.admit()
    health.worked()
    health.admit()
    health.worked()
    assert caplog.messages == ["It is away: gone", "It is back"]


# --- connections


async def test_callers_wait_for_one_of_a_bounded_number_of_connections(make, redis_server):
    cache, _ = make(f"{redis_server.url}?max_connections=2")
    before = redis_server.connected()
    sums = await at_once(lambda: cache.async_increment_cache("calls", 1), 50)
    assert sorted(sums) == list(range(1, 51))
    assert redis_server.connected() <= before + 2


async def test_a_call_that_is_cancelled_costs_no_connection_and_no_answer_goes_astray(make, redis_server):
    """However far it had come: the next caller gets its own answer, and all connections are there again."""
    cache, _ = make(f"{redis_server.url}?max_connections=2")
    await cache.async_set_cache_pipeline([(str(number), number) for number in range(40)])

    async def read(number):
        assert await cache.redis_cache.async_get_cache(str(number)) == number

    async def cancel_after(turns, scope):
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        scope.cancel()

    for turns in range(12):
        async with anyio.create_task_group() as tasks:
            for number in range(8):
                tasks.start_soon(read, turns + number)
            tasks.start_soon(cancel_after, turns, tasks.cancel_scope)
    async with anyio.create_task_group() as tasks:
        for number in range(40):
            tasks.start_soon(read, number)


def test_each_event_loop_has_its_own_connections(redis_server):
    """One cache serves an app that is run again and again, as tests do."""
    cache = DualCache(redis_cache=RedisCache(redis_server.url))

    async def count():
        result = await cache.async_increment_cache("calls", 1)
        await cache.aclose()
        await cache.aclose()
        return result

    assert [anyio.run(count) for _ in range(3)] == [1, 2, 3]


async def test_closed_it_leaves_no_connection_and_opens_new_ones_when_asked_again(make, redis_server):
    cache, _ = make()
    before = redis_server.connected()
    await cache.async_set_cache("a", 1)
    cache.set_cache("a", 2)
    assert redis_server.connected() == before + 2
    await cache.aclose()
    assert any(redis_server.connected() == before for _ in range(1000))
    assert await cache.redis_cache.async_get_cache("a") == 2


# --- other kinds of a Redis


async def test_a_server_may_be_a_socket_in_the_file_system(tmp_path, redis_server):
    path = str(tmp_path / "redis.sock")
    with RedisServer("--unixsocket", path):
        cache = DualCache(redis_cache=RedisCache(f"unix://{path}?db=3"), on_store_error="reject")
        assert await cache.async_increment_cache("a", 1) == 1
        assert cache.increment_cache("a", 1) == 2
        await cache.aclose()


async def test_sentinels_say_where_the_server_is(tmp_path, redis_server):
    """One of those named that answers is enough."""
    configuration = tmp_path / "sentinel.conf"
    configuration.write_text(f"sentinel monitor main 127.0.0.1 {redis_server.port} 1\n")
    with RedisServer(configuration=configuration) as sentinel:
        url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/main/2"
        cache = DualCache(redis_cache=RedisCache(url), on_store_error="reject")
        assert await cache.async_increment_cache("a", 1) == 1
        assert cache.increment_cache("a", 1) == 2
        await cache.aclose()
        other = DualCache(redis_cache=RedisCache(url.replace("/main", "/other")), on_store_error="reject")
        with pytest.raises(StoreError):
            await other.async_get_cache("a")
        await other.aclose()


async def test_a_cluster_keeps_all_keys_on_one_node(tmp_path, redis_server):
    """So that several keys are one step there too."""
    with RedisServer("--cluster-enabled", "yes", "--dir", str(tmp_path)) as node:
        with node.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            while client.cluster("INFO")["cluster_state"] != "ok":  # noqa: ASYNC110  # it tells nobody
                await anyio.sleep(0.05)
        cache = DualCache(redis_cache=RedisCache(f"redis+cluster://127.0.0.1:{node.port}"), on_store_error="reject")
        operations = [{"key": key, "increment_value": 1} for key in "abcdef"]
        assert await cache.async_increment_cache_pipeline(operations) == [1] * 6
        assert cache.increment_cache("a", 1) == 2
        assert await cache.redis_cache.async_batch_get_cache("abc") == {"a": 2, "b": 1, "c": 1}
        await cache.aclose()


# --- where both tiers should agree


KEYS = st.sampled_from("abc")
NUMBERS = st.one_of(st.integers(-5, 5), st.sampled_from([0.5, -1.25]))
LIVES = st.sampled_from([None, -1.0, 0.0, 100.0, 1000.0, math.inf])


class Agreement(RuleBasedStateMachine):
    """Whatever is done, a cache on Redis and another process's hold what one in memory holds."""

    def __init__(self, url):
        super().__init__()
        self.memory = DualCache()
        self.tiers = [RedisCache(url), RedisCache(url)]
        self.caches = [DualCache(redis_cache=tier, on_store_error="reject") for tier in self.tiers]
        self.caches[0].flush_cache()

    def teardown(self):
        for cache in self.caches:
            anyio.run(cache.aclose)

    @rule(cache=st.integers(0, 1), key=KEYS, value=NUMBERS, ttl=LIVES, refresh=st.booleans())
    def write(self, cache, key, value, ttl, refresh):
        for each in (self.memory, self.caches[cache]):
            each.set_cache(key, value, ttl=ttl, refresh_ttl=refresh)

    @rule(cache=st.integers(0, 1), key=KEYS, value=NUMBERS, ttl=LIVES, refresh=st.booleans())
    def increment(self, cache, key, value, ttl, refresh):
        sums = [
            each.increment_cache(key, value, ttl=ttl, refresh_ttl=refresh) for each in (self.memory, self.caches[cache])
        ]
        assert sums[0] == sums[1]

    @rule(cache=st.integers(0, 1), key=KEYS)
    def delete(self, cache, key):
        for each in (self.memory, self.caches[cache]):
            each.delete_cache(key)

    @invariant()
    def agree(self):
        for key in "abc":
            expected, seconds = self.memory.get_cache(key), self.memory.get_ttl(key)
            for cache in self.caches:
                cache.in_memory_cache.flush_cache()  # as if a second had passed
                assert cache.get_cache(key) == expected
                left = cache.get_ttl(key)
                assert left == seconds or abs(left - seconds) < 30


def test_redis_holds_what_memory_would(redis_server):
    machine_settings = settings(max_examples=20, stateful_step_count=15, deadline=None)
    run_state_machine_as_test(lambda: Agreement(redis_server.url), settings=machine_settings)
