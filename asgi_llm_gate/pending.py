"""The log events that are on their way."""

from __future__ import annotations

import anyio


class Pending(set[object]):
    """A ticket for each call whose log hooks are being told."""

    def __init__(self) -> None:
        super().__init__()
        self._discarded: anyio.Event | None = None

    def discard(self, ticket: object) -> None:
        """Take a ticket back."""
        super().discard(ticket)
        if self._discarded is not None:
            self._discarded.set()

    async def drained(self) -> None:
        """Wait until no ticket is out."""
        while self:
            self._discarded = anyio.Event()
            await self._discarded.wait()
