"""A streamed reply that hooks look into: decoded into events, edited, and ended in good form whatever happens."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from asgi_llm_gate import sse
from asgi_llm_gate.alike import Alike
from asgi_llm_gate.errors import GateError, Rejection, error_fields
from asgi_llm_gate.record import Record, as_record
from asgi_llm_gate.reply import without_bytes_headers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from starlette.types import Message, Send

    from asgi_llm_gate.children import Work
    from asgi_llm_gate.nest import Nest
    from asgi_llm_gate.shapes import Json, Stream
    from asgi_llm_gate.stream import TextEditor

# Events that only open a stream wait for the first that says something, so that a refusal there has its own status;
# but not for more than so many.
_MAX_PREAMBLE = 16


class EventWriter:
    """What of a stream goes to the client: whole events only, so that an end can be put behind any of them.

    Args:
        start: The response start, sent with the first events.
        send: Where messages go.
        stream: The reader of the endpoint's streams.
    """

    def __init__(self, start: Message, send: Send, stream: Stream) -> None:
        self._start: Message | None = start
        self._send = send
        self._stream = stream
        self._out: list[bytes] = []
        self._preamble = True
        self._names: bool | None = None
        self._whole = True
        self._sending = False
        self._sent: anyio.Event | None = None
        self.closed = False

    @property
    def started(self) -> bool:
        """The response start has been sent."""
        return self._start is None

    @property
    def opens(self) -> bool:
        """No more than the opening of the stream has come yet."""
        return self._preamble

    def put(self, event: bytes) -> None:
        """Add an event to what goes out next; nothing, once the stream has its end."""
        if self.closed:
            return
        if not self._whole:
            # The app's stream ended inside of an event: what follows must not run into it.
            self._out.append(b"\n\n")
        self._out.append(event)
        self._whole = sse.is_whole(event)
        self._preamble = False

    def put_chunk(self, chunk: Json, event: sse.Event | None = None, *, changed: bool = True) -> None:
        """Add a chunk: as the event that brought it, its very bytes where nothing changed, or as one of its own."""
        if self.closed:
            return
        opens = self._preamble and self._stream.is_preamble(chunk)
        changed = self._stream.seen(chunk) or changed
        if event is None:
            self.put(sse.encode(chunk, self._stream.event_name(chunk) if self._names is not False else None))
        else:
            if self._names is None:
                # Where the app's events have no names, those of the gate have none either.
                self._names = sse.names_event(event)
            self.put(event.with_data(sse.dumps(chunk)) if changed else event.raw)
        self._preamble = opens

    async def flush(self, *, last: bool = False) -> None:
        """Send what has come together, unless it only opens the stream."""
        if self._sending:
            await self._turn()
        waits = self._preamble and self._start is not None and len(self._out) <= _MAX_PREAMBLE
        if not self.closed and (last or not waits):
            self.closed = last
            await self._send_out(last=last)

    async def end(self, resolve: Callable[[], Awaitable[Exception | None]]) -> None:
        """End the stream early, behind what has gone out; what has come together goes nowhere.

        Args:
            resolve: Returns what to tell the client in the stream's own form, or None if it has been answered.
        """
        if self._sending:
            await self._turn()
        if self.closed:
            return
        self.closed = True
        exc = await resolve()
        self._out.clear()
        if exc is not None:
            self._out.extend(self._end_of(exc))
            await self._send_out(last=True)

    async def _turn(self) -> None:
        """Wait while another task sends: an end may come from another than the app's."""
        while self._sending:
            self._sent = self._sent or anyio.Event()
            await self._sent.wait()

    def _end_of(self, exc: Exception) -> Iterator[bytes]:
        if isinstance(exc, Rejection):
            chunks = self._stream.message_end(exc.message, "content_filter")
        else:
            assert isinstance(exc, GateError)  # noqa: S101  # what `resolve` returns
            chunks = self._stream.error_end(error_fields(exc))
        for chunk in chunks:
            self._stream.seen(chunk)
            yield sse.encode(chunk, self._stream.event_name(chunk))
        if self._stream.ends_with_done:
            yield sse.DONE

    async def _send_out(self, *, last: bool) -> None:
        self._sending = True
        try:
            if self._start is not None:
                start, self._start = self._start, None
                await self._send(start)
            body = b"".join(self._out)
            self._out.clear()
            if body or last:
                await self._send({"type": "http.response.body", "body": body, "more_body": not last})
        finally:
            self._sending = False
            if self._sent is not None:
                self._sent.set()
                self._sent = None


class EventReply:
    """One stream from the app to the client.

    Args:
        start: The app's response start.
        send: Where messages go.
        stream: The reader of the endpoint's streams.
        editor: What the text hooks are called through; None if there are none.
        failed: Is told of what a hook raised. Returns what to tell the client, or None if it has been answered.
        errored: Is told of an error of the app's own that it reports in its stream.
        beside: Starts a task beside the app.
        max_event_bytes: The most bytes one event may have.
    """

    def __init__(
        self,
        start: Message,
        send: Send,
        *,
        stream: Stream,
        editor: TextEditor | None,
        failed: Callable[[Exception], Awaitable[Exception | None]],
        errored: Callable[[Any], Awaitable[None]],
        beside: Callable[[Work], object],
        max_event_bytes: int,
    ) -> None:
        self._stream = stream
        self._editor = editor
        self._failed = failed
        self._errored = errored
        self._beside = beside
        self._decoder = sse.Decoder(max_event_bytes)
        self._alike = Alike(stream)
        self._nest: Nest | None = None
        self._kind = Record
        self._complete = False
        # What the app and its hooks still say goes nowhere.
        self._over = False
        self.writer = EventWriter(without_bytes_headers(start), send, stream)

    def nest_in(self, nest: Nest, kind: type[Record]) -> None:
        """Hand the chunks through iterator hooks, as records of a kind, before the text hooks see them."""
        self._nest = nest
        self._kind = kind

    async def __call__(self, message: Message) -> None:
        """Take one body message of the app."""
        if self._over:
            return
        more = message.get("more_body", False)
        try:
            for event in self._decoder.feed(message.get("body", b"")):
                alike = self._alike.strings(event.raw)
                if alike is None:
                    await self._event(event)
                else:
                    await self._piece(event, *alike)
            if not more:
                for event in self._decoder.close():
                    await self._event(event)
                await self._all_said()
        except Exception as exc:
            await self.fail(exc)
        else:
            if not self._over:
                self._over = not more
                await self.writer.flush(last=not more)

    async def fail(self, exc: Exception) -> None:
        """End the stream for what a hook raised.

        Not in the app's task: that is cancelled soon, and failure hooks and a slow client may take longer.
        """
        self._over = True
        done = anyio.Event()
        self._beside(partial(self._end, exc, done))
        await done.wait()

    async def _end(self, exc: Exception, done: anyio.Event) -> None:
        if isinstance(exc, sse.EventTooLargeError):
            exc = GateError(502, "An event of the stream is too large to look at", code="response_too_large")
        # What was said before goes out, however the app's messages were cut.
        await self.writer.flush()
        await self.writer.end(partial(self._failed, exc))
        done.set()

    async def broken(self, error: GateError) -> None:
        """Take a break of the app in mid-stream: let go of what is held, and say so; the stream stays unended."""
        if self.writer.closed or not self.writer.started:
            return
        await self._release()
        for chunk in self._stream.error_end(error_fields(error)):
            self.writer.put_chunk(chunk)
        await self.writer.flush()

    async def emit(self, chunk: Record) -> None:
        """Take one chunk from the iterator hooks: one they were given, or one of their own."""
        if self._over:
            return
        source: sse.Event | None = getattr(chunk, "_event", None)
        data = sse.dumps(chunk)
        changed = source is None or getattr(chunk, "_before", None) != data
        # A copy, for a hook may look at its chunk again, or yield it again, and must not find it edited.
        copy = sse.json_of(sse.Event(data, data))
        assert copy is not None  # noqa: S101  # it is what was just written
        await self._chunk(copy, source, changed=changed)
        await self.writer.flush()

    async def stop(self) -> bool:
        """Take the iterator hooks' end. Where the app's stream goes on, finish every open choice.

        Returns:
            True if it was early.
        """
        if self._complete or self._over:
            return False
        await self._release()
        for chunk in self._stream.message_end("", "stop"):
            self.writer.put_chunk(chunk)
        if self._stream.ends_with_done:
            self.writer.put(sse.DONE)
        self._over = True
        await self.writer.flush(last=True)
        return True

    async def _event(self, event: sse.Event) -> None:
        if self._over:
            return
        chunk = sse.json_of(event)
        if chunk is None:
            if event.is_done or not sse.is_whole(event.raw):
                await self._all_said()
            self.writer.put(event.raw)
        elif error := self._stream.error_of(chunk):
            # The app's own error is no chunk to iterate over; what was said before it comes first.
            await self._errored(error)
            await self._all_said()
            await self._chunk(chunk, event)
        elif self._nest is None:
            if self._editor is not None and not self.writer.opens:
                self._alike.see(event, chunk)
            await self._chunk(chunk, event)
        else:
            record = as_record(chunk, self._kind)
            record._event, record._before = event, sse.dumps(record)  # noqa: SLF001  # kept off the wire
            await self._nest.push(record)

    async def _piece(self, event: sse.Event, given: str, noise: str) -> None:
        """Take an event that is like the one before in all but its piece."""
        if self._over:
            return
        pattern, editor = self._alike.pattern, self._editor
        assert pattern is not None  # noqa: S101  # there is a piece
        assert editor is not None  # noqa: S101  # only chunks that are edited are compared
        piece = await editor.edit_piece(pattern.slot, given)
        self.writer.put(event.raw if piece == given else pattern.changed.filled(piece, noise))

    async def _chunk(self, chunk: Json, event: sse.Event | None, *, changed: bool = False) -> None:
        if self._editor is not None:
            before, edited = await self._editor.edit(chunk)
            changed = changed or edited
            for extra in before:
                self.writer.put_chunk(extra)
        self.writer.put_chunk(chunk, event, changed=changed)

    async def _all_said(self) -> None:
        """Let the hooks know that the app says nothing more, and let go of what they hold."""
        if not self._complete:
            self._complete = True
            if self._nest is not None:
                await self._nest.push(None)
        await self._release()

    async def _release(self) -> None:
        if self._editor is not None:
            for chunk in await self._editor.close():
                self.writer.put_chunk(chunk)
