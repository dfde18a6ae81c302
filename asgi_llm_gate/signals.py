"""Something that happens once, and that tasks may wait for."""

from __future__ import annotations

import anyio


class Signal:
    """An event that is made when the first task waits for it: until then it costs no more than a flag.

    Attributes:
        is_set: It has happened.
    """

    __slots__ = ("_event", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._event: anyio.Event | None = None

    def set(self) -> None:
        """Let all know who wait, now or later."""
        self.is_set = True
        if self._event is not None:
            self._event.set()

    async def wait(self) -> None:
        """Wait until it happens; where it has happened, for a turn of the loop."""
        if self._event is None:
            self._event = anyio.Event()
            if self.is_set:
                self._event.set()
        await self._event.wait()
