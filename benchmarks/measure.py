"""Time rows against the codec and the bare app, within one run.

Times are the process's own CPU time, so that what else the machine does counts as little as it can.
"""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from time import process_time
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.rows import Row
    from benchmarks.traffic import Traffic

# How long one subject is timed in one round, in seconds.
ROUND = 0.05

Once = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Figure:
    """What one row costs.

    Attributes:
        name: The row.
        microseconds: The cost.
        ratio: The cost over that of the codec.
        bound: The most that ratio is to be; None where none is set.
    """

    name: str
    microseconds: float
    ratio: float
    bound: float | None


class _Subject:
    """Something to time, and how long it took in each round, in seconds."""

    def __init__(self, once: Once) -> None:
        self._once = once
        self._times = 1
        self.seconds: list[float] = []

    async def calibrate(self) -> None:
        """Find how often it fits into a round; this warms it up too."""
        while (spent := await self._timed()) < ROUND / 4:
            self._times *= 2
        self._times = max(1, round(self._times * ROUND / spent))

    async def round(self) -> None:
        """Time one round."""
        self.seconds.append(await self._timed() / self._times)

    async def _timed(self) -> float:
        once, times = self._once, range(self._times)
        with _no_gc():
            start = process_time()
            for _ in times:
                await once()
            return process_time() - start


@contextmanager
def _no_gc() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def measure(rows: Sequence[Row], rounds: int) -> list[Figure]:
    """Time all rows, interleaved, in so many rounds, and return the median of each."""
    traffic = dict.fromkeys(row.traffic for row in rows)
    codec = {each: _Subject(partial(_recode, each)) for each in traffic}
    bare = {each: _Subject(partial(each.send_to, each.app)) for each in traffic}
    gated = [_Subject(partial(row.traffic.send_to, row.gate)) for row in rows]
    subjects = [*codec.values(), *bare.values(), *gated]
    for subject in subjects:
        await subject.calibrate()
    for _ in range(rounds):
        for subject in subjects:
            await subject.round()
    return [
        _figure(row, subject.seconds, bare[row.traffic].seconds, codec[row.traffic].seconds)
        for row, subject in zip(rows, gated, strict=True)
    ]


async def _recode(traffic: Traffic) -> None:
    orjson.dumps(orjson.loads(traffic.unit))


def _figure(row: Row, gated: list[float], bare: list[float], codec: list[float]) -> Figure:
    costs = [(with_gate - without) / row.traffic.units for with_gate, without in zip(gated, bare, strict=True)]
    ratio = median(cost / unit for cost, unit in zip(costs, codec, strict=True))
    return Figure(row.name, median(costs) * 1e6, ratio, row.bound)
