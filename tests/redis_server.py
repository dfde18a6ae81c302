"""A real Redis for tests: on a free port, without persistence, killed, stopped and started again as a test likes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.services import require

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAM = "redis-server"


class RedisServer:
    """A Redis of its own process, or with a configuration a sentinel; as a context, it runs within the block.

    Attributes:
        port: Where it listens, also after it was started again.
        url: The same as a URL.
    """

    def __init__(self, *options: str, configuration: Path | None = None) -> None:
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            self.port: int = reserved.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"
        self._options = options
        self._sentinel = configuration
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, empty, and return when it takes commands."""
        if self._sentinel is not None:
            self._run(str(self._sentinel), "--sentinel", "--port", str(self.port))
            return
        flags = {"port": str(self.port), "bind": "127.0.0.1", "save": "", "appendonly": "no", "loglevel": "notice"}
        self._run(*(part for name, value in flags.items() for part in (f"--{name}", value)), *self._options)

    def _run(self, *arguments: str) -> None:
        self._process = subprocess.Popen([PROGRAM, *arguments], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        is_ready = any("Ready to accept connections" in line or "+monitor" in line for line in self._process.stdout)
        assert is_ready, f"{PROGRAM} did not start"

    def refresh(self) -> None:
        """Empty it, and start it if it does not run."""
        if self._process is None:
            self.start()
        with self.client() as client:
            client.flushall()

    def kill(self) -> None:
        """End it at once, with all it held; a stopped one too."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Let it take connections and commands within the block, and answer none."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)

    def connected(self) -> int:
        """Return how many connections it has, this question's not counted."""
        with self.client() as client:
            return int(client.info("clients")["connected_clients"]) - 1

    def client(self) -> redis.Redis:
        """Return a client for the test's own use; texts are `str`."""
        return redis.Redis(port=self.port, decode_responses=True, retry=Retry(NoBackoff(), 0))


@pytest.fixture(scope="session")
def session_redis() -> Iterator[RedisServer]:
    require(PROGRAM)
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_server(session_redis: RedisServer) -> RedisServer:
    """A Redis that runs and is empty; the test may kill it."""
    session_redis.refresh()
    return session_redis
