"""From a form's parts to the fields that hooks are given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgi_llm_gate.errors import GateError
from asgi_llm_gate.form_headers import invalid_form
from asgi_llm_gate.uploads import Upload

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asgi_llm_gate.forms import Part

# Fields that decide what a call is: of each a form may have one, under its plain name, and as text.
_DECISIVE = frozenset({"model", "purpose", "response_format", "stream", "user"})

_WORDS = {"true": True, "false": False}


def form_data(parts: Iterable[Part]) -> dict[str, Any]:
    """Return the fields and files of a form: a list for what is repeated, or named as a list.

    Raises:
        GateError: 400, a field is there under two names, a decisive one is repeated or no plain text, or `stream` is
            neither ``true`` nor ``false``.
    """
    names: dict[str, str] = {}
    data: dict[str, Any] = {}
    for part in parts:
        key = part.key
        if names.setdefault(key, part.name) != part.name:
            raise invalid_form(f"The form has both {key!r} and '{key}[]'", key)
        _check_decisive(part, repeated=key in data)
        if part.name != key:
            data.setdefault(key, []).append(part.value)
        elif key not in data:
            data[key] = part.value
        elif isinstance(data[key], list):
            data[key].append(part.value)
        else:
            data[key] = [data[key], part.value]
    if "stream" in data:
        data["stream"] = _stream(data["stream"])
    return data


def without_files(data: Any) -> Any:
    """Return a form's data with the names of files in place of the files."""
    if isinstance(data, dict):
        return {key: without_files(value) for key, value in data.items()}
    if isinstance(data, list):
        return [without_files(value) for value in data]
    return data.filename if isinstance(data, Upload) else data


def _check_decisive(part: Part, *, repeated: bool) -> None:
    base = part.name.partition("[")[0]
    if base not in _DECISIVE:
        return
    if repeated or part.name != base:
        raise invalid_form(f"The form may have one field {base!r}", base)
    if isinstance(part.value, Upload):
        raise invalid_form(f"The field {base!r} is a file", base)


def _stream(word: str) -> bool:
    if word not in _WORDS:
        raise GateError(400, "'stream' must be true or false", param="stream", code="invalid_type")
    return _WORDS[word]
