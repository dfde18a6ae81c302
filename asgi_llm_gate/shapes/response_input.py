"""What the Responses API's endpoints read, and those of them that answer with no text of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_llm_gate.shapes.common import TEXT_REQUEST_FIELDS, fields, joined, lines, objects, texts
from asgi_llm_gate.shapes.plain import Response, open_assembly, open_stream, rejection, rejection_chunks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asgi_llm_gate.shapes import Json

__all__ = ["Response", "open_assembly", "open_stream", "prompt_text", "rejection", "rejection_chunks"]

# Where the items of an input carry text, the content of messages and the outputs of tools aside.
_ITEM_FIELDS = ("text", "refusal", "summary", "arguments", "input", "code", "reason", "results")

# The output of shells comes in chunks of these.
_SHELL_FIELDS = ("stdout", "stderr")


def prompt_text(data: Json) -> str:
    """Return the text of the input's items, the instructions, the prompt's variables and the tools, a line each."""
    return lines(_prompt_parts(data))


def _prompt_parts(data: Json) -> Iterator[str]:
    yield from fields(data, ("instructions", "prompt"))
    for given in (data.get("input"), data.get("items")):  # a conversation's are `items`
        for item in given if isinstance(given, list) else [given]:
            yield from _item_parts(item) if isinstance(item, dict) else texts(item)
    for tool in objects(data.get("tools")):
        yield from fields(tool, ("description", "server_description"))
    yield from fields(data, (name for name in TEXT_REQUEST_FIELDS if name not in {"input", "instructions", "prompt"}))


def _item_parts(item: Json) -> Iterator[str]:
    for name in ("content", "output"):
        yield joined(item.get(name))
    for chunk in objects(item.get("output")):
        yield from fields(chunk, _SHELL_FIELDS)
    yield from fields(item, _ITEM_FIELDS)
