"""The connections to a Redis: one pool for each event loop, made when it is first needed, and one for plain calls."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import anyio

from asgi_llm_gate.cache.address import MISSING

if TYPE_CHECKING:
    from asgi_llm_gate.cache.address import Address


NEEDS_ASYNCIO = "the cache on Redis needs asyncio: redis-py does not run under trio"


class Pool(NamedTuple):
    """What one event loop talks to a Redis with.

    Attributes:
        client: redis-py's client.
        slots: As many as it may have connections; who waits for one may be cancelled.
    """

    client: Any
    slots: anyio.Semaphore


class Connections:
    """The pools of one Redis.

    Args:
        address: Where it is.
        patience: Seconds that each step of a plain call may take.

    Raises:
        ImportError: redis-py is not installed.
    """

    def __init__(self, address: Address, patience: float) -> None:
        try:
            import redis.asyncio.retry
            from redis import exceptions
        except ModuleNotFoundError as exc:
            raise ImportError(MISSING) from exc
        self._module = redis
        self.errors = (exceptions.RedisError, exceptions.RedisClusterException, OSError)
        self.unknown_script = exceptions.NoScriptError
        # Subclasses of an answer that is an error are about the server; this one itself is about the command.
        self.mistakes = (exceptions.ResponseError, exceptions.DataError)
        self._address = address
        self._patience = patience
        self._pools: WeakKeyDictionary[asyncio.AbstractEventLoop, Pool] = WeakKeyDictionary()
        self._plain: Any = None

    def pool(self) -> Pool:
        """Return the pool of the running event loop.

        Raises:
            RuntimeError: The loop is none of asyncio's.
        """
        loop = running_loop()
        if loop is None:
            raise RuntimeError(NEEDS_ASYNCIO)
        pool = self._pools.get(loop)
        if pool is None:
            client = self._address.client(self._module.asyncio, None)
            pool = self._pools[loop] = Pool(client, anyio.Semaphore(self._address.max_connections, fast_acquire=True))
        return pool

    def plain(self) -> Any:
        """Return redis-py's client for calls that do not await."""
        if self._plain is None:
            self._plain = self._address.client(self._module, self._patience)
        return self._plain

    async def aclose(self) -> None:
        """Close the pool of the running loop, and that of plain calls; both are made anew when they are needed."""
        loop = running_loop()
        pool = self._pools.pop(loop, None) if loop is not None else None
        plain, self._plain = self._plain, None
        if pool is not None:
            for client in (*_sentinels(pool.client), pool.client):
                await client.aclose()
        if plain is not None:
            for client in (*_sentinels(plain), plain):
                client.close()


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return asyncio's loop, or None under trio."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _sentinels(client: Any) -> list[Any]:
    """Return the clients with which a client asks sentinels, which it does not close itself."""
    manager = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
    return [] if manager is None else manager.sentinels
