"""Leases of slots: what a process holds in Redis it renews, so that what a dead one held comes back by itself."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asgi_llm_gate.builtin.limits import Claim

Renew = Callable[[Sequence["Claim"]], Awaitable[None]]


class Leases:
    """What the calls of one event loop hold. While that is anything, all of it is renewed at an interval.

    Args:
        renew: Renews them. Asyncio's own, as the Redis client is.
        interval: Seconds.
    """

    def __init__(self, renew: Renew, interval: float) -> None:
        self._renew = renew
        self._interval = interval
        self._held: dict[str, Claim] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._renewing: asyncio.Task[None] | None = None

    def __contains__(self, claim: Claim) -> bool:
        return claim.id in self._held

    def hold(self, claim: Claim) -> None:
        """Renew what a call has taken, from now on."""
        self._held[claim.id] = claim
        if self._timer is None and self._renewing is None:
            self._wait()

    def drop(self, claim: Claim) -> None:
        """Renew it no longer."""
        self._held.pop(claim.id, None)
        if not self._held:
            self._stop_waiting()

    async def aclose(self) -> None:
        """Renew nothing any more."""
        self._held.clear()
        self._stop_waiting()
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._interval, self._start)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self) -> None:
        self._timer = None
        # In a context of its own: what a call's context holds is no business of the others'.
        loop = asyncio.get_running_loop()
        self._renewing = loop.create_task(self._run(), context=contextvars.Context())

    async def _run(self) -> None:
        try:
            await self._renew(list(self._held.values()))
        finally:
            self._renewing = None
            if self._held:
                self._wait()
