"""The longest that one accepted body keeps the loop from everything else, from its arrival to the app's call."""

from __future__ import annotations

import gc
from dataclasses import dataclass, replace
from time import process_time
from typing import TYPE_CHECKING, Any

from asgi_llm_gate import LLMGate
from benchmarks.rows import Rewrite
from benchmarks.traffic import CALL

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator, Mapping

    from starlette.types import Receive, Scope, Send

BOUND = 50.0

_LARGEST = 10_000_000


def _filled(item: bytes, most: int) -> bytes:
    """Make a body of so many items, or of those that the largest body has room for."""
    return b'{"a":[%b0]}' % ((item + b",") * min(most, (_LARGEST - 10) // (len(item) + 1)))


def _text(piece: bytes) -> bytes:
    return b'{"a":"%b"}' % (piece * ((_LARGEST - 8) // len(piece)))


def _objects(digits: int, most: int) -> bytes:
    return b'{"a":[%b]}' % b",".join(b'{"%0*x":0}' % (digits, number) for number in range(most))


def _keys(digits: int, most: int) -> bytes:
    return b"{%b}" % b",".join(b'"%0*x":0' % (digits, number) for number in range(most))


# The most of everything that is let through: each is near the largest size, or the largest weight of its values.
BODIES: Mapping[str, bytes] = {
    "499,900 digits": _filled(b"0", 499_900),
    "300,000 tokens": _filled(b"100256", 300_000),
    "whole numbers of 19 digits": _filled(b"9223372036854775807", 499_900),
    "floats of 17 digits": _filled(b"1.2345678901234567e-300", 499_900),
    "floats of 700 digits": _filled(b"0." + b"1" * 700, 499_900),
    "numbers of 309 digits": _filled(b"1" * 309, 499_900),
    "a number of 10 MB": b'{"a":0.%b}' % (b"1" * (_LARGEST - 8)),
    "empty arrays": _filled(b"[]", 45_400),
    "nests of 100 levels": _filled(b"[" * 100 + b"]" * 100, 490),
    "objects": _objects(1, 33_000),
    "keys": _keys(1, 99_900),
    "keys of 90 letters": _keys(90, 99_900),
    "250,000 texts": _filled(b'"x"', 249_900),
    "texts of commas": _filled(b'"' + b"," * 36 + b'"', 249_900),
    "texts of 12 Chinese letters": _filled(f'"{12 * chr(0x4E2D)}"'.encode(), 249_900),
    "texts of escapes": _filled(b'"' + b"\\n" * 18 + b'"', 249_900),
    "10 MB of letters": _text(b"x"),
    "10 MB of Chinese": _text("\u4e2d".encode()),
    "10 MB of letters and an emoji": _text(b"x")[:-6] + "\U0001f600".encode() + b'"}',
    "10 MB of line ends": _text(b"\\n"),
    "10 MB of escaped letters": _text(b"\\u4e2d"),
    "10 MB of commas": _text(b","),
    "10 MB of brackets": _text(b"[{"),
    "10 MB of escaped quotes": _text(b'\\"'),
    "10 MB of escaped quotes and commas": _text(b'\\",'),
    "10 MB of backslashes and commas": _text(b"\\\\,"),
    "10 MB of spaces": b'{"a":1%b}' % (b" " * (_LARGEST - 7)),
    "metadata of texts": b'{"metadata":%b}' % _filled(b'"' + b"\\n" * 16 + b'"', 249_900),
}


@dataclass(frozen=True, slots=True)
class Stall:
    """How long one body holds the loop.

    Attributes:
        name: The body.
        milliseconds: The longest turn, the shortest such of all rounds.
    """

    name: str
    milliseconds: float


class _Turns:
    """Awaits a coroutine, and notes its longest turn in seconds of this process's own time."""

    def __init__(self, work: Coroutine[Any, Any, None]) -> None:
        self._work = work
        self.longest = 0.0

    def __await__(self) -> Generator[Any, Any, None]:
        turns = self._work.__await__()
        while True:
            start = process_time()
            try:
                awaited = next(turns)
            except StopIteration:
                return
            finally:
                self.longest = max(self.longest, process_time() - start)
            yield awaited


async def measure_stalls(rounds: int) -> list[Stall]:
    """Send each body through a gate whose hook rewrites the call, in so many rounds."""
    return [Stall(name, min([await _longest(body) for _ in range(rounds)]) * 1000) for name, body in BODIES.items()]


async def _longest(body: bytes) -> float:
    called = False

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal called
        called = True
        await CALL.app(scope, receive, send)

    gc.collect()
    turns = _Turns(replace(CALL, body=body).send_to(LLMGate(app, config={}, callbacks=[Rewrite()])))
    await turns
    if not called:
        raise ValueError("the body was not accepted")
    return turns.longest
