"""A call as a conversation of a user and a model, no longer than a guard can read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from asgi_llm_gate import get_formatted_prompt

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Where the turns of a conversation stand, on some endpoint.
_LISTS = ("messages", "input")

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
    place = next((name for name in _LISTS if isinstance(data.get(name), list)), None)
    rest = {name: value for name, value in data.items() if name != place}
    yield Turn("user", get_formatted_prompt(rest, call_type))
    for item in data[place] if place is not None else ():
        yield Turn(_role(item), get_formatted_prompt({place: [item]}, call_type))


def _role(item: Any) -> Literal["user", "assistant"]:
    """Tell whose turn an item is: the model's are its messages, its reasoning and its calls of tools."""
    if not isinstance(item, dict):
        return "user"
    kind = str(item.get("type"))
    return "assistant" if item.get("role") == "assistant" or kind == "reasoning" or kind.endswith("_call") else "user"


def _merged(turns: Iterator[Turn]) -> list[Turn]:
    merged: list[Turn] = []
    for turn in turns:
        if turn.text and merged and merged[-1].role == turn.role:
            merged[-1] = Turn(turn.role, f"{merged[-1].text}\n{turn.text}")
        elif turn.text:
            merged.append(turn)
    return merged


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
