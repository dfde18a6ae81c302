"""Fields that a call must carry: `user`, whatever stands in for it, and any others a deployment asks for."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Any

from asgi_llm_gate.errors import GateError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# Letters and symbols that are drawn as nothing: the Hangul fillers and the blank Braille pattern.
_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")

# Control, format, surrogate and unassigned characters (Unicode general categories).
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Cn"})


def is_visible(text: str) -> bool:
    """Tell whether a reader would see anything of a text."""
    return any(not char.isspace() and char not in _BLANK and unicodedata.category(char) not in _UNSEEN for char in text)


def require_user(data: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return the first of the named fields that says who the user is.

    Args:
        data: The request body.
        names: Field names, dotted for nested ones.

    Raises:
        GateError: 400, none of them is a string with a visible character; ``param`` is the first name.
    """
    for name in names:
        value = find(data, name)
        if isinstance(value, str) and is_visible(value):
            return value
    raise _missing(names[0], " or ".join(f"'{name}'" for name in names))


def require(data: Mapping[str, Any], names: Iterable[str]) -> None:
    """Refuse a body that lacks one of the named fields, dotted for nested ones.

    A string needs a visible character, a list or an object at least one item.

    Raises:
        GateError: 400, ``param`` is the name.
    """
    for name in names:
        value = find(data, name)
        if not (is_visible(value) if isinstance(value, str) else value not in (None, [], {})):
            raise _missing(name, f"'{name}'")


def find(data: Any, name: str) -> Any:
    """Return a field, dotted if it is a nested one, or None."""
    for part in name.split("."):
        data = data.get(part) if isinstance(data, dict) else None
    return data


def _missing(param: str, named: str) -> GateError:
    return GateError(400, f"Missing required parameter: {named}", param=param, code="missing_required_parameter")
