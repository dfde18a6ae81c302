"""A call as a conversation of a user and a model, no longer than a guard can read."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from asgi_llm_gate import get_formatted_prompt

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Where the turns of a conversation stand, on some endpoint.
_LISTS = ("messages", "input")

# Items that are turns of their own; older ones are taken together.
_MOST_ITEMS = 500

# What stands where the middle of a text is missing.
_GAP = "\n[…]\n"


class Turn(NamedTuple):
    """What one of the two says.

    Attributes:
        role: Who.
        text: What, never empty.
    """

    role: Literal["user", "assistant"]
    text: str


def conversation(data: Mapping[str, Any], call_type: Any, max_chars: int) -> list[Turn]:
    """Return the text of a call as turns that alternate, the user's first.

    What is neither the user's nor the model's, such as instructions, tools and their results, counts as the user's:
    anyone may have written it. Of more than ``max_chars`` characters the newest turns are kept whole, and the oldest
    dropped; a last turn that is too long by itself keeps its beginning and its end.

    Args:
        data: The call's body, as hooks are given it.
        call_type: Its type.
        max_chars: At most so many characters.
    """
    kept: list[Turn] = []
    for turn in reversed(_merged(_turns(data, call_type))):
        left = max_chars - sum(len(later.text) for later in kept)
        if kept and len(turn.text) > left:
            break
        kept.insert(0, Turn(turn.role, _cut(turn.text, left)))
    return _opened(kept)


def _turns(data: Mapping[str, Any], call_type: Any) -> Iterator[Turn]:
    place = next((name for name in _LISTS if _is_list_of_objects(data.get(name))), "")
    items = data.get(place, [])
    yield Turn("user", get_formatted_prompt({**data, place: items[:-_MOST_ITEMS]}, call_type))
    for item in items[-_MOST_ITEMS:]:
        yield Turn(_role(item), get_formatted_prompt({place: [item]}, call_type))


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _role(item: dict[str, Any]) -> Literal["user", "assistant"]:
    """Tell whose turn an item is: the model's are its messages, its reasoning and its calls of tools."""
    kind = str(item.get("type"))
    return "assistant" if item.get("role") == "assistant" or kind == "reasoning" or kind.endswith("_call") else "user"


def _merged(turns: Iterator[Turn]) -> list[Turn]:
    said = (turn for turn in turns if turn.text)
    return [Turn(role, "\n".join(turn.text for turn in group)) for role, group in groupby(said, lambda turn: turn.role)]


def _opened(turns: list[Turn]) -> list[Turn]:
    """Return turns of which the user has the first: where that one is the model's, it becomes part of the next."""
    if not turns or turns[0].role == "user":
        return turns
    return [Turn("user", "\n".join(turn.text for turn in turns[:2])), *turns[2:]]


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    half = (most - len(_GAP)) // 2
    return f"{text[:half]}{_GAP}{text[-half:]}"
