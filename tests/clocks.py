"""Time that passes only where nothing else is left to do: waits cost nothing, and one without an end is seen at once.

For tests in one process without threads: what a thread or another process does takes no such time.
"""

from __future__ import annotations

import asyncio
import selectors

import trio.testing


class _Jumping(selectors.DefaultSelector):
    """A selector that does not wait for a timer but moves the clock on to it."""

    def __init__(self) -> None:
        super().__init__()
        self.jumped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0 if timeout else timeout)
        if timeout and not ready:
            self.jumped += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop of asyncio whose time is virtual."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return super().time() + self._jumping.jumped


def virtual(backend: str) -> tuple[str, dict[str, object]]:
    """Return one of anyio's backends with a clock of its own, as its pytest plugin takes it."""
    if backend == "asyncio":
        return backend, {"loop_factory": VirtualLoop}
    return backend, {"clock": trio.testing.MockClock(autojump_threshold=0)}
