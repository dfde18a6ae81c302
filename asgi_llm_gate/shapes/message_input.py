"""What Anthropic's messages endpoints read, and the one of them that answers with no text of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgi_llm_gate.shapes.common import TEXT_REQUEST_FIELDS, fields, lines, objects
from asgi_llm_gate.shapes.plain import Response, open_assembly, open_stream, rejection, rejection_chunks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asgi_llm_gate.shapes import Json

__all__ = ["Response", "open_assembly", "open_stream", "prompt_text", "rejection", "rejection_chunks"]

_OTHER_FIELDS = tuple(name for name in TEXT_REQUEST_FIELDS if name != "system")

# Where a content block carries text, what it quotes or encloses aside.
_BLOCK_FIELDS = ("thinking", "title", "context")


def prompt_text(data: Json) -> str:
    """Return the text of the system prompt, of the messages' blocks and of the tools' descriptions, a line each."""
    return lines(_prompt_parts(data))


def _prompt_parts(data: Json) -> Iterator[str]:
    yield from _content_parts(data.get("system"))
    messages = data.get("messages")
    for message in messages if isinstance(messages, list) else [messages]:
        yield from _content_parts(message.get("content") if isinstance(message, dict) else message)
    for tool in objects(data.get("tools")):
        yield from fields(tool, ("description",))
    yield from fields(data, _OTHER_FIELDS)


def _content_parts(content: Any) -> Iterator[str]:
    """Yield a content's text blocks, which run on, and then what its other blocks carry."""
    blocks = content if isinstance(content, list) else [content]
    yield "".join(_text(block) for block in blocks)
    for block in objects(blocks):
        yield from fields(block, _BLOCK_FIELDS)
        yield from _leaves(block.get("input"))
        yield from _content_parts(block.get("content"))
        yield from _source_parts(block.get("source"))


def _text(block: Any) -> str:
    text = block.get("text") if isinstance(block, dict) else block
    return text if isinstance(text, str) else ""


def _source_parts(source: Any) -> Iterator[str]:
    """Yield the text of a document's source, or the name of a search result's."""
    if isinstance(source, dict):
        if source.get("type") == "text":
            yield from fields(source, ("data",))
        yield from _content_parts(source.get("content"))
    else:
        yield from fields({"source": source}, ("source",))


def _leaves(value: Any) -> Iterator[str]:
    """Yield the names, texts and numbers of a tool's input: anything in it may be what the model is told."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield name
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif value is not None:
        yield str(value)
