"""The tier of the cache that all processes share, with the methods of LiteLLM's `RedisCache`."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from asgi_llm_gate.cache import commands
from asgi_llm_gate.cache.address import Address, from_url
from asgi_llm_gate.cache.commands import Command, Increment, Script
from asgi_llm_gate.cache.memory import DEFAULT_TTL
from asgi_llm_gate.cache.store import Store

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from asgi_llm_gate.cache.commands import Entry

# What keys begin with where nothing else is said.
NAMESPACE = "asgi-llm-gate"

_PING = Script("return redis.call('PING')")

# What a pattern of Redis's takes for more than the character itself.
_SPECIAL = re.compile(r"[*?\[\]\\]")


class RedisCache:
    """Entries in a Redis (6 or newer) that all processes share.

    Values are JSON; only a new entry is given a time to live. The methods that do not await hold up the event loop
    while they wait for Redis, a quarter of `timeout` at the most for each step.

    Args:
        url: redis-py's, such as ``redis://:password@host:6379/0``; ``redis+cluster://host,host`` and
            ``redis+sentinel://host,host/service`` too; or an `Address`.
        namespace: Keeps the keys apart from those of others, ``{namespace}:key``.
        timeout: Seconds that an answer may take, the wait for one of the pool's connections included; if None, what
            the URL says (``?socket_timeout=2``), else 1.
        default_ttl: Seconds an entry lives when nothing else is said.

    Raises:
        ImportError: redis-py is not installed.
        ValueError: The URL is none.

    Every method raises `StoreError` when Redis is away or too slow, and within a second after that at once; TypeError
    for a value that can't be written as JSON, or an entry of another kind than is asked for.
    """

    def __init__(
        self,
        url: str | Address,
        *,
        namespace: str = NAMESPACE,
        timeout: float | None = None,
        default_ttl: float = DEFAULT_TTL,
    ) -> None:
        self.default_ttl = default_ttl
        address = url if isinstance(url, Address) else from_url(url)
        self.store = Store(address, namespace, address.timeout if timeout is None else timeout)

    def __repr__(self) -> str:
        return f"RedisCache({self.store.address})"

    def complaint(self) -> str | None:
        """Say why the methods that await can't work where this is called, or None if they can."""
        return self.store.complaint()

    async def ping(self) -> bool:
        """Ask for an answer."""
        return await self.store.run(Command(_PING, [""], (), bool))

    async def async_get_cache(self, key: str, *_arguments: Any, **_options: Any) -> Any:
        """Return a value, or None."""
        return (await self.store.run(commands.get([key])))[0].value

    async def async_batch_get_cache(self, key_list: Iterable[str], *_arguments: Any, **_options: Any) -> dict[str, Any]:
        """Return the values of several keys by their keys, None where there is none."""
        keys = list(key_list)
        return _by_key(keys, await self.store.run(commands.get(keys)))

    async def async_set_cache(
        self,
        key: str,
        value: Any,
        *_arguments: Any,
        ttl: float | None = None,
        refresh_ttl: bool = False,
        **_options: Any,
    ) -> None:
        """Store a value for `ttl` seconds, or for what is left to the entry that is overwritten."""
        pairs = [(key, commands.encoded(value))]
        await self.store.run(commands.put(pairs, self.life(ttl), refresh=refresh_ttl))

    async def async_set_cache_pipeline(
        self, cache_list: Iterable[tuple[str, Any]], ttl: float | None = None, **_options: Any
    ) -> None:
        """Store several pairs of key and value."""
        pairs = [(key, commands.encoded(value)) for key, value in cache_list]
        await self.store.run(commands.put(pairs, self.life(ttl)))

    async def async_set_cache_sadd(
        self, key: str, value: Iterable[Any], ttl: float | None = None, **_options: Any
    ) -> None:
        """Add members to a set."""
        await self.store.run(commands.add(key, value, self.life(ttl)))

    async def async_increment(
        self,
        key: str,
        value: float,
        *_arguments: Any,
        ttl: float | None = None,
        refresh_ttl: bool = False,
        **_options: Any,
    ) -> float:
        """Add to a number and return the sum, an int if both are; a missing one counts as 0."""
        entries = await self.store.run(commands.increment([Increment(key, value, self.life(ttl), refresh_ttl)]))
        total: float = entries[0].value
        return total

    async def async_increment_pipeline(
        self, increment_list: Iterable[Mapping[str, Any]], **_options: Any
    ) -> list[float]:
        """Add to several numbers, each ``{"key", "increment_value", "ttl"}``, and return the sums."""
        increments = [
            Increment(operation["key"], operation["increment_value"], self.life(operation.get("ttl")))
            for operation in increment_list
        ]
        return [entry.value for entry in await self.store.run(commands.increment(increments))]

    async def async_delete_cache(self, key: str, *_arguments: Any, **_options: Any) -> None:
        """Forget a key."""
        await self.store.run(commands.delete([key]))

    async def async_delete_cache_keys(self, keys: Iterable[str], *_arguments: Any, **_options: Any) -> None:
        """Forget several keys."""
        await self.store.run(commands.delete(list(keys)))

    async def async_get_ttl(self, key: str, *_arguments: Any, **_options: Any) -> int | None:
        """Return the seconds that a key still has, rounded up, or None if it has no end or there is no such key."""
        seconds = (await self.store.run(commands.get([key])))[0].seconds
        return math.ceil(seconds) if 0 < seconds < math.inf else None

    def async_register_script(self, script: str) -> Callable[..., Awaitable[Any]]:
        """Return what runs a script in Lua in one step and one round trip.

        It is called with `keys`, to which the namespace is added, and `args`, and returns what Redis answers, texts
        as bytes. A Redis that was started anew is given the script again.
        """
        lua = Script(script)

        async def run(keys: Sequence[str] = (), args: Sequence[bytes | str | float] = (), **_options: Any) -> Any:
            return await self.store.run(Command(lua, keys, args, lambda answer: answer))

        return run

    def get_cache(self, key: str, *_arguments: Any, **_options: Any) -> Any:
        """Return a value, or None."""
        return self.store.run_now(commands.get([key]))[0].value

    def batch_get_cache(self, key_list: Iterable[str], *_arguments: Any, **_options: Any) -> dict[str, Any]:
        """Return the values of several keys by their keys, None where there is none."""
        keys = list(key_list)
        return _by_key(keys, self.store.run_now(commands.get(keys)))

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
        pairs = [(key, commands.encoded(value))]
        self.store.run_now(commands.put(pairs, self.life(ttl), refresh=refresh_ttl))

    def increment_cache(
        self,
        key: str,
        value: float,
        *_arguments: Any,
        ttl: float | None = None,
        refresh_ttl: bool = False,
        **_options: Any,
    ) -> float:
        """Add to a number and return the sum, an int if both are; a missing one counts as 0."""
        increment = Increment(key, value, self.life(ttl), refresh_ttl)
        total: float = self.store.run_now(commands.increment([increment]))[0].value
        return total

    def delete_cache(self, key: str, *_arguments: Any, **_options: Any) -> None:
        """Forget a key."""
        self.store.run_now(commands.delete([key]))

    def flush_cache(self) -> None:
        """Forget all keys of the namespace, and no others."""
        pattern = _SPECIAL.sub(r"\\\g<0>", self.store.prefix) + "*"
        cursor = self.store.run_now(commands.flush(b"0", pattern))
        while cursor != b"0":
            cursor = self.store.run_now(commands.flush(cursor, pattern))

    async def aclose(self) -> None:
        """Close the connections of the running event loop; they are opened anew when they are needed."""
        await self.store.aclose()

    def life(self, ttl: float | None) -> float:
        """Return the seconds that a new entry lives."""
        return self.default_ttl if ttl is None else ttl


def _by_key(keys: list[str], entries: list[Entry]) -> dict[str, Any]:
    return {key: entry.value for key, entry in zip(keys, entries, strict=True)}
