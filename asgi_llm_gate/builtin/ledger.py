"""What is used of limits, counted in this process: no await, so each call is one step."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from asgi_llm_gate.builtin.limits import WINDOW, Use

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asgi_llm_gate.builtin.limits import Claim, Limit


class Ledger:
    """The slots, requests and tokens in use.

    Args:
        clock: Seconds that only go up.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._slots: dict[str, set[str]] = {}
        # The end of each window and what counts in it, in the order in which they began and so end.
        self._windows: dict[str, tuple[float, int]] = {}

    def take(self, claim: Claim) -> Sequence[Use]:
        """Give a call its part of all limits, or of none where one of them is reached; return what was used before."""
        now = self._tidy()
        uses = [self._use(limit, now) for limit in claim.limits]
        if all(use.used < limit.most for limit, use in zip(claim.limits, uses, strict=True)):
            for index, limit in enumerate(claim.limits):
                if limit.kind == "slots":
                    self._slots.setdefault(limit.key, set()).add(claim.id)
                elif limit.kind == "requests":
                    uses[index] = Use(uses[index].used, self._add(limit.key, 1, now) - now)
        return uses

    def give(self, claim: Claim, tokens: int) -> None:
        """Take a call's slots back, as often as this is said, and count its tokens."""
        now = self._tidy()
        for limit in claim.of("slots"):
            self._take_back(limit.key, claim.id)
        for limit in claim.of("tokens") if tokens else ():
            self._add(limit.key, tokens, now)

    def _use(self, limit: Limit, now: float) -> Use:
        if limit.kind == "slots":
            return Use(len(self._slots.get(limit.key, ())))
        end, count = self._windows.get(limit.key, (now, 0))
        return Use(count, end - now)

    def _take_back(self, key: str, id: str) -> None:
        holders = self._slots.get(key, set())
        holders.discard(id)
        if not holders:
            self._slots.pop(key, None)

    def _add(self, key: str, count: int, now: float) -> float:
        """Count in a window, which begins now if there is none; return its end."""
        end, before = self._windows.get(key, (now + WINDOW, 0))
        self._windows[key] = (end, before + count)
        return end

    def _tidy(self) -> float:
        """Forget the windows that have ended; return the time."""
        now = self._clock()
        while self._windows and next(iter(self._windows.values()))[0] <= now:
            del self._windows[next(iter(self._windows))]
        return now
