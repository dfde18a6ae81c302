"""What limits cost a call: counted in memory, and in a Redis of the benchmark's own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import anyio

from asgi_llm_gate import DualCache, LLMGate, UserAPIKeyAuth
from asgi_llm_gate.builtin import ParallelRequestLimiter
from asgi_llm_gate.cache import RedisCache
from benchmarks.measure import Figure, measure
from benchmarks.rows import Row
from benchmarks.traffic import CALL

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PROGRAM = "redis-server"

_NAMES = ("a call under six limits", "a call under six limits, on Redis")

_MANY = 1_000_000_000


def measured() -> list[str]:
    """Return the rows that can be measured: those in Redis only where a `redis-server` is installed."""
    return [name for name in _NAMES if "Redis" not in name or shutil.which(PROGRAM)]


def measure_limiter(rounds: int) -> list[Figure]:
    """Time calls under limits in so many rounds."""
    if len(measured()) < len(_NAMES):
        sys.stderr.write(f"NOT MEASURED, for {PROGRAM} is not installed: limits on Redis\n")
        return anyio.run(_measure, [DualCache()], rounds)
    with _redis() as url:
        return anyio.run(_measure, [DualCache(), DualCache(redis_cache=RedisCache(url, timeout=10))], rounds)


async def _measure(caches: Sequence[DualCache], rounds: int) -> list[Figure]:
    rows = [Row(name, _gate(cache), CALL, None) for name, cache in zip(measured(), caches, strict=True)]
    figures = await measure(rows, rounds)
    for cache in caches:
        if cache.redis_cache is not None:
            await cache.redis_cache.aclose()
    return figures


def _gate(cache: DualCache) -> LLMGate:
    kinds = ("max_parallel_requests", "rpm_limit", "tpm_limit")
    names = [f"{scope}{kind}" for scope in ("", "user_") for kind in kinds]
    caller = UserAPIKeyAuth(api_key="sk-bench", user_id="bench", **dict.fromkeys(names, _MANY))

    async def who(_request: Any, _api_key: str) -> UserAPIKeyAuth:
        return caller

    return LLMGate(CALL.app, config={}, callbacks=[ParallelRequestLimiter()], custom_auth=who, cache=cache)


@contextmanager
def _redis() -> Iterator[str]:
    """Run a Redis that keeps nothing, on a socket in the file system."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "redis.sock"
        flags = ["--port", "0", "--unixsocket", str(path), "--save", "", "--appendonly", "no", "--dir", folder]
        process = subprocess.Popen([PROGRAM, *flags], stdout=subprocess.PIPE, text=True)  # noqa: S603  # flags of our own
        try:
            assert process.stdout is not None  # noqa: S101  # it is a pipe
            if not any("eady to accept connections" in line for line in process.stdout):
                raise RuntimeError(f"{PROGRAM} did not start")
            yield f"unix://{path}"
        finally:
            process.kill()
            process.communicate()
