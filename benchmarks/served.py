"""What servers do on one core: calls a second, and streams a second, in rounds by turns."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING

import uvloop

from benchmarks.load import LoadError, Measured, ask, load
from benchmarks.peers import LiteLLM, Portkey, cache, install_litellm, install_portkey
from benchmarks.processes import cpu_clock, pinned
from benchmarks.subjects import by_command_line, in_nginx, in_uvicorn, nginx
from benchmarks.upstream import CHUNKS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.subjects import Running, Subject

HOSTED = "uvicorn, a Starlette app"
GATED = "uvicorn, the gate, the same app"
CHECKED = "uvicorn, the gate, user check, the same app"
NGINX = "nginx as reverse proxy"
GATE = "asgi-llm-gate --config, pre-call hook"
GATE_TEXT = "asgi-llm-gate --config, pre-call and text hook"
FORWARDER = "uvicorn, the Forwarder alone, aiohttp"
FORWARDER_HTTPX = "uvicorn, the Forwarder alone, httpx"
LITELLM = "LiteLLM's proxy, the same handler and configuration"
PORTKEY = "Portkey's gateway, no handler"


@dataclass(frozen=True, slots=True)
class Job:
    """One server under one kind of load.

    Attributes:
        name: The server.
        subject: Runs it.
        streamed: Whether it is asked for streams.
        connections: Calls under way at any time.
        seconds: How long each round is.
        rates: Answers a second, of each round.
        costs: CPU seconds that an answer cost the server, of each round.
    """

    name: str
    subject: Subject
    streamed: bool = False
    connections: int = 32
    seconds: float = 1.0
    rates: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)

    def add(self, measured: Measured) -> None:
        """Note a round."""
        self.rates.append(measured.rate)
        self.costs.append(measured.busy / measured.rate)

    @property
    def rate(self) -> float:
        """Answers a second, the median."""
        return median(self.rates)

    @property
    def cost(self) -> float:
        """CPU seconds for an answer, the median."""
        return median(self.costs)

    def over(self, other: Job) -> float:
        """Return the rate over another's, each round to itself, the median."""
        return median(mine / its for mine, its in zip(self.rates, other.rates, strict=True))


def jobs() -> list[Job]:
    """Return what is measured without other projects' gateways."""
    proxies = [
        *[Job(NGINX, in_nginx)] * (nginx() is not None),
        Job(GATE, by_command_line("rewrite")),
        Job(FORWARDER, in_uvicorn("forwarder", factory=True)),
        Job(FORWARDER_HTTPX, in_uvicorn("forwarder_httpx", factory=True)),
    ]
    return [
        Job(HOSTED, in_uvicorn("hosted")),
        Job(GATED, in_uvicorn("gated", factory=True)),
        Job(CHECKED, in_uvicorn("checked", factory=True)),
        *proxies,
        *(replace(job, streamed=True, rates=[], costs=[]) for job in proxies),
        Job(GATE_TEXT, by_command_line("rewrite_text"), streamed=True),
    ]


def litellm_jobs() -> list[Job]:
    """Return the same for LiteLLM's proxy, installed first; it is too slow for rounds of a second.

    Raises:
        InstallError: It can't be installed.
    """
    proxy = LiteLLM(install_litellm(cache() / "litellm-proxy"), "rewrite")
    return [
        Job(LITELLM, proxy, connections=4, seconds=4),
        Job(LITELLM, proxy, streamed=True, connections=4, seconds=8),
    ]


def portkey_jobs() -> list[Job]:
    """Return the same for Portkey's gateway.

    Raises:
        InstallError: It can't be installed.
    """
    gateway = Portkey(install_portkey(cache() / "portkey"))
    return [Job(PORTKEY, gateway), Job(PORTKEY, gateway, streamed=True)]


def cores() -> tuple[int, int] | None:
    """Return a core for the server that is measured and one for all else; None where there are not two to choose."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    first, *others = sorted(os.sched_getaffinity(0))
    return (first, others[-1]) if others else None


def measure_served(jobs: Sequence[Job], rounds: int, measured: int, other: int) -> None:
    """Run all servers, load one at a time, by turns, and note the rates in the jobs.

    Args:
        jobs: What is measured.
        rounds: How often.
        measured: The core that servers run on.
        other: The core for the upstream, and for this process while it makes the load.

    Raises:
        StartError: A server did not come up.
        LoadError: A server did not answer as it should.
    """
    with ExitStack() as stack:
        upstream = stack.enter_context(in_uvicorn("app")(other, 0))
        running: dict[Subject, Running] = {}
        for job in jobs:
            if job.subject not in running:
                running[job.subject] = stack.enter_context(job.subject(measured, upstream.port))
        with pinned(other):
            uvloop.run(_rounds(jobs, running, rounds))


async def _rounds(jobs: Sequence[Job], running: dict[Subject, Running], rounds: int) -> None:
    for job in jobs:
        server = running[job.subject]
        try:
            check(job, await ask(server.target(streamed=job.streamed)))
        except LoadError as exc:
            raise LoadError(f"{job.name}: {exc}") from None
    # All of one server's after each other: after a pause of four seconds, when httpx's pool closes idle connections, a
    # request on one of them was lost now and then.
    servers = list(running)
    for job in sorted(jobs, key=lambda job: servers.index(job.subject)) * rounds:
        server = running[job.subject]
        target, clock = server.target(streamed=job.streamed), cpu_clock(server.pid)
        try:
            job.add(await load(target, connections=job.connections, seconds=job.seconds, cpu=clock))
        except LoadError as exc:
            raise LoadError(f"{job.name}, under load: {exc}") from None


def check(job: Job, answer: bytes) -> None:
    """Look at an answer before its like are counted.

    Raises:
        LoadError: It is not the upstream's.
    """
    pieces = answer.count(b" parcel") + answer.count(b" package")
    if pieces != CHUNKS if job.streamed else b"warehouse" not in answer:
        raise LoadError(f"not the upstream's answer, with {pieces} pieces: {answer[:500]!r}")
