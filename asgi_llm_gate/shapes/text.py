"""Text completions: ``POST /v1/completions``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgi_llm_gate.record import Record
from asgi_llm_gate.shapes.common import (
    TEXT_REQUEST_FIELDS,
    choice_count,
    fields,
    is_text,
    lines,
    model_of,
    no_usage,
    wants_usage,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asgi_llm_gate.shapes import Json
from asgi_llm_gate.shapes import Slot
from asgi_llm_gate.shapes.assembly import ChoicesAssembly
from asgi_llm_gate.shapes.choices import ChoiceStream


class Response(Record):
    """A text completion or one of its chunks."""

    known = frozenset(
        {
            *("choices", "created", "finish_reason", "id", "index", "logprobs", "model", "object"),
            *("system_fingerprint", "text", "usage"),
        }
    )


def prompt_text(data: Json) -> str:
    """Return the prompts and the suffix, a line each; prompts given as token ids have no text."""
    return lines(fields(data, (*TEXT_REQUEST_FIELDS, "messages")))


def rejection(data: Json, message: str, *, id: str, created: int) -> Json:
    """Return a text completion in which every choice of every prompt says the message."""
    return {
        **_head(data, id, created),
        "choices": [_choice(index, message, "stop") for index in range(_choices(data))],
        "usage": no_usage(),
    }


def rejection_chunks(data: Json, message: str, *, id: str, created: int) -> Iterator[Json]:
    """Yield one chunk for every choice, which says all and finishes, and the usage chunk if one was asked for."""
    head = _head(data, id, created)
    usage: Json = {"usage": None} if wants_usage(data) else {}
    for index in range(_choices(data)):
        yield {**head, "choices": [_choice(index, message, "stop")], **usage}
    if usage:
        yield {**head, "choices": [], "usage": no_usage()}


class TextStream(ChoiceStream):
    """The chunks of a text completion."""

    def __init__(self) -> None:
        super().__init__("text_completion")

    def add_slots(self, choice: Json, index: int, found: list[Slot]) -> None:
        """Add the place of a choice's text."""
        if is_text(choice.get("text")):
            found.append(Slot(choice, "text", (index, "text"), "text", index, choice))

    def piece_choice(self, slot: Slot, text: str) -> Json:
        """Return a choice with a piece of text."""
        return _choice(slot.index, text, None)

    def message_choice(self, index: int, message: str) -> Json:
        """Return a choice that says a message."""
        return _choice(index, message, None)

    def first_choice(self, index: int) -> Json:
        """Return a choice that says nothing yet."""
        return _choice(index, "", None)

    def last_choice(self, index: int, finish_reason: str) -> Json:
        """Return a choice that says nothing and finishes."""
        return _choice(index, "", finish_reason)


open_stream = TextStream


def _head(data: Json, id: str, created: int) -> Json:
    return {"id": f"cmpl-{id}", "object": "text_completion", "created": created, "model": model_of(data)}


def _choice(index: int, text: str, finish_reason: str | None) -> Json:
    return {"text": text, "index": index, "logprobs": None, "finish_reason": finish_reason}


def _choices(data: Json) -> int:
    prompt: Any = data.get("prompt")
    tokens = isinstance(prompt, list) and all(isinstance(item, int) for item in prompt)
    return choice_count(data, len(prompt) if isinstance(prompt, list) and not tokens else 1)


def open_assembly() -> ChoicesAssembly:
    """Return what puts a text completion together."""
    return ChoicesAssembly("text_completion", message=False)
