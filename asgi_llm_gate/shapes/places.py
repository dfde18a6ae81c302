"""Where the texts of a request or a whole response stand, in any shape: each can be read, and another put there.

The names under which text stands mean the same on every endpoint, so one walk serves them all. Images, audio, files,
embeddings and token ids are no text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asgi_llm_gate.shapes.common import TEXT_REQUEST_FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from asgi_llm_gate.shapes import Json

_REQUEST = (
    *("messages", *TEXT_REQUEST_FIELDS, "items", "thread", "additional_messages", "tool_outputs"),
    *("additional_instructions", "description", "content", "prediction", "tools", "functions"),
)
_RESPONSE = ("choices", "output", "content", "text", "results")

# Under which names objects inside of these carry text, or objects that do.
_INSIDE = (
    *("content", "text", "refusal", "reasoning_content", "reasoning", "reasoning_details", "thinking", "value"),
    *("message", "messages", "tool_calls", "function_call", "function", "custom", "arguments", "input", "output"),
    *("summary", "description", "server_description", "title", "context", "code", "reason", "results", "stdout"),
    *("stderr", "transcript", "audio", "document", "source", "variables"),
)


@dataclass(slots=True)
class Place:
    """A place where a text stands: ``holder[key]``.

    Attributes:
        holder: The object or list that has it.
        key: Under which name, or at which index.
        owner: The nearest object around it that may carry `logprobs`.
    """

    holder: Any
    key: Any
    owner: Json

    @property
    def text(self) -> str:
        """The text that stands there."""
        text: str = self.holder[self.key]
        return text

    def put(self, text: str) -> None:
        """Put another text there; log probabilities, which spell the old one out, go."""
        self.holder[self.key] = text
        logprobs = self.owner.get("logprobs")
        if logprobs and isinstance(logprobs, dict | list):  # a request's is a switch or a number
            self.owner["logprobs"] = [] if isinstance(logprobs, list) else None


def request_places(data: Json) -> Iterator[Place]:
    """Yield the places of all text in a request that the model reads, none of it empty, in order."""
    yield from _fields(data, _REQUEST, data)


def response_places(response: Json) -> Iterator[Place]:
    """Yield the places of all text in a whole response that the model wrote, likewise."""
    yield from _fields(response, _RESPONSE, response)


def _fields(holder: Json, names: Iterable[str], owner: Json) -> Iterator[Place]:
    for name in names:
        if name not in holder:
            continue
        if name == "variables" or (name == "input" and _is_free(holder)):
            yield from _leaves(holder, name, owner)
        else:
            yield from _places(holder, name, owner)


def _places(holder: Any, key: Any, owner: Json) -> Iterator[Place]:
    value = holder[key]
    if isinstance(value, str):
        if value:
            yield Place(holder, key, owner)
    elif isinstance(value, list):
        for index in range(len(value)):
            yield from _places(value, index, owner)
    elif isinstance(value, dict):
        is_source = value.get("type") == "text" and "data" in value  # of a document
        owner = value if "logprobs" in value else owner
        yield from _fields(value, ("data",) if is_source else _INSIDE, owner)


def _is_free(block: Json) -> bool:
    """Tell whether a block's input is a tool's arguments, which have names of their own."""
    return isinstance(block["input"], dict) and str(block.get("type")).endswith("tool_use")


def _leaves(holder: Any, key: Any, owner: Json) -> Iterator[Place]:
    """Yield the places of every text in a tool's arguments, or of a prompt's variables: all of it may be text."""
    value = holder[key]
    if isinstance(value, str):
        if value:
            yield Place(holder, key, owner)
    elif isinstance(value, dict | list):
        for inner in value if isinstance(value, dict) else range(len(value)):
            yield from _leaves(value, inner, owner)
