"""The memory tier of the cache: bounded, with a time to live for every entry."""

from __future__ import annotations

import heapq
import itertools
import math
import time
from typing import TYPE_CHECKING, Any

from asgi_llm_gate.cache.methods import CacheMethods

if TYPE_CHECKING:
    from collections.abc import Callable

# Seconds, as in LiteLLM's cache.
DEFAULT_TTL = 600.0


class InMemoryCache(CacheMethods):
    """A dict whose entries expire.

    An overwrite or an increment does not extend the life of an entry that is still alive, so that a counter keeps its
    window (as in LiteLLM's cache). Full, it drops the entry that would expire first.

    Args:
        max_size_in_memory: The most entries that are kept, at least one.
        default_ttl: Seconds an entry lives when nothing else is said.
        clock: Seconds that only go up.
    """

    def __init__(
        self,
        max_size_in_memory: int = 10_000,
        default_ttl: float = DEFAULT_TTL,
        *,
        clock: Callable[[], float] = time.monotonic,
        **_options: Any,
    ) -> None:
        self._max_items = max_size_in_memory
        self._default_ttl = default_ttl
        self._clock = clock
        self._entries: dict[str, tuple[float, Any]] = {}
        # The expiry of every entry, soonest first; what an entry no longer has is passed over.
        self._expiries: list[tuple[float, int, str]] = []
        self._stored = itertools.count()

    def get_cache(self, key: str, *_arguments: Any, **_options: Any) -> Any:
        """Return a value, or None if there is none that lives."""
        entry = self._entries.get(key)
        return entry[1] if entry is not None and entry[0] > self._clock() else None

    def set_cache(
        self,
        key: str,
        value: Any,
        *_arguments: Any,
        ttl: float | None = None,
        refresh_ttl: bool = False,
        **_options: Any,
    ) -> None:
        """Store a value for `ttl` seconds, or for what is left to the entry that is overwritten."""
        now = self._clock()
        entry = self._entries.get(key)
        if entry is not None and entry[0] > now and not refresh_ttl:
            self._entries[key] = (entry[0], value)
            return
        self._entries.pop(key, None)
        expiry = now + (self._default_ttl if ttl is None else ttl)
        if not expiry > now:
            return
        self._make_room(now)
        self._entries[key] = (expiry, value)
        heapq.heappush(self._expiries, (expiry, next(self._stored), key))
        if len(self._expiries) > 2 * self._max_items:
            self._expiries = sorted((expiry, next(self._stored), key) for key, (expiry, _) in self._entries.items())

    def delete_cache(self, key: str, *_arguments: Any, **_options: Any) -> None:
        """Forget an entry."""
        self._entries.pop(key, None)

    def flush_cache(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._expiries.clear()

    def get_ttl(self, key: str) -> int | None:
        """Return the seconds that a key still has, rounded up, or None if it has no end or there is no such key."""
        entry = self._entries.get(key)
        left = 0.0 if entry is None else entry[0] - self._clock()
        return math.ceil(left) if 0 < left < math.inf else None

    async def async_increment(self, key: str, value: float, *_arguments: Any, **options: Any) -> float:
        """Add to a number and return the sum: LiteLLM's name of `async_increment_cache` in this tier."""
        return self.increment_cache(key, value, **options)

    def _make_room(self, now: float) -> None:
        """Drop what has expired, and what expires soonest while there is no room for one more."""
        while self._expiries and (self._expiries[0][0] <= now or len(self._entries) >= self._max_items):
            expiry, _, key = heapq.heappop(self._expiries)
            if key in self._entries and self._entries[key][0] == expiry:
                del self._entries[key]
