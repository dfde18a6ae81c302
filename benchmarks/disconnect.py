"""How long it takes until the upstream knows that a client has gone, over real sockets."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

import anyio
import uvicorn

from asgi_llm_gate import Forwarder, LLMGate
from benchmarks.measure import Figure
from benchmarks.rows import ModerateLater, RewriteText
from benchmarks.traffic import STREAM

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import ASGIApp, Receive, Scope, Send

# What it may take, in seconds.
LIMIT = 0.1


class _Upstream:
    """Sends one event, and notes when it is told that its client has gone."""

    def __init__(self) -> None:
        self.told = anyio.Event()
        self.at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI's three arguments
        while (await receive()).get("more_body"):
            pass
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: %b\n\n" % STREAM.unit, "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        self.at = perf_counter()
        self.told.set()


async def measure_disconnect(rounds: int) -> Figure:
    """Leave a stream so many times, behind which a gate, a forwarder and an upstream stand; return the median."""
    upstream = _Upstream()
    async with _served(upstream) as port:
        callbacks = [RewriteText(), ModerateLater()]
        gate = LLMGate(Forwarder(f"http://127.0.0.1:{port}/v1"), config={}, callbacks=callbacks)
        async with _served(gate) as front:
            seconds = [await _left(upstream, front) for _ in range(rounds)]
    taken = median(seconds)
    return Figure("disconnect", taken * 1e6, taken / LIMIT, 1)


async def _left(upstream: _Upstream, port: int) -> float:
    """Ask for a stream, leave at its first byte, and return the seconds until the upstream was told."""
    upstream.told = anyio.Event()
    head = f"POST {STREAM.path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    async with await anyio.connect_tcp("127.0.0.1", port) as client:
        await client.send(f"{head}content-length: {len(STREAM.body)}\r\n\r\n".encode() + STREAM.body)
        await client.receive()
        start = perf_counter()
    with anyio.fail_after(10):
        await upstream.told.wait()
    return upstream.at - start


@asynccontextmanager
async def _served(app: ASGIApp) -> AsyncIterator[int]:
    """Serve an app with uvicorn in this loop, and give its port."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", ws="none", timeout_graceful_shutdown=1))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with anyio.create_task_group() as group:
            group.start_soon(server.serve, [listener])
            yield listener.getsockname()[1]
            server.should_exit = True
