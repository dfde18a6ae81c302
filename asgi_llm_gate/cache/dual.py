"""The cache that hooks are given: the memory of this process, before a Redis that all processes share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar

from asgi_llm_gate.cache.commands import Increment
from asgi_llm_gate.cache.errors import StoreError
from asgi_llm_gate.cache.memory import DEFAULT_TTL, InMemoryCache
from asgi_llm_gate.cache.methods import CacheMethods
from asgi_llm_gate.cache.tiers import Tiers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from asgi_llm_gate.cache.redis import RedisCache
    from asgi_llm_gate.cache.tiers import Step

T = TypeVar("T")


class DualCache(CacheMethods):
    """Values and counters shared by all calls of a gate, and through Redis by all gates.

    Without Redis all is kept in the memory of this process. With it, what is written goes there too, sums are its own,
    and what it was asked for is read from memory for a second. What is written with `local_only`, or to
    `in_memory_cache` itself, stays in this process. While Redis is away, memory goes on alone with what it knew, and
    what it takes in then is not written to Redis later (``allow``); or all that needs Redis fails (``reject``).

    Args:
        in_memory_cache: The memory tier, if not one of its own.
        redis_cache: The tier that is shared, if there is to be one.
        default_in_memory_ttl: Seconds an entry lives when nothing else is said; 600 if None.
        on_store_error: ``allow`` or ``reject``.

    Attributes:
        in_memory_cache: The memory tier.
        redis_cache: The `RedisCache`, or None.
        on_store_error: ``allow`` or ``reject``.

    With Redis, methods raise TypeError for values that JSON does not have, and `StoreError` under ``reject``; those
    that await raise RuntimeError under trio, and those that do not hold up the event loop while they wait for Redis.
    """

    def __init__(
        self,
        in_memory_cache: InMemoryCache | None = None,
        redis_cache: RedisCache | None = None,
        default_in_memory_ttl: float | None = None,
        *,
        on_store_error: Literal["allow", "reject"] = "allow",
        **_options: Any,
    ) -> None:
        if redis_cache is not None:
            _check_tier(redis_cache)
        default_ttl = DEFAULT_TTL if default_in_memory_ttl is None else default_in_memory_ttl
        self.in_memory_cache = in_memory_cache or InMemoryCache(default_ttl=default_ttl)
        self.redis_cache = redis_cache
        self.on_store_error = on_store_error

    def get_cache(
        self, key: str, _span: Any = None, local_only: bool = False, *_arguments: Any, **_options: Any
    ) -> Any:
        """Return a value, or None."""
        return self._now(self._tiers.get([key], local=local_only))[0]

    async def async_get_cache(
        self, key: str, _span: Any = None, local_only: bool = False, *_arguments: Any, **_options: Any
    ) -> Any:
        """Return a value, or None."""
        return (await self._done(self._tiers.get([key], local=local_only)))[0]

    def batch_get_cache(
        self, keys: Iterable[str], _span: Any = None, local_only: bool = False, *_arguments: Any, **_options: Any
    ) -> list[Any]:
        """Return the values of several keys, in their order, None where there is none."""
        return self._now(self._tiers.get(list(keys), local=local_only))

    async def async_batch_get_cache(
        self, keys: Iterable[str], _span: Any = None, local_only: bool = False, *_arguments: Any, **_options: Any
    ) -> list[Any]:
        """Return the values of several keys, in their order, None where there is none."""
        return await self._done(self._tiers.get(list(keys), local=local_only))

    def set_cache(
        self,
        key: str,
        value: Any,
        local_only: bool = False,
        *_arguments: Any,
        ttl: float | None = None,
        refresh_ttl: bool = False,
        **_options: Any,
    ) -> None:
        """Store a value for `ttl` seconds, or for what is left to the entry that is overwritten."""
        self._now(self._tiers.put([(key, value)], ttl, refresh=refresh_ttl, local=local_only))

    async def async_set_cache(
        self,
        key: str,
        value: Any,
        local_only: bool = False,
        *_arguments: Any,
        ttl: float | None = None,
        refresh_ttl: bool = False,
        **_options: Any,
    ) -> None:
        """Store a value for `ttl` seconds, or for what is left to the entry that is overwritten."""
        await self._done(self._tiers.put([(key, value)], ttl, refresh=refresh_ttl, local=local_only))

    async def async_set_cache_pipeline(
        self,
        cache_list: Iterable[tuple[str, Any]],
        local_only: bool = False,
        *_arguments: Any,
        ttl: float | None = None,
        **_options: Any,
    ) -> None:
        """Store several pairs of key and value."""
        await self._done(self._tiers.put(cache_list, ttl, local=local_only))

    def increment_cache(
        self,
        key: str,
        value: float,
        local_only: bool = False,
        *_arguments: Any,
        ttl: float | None = None,
        refresh_ttl: bool = False,
        **_options: Any,
    ) -> float:
        """Add to a number and return the sum, an int if both are; `refresh_ttl` starts its time anew."""
        increment = Increment(key, value, self._tiers.life(ttl), refresh_ttl)
        return self._now(self._tiers.increment([increment], local=local_only))[0]

    async def async_increment_cache(
        self,
        key: str,
        value: float,
        _span: Any = None,
        local_only: bool = False,
        refresh_ttl: bool = False,
        *_arguments: Any,
        ttl: float | None = None,
        **_options: Any,
    ) -> float:
        """Add to a number and return the sum, an int if both are; `refresh_ttl` starts its time anew."""
        increment = Increment(key, value, self._tiers.life(ttl), refresh_ttl)
        return (await self._done(self._tiers.increment([increment], local=local_only)))[0]

    async def async_increment_cache_pipeline(
        self, increment_list: Iterable[Mapping[str, Any]], local_only: bool = False, *_arguments: Any, **_options: Any
    ) -> list[float]:
        """Add to several numbers, each ``{"key", "increment_value", "ttl"}``, and return the sums."""
        increments = [
            Increment(operation["key"], operation["increment_value"], self._tiers.life(operation.get("ttl")))
            for operation in increment_list
        ]
        return await self._done(self._tiers.increment(increments, local=local_only))

    async def async_set_cache_sadd(
        self,
        key: str,
        value: Iterable[Any],
        ttl: float | None = None,
        *_arguments: Any,
        local_only: bool = False,
        **_options: Any,
    ) -> None:
        """Add members to a set; the third argument may be LiteLLM's `local_only` too."""
        if isinstance(ttl, bool):
            ttl, local_only = None, ttl
        await self._done(self._tiers.add(key, value, ttl, local=local_only))

    def delete_cache(self, key: str, *_arguments: Any, **_options: Any) -> None:
        """Forget a key."""
        self._now(self._tiers.delete([key]))

    async def async_delete_cache(self, key: str, *_arguments: Any, **_options: Any) -> None:
        """Forget a key."""
        await self._done(self._tiers.delete([key]))

    async def async_delete_cache_keys(self, keys: Iterable[str], *_arguments: Any, **_options: Any) -> None:
        """Forget several keys."""
        await self._done(self._tiers.delete(keys))

    def flush_cache(self) -> None:
        """Forget everything."""
        if self.redis_cache is not None:
            try:
                self.redis_cache.flush_cache()
            except StoreError:
                if self.on_store_error == "reject":
                    raise
        self.in_memory_cache.flush_cache()

    def get_ttl(self, key: str) -> int | None:
        """Return the seconds that a key still has, rounded up, or None if it has no end or there is no such key."""
        self.get_cache(key)
        return self.in_memory_cache.get_ttl(key)

    async def async_get_ttl(self, key: str, *_arguments: Any, **_options: Any) -> int | None:
        """Return the seconds that a key still has, rounded up, or None if it has no end or there is no such key."""
        await self.async_get_cache(key)
        return self.in_memory_cache.get_ttl(key)

    async def aclose(self) -> None:
        """Close the connections to Redis of the running event loop; they are opened anew when they are needed."""
        if self.redis_cache is not None:
            await self.redis_cache.aclose()

    @property
    def _tiers(self) -> Tiers:
        # Handlers written for LiteLLM put other tiers in the place of these.
        return Tiers(self.in_memory_cache, shared=self.redis_cache is not None)

    def _now(self, step: Step[T]) -> T:
        if self.redis_cache is None or step.command is None:
            return step.alone()
        try:
            answer = self.redis_cache.store.run_now(step.command)
        except StoreError:
            if self.on_store_error == "reject":
                raise
            return step.alone()
        return step.learn(answer)

    async def _done(self, step: Step[T]) -> T:
        if self.redis_cache is None or step.command is None:
            return step.alone()
        try:
            answer = await self.redis_cache.store.run(step.command)
        except StoreError:
            if self.on_store_error == "reject":
                raise
            return step.alone()
        return step.learn(answer)


def _check_tier(tier: Any) -> None:
    from asgi_llm_gate.cache.redis import RedisCache

    if not isinstance(tier, RedisCache):
        raise TypeError(f"expected a RedisCache of asgi_llm_gate.cache, got {type(tier).__name__}")
