"""Server-sent events, read and written as bytes: no awaiting, no clock (WHATWG HTML, "Server-sent events").

A decoder keeps each event's raw bytes, so that what nobody changes goes on exactly as it came, and gives out an event
only when it is whole. How the stream was cut into messages makes no difference: an event whose last line end is a CR
waits for the byte that says whether an LF belongs to it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

DONE = b"data: [DONE]\n\n"

# A comment for idle connections. With a blank line behind it, it would be an event to clients that have seen an `id`.
COMMENT = b": keep-alive\n"

_BOM = b"\xef\xbb\xbf"
_LF, _CR = b"\n\r"
_LINE_ENDS = (b"\n", b"\r")
_LINE_END = re.compile(rb"\r\n|\n|\r")

# Two line ends in a row. The groups are atomic: one CRLF is never read as two.
_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
# The same where there is no CR, as from nearly all servers: ten times as quick to find.
_LF_BLANK_LINE = re.compile(rb"\n\n")


class EventTooLargeError(ValueError):
    """An event is larger than a decoder may hold."""


@dataclass(slots=True)
class Event:
    """One event with its bytes as they came, up to and with its blank line.

    Attributes:
        raw: Those bytes.
        data: The values of its `data` fields, joined by LF; None if it has none, as a comment or a further blank
            line has not.
        plain: It is no more than ``data: …`` and a blank line, as nearly all servers write it.
    """

    raw: bytes
    data: bytes | None
    plain: bool = field(default=False, compare=False)

    @classmethod
    def parse(cls, raw: bytes) -> Event:
        """Read an event from its bytes."""
        line = _only_line(raw)
        if line is not None:
            return cls(raw, line, True)
        fields = [_field(line) for line in _LINE_END.split(raw.removeprefix(_BOM))]
        data = [value for name, value in fields if name == b"data"]
        return cls(raw, b"\n".join(data) if data else None)

    @property
    def is_done(self) -> bool:
        """The event is OpenAI's end of a stream."""
        return self.data is not None and self.data.strip() == b"[DONE]"

    def with_data(self, data: bytes) -> bytes:
        """Return the event's bytes with other data, in one line; its other fields and comments stay.

        Args:
            data: Without line ends.
        """
        if self.plain:
            return b"data: %b\n\n" % data
        lines = []
        replaced = False
        for line in _LINE_END.split(self.raw.removeprefix(_BOM)):
            if _field(line)[0] != b"data":
                lines.append(line)
            elif not replaced:
                lines.append(b"data: " + data)
                replaced = True
        return b"".join(line + b"\n" for line in lines if line) + b"\n"


def is_whole(raw: bytes) -> bool:
    """Tell whether an event has its blank line; the last of a stream may not."""
    if raw.endswith(b"\n\n"):
        return True
    end = raw[-4:]
    line = end[: -2 if end.endswith(b"\r\n") else -1]
    return end.endswith(_LINE_ENDS) and (not line or line.endswith(_LINE_ENDS))


def _only_line(raw: bytes) -> bytes | None:
    """Return the data of a plain event; None for others."""
    if not raw.startswith(b"data: ") or not raw.endswith(b"\n\n"):
        return None
    line = raw[6:-2]
    return None if _LF in line or _CR in line else line


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name, value.removeprefix(b" ")


class Decoder:
    """Cuts a byte stream into events.

    Args:
        max_event_bytes: The most bytes that one event may have.
    """

    def __init__(self, max_event_bytes: int) -> None:
        self._max_event_bytes = max_event_bytes
        self._buffer = bytearray()
        self._has_cr = False
        self._searched = 0

    def feed(self, chunk: bytes) -> Iterable[Event]:
        """Take the next bytes and return the events they complete; all of them must be taken.

        Raises:
            EventTooLargeError: An event is larger than allowed; those before it have been given.
        """
        line = None if self._buffer or len(chunk) > self._max_event_bytes else _only_line(chunk)
        return self._cut(chunk) if line is None else (Event(chunk, line, True),)

    def _cut(self, chunk: bytes) -> Iterator[Event]:
        self._buffer += chunk
        self._has_cr = self._has_cr or _CR in chunk
        begin = 0
        while (end := self._end_of_event(begin)) is not None:
            self._check(end - begin)
            yield Event.parse(bytes(self._buffer[begin:end]))
            begin = end
        del self._buffer[:begin]
        # A blank line has four bytes at most, of which three may be here already.
        self._searched = max(0, len(self._buffer) - 3)
        self._check(len(self._buffer))

    def _check(self, size: int) -> None:
        if size > self._max_event_bytes:
            raise EventTooLargeError(f"an event has more than {self._max_event_bytes} bytes")

    def _end_of_event(self, begin: int) -> int | None:
        """Return where the event that begins here ends; None if that is not known yet."""
        buffer = self._buffer
        blank_line = _BLANK_LINE if self._has_cr else _LF_BLANK_LINE
        match = _LINE_END.match(buffer, begin) or blank_line.search(buffer, max(begin, self._searched))
        if match is None or (match.end() == len(buffer) and buffer.endswith(b"\r")):
            return None
        return match.end()

    def close(self) -> list[Event]:
        """Return what is left at the end of the stream: an event that no blank line ended."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._searched = 0
        return [Event.parse(rest)] if rest else []


def json_of(event: Event) -> dict[str, Any] | None:
    """Return the JSON object that an event carries, or None."""
    if event.data is None:
        return None
    try:
        chunk = orjson.loads(event.data)
    except orjson.JSONDecodeError:
        chunk = _as_clients_read(event.data)
    return chunk if isinstance(chunk, dict) else None


def _as_clients_read(data: bytes) -> Any:
    """Read what is no strict JSON, and yet comes through in one client or another, so that hooks see all that users do.

    Servers send halves of surrogate pairs and of UTF-8 sequences where tokens cut them, and infinite logprobs.
    """
    try:
        return json.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


def dumps(chunk: Mapping[str, Any] | str) -> bytes:
    """Return compact JSON; half a surrogate pair is written as an escape, as it came."""
    try:
        return orjson.dumps(chunk)
    except orjson.JSONEncodeError:
        return json.dumps(chunk, separators=(",", ":")).encode()


def encode(chunk: Mapping[str, Any], name: str | None = None) -> bytes:
    """Return one chunk as an event: compact JSON in a single data line, under a name if one is given."""
    event = b"data: %b\n\n" % dumps(chunk)
    return b"event: %b\n%b" % (name.encode(), event) if name else event


def names_event(event: Event) -> bool:
    """Tell whether an event has a name of its own."""
    return any(_field(line)[0] == b"event" for line in _LINE_END.split(event.raw.removeprefix(_BOM)))
