"""A streamed reply that hooks look into: decoded into events, edited, and ended in good form whatever happens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import orjson

from asgi_llm_gate import sse
from asgi_llm_gate.errors import GateError, Rejection, error_fields
from asgi_llm_gate.reply import without_bytes_headers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import Message, Send

    from asgi_llm_gate.shapes import Json, Stream
    from asgi_llm_gate.stream import TextEditor

# Events that only open a stream wait for the first that says something, so that a refusal there has its own status;
# but not for more than so many.
_MAX_PREAMBLE = 16


class EventReply:
    """One stream from the app to the client.

    Only whole events go out, so that an end can be put behind any of them.

    Args:
        start: The app's response start.
        send: Where messages go.
        stream: The reader of the endpoint's streams.
        editor: What the text hooks are called through; None if there are none.
        failed: Is told of what a hook raised. Returns what to tell the client, or None if the client has its answer.
        max_event_bytes: The most bytes one event may have.
    """

    def __init__(
        self,
        start: Message,
        send: Send,
        *,
        stream: Stream,
        editor: TextEditor | None,
        failed: Callable[[Exception, bool], Awaitable[Exception | None]],
        max_event_bytes: int,
    ) -> None:
        self._start: Message | None = without_bytes_headers(start)
        self._send = send
        self._stream = stream
        self._editor = editor
        self._failed = failed
        self._decoder = sse.Decoder(max_event_bytes)
        self._out: list[bytes] = []
        self._preamble = True
        self._done = False
        self._closed = False
        self._sending = anyio.Lock(fast_acquire=True)
        self.error: Json | None = None

    async def __call__(self, message: Message) -> None:
        """Take one body message of the app."""
        more = message.get("more_body", False)
        try:
            for event in self._decoder.feed(message.get("body", b"")):
                await self.event(event)
            if not more:
                await self.finish()
        except Exception as exc:
            await self.fail(exc)
        else:
            await self.flush(last=not more)

    async def event(self, event: sse.Event) -> None:
        """Take one event."""
        if self._closed:
            return
        if event.is_done:
            await self._release()
            self._done = True
        chunk = _decoded(event)
        if chunk is None:
            self._put(event.raw, opens=False)
        else:
            await self.chunk(chunk, event)

    async def chunk(self, chunk: Json, event: sse.Event | None) -> None:
        """Take one chunk: that of an event, whose bytes go out if nobody changes it, or one of a hook's own."""
        if chunk.get("error"):
            self.error = chunk
            await self._release()
        opens = self._preamble and self._stream.is_preamble(chunk)
        changed = event is None
        if self._editor is not None:
            before, edited = await self._editor.edit(chunk)
            changed = changed or edited
            for extra in before:
                self._put_chunk(extra)
        changed = self._stream.seen(chunk) or changed
        if event is None:
            self._put(sse.encode(chunk, self._stream.event_name(chunk)), opens=opens)
        else:
            self._put(event.with_data(orjson.dumps(chunk)).raw if changed else event.raw, opens=opens)

    async def finish(self) -> None:
        """Take the end of the app's stream."""
        for event in self._decoder.close():
            await self.event(event)
        await self._release()

    async def flush(self, *, last: bool = False) -> None:
        """Send what has come together, unless it only opens the stream."""
        async with self._sending:
            if self._closed or (self._preamble and not last and len(self._out) <= _MAX_PREAMBLE):
                return
            self._closed = last
            await self._send_out(last=last)

    async def fail(self, exc: Exception) -> None:
        """End the stream for what a hook raised: by an answer of its own if nothing has gone out, else in its form."""
        if self._closed:
            return
        async with self._sending:
            self._closed = True
            started = self._start is None
            if not started:
                self._out.clear()
            answer = await self._failed(exc, started)
            if answer is not None:
                self._out += self._end(answer)
                await self._send_out(last=True)

    async def stop(self) -> None:
        """End the stream because a hook has ended it: every open choice finishes, and nothing more comes."""
        await self._release()
        for chunk in self._stream.message_end("", "stop"):
            self._put_chunk(chunk)
        if self._stream.ends_with_done and not self._done:
            self._put(sse.DONE, opens=False)
        await self.flush(last=True)

    def _end(self, exc: Exception) -> list[bytes]:
        if isinstance(exc, Rejection):
            chunks = self._stream.message_end(exc.message, "content_filter")
        else:
            assert isinstance(exc, GateError)  # noqa: S101  # what `failed` returns
            chunks = self._stream.error_end(error_fields(exc))
        events = [sse.encode(chunk, self._stream.event_name(chunk)) for chunk in chunks]
        return [*events, sse.DONE] if self._stream.ends_with_done else events

    async def _release(self) -> None:
        if self._editor is not None:
            for chunk in await self._editor.close():
                self._put_chunk(chunk)

    def _put_chunk(self, chunk: Json) -> None:
        self._stream.seen(chunk)
        self._put(sse.encode(chunk, self._stream.event_name(chunk)), opens=False)

    def _put(self, event: bytes, *, opens: bool) -> None:
        self._out.append(event)
        self._preamble = self._preamble and opens

    async def _send_out(self, *, last: bool) -> None:
        if self._start is not None:
            start, self._start = self._start, None
            await self._send(start)
        body = b"".join(self._out)
        self._out.clear()
        if body or last:
            await self._send({"type": "http.response.body", "body": body, "more_body": not last})


def _decoded(event: sse.Event) -> Json | None:
    if event.data is None:
        return None
    try:
        chunk: Any = orjson.loads(event.data)
    except orjson.JSONDecodeError:
        return None
    return chunk if isinstance(chunk, dict) else None
