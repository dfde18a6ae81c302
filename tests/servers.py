"""Serve an app over a real socket while a test talks to it."""

from __future__ import annotations

import os
import socket
import time
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import anyio
import hypercorn.asyncio
import hypercorn.trio
import uvicorn
from anyio.from_thread import start_blocking_portal
from granian.server.embed import Server as Granian

from asgi_llm_gate.serving import listen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anyio.abc import TaskStatus
    from starlette.types import ASGIApp, Receive, Scope, Send


class Switch:
    """An app that can be changed while it is served."""

    app: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class Server(uvicorn.Server):
    """Serves until `stop` is set, where uvicorn's own loop looks at the clock for a flag, and leaves signals alone."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.stop = anyio.Event()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.stop.wait()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop as uvicorn does, which looks at its connections and tasks ten times a second, and more often."""
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        with anyio.fail_after(10):
            while self.server_state.connections or self.server_state.tasks:  # noqa: ASYNC110  # uvicorn sets no event
                await anyio.sleep(0.001)
        await self.lifespan.shutdown()


async def _run(config: uvicorn.Config, listener: socket.socket, *, task_status: TaskStatus[Server]) -> None:
    server = Server(config)
    try:
        config.load()
        server.lifespan = config.lifespan_class(config)
        await server.startup([listener])
    except SystemExit:
        raise RuntimeError("the app did not start") from None
    task_status.started(server)
    await server.main_loop()
    await server.shutdown([listener])


@contextmanager
def serve(
    app: ASGIApp,
    *,
    http: Literal["h11", "httptools"] = "h11",
    lifespan: Literal["auto", "on", "off"] = "auto",
    root_path: str = "",
) -> Iterator[str]:
    """Serve `app` with uvicorn in a thread on a free port, and give its base URL, without a slash at the end.

    Leaving the block lets open requests finish and runs the app's shutdown.

    Raises:
        RuntimeError: The app's own start-up failed.
    """
    config = uvicorn.Config(app, http=http, lifespan=lifespan, root_path=root_path, log_config=None)
    with listen("127.0.0.1", 0) as listener, start_blocking_portal("asyncio") as portal:
        finished, server = portal.start_task(_run, config, listener)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            portal.call(server.stop.set)
            finished.result()


@contextmanager
def serve_hypercorn(app: ASGIApp, *, backend: Literal["asyncio", "trio"], root_path: str = "") -> Iterator[str]:
    """Serve `app` as `serve` does, with hypercorn."""
    config = hypercorn.Config()
    config.root_path = root_path
    run: Any = {"asyncio": hypercorn.asyncio.serve, "trio": hypercorn.trio.serve}[backend]
    with listen("127.0.0.1", 0) as listener, start_blocking_portal(backend) as portal:
        config.bind = [f"fd://{os.dup(listener.fileno())}"]  # which hypercorn closes
        stop = portal.call(anyio.Event)
        finished = portal.start_task_soon(partial(run, app, config, shutdown_trigger=stop.wait))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            portal.call(stop.set)
            finished.result()


@contextmanager
def serve_granian(app: ASGIApp, *, root_path: str = "") -> Iterator[str]:
    """Serve `app` as `serve` does, with granian, which opens its own socket and says to nobody when it has."""

    async def make() -> Granian:
        interface: Any = "asgi"
        prefix = root_path or None
        return Granian(app, port=port, interface=interface, url_path_prefix=prefix, log_enabled=False)

    with socket.socket() as reserved, start_blocking_portal("asyncio") as portal:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # as granian's own
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        server = portal.call(make)
        finished = portal.start_task_soon(server.serve)
        try:
            assert any(_opens(port) for _ in range(10_000)), "it did not open its socket"
            yield f"http://127.0.0.1:{port}"
        finally:
            portal.call(server.stop)
            finished.result()


def _opens(port: int) -> bool:
    time.sleep(0.001)
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


SERVERS: dict[str, Callable[..., AbstractContextManager[str]]] = {
    "h11": partial(serve, http="h11"),
    "httptools": partial(serve, http="httptools"),
    "hypercorn": partial(serve_hypercorn, backend="asyncio"),
    "hypercorn-trio": partial(serve_hypercorn, backend="trio"),
    "granian": serve_granian,
}
