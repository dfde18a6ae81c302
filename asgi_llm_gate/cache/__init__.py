"""The cache that hooks are given, with the methods of LiteLLM's `DualCache`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgi_llm_gate.cache.memory import InMemoryCache

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class DualCache:
    """Values and counters shared by all calls of a gate.

    Every method takes LiteLLM's further keywords (``parent_otel_span``, ``local_only``, …) and needs none of them.

    Attributes:
        in_memory_cache: The memory tier.
        redis_cache: None.
    """

    def __init__(self, in_memory_cache: InMemoryCache | None = None) -> None:
        self.in_memory_cache = in_memory_cache or InMemoryCache()
        self.redis_cache = None

    def get_cache(self, key: str, **_options: Any) -> Any:
        """Return a value, or None."""
        return self.in_memory_cache.get(key)

    def set_cache(self, key: str, value: Any, *, ttl: float | None = None, **_options: Any) -> None:
        """Store a value, for `ttl` seconds if the key is new."""
        self.in_memory_cache.set(key, value, ttl)

    def batch_get_cache(self, keys: Iterable[str], **_options: Any) -> list[Any]:
        """Return the values of several keys, in their order, None where there is none."""
        return [self.in_memory_cache.get(key) for key in keys]

    def increment_cache(self, key: str, value: float, *, ttl: float | None = None, **_options: Any) -> float:
        """Add to a number and return the sum."""
        return self.in_memory_cache.increment(key, value, ttl)

    def delete_cache(self, key: str) -> None:
        """Forget a key."""
        self.in_memory_cache.delete(key)

    def flush_cache(self) -> None:
        """Forget everything."""
        self.in_memory_cache.clear()

    async def async_get_cache(self, key: str, **_options: Any) -> Any:
        """Return a value, or None."""
        return self.get_cache(key)

    async def async_set_cache(self, key: str, value: Any, *, ttl: float | None = None, **_options: Any) -> None:
        """Store a value, for `ttl` seconds if the key is new."""
        self.set_cache(key, value, ttl=ttl)

    async def async_batch_get_cache(self, keys: Iterable[str], **_options: Any) -> list[Any]:
        """Return the values of several keys, in their order, None where there is none."""
        return self.batch_get_cache(keys)

    async def async_set_cache_pipeline(
        self, cache_list: Iterable[tuple[str, Any]], *, ttl: float | None = None, **_options: Any
    ) -> None:
        """Store several pairs of key and value."""
        for key, value in cache_list:
            self.set_cache(key, value, ttl=ttl)

    async def async_increment_cache(
        self, key: str, value: float, *, ttl: float | None = None, **_options: Any
    ) -> float:
        """Add to a number and return the sum."""
        return self.increment_cache(key, value, ttl=ttl)

    async def async_increment_cache_pipeline(
        self, increment_list: Iterable[Mapping[str, Any]], **_options: Any
    ) -> list[float]:
        """Add to several numbers, each ``{"key", "increment_value", "ttl"}``, and return the sums."""
        return [
            self.increment_cache(operation["key"], operation["increment_value"], ttl=operation.get("ttl"))
            for operation in increment_list
        ]

    async def async_set_cache_sadd(
        self, key: str, value: Sequence[Any], *, ttl: float | None = None, **_options: Any
    ) -> None:
        """Add members to a set."""
        self.set_cache(key, {*(self.get_cache(key) or ()), *value}, ttl=ttl)

    async def async_delete_cache(self, key: str) -> None:
        """Forget a key."""
        self.delete_cache(key)

    async def async_delete_cache_keys(self, keys: Iterable[str]) -> None:
        """Forget several keys."""
        for key in keys:
            self.delete_cache(key)

    async def async_get_ttl(self, key: str) -> int | None:
        """Return the whole seconds that a key still has, or None."""
        left = self.in_memory_cache.ttl(key)
        return None if left is None else int(left)
