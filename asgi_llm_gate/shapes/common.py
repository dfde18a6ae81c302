"""What the shapes share: reading text out of parts, counting choices, usage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from asgi_llm_gate.shapes import Json

_TEXT_FIELDS = ("text", "refusal", "content", "arguments", "input", "output", "summary")

# Where requests carry text, `messages` and tools aside. Servers read more of these than OpenAI's endpoints name.
TEXT_REQUEST_FIELDS = ("input", "prompt", "suffix", "instructions", "system", "query", "documents")

# OpenAI's limit for `n`.
MAX_N = 128

# A rejection has one choice for each prompt and each `n`, and each repeats the message: more would only cost memory.
MAX_CHOICES = 2_048


def texts(value: Any) -> Iterator[str]:
    """Yield the text of a string, of a content part, or of a list of them.

    Parts of any type count by the fields that carry text in one of OpenAI's, Anthropic's or Cohere's shapes; images,
    audio and token ids have no text.
    """
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif isinstance(value, dict):
        for name in _TEXT_FIELDS:
            if name in value:
                yield from texts(value[name])
        if isinstance(value.get("variables"), dict):
            yield from texts(list(value["variables"].values()))


def fields(data: Json, names: Iterable[str]) -> Iterator[str]:
    """Yield the texts of a request's fields."""
    for name in names:
        yield from texts(data.get(name))


def joined(value: Any) -> str:
    """Return the text of one message's content: its parts follow one another as the model reads them."""
    return "".join(texts(value))


def lines(parts: Iterator[str]) -> str:
    """Join the texts of a request, each on its own line, so that words of two messages do not run together."""
    return "\n".join(part for part in parts if part)


def objects(value: Any) -> Iterator[Json]:
    """Yield the objects of a list, or the one object that stands where a list may."""
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, dict):
            yield item


def is_text(value: Any) -> bool:
    """Tell whether a value is a text that says something."""
    return isinstance(value, str) and bool(value)


def index_of(item: Json, key: str = "index") -> int:
    """Return an index that a chunk or a part of one has; 0 where there is none."""
    index: Any = item.get(key)
    return index if isinstance(index, int) else 0


def choice_count(data: Json, prompts: int = 1) -> int:
    """Return how many choices a client expects: ``n`` for each prompt."""
    n = data.get("n")
    wanted = n if isinstance(n, int) and 1 <= n <= MAX_N else 1
    return min(wanted * max(prompts, 1), MAX_CHOICES)


def wants_usage(data: Json) -> bool:
    """Tell whether a stream is to end with a usage chunk."""
    options = data.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def no_usage() -> Json:
    """Return the usage of a call that reached no model."""
    return {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def model_of(data: Json) -> str:
    """Return the model's name as the client gave it."""
    model = data.get("model")
    return model if isinstance(model, str) else ""
