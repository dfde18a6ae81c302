"""How memory and Redis go together, without asking either: what to ask Redis, and what memory makes of the answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from asgi_llm_gate.cache import commands

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from asgi_llm_gate.cache.commands import Command, Entry, Increment
    from asgi_llm_gate.cache.memory import InMemoryCache

T = TypeVar("T")

# Seconds for which what Redis said is taken for true without asking again.
FRESH = 1.0


@dataclass(frozen=True, slots=True)
class Step(Generic[T]):
    """Something to do with both tiers.

    Attributes:
        command: What to ask Redis; None if memory is all there is to it.
        learn: Takes the answer into memory, and returns the result.
        alone: Does it in memory alone, where Redis has no part in it or is away.
    """

    command: Command[Any] | None
    learn: Callable[[Any], T]
    alone: Callable[[], T]


class Tiers:
    """The memory tier, as it is used in front of Redis.

    Args:
        memory: The memory tier.
        shared: There is a Redis behind it.
    """

    def __init__(self, memory: InMemoryCache, *, shared: bool) -> None:
        self._memory = memory
        self._shared = shared

    def life(self, ttl: float | None) -> float:
        """Return the seconds that a new entry lives."""
        return self._memory.default_ttl if ttl is None else ttl

    def get(self, keys: Sequence[str], *, local: bool = False) -> Step[list[Any]]:
        """Read values; those that are fresh, or of this process alone, from memory."""
        fresh = {key: self._memory.get_fresh(key) for key in keys}
        unknown = [key for key, value in fresh.items() if value is None]

        def learn(entries: list[Entry]) -> list[Any]:
            for key, (value, seconds) in zip(unknown, entries, strict=True):
                self._mirror(key, value, seconds)
                fresh[key] = value
            return [fresh[key] for key in keys]

        asks = self._shared and unknown and not local
        return Step(commands.get(unknown) if asks else None, learn, lambda: self._memory.batch_get_cache(keys))

    def put(
        self, pairs: Iterable[tuple[str, Any]], ttl: float | None, *, refresh: bool = False, local: bool = False
    ) -> Step[None]:
        """Write values.

        Raises:
            TypeError: One can't be written as JSON.
        """
        life, shared = self.life(ttl), self._shared and not local
        pairs = list(pairs)
        written = [(key, commands.encoded(value)) for key, value in pairs] if shared else []

        def learn(lives: list[float]) -> None:
            for (key, value), seconds in zip(written, lives, strict=True):
                self._mirror(key, commands.decoded(value), seconds)

        def alone() -> None:
            for key, value in pairs:
                self._keep(key, value, life, refresh=refresh, shared=shared)

        return Step(commands.put(written, life, refresh=refresh) if written else None, learn, alone)

    def increment(self, increments: Sequence[Increment], *, local: bool = False) -> Step[list[float]]:
        """Add to numbers, and return the sums: those of Redis."""
        shared = self._shared and not local

        def learn(entries: list[Entry]) -> list[float]:
            for (key, *_), (value, seconds) in zip(increments, entries, strict=True):
                self._mirror(key, value, seconds)
            return [entry.value for entry in entries]

        def alone() -> list[float]:
            sums = []
            for key, amount, ttl, refresh in increments:
                sums.append((self._memory.get_cache(key) or 0) + amount)
                self._keep(key, sums[-1], ttl, refresh=refresh, shared=shared)
            return sums

        return Step(commands.increment(increments) if shared and increments else None, learn, alone)

    def add(self, key: str, members: Iterable[Any], ttl: float | None, *, local: bool = False) -> Step[None]:
        """Add members to a set.

        Raises:
            TypeError: One can't be written as JSON.
        """
        life, shared = self.life(ttl), self._shared and not local
        members = list(members)

        def alone() -> None:
            value = {*(self._memory.get_cache(key) or ()), *members}
            self._keep(key, value, life, refresh=False, shared=shared)

        command = commands.add(key, members, life) if shared and members else None
        return Step(command, lambda entry: self._mirror(key, *entry), alone)

    def delete(self, keys: Iterable[str]) -> Step[None]:
        """Forget keys."""
        keys = list(keys)

        def alone() -> None:
            for key in keys:
                self._memory.delete_cache(key)

        return Step(commands.delete(keys) if self._shared and keys else None, lambda _: alone(), alone)

    def _mirror(self, key: str, value: Any, seconds: float) -> None:
        """Keep what Redis has: it alone says for how long."""
        if value is None:
            self._memory.delete_cache(key)
        else:
            self._memory.set_cache(key, value, ttl=seconds, refresh_ttl=True, fresh_for=FRESH)

    def _keep(self, key: str, value: Any, life: float, *, refresh: bool, shared: bool) -> None:
        """Keep what Redis was not told: what is shared is only believed until Redis can be asked again."""
        fresh_for = 0.0 if shared else math.inf
        self._memory.set_cache(key, value, ttl=life, refresh_ttl=refresh, fresh_for=fresh_for)
