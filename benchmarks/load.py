"""Closed-loop load over keep-alive connections: each asks again as soon as it is answered."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, cast

from httptools import HttpParserError, HttpResponseParser

if TYPE_CHECKING:
    from collections.abc import Callable

# Seconds of load before anything is counted, and those that the first answers may take.
_WARM_UP = 0.25
_PATIENCE = 60.0


class LoadError(Exception):
    """What was to be measured does not answer as it should."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where load goes.

    Attributes:
        port: A port of 127.0.0.1.
        request: The bytes of one request, head and body.
    """

    port: int
    request: bytes


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of it.

    Attributes:
        rate: Answers a second.
        busy: The share of the time for which the target's process had a core.
    """

    rate: float
    busy: float


def request(path: str, body: bytes, **headers: str) -> bytes:
    """Write a POST request of JSON."""
    head = {"host": "127.0.0.1", "content-type": "application/json", **headers, "content-length": str(len(body))}
    lines = [f"POST {path} HTTP/1.1", *(f"{name.replace('_', '-')}: {value}" for name, value in head.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


class _Client(asyncio.Protocol):
    """One connection: asks, and asks again when an answer is complete."""

    def __init__(self, ask: bytes, answered: Callable[[], None], failed: Callable[[str], None]) -> None:
        self._ask = ask
        self._answered = answered
        self._failed = failed
        self._parser = HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._ask)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except HttpParserError as exc:
            self._failed(f"not HTTP: {exc}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._failed(f"the connection was lost: {exc}")

    def on_message_complete(self) -> None:
        if (status := self._parser.get_status_code()) != 200:
            self._failed(f"status {status}")
        self._answered()
        self._transport.write(self._ask)


class _Answer(asyncio.Protocol):
    """One answer, with its body."""

    def __init__(self, ask: bytes, complete: asyncio.Future[tuple[int, bytes]]) -> None:
        self._ask = ask
        self._complete = complete
        self._parser = HttpResponseParser(self)
        self._body = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(self._ask)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except HttpParserError as exc:
            self._complete.set_exception(LoadError(f"not HTTP: {exc}"))

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._complete.set_result((self._parser.get_status_code(), bytes(self._body)))


async def ask(target: Target) -> bytes:
    """Ask once, and return the answer's body.

    Raises:
        LoadError: It is not answered with 200.
    """
    loop = asyncio.get_running_loop()
    complete: asyncio.Future[tuple[int, bytes]] = loop.create_future()
    transport, _ = await loop.create_connection(partial(_Answer, target.request, complete), "127.0.0.1", target.port)
    try:
        async with asyncio.timeout(_PATIENCE):
            status, body = await complete
    except TimeoutError:
        raise LoadError("there was no answer") from None
    finally:
        transport.close()
    if status != 200:
        raise LoadError(f"status {status}: {body[:500]!r}")
    return body


async def load(
    target: Target, *, connections: int, seconds: float, cpu: Callable[[], float], warm_up: float = _WARM_UP
) -> Measured:
    """Keep so many connections busy, and measure for so long from an answer to an answer.

    Args:
        target: Where it goes.
        connections: How many calls are under way at any time.
        seconds: How long is measured.
        cpu: Returns the seconds of CPU time that the target's process has had.
        warm_up: Seconds of load before anything is counted.

    Raises:
        LoadError: An answer is missing, or is not 200.
    """
    counter = _Counter(warm_up, seconds, cpu)
    loop = asyncio.get_running_loop()
    transports: list[asyncio.BaseTransport] = []
    try:
        for _ in range(connections):
            client = partial(_Client, target.request, counter.answered, counter.failed)
            transports.append((await loop.create_connection(client, "127.0.0.1", target.port))[0])
        async with asyncio.timeout(_PATIENCE + seconds):
            await counter.done
    except TimeoutError:
        raise LoadError("there were no answers") from None
    finally:
        counter.done.cancel()
        for transport in transports:
            cast("asyncio.Transport", transport).abort()
    return counter.done.result()


class _Counter:
    """Counts answers from the first one after the warm-up to the first one after the end."""

    def __init__(self, warm_up: float, seconds: float, cpu: Callable[[], float]) -> None:
        self.done: asyncio.Future[Measured] = asyncio.get_running_loop().create_future()
        self._begins = perf_counter() + warm_up
        self._seconds = seconds
        self._cpu = cpu
        self._answers = -1

    def answered(self) -> None:
        now = perf_counter()
        if now < self._begins or self.done.done():
            return
        self._answers += 1
        if not self._answers:
            self._begins, self._had = now, self._cpu()
        elif now - self._begins >= self._seconds:
            taken = now - self._begins
            self.done.set_result(Measured(self._answers / taken, (self._cpu() - self._had) / taken))

    def failed(self, why: str) -> None:
        if not self.done.done():
            self.done.set_exception(LoadError(why))
