"""The memory tier of the cache: bounded, with a time to live for every entry."""

from __future__ import annotations

import heapq
import itertools
import math
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from asgi_llm_gate.cache.methods import CacheMethods

if TYPE_CHECKING:
    from collections.abc import Callable

# Seconds, as in LiteLLM's cache.
DEFAULT_TTL = 600.0


class _Entry(NamedTuple):
    """When it expires, what it is, and until when it need not be asked for elsewhere."""

    expiry: float
    value: Any
    fresh_until: float


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
        self.default_ttl = default_ttl
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        # The expiry of every entry, soonest first; what an entry no longer has is passed over.
        self._expiries: list[tuple[float, int, str]] = []
        self._stored = itertools.count()

    def get_cache(self, key: str, *_arguments: Any, **_options: Any) -> Any:
        """Return a value, or None if there is none that lives."""
        entry = self._entries.get(key)
        return entry.value if entry is not None and entry.expiry > self._clock() else None

    def get_fresh(self, key: str) -> Any:
        """Return a value that need not be asked for elsewhere, or None."""
        entry = self._entries.get(key)
        return entry.value if entry is not None and min(entry.expiry, entry.fresh_until) > self._clock() else None

    def set_cache(
        self,
        key: str,
        value: Any,
        *_arguments: Any,
        ttl: float | None = None,
        refresh_ttl: bool = False,
        fresh_for: float = math.inf,
        **_options: Any,
    ) -> None:
        """Store a value for `ttl` seconds, or for what is left to the entry that is overwritten.

        Args:
            key: Its name.
            value: Anything; it is kept as it is.
            ttl: Seconds; the default's if None.
            refresh_ttl: Start the time anew for an entry that is still alive too.
            fresh_for: Seconds for which it need not be asked for elsewhere.
        """
        now = self._clock()
        entry = self._entries.get(key)
        if entry is not None and entry.expiry > now and not refresh_ttl:
            self._entries[key] = _Entry(entry.expiry, value, now + fresh_for)
            return
        self._entries.pop(key, None)
        expiry = now + (self.default_ttl if ttl is None else ttl)
        if not expiry > now:
            return
        self._make_room(now)
        self._entries[key] = _Entry(expiry, value, now + fresh_for)
        heapq.heappush(self._expiries, (expiry, next(self._stored), key))
        if len(self._expiries) > 2 * self._max_items:
            self._expiries = sorted((entry.expiry, next(self._stored), key) for key, entry in self._entries.items())

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
        left = 0.0 if entry is None else entry.expiry - self._clock()
        return math.ceil(left) if 0 < left < math.inf else None

    async def async_increment(self, key: str, value: float, *_arguments: Any, **options: Any) -> float:
        """Add to a number and return the sum: LiteLLM's name of `async_increment_cache` in this tier."""
        return self.increment_cache(key, value, **options)

    def _make_room(self, now: float) -> None:
        """Drop what has expired, and what expires soonest while there is no room for one more."""
        while self._expiries and (self._expiries[0][0] <= now or len(self._entries) >= self._max_items):
            expiry, _, key = heapq.heappop(self._expiries)
            if key in self._entries and self._entries[key].expiry == expiry:
                del self._entries[key]
