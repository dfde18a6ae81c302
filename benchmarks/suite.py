"""All that is measured, as groups of figures."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anyio

from benchmarks.disconnect import LIMIT, measure_disconnect
from benchmarks.held import STREAMS, memory_of_held
from benchmarks.imports import measure_import
from benchmarks.limiter import measure_limiter
from benchmarks.measure import Figure, measure
from benchmarks.results import Group, Result
from benchmarks.rows import rows
from benchmarks.served import CHECKED, GATE, GATED, HOSTED, LITELLM, NGINX
from benchmarks.stalls import BOUND, measure_stalls
from benchmarks.upstream import CHUNKS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.served import Job

# The most rounds of what takes long, or of which the best round counts.
_STALL_ROUNDS = 5
_MEMORY_ROUNDS = 3

_MEMORY_BOUND = 40.0


def measure_calls(rounds: int) -> Group:
    """Measure what the gate adds to calls and chunks in process."""
    figures = anyio.run(partial(measure, rows(), rounds))
    return Group("call", "added in process", "times the codec", tuple(_in_microseconds(figure) for figure in figures))


def measure_limits(rounds: int) -> Group:
    """Measure what limits add to a call."""
    results = tuple(_in_microseconds(figure) for figure in measure_limiter(rounds))
    return Group("limits", "added by limits", "times the codec", results)


def measure_once(rounds: int, *, memory: bool) -> Group:
    """Measure what is not paid by the call."""
    imported = measure_import(rounds)
    left = anyio.run(measure_disconnect, rounds)
    results = [
        Result("import asgi_llm_gate", imported.microseconds / 1000, "ms", imported.ratio, imported.bound),
        Result("the upstream knows that the client has gone after", left.microseconds / 1000, "ms", None, LIMIT * 1000),
    ]
    if memory:
        held = memory_of_held(STREAMS, min(rounds, _MEMORY_ROUNDS))
        results.append(Result(f"each of {STREAMS:,} streams held back", held, "kB", None, _MEMORY_BOUND))
    return Group("once", "beside the calls", "times its dependencies", tuple(results))


def measure_turns(rounds: int) -> Group:
    """Measure how long the worst bodies keep the loop."""
    stalls = anyio.run(measure_stalls, min(rounds, _STALL_ROUNDS))
    results = tuple(Result(stall.name, stall.milliseconds, "ms", None, BOUND) for stall in stalls)
    return Group("turns", "longest turn of the loop for a body of", "", results)


def _in_microseconds(figure: Figure) -> Result:
    return Result(figure.name, figure.microseconds, "µs", figure.ratio, figure.bound)


def rated(jobs: Sequence[Job]) -> list[Group]:
    """Make the groups of what servers did."""
    hosted = [job for job in jobs if job.name in (HOSTED, GATED, CHECKED)]
    whole = [job for job in jobs if job not in hosted and not job.streamed]
    streamed = [job for job in jobs if job.streamed]
    over_litellm = [result for each in (whole, streamed) for result in _over_litellm(each)]
    streams = _rates(streamed, NGINX, {GATE: 0.5})
    in_process = _rates(hosted, HOSTED, {GATED: 0.8, CHECKED: 0.8})
    groups = [
        Group("hosted", "calls a second, one core", "of the app alone", in_process),
        Group("proxied", "calls a second, one core", "of nginx", _rates(whole, NGINX, {GATE: 0.15})),
        Group("streamed", f"streams of {CHUNKS} chunks a second, one core", "of nginx", streams),
        Group("peers", "the same handler and configuration", "times LiteLLM's proxy", tuple(over_litellm)),
        Group("cpu", "CPU time of the server for an answer", "", tuple(map(_cost, jobs))),
    ]
    return [group for group in groups if group.results]


def _rates(jobs: Sequence[Job], beside: str, bounds: Mapping[str, float]) -> tuple[Result, ...]:
    """Return each job's rate, as a ratio to one of them where that was measured."""
    other = next((job for job in jobs if job.name == beside), None)
    return tuple(
        _rate(job.name, job, None, None) if other in (None, job) else _rate(job.name, job, other, bounds.get(job.name))
        for job in jobs
    )


def _over_litellm(jobs: Sequence[Job]) -> list[Result]:
    by_name = {job.name: job for job in jobs}
    if LITELLM not in by_name:
        return []
    gate = by_name[GATE]
    return [_rate("asgi-llm-gate, streams" if gate.streamed else "asgi-llm-gate", gate, by_name[LITELLM], 50)]


def _rate(name: str, job: Job, other: Job | None, bound: float | None) -> Result:
    ratio = None if other is None else job.over(other)
    return Result(name, job.rate, "streams/s" if job.streamed else "requests/s", ratio, bound, least=True)


def _cost(job: Job) -> Result:
    return Result(f"{job.name}, a stream" if job.streamed else job.name, job.cost * 1e6, "µs")
