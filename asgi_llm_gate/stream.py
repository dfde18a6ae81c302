"""A stream's way through the text hooks: whole events in, whole events out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from asgi_llm_gate.deadline import limiter, on_asyncio
from asgi_llm_gate.errors import GateError
from asgi_llm_gate.window import TextTooLongError, WholeText, Window

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence

    from asgi_llm_gate.deadline import Limiter
    from asgi_llm_gate.hooks import Hook
    from asgi_llm_gate.shapes import Channel, Json, Slot, Stream, TextName


class Piece(str):
    """A piece of a streamed text, as `async_post_call_streaming_hook` is given it.

    Attributes:
        channel: ``text``, ``tool_calls``, ``refusal`` or ``reasoning``.
        index: The choice's index.
    """

    __slots__ = ("channel", "index")

    channel: Channel
    index: int  # type: ignore[assignment]  # hides str.index, which no hook needs under this name


class TextHook:
    """One callback's `async_post_call_streaming_hook`, with the channels and the look-ahead it asks for."""

    __slots__ = ("channels", "hook", "window")

    def __init__(self, hook: Hook, window: int) -> None:
        self.hook = hook
        asked: Any = getattr(hook.callback, "streaming_channels", None) or "text"
        self.channels = frozenset([asked] if isinstance(asked, str) else asked)
        own: float | None = getattr(hook.callback, "streaming_window", None)
        self.window = window if own is None else own

    def wants(self, data: Json) -> bool:
        """Tell whether the hook is to see a call's stream: all do but guardrails that were not asked for."""
        wants_stream: Any = getattr(self.hook.callback, "wants_stream", None)
        return wants_stream is None or bool(wants_stream(data))

    def look_ahead(self) -> Window | WholeText | None:
        """Return what holds one text back for the hook; None where nothing does."""
        if self.window == math.inf:
            return WholeText()
        return Window(int(self.window)) if self.window else None


class _Stage:
    """One hook's part in one text.

    Attributes:
        window: What holds the text back for the hook; None where nothing does.
    """

    __slots__ = ("_arguments", "_channel", "_hook", "_index", "_limit", "window")

    def __init__(self, text_hook: TextHook, slot: Slot, arguments: Mapping[str, Any], limit: Limiter) -> None:
        self.window = text_hook.look_ahead()
        self._hook = text_hook.hook
        self._arguments = self._hook.accepted({"response": None, **arguments})
        self._channel = slot.channel
        self._index = slot.index
        self._limit = limit

    def ask(self, text: str) -> Coroutine[Any, Any, str | None]:
        """Call the hook, and return what it makes of a text; None for what it leaves as it is."""
        if "response" in self._arguments:
            self._arguments["response"] = piece = Piece(text)
            piece.channel = self._channel
            piece.index = self._index
        return self._hook.ask(self._arguments, _text_or_none, self._limit)


class _Text:
    """One text of a stream on its way through the hooks of its channel."""

    __slots__ = ("_stages", "slot")

    def __init__(self, slot: Slot, hooks: Sequence[TextHook], arguments: Mapping[str, Any]) -> None:
        limit = limiter(stepping=on_asyncio())
        self.slot = slot
        self._stages = [_Stage(hook, slot, arguments, limit) for hook in hooks if slot.channel in hook.channels]

    async def push(self, piece: str) -> str:
        """Return what may go out after one more piece."""
        for stage in self._stages:
            window = stage.window
            if isinstance(window, WholeText):
                _hold(window, piece)
                return ""
            text = piece if window is None else window.take(piece)
            result = await stage.ask(text)
            if result is not None:
                text = result
            piece = text if window is None else window.settle(text)
            if not piece:
                return ""
        return piece

    async def flush(self) -> str:
        """Return what was held back: each hook's rest goes through those after it."""
        piece = ""
        for stage in self._stages:
            window = stage.window
            asks = bool(piece) or isinstance(window, WholeText)
            piece = piece if window is None else window.flush() + piece
            if piece and asks:
                result = await stage.ask(piece)
                piece = piece if result is None else result
        return piece


class TextEditor:
    """Rewrites the pieces in one stream's chunks.

    Args:
        hooks: The text hooks, in order.
        stream: The stream's reader.
        arguments: What hooks are given beside the piece.
    """

    def __init__(self, hooks: Sequence[TextHook], stream: Stream, arguments: Mapping[str, Any]) -> None:
        self._hooks = [hook for hook in hooks if hook.wants(arguments["data"])]
        self._stream = stream
        self._arguments = arguments
        self._texts: dict[TextName, _Text] = {}
        self._holds = any(hook.window for hook in self._hooks)

    async def edit(self, chunk: Json) -> tuple[list[Json], bool]:
        """Have the hooks look at a chunk.

        Returns:
            Chunks that must go before it, and whether it was changed itself.
        """
        changed = False
        slots = self._stream.slots(chunk)
        for slot in slots:
            given = slot.piece
            piece = await self.edit_piece(slot, given)
            if piece != given:
                slot.put(piece)
                changed = True
        before: list[Json] = []
        for name in self._stream.finishing(chunk) if self._holds else ():
            here = {slot.text: slot for slot in slots}
            async for text, rest in self._flushed(name):
                slot_here = here.get(text.slot.text)
                if slot_here is None:
                    before.append(self._stream.more(text.slot, rest))
                else:
                    slot_here.put(slot_here.piece + rest)
                    changed = True
        return before, changed

    def edit_piece(self, slot: Slot, piece: str) -> Coroutine[Any, Any, str]:
        """Have the hooks look at a piece for a slot; returns what may go out in its place."""
        text = self._texts.get(slot.text)
        if text is None:
            text = self._texts[slot.text] = _Text(slot, self._hooks, self._arguments)
        return text.push(piece)

    async def close(self) -> list[Json]:
        """Return chunks with all text that is still held back."""
        return [self._stream.more(text.slot, rest) async for text, rest in self._flushed(())]

    async def _flushed(self, name: TextName) -> AsyncIterator[tuple[_Text, str]]:
        for key in [key for key in self._texts if key[: len(name)] == name]:
            text = self._texts.pop(key)
            rest = await text.flush()
            if rest:
                yield text, rest


def _hold(whole: WholeText, piece: str) -> None:
    """Keep a piece for a hook that wants the text whole: nothing of it goes out yet."""
    try:
        whole.hold(piece)
    except TextTooLongError as exc:
        raise GateError(502, "A text of the stream is too long to look at", code="response_too_large") from exc


def _text_or_none(result: Any) -> str | None:
    if result is None or isinstance(result, str):
        return result
    if isinstance(result, Exception):
        raise result
    raise TypeError(f"a streaming hook returned {type(result).__name__}; expected a str or None")
