"""What is different between two JSON values, a line each with its place."""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator

# Characters of a value that are shown, and items of lists up to which those that moved are told from others.
_MOST_SHOWN = 300
_MOST_ALIGNED = 500

_ABSENT = object()


def snapshot(value: Any) -> Any:
    """Return a copy of a value in JSON's own types; what is not JSON as its repr; None where that has no end."""
    try:
        return orjson.loads(orjson.dumps(value, default=repr, option=orjson.OPT_NON_STR_KEYS))
    except TypeError:
        return None


def as_json(value: Any) -> str:
    """Return a value on one line, the middle of a long one left out; what is not JSON as its repr."""
    try:
        text = orjson.dumps(value).decode()
    except TypeError:
        text = repr(value)
    if len(text) <= _MOST_SHOWN:
        return text
    half = _MOST_SHOWN // 2
    return f"{text[:half]} … {len(text) - 2 * half} characters … {text[-half:]}"


def changes(before: Any, after: Any, place: str = "") -> Iterator[str]:
    """Yield a line for each value that is gone and for each that is new.

    Args:
        before: A value in JSON's own types.
        after: What became of it.
        place: Where it stands, such as ``messages[0].content``.
    """
    if isinstance(before, dict) and isinstance(after, dict):
        for name in {**before, **after}:
            inner = f"{place}.{name}" if place else name
            yield from changes(before.get(name, _ABSENT), after.get(name, _ABSENT), inner)
    elif isinstance(before, list) and isinstance(after, list):
        for old, new, index in _aligned(before, after):
            yield from changes(old, new, f"{place}[{index}]")
    elif type(before) is not type(after) or before != after:
        yield from (f"{sign} {place}: {as_json(it)}" for sign, it in (("-", before), ("+", after)) if it is not _ABSENT)


def _aligned(before: list[Any], after: list[Any]) -> Iterator[tuple[Any, Any, int]]:
    """Yield what became of each item that did not stay as it was, with its index, the new one if it has one."""
    if max(len(before), len(after)) > _MOST_ALIGNED:
        steps: Any = [("replace", 0, len(before), 0, len(after))]
    else:
        old_texts, new_texts = ([orjson.dumps(item).decode() for item in items] for items in (before, after))
        steps = SequenceMatcher(None, old_texts, new_texts, autojunk=False).get_opcodes()
    for step, old_start, old_end, new_start, new_end in steps:
        if step == "equal":
            continue
        for offset in range(max(old_end - old_start, new_end - new_start)):
            old, new = old_start + offset, new_start + offset
            yield (
                before[old] if old < old_end else _ABSENT,
                after[new] if new < new_end else _ABSENT,
                new if new < new_end else old,
            )
