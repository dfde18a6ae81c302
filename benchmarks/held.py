"""How much memory concurrent streams take that the gate holds back: each measured in a process of its own."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

from asgi_llm_gate import CallHooks, LLMGate
from benchmarks.rows import RewriteWindow
from benchmarks.traffic import STREAM

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from asgi_llm_gate import UserAPIKeyAuth

STREAMS = 2_000


class Undecided(CallHooks):
    """Comes to no verdict, so that each stream is held."""

    async def async_moderation_hook(
        self,
        data: dict[str, Any],  # noqa: ARG002
        user_api_key_dict: UserAPIKeyAuth,  # noqa: ARG002
        call_type: str,  # noqa: ARG002
    ) -> None:
        """Wait."""
        await anyio.sleep_forever()


class _App:
    """Sends the begin of a stream, and waits with the rest."""

    def __init__(self) -> None:
        self.waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI's three arguments
        await receive()
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: %b\n\n" % STREAM.unit, "more_body": True})
        self.waiting += 1
        await anyio.sleep_forever()


def memory_of_held(streams: int, rounds: int) -> float:
    """Return the kilobytes that one of so many streams takes beyond what it takes without the gate."""
    extra = [_grown("gate", streams) - _grown("bare", streams) for _ in range(rounds)]
    return float(median(extra)) / streams / 1000


def _grown(which: str, streams: int) -> int:
    command = [sys.executable, "-m", "benchmarks.held", which, str(streams)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1])  # noqa: S603
    return int(done.stdout)


async def grown(which: str, streams: int) -> int:
    """Hold so many streams in this process, and return the bytes of memory that it grew by."""
    bare = _App()
    app: ASGIApp = bare
    if which == "gate":
        app = LLMGate(bare, config={}, callbacks=[Undecided(), RewriteWindow()])
    async with anyio.create_task_group() as group:
        group.start_soon(STREAM.send_to, app)
        await _held(bare, 1)
        before = _resident()
        for _ in range(streams):
            group.start_soon(STREAM.send_to, app)
        await _held(bare, streams + 1)
        after = _resident()
        group.cancel_scope.cancel()
    return after - before


async def _held(app: _App, streams: int) -> None:
    while app.waiting < streams:  # all of this process's time is theirs
        await checkpoint()


def _resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    sys.stdout.write(f"{anyio.run(grown, sys.argv[1], int(sys.argv[2]))}\n")
