"""One of Anthropic's messages put together from the events of its stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from asgi_llm_gate.shapes.common import index_of
from asgi_llm_gate.shapes.message_stream import BY_DELTA, inner

if TYPE_CHECKING:
    from asgi_llm_gate.shapes import Json


class _Block:
    """A content block and the pieces its deltas brought, by where they stand in one."""

    def __init__(self, block: Json) -> None:
        self._block = dict(block)
        self._pieces: dict[str, list[str]] = {}

    def add(self, delta: Json) -> None:
        """Take the next delta; of a type not known nothing is kept."""
        kind = BY_DELTA.get(str(delta.get("type")))
        if kind is not None:
            self._pieces.setdefault(kind.key, []).append(str(delta.get(kind.key, "")))
        elif delta.get("type") == "signature_delta":
            self._block["signature"] = delta.get("signature")
        elif delta.get("type") == "citations_delta":
            self._block["citations"] = [*(self._block.get("citations") or []), delta.get("citation")]

    def result(self) -> Json:
        """Return the block as an unstreamed message has it."""
        block = dict(self._block)
        for key, pieces in self._pieces.items():
            text = "".join(pieces)
            if key != "partial_json":
                block[key] = f"{block.get(key) or ''}{text}"
            elif text:
                block["input"] = _parsed(text)
        return block


class MessageAssembly:
    """Takes the events of a message."""

    def __init__(self) -> None:
        self._message: Json = {}
        self._blocks: dict[int, _Block] = {}

    def add(self, chunk: Json) -> None:
        """Take the next event."""
        step = chunk.get("type")
        index = index_of(chunk)
        if step == "message_start":
            self._message = dict(inner(chunk, "message"))
        elif step == "content_block_start":
            self._blocks[index] = _Block(inner(chunk, "content_block"))
        elif step == "content_block_delta" and index in self._blocks:
            self._blocks[index].add(inner(chunk, "delta"))
        elif step == "message_delta":
            counted = {name: count for name, count in inner(chunk, "usage").items() if count is not None}
            usage = {**inner(self._message, "usage"), **counted}
            self._message.update(inner(chunk, "delta"), usage=usage)

    def result(self) -> Json | None:
        """Return the message, or None if nothing came."""
        if not self._message and not self._blocks:
            return None
        return {**self._message, "content": [self._blocks[index].result() for index in sorted(self._blocks)]}


def _parsed(text: str) -> Any:
    """Return a tool's input; one that has been cut stays text."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
