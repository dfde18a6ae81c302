from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from asgi_llm_gate import DualCache
from asgi_llm_gate.cache.memory import InMemoryCache

ROOM = 4
DEFAULT_TTL = 50.0


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Model:
    """The memory cache as one would write it without a thought for speed."""

    clock: Clock
    entries: dict[str, tuple[float, Any]] = field(default_factory=dict)

    def live(self) -> dict[str, tuple[float, Any]]:
        return {key: entry for key, entry in self.entries.items() if entry[0] > self.clock.now}

    def get(self, key: str) -> Any:
        return self.live().get(key, (0, None))[1]

    def set(self, key: str, value: Any, ttl: float | None, refresh: bool) -> None:
        self.entries = self.live()
        if key in self.entries and not refresh:
            self.entries[key] = (self.entries[key][0], value)
            return
        self.entries.pop(key, None)
        expiry = self.clock.now + (DEFAULT_TTL if ttl is None else ttl)
        if expiry > self.clock.now:
            if len(self.entries) == ROOM:
                del self.entries[min(self.entries, key=lambda name: self.entries[name][0])]
            self.entries[key] = (expiry, value)


KEYS = st.sampled_from([f"key-{number}" for number in range(8)])
TTLS = st.one_of(st.none(), st.sampled_from([-1.0, 0.0, math.inf]), st.floats(0.5, 100))


class MemoryCacheMachine(RuleBasedStateMachine):
    """Whatever is done to it, the memory cache holds what the naive model holds."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.cache = InMemoryCache(ROOM, DEFAULT_TTL, clock=self.clock)
        self.model = Model(self.clock)
        self.ttl_taken: set[float] = set()

    def _unique(self, ttl: float | None) -> float | None:
        """Two entries that expire at one moment may be dropped in any order, so no two do."""
        expiry = self.clock.now + (DEFAULT_TTL if ttl is None else ttl)
        while expiry in self.ttl_taken and not math.isinf(expiry):
            expiry = math.nextafter(expiry, math.inf)
            ttl = expiry - self.clock.now
            expiry = self.clock.now + ttl
        self.ttl_taken.add(expiry)
        return ttl

    @rule(key=KEYS, value=st.integers(), ttl=TTLS, refresh=st.booleans())
    def store(self, key: str, value: int, ttl: float | None, refresh: bool) -> None:
        ttl = self._unique(ttl)
        self.cache.set_cache(key, value, ttl=ttl, refresh_ttl=refresh)
        self.model.set(key, value, ttl, refresh)

    @rule(key=KEYS, value=st.integers(-5, 5), ttl=TTLS, refresh=st.booleans())
    def increment(self, key: str, value: int, ttl: float | None, refresh: bool) -> None:
        ttl = self._unique(ttl)
        expected = (self.model.get(key) or 0) + value
        self.model.set(key, expected, ttl, refresh)
        total = self.cache.increment_cache(key, value, ttl=ttl, refresh_ttl=refresh)
        assert total == expected
        assert type(total) is int

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        self.cache.delete_cache(key)
        self.model.entries.pop(key, None)

    @precondition(lambda self: self.model.entries)
    @rule()
    def clear(self) -> None:
        self.cache.flush_cache()
        self.model.entries.clear()

    @rule(seconds=st.floats(0, 40))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def agree(self) -> None:
        live = self.model.live()
        for number in range(8):
            key = f"key-{number}"
            assert self.cache.get_cache(key) == self.model.get(key)
            left = live[key][0] - self.clock.now if key in live else math.inf
            expected = None if math.isinf(left) else math.ceil(left)
            assert self.cache.get_ttl(key) == expected

    @invariant()
    def bounded(self) -> None:
        assert len(self.cache._entries) <= ROOM
        assert len(self.cache._expiries) <= 2 * ROOM


TestMemoryCache = MemoryCacheMachine.TestCase
TestMemoryCache.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_full_cache_drops_what_would_expire_first():
    cache = InMemoryCache(3, clock=Clock())
    for key, ttl in {"soon": 1, "later": 100, "sooner": 0.5, "new": 200}.items():
        cache.set_cache(key, key, ttl=ttl)
    assert [cache.get_cache(key) for key in ("sooner", "soon", "later", "new")] == [None, "soon", "later", "new"]


def test_an_entry_given_a_new_time_again_and_again_takes_no_more_room():
    """What is kept of old times is bounded, and the order of what is dropped stays right."""
    clock = Clock()
    cache = InMemoryCache(3, clock=clock)
    cache.set_cache("later", 1, ttl=1000)
    for _ in range(100):
        clock.now += 1
        cache.set_cache("renewed", 1, ttl=50, refresh_ttl=True)
        assert len(cache._expiries) <= 6
    cache.set_cache("sooner", 1, ttl=40)
    cache.set_cache("new", 1, ttl=500)
    assert [cache.get_cache(key) for key in ("later", "renewed", "sooner", "new")] == [1, 1, None, 1]


def test_what_has_expired_is_dropped_with_the_next_new_entry():
    clock = Clock()
    cache = InMemoryCache(clock=clock)
    for number in range(100):
        cache.set_cache(f"old-{number}", number, ttl=1)
    clock.now += 1
    cache.set_cache("new", 1)
    assert list(cache._entries) == ["new"]


def test_what_never_lives_takes_no_room():
    """An entry whose time is over at once does not push another out."""
    cache = InMemoryCache(1, clock=Clock())
    cache.set_cache("kept", 1)
    for ttl in (0, -1, math.nan):
        cache.set_cache("dead", 1, ttl=ttl)
    assert (cache.get_cache("kept"), cache.get_cache("dead")) == (1, None)


def test_entries_that_expire_together_need_no_order_of_their_keys():
    cache = InMemoryCache(2, clock=Clock())
    for key in (1, "one", (1,), None):
        cache.set_cache(key, key, ttl=math.inf)  # type: ignore[arg-type]
    assert cache.get_cache(None) is None
    assert cache.get_cache((1,)) == (1,)  # type: ignore[arg-type]


def test_a_counter_keeps_its_window_however_often_it_is_raised():
    clock = Clock()
    cache = DualCache(InMemoryCache(clock=clock))
    for _ in range(59):
        cache.increment_cache("calls", 1, ttl=60)
        clock.now += 1
    assert cache.get_cache("calls") == 59
    clock.now += 1
    assert cache.get_cache("calls") is None
    assert cache.increment_cache("calls", 1, ttl=60) == 1


def test_a_counter_may_be_given_a_new_window():
    clock = Clock()
    cache = DualCache(InMemoryCache(clock=clock))
    cache.increment_cache("calls", 1, ttl=60)
    clock.now += 59
    cache.increment_cache("calls", 1, ttl=60, refresh_ttl=True)
    clock.now += 59
    assert cache.get_cache("calls") == 2


@pytest.mark.parametrize(("start", "by", "total"), [(None, 1, 1), (2, 3, 5), (2, 0.5, 2.5), (1.5, 1, 2.5), (0, -1, -1)])
def test_an_increment_returns_the_new_value_and_ints_stay_ints(start, by, total):
    cache = DualCache()
    if start is not None:
        cache.set_cache("number", start)
    result = cache.increment_cache("number", by)
    assert result == total
    assert type(result) is type(total)


def test_setting_and_deleting_many_keys_takes_no_more_room():
    """A deleted entry leaves its expiry behind, but not for long."""
    cache = InMemoryCache(3, clock=Clock())
    cache.set_cache("kept", 1, ttl=5)
    for number in range(100):
        cache.set_cache(f"key-{number}", number, ttl=9)
        cache.delete_cache(f"key-{number}")
        assert len(cache._expiries) <= 6
    assert cache.get_cache("kept") == 1


@pytest.mark.parametrize("cache", [DualCache(), InMemoryCache()], ids=["both", "memory"])
@pytest.mark.anyio
async def test_what_has_no_end_has_no_time_left_to_tell(cache):
    cache.set_cache("endless", 1, ttl=math.inf)
    assert (cache.get_ttl("endless"), await cache.async_get_ttl("endless")) == (None, None)
    assert cache.get_cache("endless") == 1


@pytest.mark.anyio
async def test_the_memory_tier_has_litellms_methods_too():
    """Handlers go past the cache to the tier that is not shared."""
    cache = DualCache()
    tier = cache.in_memory_cache
    tier.set_cache(key="a", value=1, ttl=60)
    await tier.async_set_cache("b", [2], local_only=True, ttl=60)
    assert (cache.get_cache("a"), await cache.async_get_cache("b")) == (1, [2])
    assert tier.batch_get_cache(["b", "none", "a"]) == [[2], None, 1]
    assert (tier.increment_cache("a", 2), await tier.async_increment("a", 3, ttl=5)) == (3, 6)
    await tier.async_set_cache_sadd("members", ["x"], 60)
    assert (tier.get_cache("members"), tier.get_ttl("members")) == ({"x"}, 60)
    tier.delete_cache("a")
    assert cache.get_cache("a") is None
    tier.flush_cache()
    assert cache.get_cache("b") is None


@pytest.mark.anyio
@pytest.mark.parametrize("local_only", [False, True])
async def test_a_set_that_is_kept_local_is_kept(local_only):
    """The third argument of LiteLLM's own cache is no time to live."""
    cache = DualCache()
    await cache.async_set_cache_sadd("members", ["x"], local_only)
    assert cache.get_cache("members") == {"x"}


@pytest.mark.anyio
async def test_tasks_that_count_at_once_lose_nothing():
    cache = DualCache()

    async def count() -> None:
        for _ in range(100):
            await cache.async_increment_cache("calls", 1, ttl=60)
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(count)
    assert await cache.async_get_cache("calls") == 500


def test_a_text_is_no_counter():
    cache = DualCache()
    cache.set_cache("text", "12")
    with pytest.raises(TypeError):
        cache.increment_cache("text", 1)
    assert cache.get_cache("text") == "12"


@pytest.mark.anyio
async def test_the_memory_tier_is_the_only_one():
    """Handlers that look whether there is a Redis find none; there is nothing to close."""
    tier = InMemoryCache()
    cache = DualCache(tier)
    await cache.aclose()
    assert cache.in_memory_cache is tier
    assert cache.redis_cache is None


def test_a_redis_tier_of_another_kind_is_not_taken():
    with pytest.raises(TypeError, match=r"expected a RedisCache of asgi_llm_gate.cache, got object"):
        DualCache(redis_cache=object())  # type: ignore[arg-type]


@pytest.mark.anyio
@pytest.mark.parametrize(("options", "seconds"), [({}, 600), ({"default_in_memory_ttl": 5, "default_redis_ttl": 9}, 5)])
async def test_a_value_lives_as_long_as_the_cache_says(options, seconds):
    cache = DualCache(**options)
    cache.set_cache("a", 1)
    assert await cache.async_get_ttl("a") == seconds


def test_the_synchronous_methods_work_as_litellms():
    cache = DualCache()
    cache.set_cache("a", {"x": 1}, True, ttl=5)
    assert cache.get_cache("a", None, True) == {"x": 1}
    assert cache.batch_get_cache(["b", "a"], parent_otel_span=None) == [None, {"x": 1}]
    assert cache.increment_cache("n", 2, parent_otel_span=None, local_only=True) == 2
    cache.delete_cache("a")
    assert cache.batch_get_cache(("a", "n"), local_only=True) == [None, 2]
    cache.flush_cache()
    assert cache.get_cache("n") is None


@pytest.mark.anyio
@pytest.mark.parametrize("around", [DualCache, lambda tier: tier], ids=["both", "memory"])
async def test_the_asynchronous_methods_work_as_litellms(around):
    clock = Clock()
    cache = around(InMemoryCache(clock=clock))
    span = {"parent_otel_span": object(), "local_only": True, "litellm_parent_otel_span": None}
    await cache.async_set_cache("a", [1], ttl=5, **span)
    assert await cache.async_get_cache("a", **span) == [1]
    await cache.async_set_cache_pipeline([("b", 1), ("c", 2)], ttl=7, **span)
    assert await cache.async_batch_get_cache(["c", "none", "b"], throttle_redis=True, **span) == [2, None, 1]
    assert await cache.async_increment_cache("b", 1.5, None, ttl=7, refresh_ttl=True, **span) == 2.5
    operations = [{"key": "b", "increment_value": 1, "ttl": 60}, {"key": "n", "increment_value": 3}]
    assert await cache.async_increment_cache_pipeline(operations, **span) == [3.5, 3]
    await cache.async_set_cache_sadd("s", ["x", "y"], 5, **span)
    seen = await cache.async_get_cache("s")
    await cache.async_set_cache_sadd("s", ["y", "z"], ttl=5)
    assert (seen, cache.get_cache("s")) == ({"x", "y"}, {"x", "y", "z"})
    clock.now += 4.5
    assert [await cache.async_get_ttl(key) for key in ("a", "b", "none")] == [1, 3, None]
    await cache.async_delete_cache("a", **span)
    await cache.async_delete_cache_keys(["b", "none"])
    assert cache.batch_get_cache(["a", "b", "c"]) == [None, None, 2]
