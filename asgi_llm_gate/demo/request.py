"""What the echo model reads from a request, each field checked as OpenAI's servers check it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from asgi_llm_gate.errors import GateError

if TYPE_CHECKING:
    from asgi_llm_gate.shapes import Json

_TOKEN = re.compile(r"\s*\S+|\s+")


def model(data: Json) -> str:
    """Return the name of the model.

    Raises:
        GateError: 400, there is none.
    """
    name = data.get("model")
    if not isinstance(name, str) or not name:
        raise invalid("model", "must be the name of a model")
    return name


def count(data: Json, name: str, default: int, most: int) -> int:
    """Return a number from 1 to ``most``.

    Raises:
        GateError: 400, the field is anything else.
    """
    number = data.get(name)
    if number is None:
        return default
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= most:
        raise invalid(name, f"must be a whole number from 1 to {most}")
    return number


def one_of(data: Json, name: str, *choices: str) -> str:
    """Return one of the choices; the first if the field is absent.

    Raises:
        GateError: 400, the field is anything else.
    """
    value = data.get(name)
    if value is None:
        return choices[0]
    if value not in choices:
        raise invalid(name, f"must be one of {', '.join(choices)}")
    return str(value)


def inputs(data: Json, name: str) -> list[str]:
    """Return the texts of a field that holds a string, token ids, or a list of either; token ids are spelled out.

    Raises:
        GateError: 400, the field holds nothing, or anything else.
    """
    value = data.get(name)
    items = [value] if isinstance(value, str) or _is_ids(value) else value
    if not isinstance(items, list) or not items or not all(isinstance(item, str) or _is_ids(item) for item in items):
        raise invalid(name, "must be a string, token ids, or a list of either that is not empty")
    return [item if isinstance(item, str) else " ".join(map(str, item)) for item in items]


def tokens(text: str) -> list[str]:
    """Cut a text into the model's tokens, each a word with the space before it."""
    return _TOKEN.findall(text)


def usage(prompt: str, completion: int = 0) -> Json:
    """Return the tokens used by a prompt and as many tokens of completion."""
    read = len(tokens(prompt))
    return {"prompt_tokens": read, "completion_tokens": completion, "total_tokens": read + completion}


def invalid(param: str, problem: str) -> GateError:
    """Make the 400 for a field that can't be served."""
    return GateError(400, f"'{param}' {problem}", param=param, code="invalid_value")


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int for item in value)
