"""Asks a Redis: within a time limit, not at all while it rests, and in the gate's own words when it fails."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from asgi_llm_gate.cache.connections import NEEDS_ASYNCIO, Connections, running_loop
from asgi_llm_gate.cache.health import Health

if TYPE_CHECKING:
    from asgi_llm_gate.cache.address import Address
    from asgi_llm_gate.cache.commands import Command

T = TypeVar("T")

# A plain call holds up the whole event loop: it is given less time than one that awaits.
_SHARE_OF_PLAIN_CALLS = 0.25

# How Redis begins an error that is about itself and not about the command: MISCONF, NOREPLICAS, BUSY, …
_CODE = re.compile(r"(?!WRONGTYPE)[A-Z]{2,} ")


class Store:
    """A Redis.

    Args:
        address: Where it is.
        namespace: Stands in braces before each key. By them a cluster keeps all keys on one node, so that a script of
            several is one step there too.
        timeout: Seconds that an answer may take, the wait for a connection included.

    Raises:
        ImportError: redis-py is not installed.
    """

    def __init__(self, address: Address, namespace: str, timeout: float) -> None:
        self.address = address
        self.prefix = f"{{{namespace}}}:"
        self._timeout = timeout
        self._connections = Connections(address, timeout * _SHARE_OF_PLAIN_CALLS)
        self._health = Health(str(address))

    def complaint(self) -> str | None:
        """Say why `run` can't work where this is called, or None if it can."""
        return None if running_loop() is not None else NEEDS_ASYNCIO

    async def run(self, command: Command[T]) -> T:
        """Ask, and read the answer.

        Raises:
            StoreError: Redis is away or too slow.
            TypeError: The command does not fit what is there.
            RuntimeError: This is not asyncio.
        """
        pool = self._connections.pool()
        self._health.admit()
        script, arguments = command.script, self._arguments(command)
        try:
            with anyio.fail_after(self._timeout):
                async with pool.slots:
                    try:
                        answer = await pool.client.evalsha(script.digest, *arguments)
                    except self._connections.unknown_script:
                        answer = await pool.client.eval(script.source, *arguments)
        except self._connections.errors as exc:
            raise self._judged(exc) from exc
        self._health.worked()
        return command.read(answer)

    def run_now(self, command: Command[T]) -> T:
        """Do the same without awaiting: nothing else goes on meanwhile."""
        self._health.admit()
        script, arguments = command.script, self._arguments(command)
        try:
            client = self._connections.plain()
            try:
                answer = client.evalsha(script.digest, *arguments)
            except self._connections.unknown_script:
                answer = client.eval(script.source, *arguments)
        except self._connections.errors as exc:
            raise self._judged(exc) from exc
        self._health.worked()
        return command.read(answer)

    async def aclose(self) -> None:
        """Close the connections of the running event loop; they are opened anew when they are needed."""
        await self._connections.aclose()

    def _arguments(self, command: Command[Any]) -> tuple[Any, ...]:
        return (len(command.keys), *(f"{self.prefix}{key}" for key in command.keys), *command.arguments)

    def _judged(self, exc: Exception) -> Exception:
        """Return what to raise: Redis is away, or it was asked what makes no sense."""
        if type(exc) in self._connections.mistakes and not _CODE.match(str(exc)):
            self._health.worked()
            return TypeError(f"Redis can't do this: {exc}")
        return self._health.failed(exc)
