"""The cache that hooks are given, with the methods of LiteLLM's `DualCache`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from asgi_llm_gate.cache.memory import DEFAULT_TTL, InMemoryCache

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class DualCache:
    """Values and counters shared by all calls of a gate.

    Every method takes LiteLLM's further arguments (``parent_otel_span``, ``local_only``, …) and needs none of them.
    Times to live are in seconds; only a new entry is given one, so that a counter keeps its window.

    Args:
        in_memory_cache: The memory tier, if not one of its own.
        redis_cache: None: this version has no Redis tier.
        default_in_memory_ttl: Seconds an entry lives when nothing else is said; 600 if None.

    Raises:
        ValueError: A Redis tier was given.

    Attributes:
        in_memory_cache: The memory tier.
        redis_cache: None.
    """

    def __init__(
        self,
        in_memory_cache: InMemoryCache | None = None,
        redis_cache: None = None,
        default_in_memory_ttl: float | None = None,
        **_options: Any,
    ) -> None:
        if redis_cache is not None:
            raise ValueError("This version keeps its cache in memory only: it takes no redis_cache")
        default_ttl = DEFAULT_TTL if default_in_memory_ttl is None else default_in_memory_ttl
        self.in_memory_cache = in_memory_cache or InMemoryCache(default_ttl=default_ttl)
        self.redis_cache = redis_cache

    def get_cache(self, key: str, *_arguments: Any, **_options: Any) -> Any:
        """Return a value, or None."""
        return self.in_memory_cache.get(key)

    def set_cache(self, key: str, value: Any, *_arguments: Any, ttl: float | None = None, **_options: Any) -> None:
        """Store a value, for `ttl` seconds if the key is new."""
        self.in_memory_cache.set(key, value, ttl)

    def batch_get_cache(self, keys: Iterable[str], *_arguments: Any, **_options: Any) -> list[Any]:
        """Return the values of several keys, in their order, None where there is none."""
        return [self.in_memory_cache.get(key) for key in keys]

    def increment_cache(
        self,
        key: str,
        value: float,
        *_arguments: Any,
        ttl: float | None = None,
        refresh_ttl: bool = False,
        **_options: Any,
    ) -> float:
        """Add to a number and return the sum, an int if both are; `refresh_ttl` starts its time anew."""
        return self.in_memory_cache.increment(key, value, ttl, refresh_ttl=refresh_ttl)

    def delete_cache(self, key: str, *_arguments: Any, **_options: Any) -> None:
        """Forget a key."""
        self.in_memory_cache.delete(key)

    def flush_cache(self) -> None:
        """Forget everything."""
        self.in_memory_cache.clear()

    async def async_get_cache(self, key: str, *_arguments: Any, **_options: Any) -> Any:
        """Return a value, or None."""
        return self.get_cache(key)

    async def async_set_cache(
        self, key: str, value: Any, *_arguments: Any, ttl: float | None = None, **_options: Any
    ) -> None:
        """Store a value, for `ttl` seconds if the key is new."""
        self.set_cache(key, value, ttl=ttl)

    async def async_batch_get_cache(self, keys: Iterable[str], *_arguments: Any, **_options: Any) -> list[Any]:
        """Return the values of several keys, in their order, None where there is none."""
        return self.batch_get_cache(keys)

    async def async_set_cache_pipeline(
        self, cache_list: Iterable[tuple[str, Any]], *_arguments: Any, ttl: float | None = None, **_options: Any
    ) -> None:
        """Store several pairs of key and value."""
        for key, value in cache_list:
            self.set_cache(key, value, ttl=ttl)

    async def async_increment_cache(
        self,
        key: str,
        value: float,
        *_arguments: Any,
        ttl: float | None = None,
        refresh_ttl: bool = False,
        **_options: Any,
    ) -> float:
        """Add to a number and return the sum, an int if both are; `refresh_ttl` starts its time anew."""
        return self.increment_cache(key, value, ttl=ttl, refresh_ttl=refresh_ttl)

    async def async_increment_cache_pipeline(
        self, increment_list: Iterable[Mapping[str, Any]], *_arguments: Any, **_options: Any
    ) -> list[float]:
        """Add to several numbers, each ``{"key", "increment_value", "ttl"}``, and return the sums."""
        return [
            self.increment_cache(operation["key"], operation["increment_value"], ttl=operation.get("ttl"))
            for operation in increment_list
        ]

    async def async_set_cache_sadd(
        self, key: str, value: Iterable[Any], ttl: float | None = None, *_arguments: Any, **_options: Any
    ) -> None:
        """Add members to a set."""
        self.set_cache(key, {*(self.get_cache(key) or ()), *value}, ttl=ttl)

    async def async_delete_cache(self, key: str, *_arguments: Any, **_options: Any) -> None:
        """Forget a key."""
        self.delete_cache(key)

    async def async_delete_cache_keys(self, keys: Iterable[str], *_arguments: Any, **_options: Any) -> None:
        """Forget several keys."""
        for key in keys:
            self.delete_cache(key)

    async def async_get_ttl(self, key: str, *_arguments: Any, **_options: Any) -> int | None:
        """Return the seconds that a key still has, rounded up, or None if there is no such key."""
        left = self.in_memory_cache.ttl(key)
        return None if left is None else math.ceil(left)
