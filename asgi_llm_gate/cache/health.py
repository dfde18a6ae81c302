"""Whether a store can be asked: after a failure it rests, so that calls do not queue behind time limits."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from asgi_llm_gate.cache.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("asgi_llm_gate")

# Seconds after a failure within which nobody asks.
REST = 1.0


class Health:
    """The health of one store, as those learn it who ask it.

    Args:
        name: What the log calls the store.
        clock: Seconds that only go up.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._away = False
        self._rests_until = 0.0

    def admit(self) -> None:
        """Let a caller ask; of a store that was away only one at a time, each time its rest is over.

        Raises:
            StoreError: It rests.
        """
        if self._away:
            now = self._clock()
            if now < self._rests_until:
                raise StoreError
            self._rests_until = now + REST

    def worked(self) -> None:
        """Take note of an answer."""
        if self._away:
            self._away = False
            logger.warning("%s is back", self._name)

    def failed(self, why: BaseException) -> StoreError:
        """Take note of a failure, logged once until the store is back, and return what to raise."""
        if not self._away:
            self._away = True
            logger.warning("%s is away: %s", self._name, str(why) or "it took too long")
        self._rests_until = self._clock() + REST
        return StoreError()
