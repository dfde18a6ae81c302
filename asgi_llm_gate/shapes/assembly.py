"""A completion put together from the chunks of its stream, in the form of the unstreamed answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgi_llm_gate.shapes.common import objects

if TYPE_CHECKING:
    from asgi_llm_gate.shapes import Json

# The strings that come in pieces; of all others the last says it all.
_PIECEWISE = frozenset(
    {
        *("arguments", "content", "data", "input", "reasoning", "reasoning_content", "refusal", "signature"),
        *("summary", "text", "thinking", "transcript"),
    }
)

# The parts of a content that continue one another.
_PARTS = frozenset({"text", "thinking"})


class _Pieces(list[str]):
    """A string of which more may come."""


class ChoicesAssembly:
    """Takes the chunks of a chat or text completion.

    Args:
        object: What the unstreamed answer calls itself.
        message: A choice's pieces come in its `delta`, and make its `message`.
    """

    def __init__(self, object: str, *, message: bool) -> None:
        self._object = object
        self._message = message
        self._head: Json = {}
        self._choices: dict[int, Json] = {}

    def add(self, chunk: Json) -> None:
        """Take the next chunk."""
        for name, value in chunk.items():
            if name != "choices" and (value or name not in self._head):
                self._head[name] = value
        for choice in objects(chunk.get("choices", [])):
            self._add_choice(choice)

    def _add_choice(self, choice: Json) -> None:
        given: Any = choice.get("index")
        index = given if isinstance(given, int) else 0
        whole = self._choices.get(index)
        if whole is None:
            whole = self._choices[index] = {"index": index}
            if self._message:
                whole["message"] = {"role": "assistant", "content": None}
        for name, value in choice.items():
            if name == "delta" and isinstance(value, dict):
                _merge(whole["message"], value)
            elif name not in {"delta", "message", "index"}:
                _merge(whole, {name: value})

    def result(self) -> Json | None:
        """Return the completion, or None if nothing came."""
        if not self._head and not self._choices:
            return None
        choices = [_finished(self._choices[index]) for index in sorted(self._choices)]
        head = {name: value for name, value in self._head.items() if name not in _STREAM_FIELDS}
        return {**head, "object": self._object, "choices": choices}


# What only chunks have.
_STREAM_FIELDS = frozenset({"obfuscation", "stream_options"})


def _merge(whole: Json, more: Json) -> None:
    for name, value in more.items():
        if name in _PIECEWISE and isinstance(value, str):
            _add_piece(whole, name, value)
        elif isinstance(value, list):
            _add_list(whole, name, value)
        elif isinstance(value, dict):
            if not isinstance(whole.get(name), dict):
                whole[name] = {}
            _merge(whole[name], value)
        elif value is not None or name not in whole:
            whole[name] = value


def _add_piece(whole: Json, name: str, piece: str) -> None:
    """Add a piece to a string, or to a list of parts that has begun, as Mistral's answers follow their thinking."""
    known = whole.get(name)
    if isinstance(known, _Pieces):
        known.append(piece)
    elif isinstance(known, list):
        _extend(known, [{"type": "text", "text": piece}] if piece else [])
    else:
        whole[name] = _Pieces([piece])


def _add_list(whole: Json, name: str, more: list[Any]) -> None:
    known = whole.get(name)
    if isinstance(known, _Pieces) or not isinstance(known, list):
        whole[name] = []
    if isinstance(known, _Pieces):
        _add_piece(whole, name, "".join(known))
    _extend(whole[name], more)


def _extend(whole: list[Any], more: list[Any]) -> None:
    for item in more:
        known = _continued(whole, item)
        if known is not None:
            _merge(known, item)
        elif isinstance(item, dict):
            whole.append({})
            _merge(whole[-1], item)
        else:
            whole.append(item)


def _continued(whole: list[Any], item: Any) -> Json | None:
    """Return what an item of a list goes on with: that of its index, or the last if it is a part of that kind."""
    if not isinstance(item, dict):
        return None
    index = item.get("index")
    if index is not None:
        return next((known for known in objects(whole) if known.get("index") == index), None)
    last = whole[-1] if whole else None
    goes_on = isinstance(last, dict) and item.get("type") in _PARTS and last.get("type") == item.get("type")
    return last if goes_on else None


def _finished(value: Any) -> Any:
    """Return a copy with strings for pieces; tool calls, which have no index in an answer, lose theirs."""
    if isinstance(value, _Pieces):
        return "".join(value)
    if isinstance(value, list):
        return [_finished(item) for item in value]
    if isinstance(value, dict):
        copy = {name: _finished(item) for name, item in value.items()}
        for call in objects(copy.get("tool_calls", [])):
            call.pop("index", None)
        return copy
    return value
