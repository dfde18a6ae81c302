"""How costs grow: with the size of a body, with hooks, choices and concurrent streams."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import anyio
import orjson
from anyio.lowlevel import checkpoint

from asgi_llm_gate import LLMGate
from benchmarks.held import memory_of_held
from benchmarks.measure import measure
from benchmarks.results import Curve
from benchmarks.rows import Rewrite, RewriteText, RewriteWindow, Row
from benchmarks.traffic import CALL, STREAM, Traffic, streaming

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from starlette.types import ASGIApp, Receive, Scope, Send

    from asgi_llm_gate import CallHooks

KILOBYTES = (1, 4, 16, 64, 256, 1000)
HOOKS = (1, 2, 4, 8, 16)
CHOICES = (1, 2, 4, 8, 16)
STREAMS = (50, 100, 200, 500, 1000, 2000)

_CHUNKS_OF_EACH = 20

_QUESTION = "And can I still change the address? I am with my sister in Malaga until Friday. "


async def measure_curves(rounds: int) -> list[Curve]:
    """Measure all, each point in so many rounds."""
    return [
        Curve("a call, pre-call hook", "kB of body", "µs", await _costs(KILOBYTES, map(_of_size, KILOBYTES), rounds)),
        Curve("a call", "pre-call hooks", "µs", await _costs(HOOKS, map(_hooked, HOOKS), rounds)),
        Curve("a chunk", "text hooks", "µs", await _costs(HOOKS, map(_text_hooked, HOOKS), rounds)),
        Curve("a chunk, 64-character window", "choices", "µs", await _costs(CHOICES, map(_chosen, CHOICES), rounds)),
        Curve("a chunk, text hook", "concurrent streams", "µs", await _costs(STREAMS, map(_crowded, STREAMS), rounds)),
    ]


def measure_memory(rounds: int) -> Curve:
    """Measure what held streams take."""
    points = tuple((streams, memory_of_held(streams, rounds) * streams / 1000) for streams in STREAMS)
    return Curve("streams held back", "concurrent streams", "MB", points)


async def _costs(
    amounts: Sequence[int], rows: Iterable[tuple[Traffic, Sequence[CallHooks]]], rounds: int
) -> tuple[tuple[float, float], ...]:
    gated = [Row(str(i), LLMGate(t.app, config={}, callbacks=hooks), t, 0) for i, (t, hooks) in enumerate(rows)]
    figures = await measure(gated, rounds)
    return tuple((amount, figure.microseconds) for amount, figure in zip(amounts, figures, strict=True))


def _of_size(kilobytes: int) -> tuple[Traffic, Sequence[CallHooks]]:
    """Ask with messages of a kilobyte each, the last of which makes room for what is around them."""
    around = len(orjson.dumps({"model": "gpt-4o-mini", "messages": []}))
    sizes = [1000] * (kilobytes - 1) + [1000 - around]
    asked = {"model": "gpt-4o-mini", "messages": [_message(size) for size in sizes]}
    return replace(CALL, body=orjson.dumps(asked)), [Rewrite()]


def _message(size: int) -> dict[str, str]:
    """Make a message that takes so many bytes of a list, with its comma."""
    empty = len(orjson.dumps({"role": "user", "content": ""})) + 1
    return {"role": "user", "content": (_QUESTION * (1 + size // len(_QUESTION)))[: size - empty]}


def _hooked(hooks: int) -> tuple[Traffic, Sequence[CallHooks]]:
    return CALL, [Rewrite() for _ in range(hooks)]


def _text_hooked(hooks: int) -> tuple[Traffic, Sequence[CallHooks]]:
    return STREAM, [RewriteText() for _ in range(hooks)]


def _chosen(choices: int) -> tuple[Traffic, Sequence[CallHooks]]:
    chunks = [_chunk(index % choices) for index in range(STREAM.units)]
    return replace(STREAM, app=streaming(chunks)), [RewriteWindow()]


def _chunk(index: int) -> bytes:
    chunk: dict[str, Any] = orjson.loads(STREAM.unit)
    chunk["choices"][0]["index"] = index
    return orjson.dumps(chunk)


def _crowded(streams: int) -> tuple[Traffic, Sequence[CallHooks]]:
    units = streams * _CHUNKS_OF_EACH
    crowd = Crowd(_in_turns, STREAM.path, STREAM.body, unit=STREAM.unit, units=units, streams=streams)
    return crowd, [RewriteText()]


async def _in_turns(scope: Scope, receive: Receive, send: Send) -> None:
    """Let the other streams have their turn after each chunk."""

    async def send_and_rest(message: Any) -> None:
        await send(message)
        await checkpoint()

    await streaming([STREAM.unit] * _CHUNKS_OF_EACH)(scope, receive, send_and_rest)


@dataclass(frozen=True, slots=True)
class Crowd(Traffic):
    """The same request so many times at once.

    Attributes:
        streams: How many times.
    """

    streams: int = 1

    async def send_to(self, app: ASGIApp) -> None:
        """Have an app answer all, until the last one is complete."""
        async with anyio.create_task_group() as group:
            for _ in range(self.streams):
                group.start_soon(Traffic.send_to, self, app)
