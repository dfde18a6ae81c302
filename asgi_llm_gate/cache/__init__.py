"""The cache that hooks are given, with the methods of LiteLLM's `DualCache`."""

from __future__ import annotations

from typing import Any

from asgi_llm_gate.cache.memory import DEFAULT_TTL, InMemoryCache
from asgi_llm_gate.cache.methods import CacheMethods

__all__ = ["DualCache", "InMemoryCache"]


class DualCache(CacheMethods):
    """Values and counters shared by all calls of a gate.

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
        return self.in_memory_cache.get_cache(key)

    def set_cache(
        self,
        key: str,
        value: Any,
        *_arguments: Any,
        ttl: float | None = None,
        refresh_ttl: bool = False,
        **_options: Any,
    ) -> None:
        """Store a value, for `ttl` seconds if the key is new."""
        self.in_memory_cache.set_cache(key, value, ttl=ttl, refresh_ttl=refresh_ttl)

    def delete_cache(self, key: str, *_arguments: Any, **_options: Any) -> None:
        """Forget a key."""
        self.in_memory_cache.delete_cache(key)

    def flush_cache(self) -> None:
        """Forget everything."""
        self.in_memory_cache.flush_cache()

    def get_ttl(self, key: str) -> int | None:
        """Return the seconds that a key still has, rounded up, or None if it has no end or there is no such key."""
        return self.in_memory_cache.get_ttl(key)
