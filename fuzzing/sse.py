"""An event stream is cut into the same events however it comes, and nothing of it is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_llm_gate.sse import Decoder, Event, EventTooLargeError, dumps, is_whole, json_of, names_event

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_EVENT = 4_096

SEEDS = (
    b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: [DONE]\n\n',
    b"\xef\xbb\xbf: ping\r\n\r\nevent: x\rdata: a\rdata: b\r\r",
    b'data:{"a":"\\ud83d"}\r\n\r\ndata: \xf0\x9f\n\n',
)


def run(data: bytes) -> None:
    """Decode a stream whole, byte by byte, and cut where its own first byte says."""
    size = data[0] + 1 if data else 1
    whole, one, some = (_events(data, step) for step in (len(data) or 1, 1, size))
    if not whole == one == some:
        raise AssertionError("the cut makes a difference")
    if whole is None:
        return
    if b"".join(event.raw for event in whole) != data:
        raise AssertionError("bytes were lost")
    for event in whole[:-1]:
        if not is_whole(event.raw):
            raise AssertionError("an event has no end")
    for event in whole:
        _check(event)


def _check(event: Event) -> None:
    chunk = json_of(event)
    if chunk is None:
        return
    changed = Event.parse(event.with_data(dumps(chunk)))
    if changed.data != dumps(chunk):
        raise AssertionError("changed data is not read back")
    if names_event(changed) != names_event(event):
        raise AssertionError("an event has lost its name")


def _events(data: bytes, step: int) -> list[Event] | None:
    decoder = Decoder(MAX_EVENT)
    try:
        return [*_fed(decoder, (data[at : at + step] for at in range(0, len(data), step))), *decoder.close()]
    except EventTooLargeError:
        return None


def _fed(decoder: Decoder, chunks: Iterable[bytes]) -> Iterable[Event]:
    for chunk in chunks:
        yield from decoder.feed(chunk)
