"""LiteLLM's further methods of a cache, in terms of its plain ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class CacheMethods(ABC):
    """What the cache and its memory tier can both do.

    Every method takes LiteLLM's further arguments (``parent_otel_span``, ``local_only``, …) and needs none of them.
    Times to live are in seconds; only a new entry is given one, so that a counter keeps its window.
    """

    @abstractmethod
    def get_cache(self, key: str, *_arguments: Any, **_options: Any) -> Any:
        """Return a value, or None if there is none that lives."""

    @abstractmethod
    def set_cache(
        self,
        key: str,
        value: Any,
        *_arguments: Any,
        ttl: float | None = None,
        refresh_ttl: bool = False,
        **_options: Any,
    ) -> None:
        """Store a value for `ttl` seconds, or for what is left to the entry that is overwritten.

        Args:
            key: Its name.
            value: Anything; it is kept as it is.
            ttl: Seconds; the default's if None.
            refresh_ttl: Start the time anew for an entry that is still alive too.
        """

    @abstractmethod
    def delete_cache(self, key: str, *_arguments: Any, **_options: Any) -> None:
        """Forget a key."""

    @abstractmethod
    def flush_cache(self) -> None:
        """Forget everything."""

    @abstractmethod
    def get_ttl(self, key: str) -> int | None:
        """Return the seconds that a key still has, rounded up, or None if it has no end or there is no such key."""

    def batch_get_cache(self, keys: Iterable[str], *_arguments: Any, **_options: Any) -> list[Any]:
        """Return the values of several keys, in their order, None where there is none."""
        return [self.get_cache(key) for key in keys]

    def increment_cache(
        self,
        key: str,
        value: float,
        *_arguments: Any,
        ttl: float | None = None,
        refresh_ttl: bool = False,
        **_options: Any,
    ) -> float:
        """Add to a number and return the sum, an int if both are; a missing one counts as 0.

        `refresh_ttl` starts its time anew.
        """
        total: float = (self.get_cache(key) or 0) + value
        self.set_cache(key, total, ttl=ttl, refresh_ttl=refresh_ttl)
        return total

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
        """Return the seconds that a key still has, rounded up, or None if it has no end or there is no such key."""
        return self.get_ttl(key)
