"""Streams put together again: the response that the same chunks would have made unstreamed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgi_llm_gate.shapes.common import objects

if TYPE_CHECKING:
    from asgi_llm_gate.shapes import Json

# What of a chunk is the same in the whole response, or stands in its last chunks.
_HEAD = ("id", "created", "model", "system_fingerprint", "service_tier", "usage")


class ChoiceAssembly:
    """Puts chunks with `choices` together.

    Args:
        kind: The response's `object`.
        said: Where a choice says something: ``message`` for chat, which streams it as ``delta``; None for the choice
            itself.
    """

    def __init__(self, kind: str, said: str | None) -> None:
        self._kind = kind
        self._said = said
        self._head: Json = {}
        self._choices: dict[int, Json] = {}

    def add(self, chunk: Json) -> None:
        """Take the next chunk."""
        self._head |= {name: chunk[name] for name in _HEAD if chunk.get(name) is not None}
        if "error" in chunk:
            self._head["error"] = chunk["error"]
        for piece in objects(chunk.get("choices", [])):
            index = piece.get("index", 0)
            choice = self._choices.setdefault(index, {"index": index})
            fields = {name: value for name, value in piece.items() if name not in ("index", "delta", "message")}
            _merge(choice, fields)
            if self._said is not None:
                _merge(choice.setdefault(self._said, {}), piece.get("delta") or {})

    def result(self) -> Json | None:
        """Return the whole response, or None where there was no chunk of one."""
        if not self._head and not self._choices:
            return None
        choices = [self._choices[index] for index in sorted(self._choices)]
        return {"object": self._kind, **self._head, "choices": choices}


def _merge(whole: Json, piece: Json) -> None:
    """Add the fields of a piece: texts grow, lists grow or, where their items have an index, item by item."""
    for name, value in piece.items():
        known = whole.get(name)
        if isinstance(value, list):
            _merge_list(whole.setdefault(name, []) if known is None else known, value)
        elif isinstance(value, dict):
            _merge(whole.setdefault(name, {}) if known is None else known, value)
        elif isinstance(value, str) and isinstance(known, str) and name not in _CONSTANT:
            whole[name] = known + value
        elif value is not None or name not in whole:
            whole[name] = value


# Texts that are whole wherever they stand.
_CONSTANT = frozenset({"finish_reason", "id", "role", "type"})


def _merge_list(whole: list[Any], pieces: list[Any]) -> None:
    for piece in pieces:
        index = piece.get("index") if isinstance(piece, dict) else None
        known = next((item for item in whole if index is not None and item.get("index") == index), None)
        if known is None:
            known = {} if isinstance(piece, dict) else piece
            whole.append(known)
        if isinstance(piece, dict):
            _merge(known, piece)
