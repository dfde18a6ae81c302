"""What the app says on a WebSocket, on its way through the text hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgi_llm_gate import sse
from asgi_llm_gate.errors import GateError, Rejection, error_fields
from asgi_llm_gate.rejections import as_error
from asgi_llm_gate.stream import TextEditor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from starlette.types import Message

    from asgi_llm_gate.shapes import Dialogue, Json, Key, Stream
    from asgi_llm_gate.stream import TextHook

# Responses that may be under way on one socket.
MAX_RESPONSES = 1_000


class _Response:
    """One response: its stream, and the editor of its texts.

    Attributes:
        dropped: A hook has ended it: what the app still says of it goes nowhere.
    """

    def __init__(self, stream: Stream, editor: TextEditor) -> None:
        self.stream = stream
        self.editor = editor
        self.dropped = False


class AppEvents:
    """The responses on one socket.

    Args:
        dialogue: The events' protocol.
        hooks: The text hooks.
        arguments: Returns what hooks are given beside the piece.
        failed: Is told of what a hook raised; returns what to tell the client.
        cancel: Is given the event that asks the app to stop a response.
        max_bytes: The most a message may have.
    """

    def __init__(
        self,
        dialogue: Dialogue,
        hooks: Sequence[TextHook],
        *,
        arguments: Callable[[], Mapping[str, Any]],
        failed: Callable[[Exception], Awaitable[Exception]],
        cancel: Callable[[Json], None],
        max_bytes: int,
    ) -> None:
        self._dialogue = dialogue
        self._hooks = hooks
        self._arguments = arguments
        self._failed = failed
        self._cancel = cancel
        self._max_bytes = max_bytes
        self._streams: dict[Key, Stream] = {}
        self._responses: dict[Key, _Response] = {}

    async def edited(self, message: Message) -> list[Message]:
        """Return what the client gets for one `websocket.send`: that very message where no hook changed it.

        Raises:
            GateError: 502, the message is too large, or there are too many responses.
        """
        text: str | None = message.get("text")
        raw = message.get("bytes") or b"" if text is None else text.encode("utf-8", "surrogatepass")
        if len(raw) > self._max_bytes:
            raise GateError(502, "An event of the app is too large to look at", code="response_too_large")
        event = sse.json_of(sse.Event(raw, raw))
        key = None if event is None else self._dialogue.response_of(event, self._streams)
        if event is None or key is None:
            return [message]
        before = await self._let_go(key) if self._dialogue.begins(event) else []
        response = self._response(key)
        ends = self._dialogue.ends(event, key)
        if ends:
            self._forget(key)
        if response.dropped:
            return [*before, message] if event["type"] == "error" else before
        more, changed = await self._edited(key, response, event, at_work=not ends)
        before += [_message(chunk) for chunk in more]
        if response.dropped:
            return before
        return [*before, _message(event, as_text=text is not None) if changed else message]

    async def rest(self) -> list[Message]:
        """Return what is still held back, before the socket closes."""
        return [message for key in list(self._responses) for message in await self._let_go(key)]

    def _response(self, key: Key) -> _Response:
        response = self._responses.get(key)
        if response is None:
            if len(self._responses) >= MAX_RESPONSES:
                raise GateError(502, "Too many responses at once to look at", code="too_many_responses")
            stream = self._streams[key] = self._dialogue.new_stream(key)
            response = _Response(stream, TextEditor(self._hooks, stream, self._arguments()))
            self._responses[key] = response
        return response

    def _forget(self, key: Key) -> None:
        del self._responses[key], self._streams[key]

    async def _edited(self, key: Key, response: _Response, event: Json, *, at_work: bool) -> tuple[list[Json], bool]:
        """Have the hooks look at an event.

        Returns:
            The events that go before it, or, where the response is dropped now, in its place; whether it was changed.
        """
        try:
            before, changed = await response.editor.edit(event)
        except Exception as exc:
            return await self._end(key, response, exc, at_work=at_work), True
        own = self._own(key, response, before)
        return own, response.stream.seen(event) or changed

    async def _let_go(self, key: Key) -> list[Message]:
        """Return what a response that gets no more events still holds back."""
        response = self._responses.get(key)
        if response is None:
            return []
        self._forget(key)
        if response.dropped:
            return []
        try:
            chunks = self._own(key, response, await response.editor.close())
        except Exception as exc:
            chunks = await self._end(key, response, exc, at_work=False)
        return [_message(chunk) for chunk in chunks]

    async def _end(self, key: Key, response: _Response, exc: Exception, *, at_work: bool) -> list[Json]:
        """Return the events that end a response for what a hook raised, and have the app stop it if it is at work."""
        response.dropped = True
        told = await self._failed(exc)
        cancel = self._dialogue.cancel(key)
        if at_work and cancel is not None:
            self._cancel(cancel)
        if isinstance(told, Rejection):
            return self._own(key, response, response.stream.message_end(told.message, "content_filter"))
        return self._own(key, response, response.stream.error_end(error_fields(as_error(told))))

    def _own(self, key: Key, response: _Response, chunks: Iterable[Json]) -> list[Json]:
        """Return events of the gate's own, which the stream is told of, each before the next is made."""
        own = []
        for chunk in chunks:
            response.stream.seen(chunk)
            own.append(self._dialogue.addressed(chunk, key))
        return own


def _message(chunk: Json, *, as_text: bool = True) -> Message:
    data = sse.dumps(chunk)
    return {"type": "websocket.send", **({"text": data.decode()} if as_text else {"bytes": data})}
