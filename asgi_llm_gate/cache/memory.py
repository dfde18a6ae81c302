"""The memory tier of the cache: bounded, with a time to live for every entry."""

from __future__ import annotations

import heapq
import itertools
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# Seconds, as in LiteLLM's cache.
DEFAULT_TTL = 600.0


class InMemoryCache:
    """A dict whose entries expire.

    An overwrite or an increment does not extend the life of an entry that is still alive, so that a counter keeps its
    window (as in LiteLLM's cache). Full, it drops the entry that would expire first.

    Args:
        max_items: The most entries that are kept.
        default_ttl: Seconds an entry lives when nothing else is said.
        clock: Seconds that only go up.
    """

    def __init__(
        self, max_items: int = 10_000, default_ttl: float = DEFAULT_TTL, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_items = max_items
        self._default_ttl = default_ttl
        self._clock = clock
        self._entries: dict[str, tuple[float, Any]] = {}
        # The expiry of every entry, soonest first; what an entry no longer has is passed over.
        self._expiries: list[tuple[float, int, str]] = []
        self._stored = itertools.count()

    def get(self, key: str) -> Any:
        """Return a value, or None if there is none that lives."""
        entry = self._entries.get(key)
        return entry[1] if entry is not None and entry[0] > self._clock() else None

    def set(self, key: str, value: Any, ttl: float | None = None, *, refresh_ttl: bool = False) -> None:
        """Store a value for `ttl` seconds, or for what is left to the entry that is overwritten.

        Args:
            key: Its name.
            value: Anything; it is kept as it is.
            ttl: Seconds; the default's if None.
            refresh_ttl: Start the time anew for an entry that is still alive too.
        """
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

    def increment(self, key: str, value: float, ttl: float | None = None, *, refresh_ttl: bool = False) -> float:
        """Add to a number and return the sum; a missing one counts as 0."""
        total: float = (self.get(key) or 0) + value
        self.set(key, total, ttl, refresh_ttl=refresh_ttl)
        return total

    def ttl(self, key: str) -> float | None:
        """Return the seconds that an entry still has, or None if there is none that lives."""
        entry = self._entries.get(key)
        left = 0.0 if entry is None else entry[0] - self._clock()
        return left if left > 0 else None

    def delete(self, key: str) -> None:
        """Forget an entry."""
        self._entries.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._expiries.clear()

    def _make_room(self, now: float) -> None:
        """Drop what has expired, and what expires soonest while there is no room for one more."""
        while self._expiries and (self._expiries[0][0] <= now or len(self._entries) >= self._max_items):
            expiry, _, key = heapq.heappop(self._expiries)
            if key in self._entries and self._entries[key][0] == expiry:
                del self._entries[key]
