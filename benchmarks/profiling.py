"""Where the time of the two hottest paths goes, by module, as the standard library's profiler counts it."""

from __future__ import annotations

import gc
from collections import defaultdict
from cProfile import Profile as Profiler
from operator import itemgetter
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING

import asgi_llm_gate
from asgi_llm_gate import LLMGate
from benchmarks.results import Profile
from benchmarks.rows import Rewrite, RewriteText
from benchmarks.traffic import CALL, STREAM

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asgi_llm_gate import CallHooks
    from benchmarks.traffic import Traffic

OWN = "the app and the hook"
CODEC = "orjson"
OTHERS = "anyio and the standard library"

# How many places are named, and from which share on.
_PLACES = 8
_SMALLEST = 0.02

_PACKAGE = Path(asgi_llm_gate.__file__).parent
_BENCHMARKS = Path(__file__).parent


async def take_profiles(calls: int) -> list[Profile]:
    """Profile so many calls with a pre-call hook, and the chunks of a fraction of as many streams with a text hook."""
    return [
        await _taken("a call with a pre-call hook", CALL, Rewrite(), calls),
        await _taken("a chunk with a text hook", STREAM, RewriteText(), max(1, calls // 100)),
    ]


async def _taken(name: str, traffic: Traffic, hook: CallHooks, times: int) -> Profile:
    gate = LLMGate(traffic.app, config={}, callbacks=[hook])
    await traffic.send_to(gate)
    gc.collect()
    profiler = Profiler()
    with profiler:
        for _ in range(times):
            await traffic.send_to(gate)
    return Profile(name, shares(_seconds(profiler)))


def _seconds(profiler: Profiler) -> Mapping[str, float]:
    """Add up the time of each place; what C functions take belongs to who called them."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for entry in profiler.getstats():
        if isinstance(entry.code, CodeType):
            place = _place(entry.code.co_filename)
            seconds[place] += entry.inlinetime
            for called in entry.calls or ():
                if not isinstance(called.code, CodeType):
                    seconds[CODEC if "orjson" in called.code else place] += called.inlinetime
    return seconds


def _place(file: str) -> str:
    path = Path(file)
    if path.is_relative_to(_PACKAGE):
        return path.relative_to(_PACKAGE).as_posix()
    return OWN if path.is_relative_to(_BENCHMARKS) else OTHERS


def shares(seconds: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    """Return the shares of the largest places, and of all others together."""
    total = sum(seconds.values())
    largest = sorted(seconds.items(), key=itemgetter(1), reverse=True)[:_PLACES]
    named = [(place, taken / total) for place, taken in largest if taken / total >= _SMALLEST]
    rest = 1 - sum(share for _, share in named)
    return (*named, ("all other modules", rest)) if rest > 0 else tuple(named)
